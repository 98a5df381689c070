"""Prefect's server behind the guard: ``python -m headstart.service.server PORT TOKEN_FILE``.

As ``prefect server start`` does it, but for the guard.
"""

import sys
from pathlib import Path


def main() -> None:
    """Serve until the process is ended."""
    import uvicorn
    from prefect.server.api.server import create_app

    from headstart.service.guard import Guard
    from headstart.service.patience import Patience

    port, token = int(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="ascii").strip()
    app = Guard(Patience(create_app(final=True)), port, token)
    # Prefect's own keep-alive; a browser otherwise finds its connections closed.
    uvicorn.run(app, host="127.0.0.1", port=port, timeout_keep_alive=5, log_level="warning")


if __name__ == "__main__":
    main()

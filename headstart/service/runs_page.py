"""The store's runs on loopback, to read: the reports that the Prefect UI links to."""

import functools
import html
import http.server
import io
import threading
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

from headstart.service.children import LOOPBACK

FOLDER_PAGES = ("index.html", "index.htm")
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:32px auto;padding:0 20px}"
    "table{border-collapse:collapse;width:100%}th{text-align:left}"
    "td,th{padding:8px 16px 8px 0;border-bottom:1px solid #8884;vertical-align:top}"
)


class RunsServer:
    """Serves a folder for reading, on loopback, in a thread.

    Args:
        folder: What to serve.
        port: TCP port.
    """

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        handler = functools.partial(_ReadOnly, directory=str(folder.resolve()))
        self._server = _Server((LOOPBACK, port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def runs_page(folder: Path) -> str:
    """Write the page of all runs, the newest first.

    Args:
        folder: Of the runs.

    Returns:
        HTML that works by itself.
    """
    runs = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    rows = [_row(run) for run in sorted(runs, key=lambda run: -run.stat().st_mtime)]
    none = "<p>There are no runs yet: <code>headstart train images/</code> makes one.</p>"
    head = "<tr><th>Run</th><th>Accuracy</th><th>Finished</th><th>Took</th><th></th></tr>"
    table = f"<table>{head}{''.join(rows)}</table>" if rows else none
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        f"<title>Runs</title><style>{STYLE}</style></head><body><h1>Runs</h1>{table}</body></html>"
    )


def _row(run: Path) -> str:
    from headstart.tasks.evaluation.findings import percent
    from headstart.tasks.store.sealing import read_sealed

    address, name = quote(run.name, errors="surrogateescape"), html.escape(run.name)
    files = f'<a href="{address}/">files</a>'
    try:
        finished = (run / "run.json").stat().st_mtime
        fields = read_sealed(run / "run.json")
        page, took_s = Path(fields["report"]).name, float(fields["seconds"])
        judged = fields.get("metrics") or {}
        accuracies = [
            f"{html.escape(split)} {percent(one['accuracy'])}"
            for split, one in judged.items()
            if isinstance(one, dict) and isinstance(one.get("accuracy"), float)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"<tr><td>{name}</td><td></td><td>not finished</td><td></td><td>{files}</td></tr>"
    cells = (
        f'<a href="{address}/{quote(page)}">{name}</a>',
        "<br>".join(accuracies),
        f"{datetime.fromtimestamp(finished):%Y-%m-%d %H:%M}",
        f"{took_s:,.1f} s",
        files,
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing: a browser that went away is no news, and the terminal is for what is."""


class _ReadOnly(http.server.SimpleHTTPRequestHandler):
    """Answers GET and HEAD for what lies in the folder, and for nothing that a link leads to."""

    def send_head(self) -> object:  # type: ignore[override]
        """Refuse what is not for this machine's own browser, else do as the base class does."""
        root = Path(self.directory)
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            path = Path(self.translate_path(self.path))
            # The base class shows the page of a folder instead of the folder.
            paths = [one.resolve() for one in (path, *(path / name for name in FOLDER_PAGES))]
        except ValueError:  # a bracket without its partner, a zero byte
            self.send_error(http.HTTPStatus.BAD_REQUEST)
            return None
        # A page from elsewhere can have its own name resolve to this address; then it shows here.
        if host not in (LOOPBACK, "localhost"):
            self.send_error(http.HTTPStatus.FORBIDDEN)
            return None
        if not all(one.is_relative_to(root) for one in paths):
            self.send_error(http.HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: object) -> object:  # type: ignore[override]
        """Show the runs and what came out, where the folder of all of them is asked for."""
        if Path(str(path)).resolve() != Path(self.directory):
            return super().list_directory(path)  # type: ignore[arg-type]
        body = runs_page(Path(self.directory)).encode("utf-8", "backslashreplace")
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

    def end_headers(self) -> None:
        """Add what keeps a browser from guessing types and from keeping an old report."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is for what matters."""

"""The store's runs on loopback, to read: the reports that the Prefect UI links to."""

import functools
import http.server
import threading
from pathlib import Path
from urllib.parse import urlsplit

from headstart.service.children import LOOPBACK

FOLDER_PAGES = ("index.html", "index.htm")


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

    def end_headers(self) -> None:
        """Add what keeps a browser from guessing types and from keeping an old report."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is for what matters."""

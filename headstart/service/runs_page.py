"""The store's runs on loopback, to read: the reports that the Prefect UI links to."""

import functools
import http.server
import io
import threading
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import headstart.tasks.runs
from headstart.service.children import LOOPBACK
from headstart.tasks.evaluation.templates import make_environment
from headstart.tasks.runs.comparing import compare_runs
from headstart.tasks.runs.overview import SORTS, list_runs, sort_runs
from headstart.tasks.runs.pages import amount, figure

FOLDER_PAGES = ("index.html", "index.htm")
COLUMNS = {
    "name": "Run",
    "data": "Data",
    "backbone": "Backbone",
    "cut": "Cut",
    "head": "Head",
    "accuracy": "Accuracy",
    "seconds": "Seconds",
    "when": "When",
}
"""By which the page can be sorted, and what stands over them."""
MAX_CHANGED = 200
"""Images shown that changed sides between two runs."""


class RunsServer:
    """Serves a folder for reading, on loopback, in a thread."""

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


def runs_page(folder: Path, query: str = "") -> str:
    """Write the page of all runs, or of two of them side by side.

    Args:
        folder: The store's runs/, one sub-folder a run.
        query: Query part of the address: ``sort=accuracy&order=up``, or ``run=NAME&run=NAME`` to
            compare.

    Returns:
        HTML that works by itself.
    """
    asked = parse_qs(query)
    lines = list_runs(folder.parent)
    picked = [line for name in asked.get("run", []) for line in lines if line.name == name]
    by = asked.get("sort", ["when"])[0]
    by = by if by in SORTS else "when"
    descending = asked.get("order", ["down"])[0] != "up"
    templates = Path(headstart.tasks.runs.__file__).parent
    environment = make_environment(templates, figure=figure, amount=amount)
    return environment.get_template("runs.html.j2").render(
        title="Runs" if len(picked) != 2 else "Two runs",
        stages=(),
        lines=sort_runs(lines, by, descending=descending),
        columns=COLUMNS,
        by=by,
        descending=descending,
        served={line.name for line in lines if Path(line.folder).parent == folder},
        comparison=compare_runs(*picked) if len(picked) == 2 else None,
        max_changed=MAX_CHANGED,
        quote=lambda name: quote(name, errors="surrogateescape"),
    )


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
        page = runs_page(Path(self.directory), urlsplit(self.path).query)
        body = page.encode("utf-8", "backslashreplace")
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

    def end_headers(self) -> None:
        """Add what keeps a browser from guessing types, running scripts and keeping old reports."""
        self.send_header("X-Content-Type-Options", "nosniff")
        # A run may come from anybody, and no page of headstart's has a script.
        self.send_header("Content-Security-Policy", "script-src 'none'; frame-ancestors 'none'")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is for what matters."""

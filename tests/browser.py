"""A headless Chromium that a test drives: open a page, wait until a text shows, look at it.

Chromium is spoken to over its DevTools protocol: the pages of TensorBoard and Prefect draw
themselves, in shadow trees and frames that no dump of the document has.
"""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1400,1000", "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)  # fmt: skip
LIMIT_S = 90.0
"""Seconds in which a page must show what is waited for; on a busy machine it takes many."""
VISIBLE_TEXT = """(() => {
  const found = [];
  const walk = node => {
    if (node.nodeType === Node.TEXT_NODE) found.push(node.textContent);
    if (["STYLE", "SCRIPT", "TEMPLATE", "NOSCRIPT"].includes(node.tagName)) return;
    if (node instanceof Element && getComputedStyle(node).display === "none") return;
    if (node.shadowRoot) walk(node.shadowRoot);
    if (node.tagName === "IFRAME" && node.contentDocument) walk(node.contentDocument.body);
    node.childNodes.forEach(walk);
  };
  walk(document.body);
  return found.join(" ").replace(/\\s+/g, " ");
})()"""

needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None,
    reason="chromium is not on PATH, and pip cannot install it; .ci/run does",
)


class Browser:
    """One tab of a Chromium of its own; use it in a ``with`` block.

    Args:
        flags: For Chromium, besides `FLAGS`.
    """

    def __init__(self, *flags: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="headstart-browser-")
        self._process = subprocess.Popen(
            ["chromium", *FLAGS, *flags, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._numbers = itertools.count(1)
        self._socket: ClientConnection | None = None

    def __enter__(self) -> Self:
        self._socket = connect(self._tab(), max_size=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, address: str) -> None:
        """Go to a page, by way of an empty one: a new fragment alone loads nothing."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression comes to on the page."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return answer.get("result", {}).get("value")

    def wait_for(self, *texts: str) -> str:
        """Wait until the page shows every text; return all that it shows.

        Raises:
            AssertionError: It does not within `LIMIT_S`.
        """
        deadline = time.monotonic() + LIMIT_S
        shown = ""
        while time.monotonic() < deadline:
            shown = str(self.evaluate(VISIBLE_TEXT) or "")
            if all(text in shown for text in texts):
                return shown
            time.sleep(0.2)
        missing = [text for text in texts if text not in shown]
        raise AssertionError(f"the page does not show {missing}; it shows: {shown[:2000]}")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the page as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        assert self._socket is not None
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=LIMIT_S))
            if answer.get("id") == number:
                return dict(answer.get("result", {}))

    def _tab(self) -> str:
        """Return the address of the tab's socket, once Chromium has written its port down."""
        port_file = Path(self._profile) / "DevToolsActivePort"
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            lines = port_file.read_text().splitlines() if port_file.exists() else []
            if lines:
                with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                    tabs = json.load(answer)
                pages = [tab for tab in tabs if tab["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
            time.sleep(0.1)
        raise AssertionError("Chromium did not start")

"""A headless Chromium that a test drives over its debugging protocol (CDP).

Debian's chromium and the websockets that Prefect brings are enough: no driver, no download.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--no-first-run", "--hide-scrollbars", "--window-size=1400,1400")  # fmt: skip
START_LIMIT_S = 60
PAGE_LIMIT_S = 60
POLL_S = 0.25


class Page:
    """One tab.

    Args:
        socket: Its debugging connection.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            reply = json.loads(self._socket.recv(PAGE_LIMIT_S))
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                result: dict[str, Any] = reply["result"]
                return result

    def run(self, script: str) -> Any:
        """Run JavaScript in the page and return its value."""
        reply = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def text(self) -> str:
        """Return the text that the page shows, its frames' included."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def wait_for(self, *texts: str, limit_s: float = PAGE_LIMIT_S) -> str:
        """Wait until the page shows some texts, and return all of its text."""
        deadline_s = time.monotonic() + limit_s
        while True:
            shown = self.text()
            missing = [text for text in texts if text not in shown]
            if not missing:
                return shown
            assert time.monotonic() < deadline_s, f"not on the page: {missing}\n{shown[-3000:]}"
            time.sleep(POLL_S)

    def wait_until(self, script: str, limit_s: float = PAGE_LIMIT_S) -> Any:
        """Wait until an expression is true in the page, and return it."""
        deadline_s = time.monotonic() + limit_s
        while not (value := self.run(script)):
            assert time.monotonic() < deadline_s, f"never true: {script}\n{self.text()[-3000:]}"
            time.sleep(POLL_S)
        return value

    def click(self, text: str, kind: str = "button, a, [role=tab], [role=menuitem], li") -> None:
        """Click the innermost visible element of a kind that shows just this text."""
        self._mark(text, kind)
        box = self.run(
            "(() => { marked.scrollIntoView({block: 'center'});"
            " const r = marked.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        for event in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=event, x=box[0], y=box[1],
                      button="left", clickCount=1)  # fmt: skip

    def type_into(self, label: str, text: str) -> None:
        """Replace what stands in the field under a label."""
        self.wait_until(
            f"""window.marked = (() => {{
              const shown = [...document.querySelectorAll('label, legend, .p-label')]
                .find(one => one.innerText.trim() === {json.dumps(label)} && one.offsetParent);
              const around = shown && (shown.closest('.p-label') || shown.parentElement);
              return around && around.querySelector('input, textarea') }})()"""
            "; !!marked"
        )
        self.run("marked.scrollIntoView({block: 'center'}); marked.focus(); marked.select()")
        self.call("Input.insertText", text=text)
        self.run("marked.dispatchEvent(new Event('change', {bubbles: true})); marked.blur()")

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        """Write a PNG of what is seen, or of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def _mark(self, text: str, kind: str) -> None:
        self.wait_until(
            f"""window.marked = [...document.querySelectorAll({json.dumps(kind)})]
              .filter(one => one.offsetParent && one.innerText.trim() === {json.dumps(text)})
              .pop(); !!marked"""
        )


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start a browser with one tab; at the end of the with block, end it.

    Args:
        profile: An empty folder for it.
    """
    program = shutil.which("chromium")
    assert program, "chromium is not on PATH: apt-get install chromium"
    process = subprocess.Popen(
        [program, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = _debugging_port(profile)
        with urlopen(Request(f"http://127.0.0.1:{port}/json")) as reply:
            tabs = json.load(reply)
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(address, max_size=None, proxy=None, open_timeout=30) as socket:
            yield Page(socket)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _debugging_port(profile: Path) -> int:
    """The browser writes the port it chose into its profile."""
    deadline_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline_s:
        with suppress(OSError, ValueError, IndexError):
            return int((profile / "DevToolsActivePort").read_text().splitlines()[0])
        time.sleep(POLL_S)
    raise AssertionError(f"chromium did not start within {START_LIMIT_S} s")

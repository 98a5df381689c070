"""Progress in a notebook: one block that is updated in place."""

import html
import io
import sys
import time
from collections.abc import Callable
from typing import Any

from headstart.tasks.progress import Advance, Reporter, plain_console

PERIOD_S = 0.2
"""Between two changes of the block: a browser that gets more of them falls behind."""
WIDTH = 100
BAR_CELLS = 30


def make_reporter() -> Reporter:
    """Make what shows progress: a block in a notebook, bars or lines on stderr elsewhere."""
    return LiveBlock() if _in_notebook() else Reporter()


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


class LiveBlock(Reporter):
    """Writes lines and the bar of the loop at work into one output of the cell."""

    def __init__(self) -> None:
        from IPython.display import display

        self._text = ""
        self._status = ""
        self._shown_s = 0.0
        self._handle: Any = display(self._bundle(), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        # Not Rich's own notebook support: it makes an output of every line.
        # And no terminal, though a kernel's variables ask for colours as if it were one.
        console = plain_console(
            file=_Lines(self._add),
            width=WIDTH,
            force_jupyter=False,
            force_terminal=False,
            color_system=None,
        )
        super().__init__(console)

    def _add(self, text: str) -> None:
        self._text += text
        self._show()

    def _show(self) -> None:
        self._shown_s = time.monotonic()
        self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, Any]:
        text = self._text + self._status
        shown = f'<pre style="line-height:1.3">{html.escape(text)}</pre>'
        return {"text/plain": text, "text/html": shown}

    def _lines(self, title: str, total: int, unit: str, tell: Callable[[], str]) -> Advance:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            filled = round(BAR_CELLS * done / total)
            bar = "█" * filled + "·" * (BAR_CELLS - filled)
            told = f"{done:,}/{total:,} {unit}{tell()}"
            self._status = f"     {title} {bar} {told}\n" if done < total else ""
            if done >= total or time.monotonic() - self._shown_s >= PERIOD_S:
                self._show()

        return advance


class _Lines(io.TextIOBase):
    """A file whose text goes to a function."""

    def __init__(self, add: Callable[[str], None]) -> None:
        self._add = add

    def write(self, text: str) -> int:
        self._add(text)
        return len(text)

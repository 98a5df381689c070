"""Progress for people while stages run: stage lines, progress bars, a table row per epoch.

Stages talk to the `Reporter` in use and do not know whether it is a terminal, a log or silent.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headstart.addresses import without_secrets

Advance = Callable[[int], None]
LOG_PERIOD_S = 10.0
"""Where there is no terminal, a line instead of a bar at most this often."""


def plain_console(*, stderr: bool = False, **options: Any) -> Console:
    """Make a console that writes text as it is.

    Names of classes, files and folders hold brackets, colons and digits, which Rich would take
    for its markup, its emoji codes and something to colour.

    Args:
        stderr: Write to standard error, not output.
        **options: More for Rich's console.
    """
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, **options)


def without_controls(text: str) -> str:
    """Escape what would move a terminal's cursor or colour its text; line ends stay."""
    return "".join(
        c if c in "\n " or c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


class Reporter:
    """Writes to one console: bars on a terminal, a line now and then elsewhere.

    Args:
        console: Where to write; standard error by default, so that results can be piped.
        stage_lines: Whether stages are told of, besides progress.
        notes: Whether they may say anything else.
    """

    def __init__(
        self, console: Console | None = None, *, stage_lines: bool = True, notes: bool = True
    ) -> None:
        self.console = console or plain_console(stderr=True)
        self._stage_lines = stage_lines
        self._notes = notes

    def note(self, text: str) -> None:
        """Write a line for the reader."""
        if self._notes:
            self._tell(text)

    def _tell(self, text: str) -> None:
        text = without_secrets(text)
        _tell_log(text)
        self._print(text)

    def stage(self, name: str, status: Literal["hit", "miss"], text: str) -> None:
        """Write a stage's line.

        Args:
            name: Name of the stage.
            status: Whether it was replayed from the store or computed.
            text: What it made or saved.
        """
        if not self._stage_lines:
            return
        text = without_secrets(text)
        _tell_log(f"{status.upper():<4} {name:<12} {text}")
        style = "green" if status == "hit" else "yellow"
        self.console.print(f"{status.upper():<4} ", end="", style=style)
        self.console.print(f"{name:<12} ", end="", style="bold")
        self._print(text)

    def _print(self, text: str) -> None:
        # Plainly also where the console is someone else's.
        self.console.print(
            without_controls(text), markup=False, emoji=False, highlight=False, soft_wrap=True
        )

    @contextlib.contextmanager
    def track(
        self, title: str, total: int, unit: str, tell: Callable[[], str] = lambda: ""
    ) -> Iterator[Advance]:
        """Show the progress of a loop.

        Args:
            title: What is being done.
            total: Number of things to do.
            unit: What they are, in the plural ("images").
            tell: Asked each time for words to put at the end of the line.

        Yields:
            A function to call with the number of things just done.
        """
        if total == 0:
            yield lambda count: None
            return
        with contextlib.ExitStack() as stack:
            if self.console.is_terminal:
                show = stack.enter_context(self._bar(title, total, unit, tell))
            else:
                show = self._lines(title, total, unit, tell)
            copy = stack.enter_context(watched_progress(title, total, unit))

            def advance(count: int) -> None:
                show(count)
                copy(count)

            yield advance

    @contextlib.contextmanager
    def track_to(self, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """Show the progress of a loop that learns its length as it goes.

        Yields:
            A function to call with the number of things done and their total.
        """
        with contextlib.ExitStack() as stack:
            advance: Advance | None = None
            told = 0

            def on_progress(done: int, total: int) -> None:
                nonlocal advance, told
                if advance is None:
                    advance = stack.enter_context(self.track(title, total, unit))
                advance(done - told)
                told = done

            yield on_progress

    @contextlib.contextmanager
    def _bar(self, title: str, total: int, unit: str, tell: Callable[[], str]) -> Iterator[Advance]:
        started_s = time.monotonic()
        columns = (
            TextColumn("     {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total, rate=unit)
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                pace = _pace(done, time.monotonic() - started_s, unit)
                progress.update(task, advance=count, rate=f"{unit}{pace}{tell()}")

            yield advance

    def _lines(self, title: str, total: int, unit: str, tell: Callable[[], str]) -> Advance:
        started_s = said_s = time.monotonic()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, said_s
            done += count
            now_s = time.monotonic()
            if now_s - said_s >= LOG_PERIOD_S and 0 < done < total:
                said_s = now_s
                left_s = (total - done) * (now_s - started_s) / done
                pace = _pace(done, now_s - started_s, unit)
                told = f"{unit}{pace}, {left_s:,.0f} s left{tell()}"
                self._tell(f"     {title} {done:,}/{total:,} {told}")

        return advance


def _pace(done: int, seconds: float, unit: str) -> str:
    """Say how fast it goes, behind a comma; nothing of seconds, whose pace is no news."""
    rate = done / max(1e-9, seconds)
    if unit == "seconds" or not done:
        return ""
    if rate < 1:
        return f", {1 / rate:,.1f} s each"
    return f", {rate:,.0f} {unit}/s" if rate >= 10 else f", {rate:,.1f} {unit}/s"


_current: ContextVar[Reporter | None] = ContextVar("headstart_reporter", default=None)


_log: ContextVar[Callable[[str], None] | None] = ContextVar("headstart_log", default=None)


def _tell_log(text: str) -> None:
    log = _log.get()
    if log is not None:
        log(text)


@contextlib.contextmanager
def copy_lines_to(log: Callable[[str], None]) -> Iterator[None]:
    """Give every line to a log as well, for the length of a with block.

    Where no reporter was chosen, nobody watches a console, and the log alone gets them.
    """
    token = _log.set(log)
    try:
        if _current.get() is None:
            with use_reporter(Reporter(Console(quiet=True))):
                yield
        else:
            yield
    finally:
        _log.reset(token)


Watch = Callable[[str, int, str], contextlib.AbstractContextManager[Advance]]
"""Follows one loop: called with its title, its total and the unit."""

_watch: ContextVar[Watch | None] = ContextVar("headstart_watch", default=None)


@contextlib.contextmanager
def copy_progress_to(watch: Watch) -> Iterator[None]:
    """Have the progress of every loop followed elsewhere too, for the length of a with block."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


@contextlib.contextmanager
def ended_by(check: Callable[[], None]) -> Iterator[None]:
    """Ask before every step of every loop inside a with block whether it may go on.

    Args:
        check: Raises what ends the loop; called from any thread.
    """
    outer = _watch.get()

    @contextlib.contextmanager
    def watch(title: str, total: int, unit: str) -> Iterator[Advance]:
        with contextlib.ExitStack() as stack:
            show = stack.enter_context(outer(title, total, unit)) if outer else None

            def advance(count: int) -> None:
                if show is not None:
                    show(count)
                check()

            yield advance

    with copy_progress_to(watch):
        yield


@contextlib.contextmanager
def watched_progress(title: str, total: int, unit: str) -> Iterator[Advance]:
    """Tell who follows the progress of a loop, and nobody else.

    For a loop that writes lines of its own, as training does. Arguments as for `Reporter.track`.

    Yields:
        A function to call with the number of things just done, from any thread.
    """
    watch = _watch.get()
    if watch is None:
        yield lambda count: None
        return
    with watch(title, total, unit) as advance:
        yield advance


def reporter() -> Reporter:
    """Return the reporter in use: the one of `use_reporter`, else standard error."""
    return _current.get() or Reporter()


@contextlib.contextmanager
def use_reporter(new: Reporter) -> Iterator[Reporter]:
    """Make a reporter the current one, for the length of a with block."""
    token = _current.set(new)
    try:
        yield new
    finally:
        _current.reset(token)

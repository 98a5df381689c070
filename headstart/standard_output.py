"""Standard output that is full or closed: an error of headstart's own instead of a traceback."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Self, TextIO, cast

from headstart.errors import OutputError


class _Told:
    """A stream whose failures are told as such, whoever writes to it.

    A broken pipe stays one: the reader has gone, which is no fault.
    """

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def buffer(self) -> "_Told":
        """The stream of bytes below; text in memory has none."""
        return _Told(cast(TextIO, self._stream).buffer)

    def write(self, text: Any) -> int:
        with _explained():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with _explained():
            self._stream.flush()

    def close(self) -> None:
        with _explained():
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            "standard output cannot be written",
            f"stdout: {(error.strerror or type(error).__name__).lower()}",
            "free space there, or send the output to another file",
        ) from None


@contextmanager
def telling_failures() -> Iterator[None]:
    """Raise an `OutputError` inside this with block where something cannot be written to stdout.

    Without standard error, which Python leaves out where it is closed, what is said there is lost.

    Raises:
        OutputError: Standard output is closed, or it cannot be written.
    """
    if sys.stderr is None:
        _open_descriptor(2)
        sys.stderr = open(  # noqa: SIM115
            2, "w", encoding="utf-8", errors="backslashreplace", closefd=False
        )
    if sys.stdout is None:
        _open_descriptor(1)
        raise OutputError(
            "standard output is closed",
            "stdout: closed, as by >&-",
            "send the output to a file, or to /dev/null",
        )
    stdout = sys.stdout
    sys.stdout = cast(TextIO, _Told(stdout))
    try:
        yield
    finally:
        sys.stdout = stdout


def _open_descriptor(number: int) -> None:
    """Lead a closed descriptor to nowhere: the next file that is opened would take its place."""
    opened = os.open(os.devnull, os.O_WRONLY)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def give_up() -> None:
    """Lead standard output to nowhere: what waits in its buffer would fail again at the exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

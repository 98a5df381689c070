"""What Pillow and libtiff say while they decode a file, kept with the file instead of printed.

Pillow warns through Python's warnings and its log, which know of no file; libtiff, which Pillow
loads, writes to the standard error by itself. All are caught here for the thread that decodes, and
left as they are for all others.
"""

import contextlib
import ctypes
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

MAX_NOTES, MAX_NOTE_CHARS = 3, 160
"""What is kept of one file: enough to know what is wrong with it."""

_heard = threading.local()


@contextlib.contextmanager
def hearing() -> Iterator[list[str]]:
    """Catch what decoders say in this thread, inside a with block.

    Yields:
        A list that fills with lines, each once.
    """
    with _DIVERTING:  # one handler for all threads: a second would leave libtiff a dead one
        _divert_libtiff()
    outer = getattr(_heard, "notes", None)
    notes: list[str] = []
    _heard.notes = notes
    try:
        with _DIVERSION:
            yield notes
    finally:
        _heard.notes = outer


def in_words(notes: list[str]) -> str:
    """Join notes to one line of a fair length."""
    more = f" (and {len(notes) - MAX_NOTES:,} more)" if len(notes) > MAX_NOTES else ""
    return "; ".join(note[:MAX_NOTE_CHARS] for note in notes[:MAX_NOTES]) + more


def note(text: str) -> None:
    """Keep what headstart itself has to say of the file that this thread decodes."""
    _hear(text)


def _hear(text: str) -> bool:
    """Keep a line where this thread listens; say whether it does."""
    notes: list[str] | None = getattr(_heard, "notes", None)
    if notes is None:
        return False
    line = " ".join(text.split())
    if line and line not in notes:
        notes.append(line)
    return True


class _Diversion:
    """Hands Pillow's warnings to the threads that listen, for as long as any does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._restore = warnings.catch_warnings()
        self._show: Callable[..., None] = warnings.showwarning

    def __enter__(self) -> None:
        with self._lock:
            self._num_inside += 1
            if self._num_inside == 1:
                self._restore = warnings.catch_warnings()
                self._restore.__enter__()
                self._show = warnings.showwarning
                warnings.showwarning = self._take
                # Each file's own, not the first file's alone; and never an error.
                warnings.filterwarnings("always", module=r"PIL\.")

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0:
                self._restore.__exit__(None, None, None)

    def _take(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not _hear(str(message)):
            self._show(message, category, filename, lineno, file, line)


class _LogHandler(logging.Handler):
    """Hears what Pillow logs, and prints it as Python would where nobody listens."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record with its file."""
        if _hear(record.getMessage()):
            return
        if logging.root.handlers or logging.lastResort is None:
            logging.root.handle(record)
        else:
            logging.lastResort.handle(record)


_DIVERSION = _Diversion()
_DIVERTING = threading.Lock()
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


@lru_cache(maxsize=1)
def _divert_libtiff() -> Any:
    """Have Pillow's log and libtiff call back rather than print; once a process."""
    log = logging.getLogger("PIL")
    log.addHandler(_LogHandler(logging.WARNING))
    log.propagate = False  # the handler passes on what nobody hears
    library = _loaded_libtiff()
    if library is None:
        return None
    vsnprintf = ctypes.CDLL(None).vsnprintf
    vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    def tell(module: bytes | None, form: bytes | None, values: int | None) -> None:
        buffer = ctypes.create_string_buffer(1024)
        vsnprintf(buffer, len(buffer), form or b"", values)
        text = buffer.value.decode("utf-8", "replace")
        if not _hear(text):
            print(f"{(module or b'').decode('utf-8', 'replace')}: {text}", file=sys.stderr)

    handler = _Handler(tell)
    for name in ("TIFFSetWarningHandler", "TIFFSetErrorHandler"):
        with contextlib.suppress(AttributeError):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [_Handler], ctypes.c_void_p
            setter(handler)
    return handler  # which must live as long as libtiff


def _loaded_libtiff() -> ctypes.CDLL | None:
    """Find the libtiff that Pillow has loaded: another copy of it has handlers of its own."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            path = line.partition("/")
            if "libtiff" in Path(path[2]).name:
                return ctypes.CDLL("/" + path[2])
    return None

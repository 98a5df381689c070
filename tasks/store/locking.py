"""Locks that die with their holder: one writer an artefact, and runs against garbage collection."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from headstart.errors import RecordError

PATIENCE_S = 0.5
"""A wait longer than this is told of."""


@contextlib.contextmanager
def hold_alone(path: Path, name: str) -> Iterator[None]:
    """Hold a lock that one process has at a time, and wait for it where another one has it.

    Args:
        path: The lock's file; made with its folder.
        name: What the lock is for, told to who has to wait.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        lock = _file_lock(path)
        try:
            lock.acquire(timeout=PATIENCE_S)
        except Timeout:
            from headstart.tasks.progress import reporter

            reporter().note(f"waiting for another run that is making {name}")
            lock.acquire()
    except OSError as error:
        raise RecordError(
            "a lock of the store cannot be taken",
            f"{path}: {error.strerror or error}",
            "give the folder to a group, with chmod -R g+rwX and chmod g+s, or choose another "
            "--store",
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def hold_shared(path: Path) -> Iterator[None]:
    """Hold a lock together with others, and wait while `try_exclusive` holds it.

    Where the file cannot be made or the file system knows no locks, nothing is held: a folder
    that cannot be written is safe from garbage collection anyway.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context(_open_shared(path))
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def try_alone(path: Path) -> Iterator[bool]:
    """Hold the lock of `hold_alone` where nobody has it.

    Yields:
        Whether it is held.
    """
    path.parent.mkdir(exist_ok=True)
    lock = _file_lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def try_exclusive(path: Path) -> Iterator[bool]:
    """Hold the lock of `hold_shared` alone.

    Yields:
        Whether it is held: False where another process or thread has it.
    """
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _file_lock(path: Path) -> FileLock:
    # Its own default lets the owner alone write, and with that nobody else lock.
    return FileLock(path, mode=0o666 & ~_umask())


def _open_shared(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(exist_ok=True)
        return path.open("a")
    except PermissionError:  # of a store that is somebody else's
        return path.open()


def _umask() -> int:
    # os.umask can only be asked by setting it, which other threads would notice.
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    return int(status.partition("\nUmask:")[2].split()[0], 8)

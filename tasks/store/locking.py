"""Locks that die with their holder: one writer an artefact, and runs against garbage collection."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE_S = 0.5
"""A wait longer than this is told of."""


@contextlib.contextmanager
def hold_alone(path: Path, name: str) -> Iterator[None]:
    """Hold a lock that one process has at a time, and wait for it where another one has it.

    Args:
        path: The lock's file; made with its folder.
        name: What the lock is for, told to who has to wait.
    """
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        from headstart.tasks.progress import reporter

        reporter().note(f"waiting for another run that is making {name}")
        lock.acquire()
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
            path.parent.mkdir(exist_ok=True)
            file = stack.enter_context(path.open("a"))
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


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

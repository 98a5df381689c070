"""Folders for what is half made: whose process is dead, that one's are removed by the next run."""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def owned_folder(parent: Path) -> Iterator[Path]:
    """Make a new folder that is removed at the end, and is known to be abandoned after a kill.

    It has the mode and the group that any new folder has there, unlike one of `tempfile`: it may
    be renamed into the store.

    Args:
        parent: Where it is made; made too, in a folder that is there.

    Yields:
        The folder.
    """
    parent.mkdir(exist_ok=True)
    while True:
        folder = parent / uuid.uuid4().hex
        folder.mkdir()
        # Until the lock is taken, another thread or process that sweeps takes it for abandoned.
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            with contextlib.suppress(OSError):  # a file system without such locks: not swept either
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            if folder.exists():
                yield folder
                return
        finally:
            os.close(descriptor)
            shutil.rmtree(folder, ignore_errors=True)


def remove_if_abandoned(folder: Path) -> None:
    """Remove a folder of `owned_folder` whose process was killed; the system knows that."""
    with contextlib.suppress(OSError):  # another one removes it, or it is somebody else's
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)

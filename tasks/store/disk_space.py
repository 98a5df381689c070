"""A full disk, said in plain words whatever library met it."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from headstart.errors import RecordError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded", f"errno = {errno.ENOSPC}")
"""How TensorFlow and HDF5, whose exceptions have no errno, tell of it."""


@contextlib.contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn the failures of a full disk inside a with block into an error that says what to do.

    Raises:
        RecordError: The disk is full, or its quota used up.
    """
    try:
        yield
    except RecordError:
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        raise RecordError(
            "the disk is full",
            f"{path}: {_told(error)} ({_free_mb(path):,.1f} MB free)",
            "make room there (`headstart cache du` says what uses how much space, `headstart cache "
            "gc --views` removes what is least needed), or choose another disk with --store; the "
            "same command continues from what is finished",
        ) from error


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(words in str(error) for words in _WORDS)


def _told(error: Exception) -> str:
    return next((words for words in _WORDS[:2] if words in str(error)), _WORDS[0])


def _free_mb(path: Path) -> float:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free / 1e6

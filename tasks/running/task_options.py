"""How a stage runs as a Prefect task: its name, its tags, when it is tried again or given up."""

import errno
import os
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

from headstart.config import (
    BackboneConfig,
    BottleneckConfig,
    DatasetConfig,
    HeadConfig,
    NetworkConfig,
    ScratchDatasetConfig,
)
from headstart.errors import ConfigError, DatasetError, RecordError

GPU_TAG = "gpu"
STAGE_LIMIT_S = 24 * 3600
"""Seconds after which a recorded stage is taken to hang, on a file server that is gone for
instance; HEADSTART_STAGE_TIMEOUT_S says another number, 0 for no limit. In a day two cores extract
8 million images, a GPU many more."""
NUM_RETRIES = 2
RETRY_DELAYS_S = [5.0, 30.0]
"""A file server that restarts is back in half a minute."""

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Answers of a file system that stay the same until a person does something; those of a bucket
have no number."""
_LASTING_NUMBERS = frozenset((errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT))
"""More of them, for which Python has no class."""
_BROKEN_LINES = frozenset(
    (
        "ConnectionError",  # botocore: no connection; Python's own is an OSError
        "HTTPClientError",  # botocore: one that was closed, or is silent
        "IncompleteReadError",  # botocore
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",  # aiohttp
    )
)
"""Errors of a bucket's connection that are no OSError, or the bases of such, by name, since their
packages need not be installed."""
LOST_WORKER = frozenset(("KilledWorker", "CommClosedError", "WorkerCrashedError", "ActorDiedError"))
"""Errors of Dask and Ray, by name, since neither need be installed."""


def task_options(uses_gpu: bool) -> dict[str, Any]:
    """Return how Prefect shall run a stage.

    Args:
        uses_gpu: Whether the stage keeps a GPU busy; without one on the machine it gets no tag,
            and so does not wait for others.

    Returns:
        Arguments of Prefect's ``task``.
    """
    return {
        "tags": [GPU_TAG] if uses_gpu and _has_gpu() else None,
        "retries": NUM_RETRIES,
        "retry_delay_seconds": RETRY_DELAYS_S,
        "retry_condition_fn": is_retried,
        "timeout_seconds": timeout_s(),
    }


def is_retried(task: Any, run: Any, state: Any) -> bool:
    """Tell Prefect whether to run a failed task again.

    Returns:
        What `is_worth_retrying` says of the error.
    """
    return is_worth_retrying(state.result(raise_on_failure=False))


def is_worth_retrying(error: BaseException) -> bool:
    """Say whether a stage that failed so may succeed when it is simply run again.

    Returns:
        True for trouble with reading, writing and connections, and for a lost worker. False for
        all else: a wrong configuration, a broken image or a loss that is NaN fails again.
    """
    if isinstance(error, BrokenExecutor) or type(error).__name__ in LOST_WORKER:
        return True
    if type(error).__name__ == "TaskRunTimeoutError":  # Prefect's own: it has had a day
        return False
    if isinstance(error, RecordError | DatasetError) and error.__cause__ is not None:
        return is_worth_retrying(error.__cause__)  # a bucket's, or that of reading an image
    if isinstance(error, OSError):
        return not isinstance(error, _LASTING) and error.errno not in _LASTING_NUMBERS
    return any(kind.__name__ in _BROKEN_LINES for kind in type(error).__mro__)


def describe_work(values: Iterable[Any]) -> str:
    """Say in a few words what a stage or a run works on.

    Args:
        values: Fields of a configuration, or arguments of a stage.

    Returns:
        Such as "digits, efficientnet_lite0, cut top, linear head"; "" where none of them tells.
    """
    words = []
    for value in values:
        match value:
            case DatasetConfig() | ScratchDatasetConfig():
                words.append(Path(value.images).name)
            case NetworkConfig():
                words.append(value.name)
            case BackboneConfig():
                words.append(Path(value.name).name)
            case BottleneckConfig():
                words.append(f"cut {value.cut}")
            case HeadConfig():
                words.append(f"{value.kind} head")
            case _ if work := getattr(value, "work", ""):  # of a package that imports this one
                words.append(work)
    return ", ".join(words)


def title(name: str, arguments: Iterable[Any]) -> str:
    """Name a stage's task run: the stage, then what it works on."""
    work = describe_work(arguments)
    return f"{name}: {work}" if work else name


def timeout_s() -> float | None:
    """Return after how many seconds a recorded stage is given up; None for never.

    Raises:
        ConfigError: HEADSTART_STAGE_TIMEOUT_S is not a number of seconds.
    """
    text = os.environ.get("HEADSTART_STAGE_TIMEOUT_S", str(STAGE_LIMIT_S))
    try:
        seconds = float(text)
    except ValueError:
        raise ConfigError(
            "HEADSTART_STAGE_TIMEOUT_S must be a number of seconds, 0 for no limit",
            repr(text),
            "for instance 86400, a day",
        ) from None
    return seconds if seconds > 0 else None


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))

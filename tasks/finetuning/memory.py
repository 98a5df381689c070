"""The most memory a piece of work takes: of the GPU where there is one, else of the process."""

import gc
import re
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Resets the peak of the resident set. Source: proc(5), /proc/[pid]/clear_refs."""


def start_measuring() -> Callable[[], int | None]:
    """Begin to watch the peak of memory.

    Returns:
        A function that gives the peak since, in bytes: of the first GPU's allocator, else of the
        resident set of this process on Linux; None where neither can be read.
    """
    gc.collect()  # what earlier work left is not this work's
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.reset_memory_stats("GPU:0")
        return lambda: int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    try:
        CLEAR_REFS.write_text(RESET_PEAK)
    except OSError:
        return lambda: None
    return _peak_resident_bytes


def _peak_resident_bytes() -> int | None:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None

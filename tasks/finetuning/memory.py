"""The memory that a piece of work adds at its peak: of the GPU, else of the process."""

import ctypes
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
        A function that gives by how much the peak since exceeds what was in use at the start, in
        bytes: of the first GPU's allocator, else of the resident set of this process on Linux;
        None where neither can be read. TensorFlow itself, and what earlier work has left, are in
        what was in use, and so no part of it.
    """
    gc.collect()
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.reset_memory_stats("GPU:0")
        used = _gpu_bytes("current")
        return lambda: _gpu_bytes("peak") - used
    try:
        # What was freed goes back to the system, or this work would find room in it unseen.
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR_REFS.write_text(RESET_PEAK)
    except (OSError, AttributeError):  # the latter: another C library than glibc
        return lambda: None
    resident = _status_bytes("VmRSS")
    if resident is None:
        return lambda: None
    return lambda: None if (peak := _status_bytes("VmHWM")) is None else max(0, peak - resident)


def _gpu_bytes(name: str) -> int:
    return int(tf.config.experimental.get_memory_info("GPU:0")[name])


def _status_bytes(name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None

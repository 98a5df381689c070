"""Memory and throughput of a backbone on this machine, by batch size; run in a child process."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from pydantic import BaseModel

from headstart.config import BackboneConfig
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.backbones.cuts import TOP
from headstart.tasks.bottlenecks.extraction import freeze

_STATUS = Path("/proc/self/status")


class Measurement(BaseModel, frozen=True):
    """One batch size on this machine."""

    batch_size: int
    images_per_s: float
    memory_bytes: int | None
    """What the forward pass added to the process's (on a GPU, the device's) largest memory so
    far, weights aside; None where the system does not tell."""


def measure(name: str, batch_sizes: Sequence[int], seconds: float, tell: Any) -> None:
    """Measure forward passes of a frozen backbone. Call it in a process of its own.

    A process's largest memory never falls, so batch sizes must ascend, and what was in use
    before the first pass is taken off. Weights are random, which changes neither.

    Args:
        name: Name of the backbone.
        batch_sizes: Number of images in each pass, ascending.
        seconds: Minimum time for which each size is timed.
        tell: Called with each `Measurement`.
    """
    backbone = load_backbone(BackboneConfig(name=name, weights="random"))
    extract = freeze(backbone, [TOP])
    size = backbone.image_size
    # The first pass optimises the graph and copies the weights; the smallest image batch there is.
    extract(tf.zeros((1, size, size, 3), tf.uint8))[0].numpy()
    before = _memory_bytes("VmRSS")
    for batch_size in batch_sizes:
        pixels = tf.constant(np.zeros((batch_size, size, size, 3), np.uint8))
        extract(pixels)[0].numpy()
        durations: list[float] = []
        while sum(durations) < seconds or len(durations) < 3:
            started_s = time.perf_counter()
            extract(pixels)[0].numpy()
            durations.append(time.perf_counter() - started_s)
        peak = _memory_bytes("VmHWM")
        used = None if before is None or peak is None else max(0, peak - before)
        tell(
            Measurement(
                batch_size=batch_size,
                images_per_s=batch_size / float(np.median(durations)),
                memory_bytes=used,
            )
        )


def _memory_bytes(field: str) -> int | None:
    """Return a memory figure of the device or of this process: VmRSS is now, VmHWM the largest."""
    if tf.config.list_physical_devices("GPU"):
        info = tf.config.experimental.get_memory_info("GPU:0")
        return int(info["current" if field == "VmRSS" else "peak"])
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None

"""How fast views and the backbone are here, measured in a second or two on some of the images."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from headstart.config import TransferConfig
from headstart.tasks.bottlenecks.choosing import Pass, choose_engine
from headstart.tasks.bottlenecks.extraction import freeze
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.running.spreading import available_cores
from headstart.tasks.views.writing import ImageJob, ViewMaker

NUM_MEASURED = 32
"""Images the measurement reads, and the size of its batch."""
MIN_MEASURED_S = 1.0
"""A speed is measured over at least this long."""


@dataclass(frozen=True)
class Speeds:
    """Seconds an image, and how many times faster an epoch behind the cut may be."""

    view_s: float
    frozen_s: float
    uncached_s: float
    speedup_limit: float


def measure(config: TransferConfig, index: DatasetIndex, num_rows: int) -> Speeds:
    """Make some views, and send them through the engine that a run would take, and through Keras.

    Args:
        config: Configuration of the run.
        index: Index of its data set.
        num_rows: Views that would go through the backbone, which decides the engine.

    Returns:
        What they took.
    """
    network = open_backbone(config.backbone, config.views.image_size)
    root = dataset_root(config.dataset)
    make = ViewMaker(config.views, network.image_size, config.dataset.max_pixels)
    rows = index.rows[:: max(1, len(index.rows) // NUM_MEASURED)][:NUM_MEASURED]
    jobs = [ImageJob(root / row.path, row.digest, (0,)) for row in rows]
    make(jobs[0])  # traces
    with ThreadPoolExecutor(available_cores()) as pool:  # as the views stage does
        started_s = time.perf_counter()
        pixels = np.stack([views[0] for views in pool.map(make, jobs)])
        view_s = (time.perf_counter() - started_s) / len(jobs)
    cuts = bottleneck_cuts(config)
    work = Pass(network, cuts, False, num_rows, lambda: pixels)
    engine = choose_engine(freeze(network, cuts), work, config.bottlenecks)
    batch = tf.constant(pixels)
    extractor = network.extractor(["top"])
    uncached = tf.function(lambda images: extractor(images, training=False))
    return Speeds(
        view_s=view_s,
        frozen_s=_time(lambda: engine.extract(batch)) / len(jobs),
        uncached_s=_time(lambda: uncached(batch)) / len(jobs),
        speedup_limit=network.resolve_cut(config.bottlenecks.cut).speedup_limit,
    )


def bottleneck_cuts(config: TransferConfig) -> tuple[str, ...]:
    """Return the cuts that a run extracts, the head's own first, each once."""
    return tuple(dict.fromkeys((config.bottlenecks.cut, *config.bottlenecks.extra_cuts)))


def _time(call: Callable[[], Any]) -> float:
    """Return the median seconds of a call, after one to warm up."""
    call()
    durations: list[float] = []
    while sum(durations) < MIN_MEASURED_S:
        started_s = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started_s)
    return float(np.median(durations))

"""The pace stage: how long a backbone takes for an image on this machine.

So that what the cache has spared can be said in seconds. It is kept in the store, since it takes
some seconds to measure and a machine does not change from run to run.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from headstart.config import BackboneConfig
from headstart.tasks.backbones.cuts import TOP
from headstart.tasks.bottlenecks.extraction import freeze
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.running.devices import machine_fingerprint
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest
from headstart.tasks.store.versions import arithmetic_versions

BATCH_SIZE = 32
NUM_REPEATS = 5


class PaceManifest(Manifest):
    """Seconds that one image takes from its pixels to the pooled top."""

    seconds_per_image: float


def _pace_key(backbone: BackboneConfig, image_size: int | None) -> dict[str, Any]:
    network = open_backbone(backbone, image_size)
    return {
        "backbone": network.fingerprint(TOP),
        "machine": machine_fingerprint(),
        **arithmetic_versions(),
    }


def _measure_pace(folder: Path, backbone: BackboneConfig, image_size: int | None) -> Made:
    network = open_backbone(backbone, image_size)
    extract = freeze(network, [TOP])
    pixels = np.zeros((BATCH_SIZE, network.image_size, network.image_size, 3), np.uint8)
    durations = []
    for _ in range(1 + NUM_REPEATS):  # the first one also traces
        started_s = time.perf_counter()
        extract(tf.constant(pixels))[0].numpy()
        durations.append(time.perf_counter() - started_s)
    # The fastest: other load on the machine must not make the cache look better than it is.
    pace = min(durations[1:]) / BATCH_SIZE
    return Made(BATCH_SIZE, BATCH_SIZE, fields={"seconds_per_image": pace})


stage = Stage(
    "pace",
    2,
    PaceManifest,
    _measure_pace,
    _pace_key,
    lambda made: f"{1 / made.seconds_per_image:,.0f} images/s through the whole backbone",
)

"""Seconds an epoch of a rung: through the frozen layers in Keras, and from bottlenecks.

    python benchmarks/rung_speedup.py --images 192 --turns 3
    python benchmarks/rung_speedup.py --cut block6b_add

Both sides train the same layers of efficientnet_lite0 behind the same cut, on the same rows in
the same order, with the same optimizer and the same batch normalisation. Uncached is the whole
network as one model, all below the cut frozen, from decoded images in memory. Cached trains from
float16 rows that were read from a store's TFRecords. The sides take turns, so that other load on
the machine meets both alike. Weights are random, which changes no time.
"""

import argparse
import hashlib
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from headstart.config import BackboneConfig, HeadConfig, TuningConfig
from headstart.tasks.backbones.backbone import Backbone, load_backbone
from headstart.tasks.bottlenecks.extraction import freeze
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.finetuning.network import Network, extend, falling
from headstart.tasks.finetuning.training import train_network
from headstart.tasks.head.training import build_head
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.running.tensorflow import many_models
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.records import RowCollection, RowId

NUM_CLASSES = 5
BATCH_SIZE = 32


def store_rows(folder: Path, tensors: Any, labels: Any) -> LabelledRows:
    """Write rows as TFRecords, and open them."""
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(len(tensors))]
    shape, dtype = tensors.shape[1:], str(tensors.dtype)
    collection = RowCollection(Store(folder), "bottlenecks", "benchmark", shape, dtype)
    with collection.lock(), collection.writer(len(tensors)) as writer:
        for image, tensor in zip(ids, tensors, strict=True):
            writer.write(RowId(image, 0), tensor)
    reader = collection.select([RowId(image, 0) for image in ids])
    return LabelledRows((reader,), np.arange(len(tensors), dtype=np.int64)[:, None], labels)


def rung(backbone: Backbone, cut: str) -> Network:
    """Build the layers that train: a dense layer and what lies behind the cut."""
    shape = backbone.resolve_cut("top").activation_shape
    head = build_head(HeadConfig(), shape, NUM_CLASSES)
    return extend(head, (("logits",),), backbone, cut, "top")


def behind_frozen_layers(backbone: Backbone, cut: str, network: Network) -> Network:
    """Put the frozen layers before a rung, as one model."""
    extractor = backbone.extractor([cut])
    size = backbone.image_size
    pixels = keras.Input((size, size, 3), name="bottleneck")
    features = keras.tree.flatten(extractor.call(pixels, training=False))[0]
    return Network(keras.Model(pixels, network.model.call(features)), network.groups)


def seconds_an_epoch(network: Network, rows: LabelledRows, folder: Path) -> tuple[float, float]:
    """Train two epochs; return the seconds of the second, and its validation loss."""
    tuning = TuningConfig(epochs=2, batch_size=BATCH_SIZE, patience=0)
    few = LabelledRows(rows.readers, rows.positions[:BATCH_SIZE], rows.labels[:BATCH_SIZE])
    trained = train_network(
        network, falling(2, 3.0), rows, few, tuning, HeadConfig(), NUM_CLASSES, folder
    )
    last = trained.history[-1]
    return last.duration_s, float(last.val_loss or 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cut", default="block6d_add")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, TensorFlow "
        f"{tf.__version__}, Keras {keras.__version__}; {options.images} images, cut {options.cut}"
    )
    backbone = load_backbone(BackboneConfig(weights="random"))
    shape = (options.images, backbone.image_size, backbone.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    labels = (np.arange(options.images) % NUM_CLASSES).astype(np.int32)
    extract = freeze(backbone, [options.cut])
    started_s = time.perf_counter()
    parts = [extract(tf.constant(images[i : i + 32]))[0].numpy() for i in range(0, len(images), 32)]
    pass_s = time.perf_counter() - started_s
    times: dict[str, list[float]] = {"uncached": [], "cached": []}
    losses = {}
    with tempfile.TemporaryDirectory() as name, many_models():
        cached = store_rows(Path(name) / "cut", np.concatenate(parts).astype(np.float16), labels)
        pixels = store_rows(Path(name) / "pixels", images, labels)
        with use_reporter(Reporter(Console(quiet=True))):
            for turn in range(options.turns):
                for side, rows in (("cached", cached), ("uncached", pixels)):
                    network = rung(backbone, options.cut)
                    if side == "uncached":
                        network = behind_frozen_layers(backbone, options.cut, network)
                    log_dir = Path(name) / f"{side}-{turn}"
                    seconds, losses[side] = seconds_an_epoch(network, rows, log_dir)
                    times[side].append(seconds)
    print(f"one pass of the frozen layers, once: {pass_s:.2f} s")
    for side, seconds_of in times.items():
        print(
            f"{side:<9} median {statistics.median(seconds_of):6.2f} s an epoch, fastest "
            f"{min(seconds_of):6.2f} s; validation loss after 2 epochs {losses[side]:.4f}"
        )
    ratio = statistics.median(times["cached"]) / statistics.median(times["uncached"])
    fastest = min(times["cached"]) / min(times["uncached"])
    print(f"an epoch from the cache takes {100 * ratio:.0f} % of the time ({100 * fastest:.0f} % "
          f"by the fastest); by the arithmetic alone "
          f"{100 / backbone.resolve_cut(options.cut).speedup_limit:.0f} %")  # fmt: skip


if __name__ == "__main__":
    main()

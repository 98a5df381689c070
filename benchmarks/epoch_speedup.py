"""Seconds an epoch: through the frozen backbone in Keras, and from bottlenecks in headstart.

    python benchmarks/epoch_speedup.py --case tail --images 192 --epochs 3
    python benchmarks/epoch_speedup.py --case pooled --images 192 --epochs 3

tail: ResNet50, cut before its last identity block (conv5_block2_out), which is trained with a
new dense layer. pooled: ResNet50 frozen whole, a linear head on its pooled top.

Both sides train the same layers on the same batches with the same optimizer. Uncached is what a
Keras user writes: the whole network in one model, all below the cut `trainable = False`, from
images that are decoded and in memory already (so that decoding, which the cache spares too, is
not counted for it). Cached is `train_head` on float16 rows that were written to a store and are
read from its TFRecords. The sides take turns, five cached epochs to an uncached one, so that
other load on the machine meets both alike. Medians and, where the machine is not quiet, the
fastest epochs are the figures to look at. Weights are random, which changes no time.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rich.console import Console

from headstart.config import BackboneConfig, HeadConfig
from headstart.tasks.backbones.backbone import Backbone, load_backbone
from headstart.tasks.bottlenecks.extraction import freeze
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.optimizer import make_optimizer
from headstart.tasks.head.training import build_head, train_head
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.records import RowCollection, RowId

NUM_CLASSES = 5
CACHED_EPOCHS_A_TURN = 5
CUTS = {"tail": "conv5_block2_out", "pooled": "top"}


class Turns(keras.callbacks.Callback):  # type: ignore[misc]
    """Times each epoch of one side, and gives the other side its turns."""

    def __init__(self, other: Iterator[None] | None = None) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._other = other

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Give the other side its turn where it is due, then start the clock."""
        if self._other is not None and epoch % CACHED_EPOCHS_A_TURN == 0:
            next(self._other)
        self._started_s = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self._started_s)


def uncached_epochs(
    model: keras.Model, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32],
    batch_size: int, clock: Turns,
) -> Iterator[None]:  # fmt: skip
    """Train one epoch a step."""
    for _ in iter(int, 1):
        model.fit(images, labels, batch_size=batch_size, verbose=0, callbacks=[clock])
        yield


def uncached_model(backbone: Backbone, cut: str, config: HeadConfig) -> keras.Model:
    """Build preprocessing, frozen layers, trained layers as one model, the usual way."""
    extractor = backbone.extractor([cut])
    tail = backbone.tail(cut) if config.kind == "tail" else None
    head = build_head(config, extractor.output_shape[1:], NUM_CLASSES, tail)
    extractor.trainable = False
    pixels = keras.Input((backbone.image_size, backbone.image_size, 3), dtype="uint8")
    model = keras.Model(pixels, head(*keras.tree.flatten(extractor(pixels))))
    model.compile(
        make_optimizer(config, 10_000, head.trainable_variables),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def write_rows(
    store: Store, backbone: Backbone, cut: str, images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int32],
) -> LabelledRows:  # fmt: skip
    """Extract the images' bottlenecks and write them as rows of a store."""
    shape = backbone.resolve_cut(cut).activation_shape
    collection = RowCollection(store, "bottlenecks", cut, shape, "float16")
    ids = [RowId(f"{number:064x}", 0) for number in range(len(images))]
    extract = freeze(backbone, [cut])
    with collection.lock(), collection.writer(len(images)) as writer:
        for start in range(0, len(images), 32):
            (activations,) = tf.nest.flatten(extract(tf.constant(images[start : start + 32])))
            for row_id, activation in zip(
                ids[start : start + 32], activations.numpy().astype(np.float16), strict=True
            ):
                writer.write(row_id, activation)
    return LabelledRows((collection.select(ids),), np.arange(len(ids))[:, None], labels)


def explain_tail(rows: LabelledRows, backbone: Backbone, cut: str, config: HeadConfig) -> None:
    """Print what FLOPs do not show: at which pace the parts of a step run by themselves."""
    size = config.batch_size
    order = np.arange(len(rows))[:size]
    found = backbone.resolve_cut(cut)
    head = build_head(config, found.activation_shape, NUM_CLASSES, backbone.tail(cut))
    extractor = backbone.extractor([cut])
    folded = freeze(backbone, [cut])
    as_keras = tf.function(lambda x: extractor(x, training=True))
    forward = tf.function(lambda x: head(x, training=True))

    @tf.function
    def backward(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(head(x, training=True))
        return tape.gradient(loss, head.trainable_variables)

    @tf.function
    def update(gradients: Any) -> None:
        optimizer.apply(gradients)

    optimizer = make_optimizer(config, 10_000, head.trainable_variables)
    optimizer.build(head.trainable_variables)
    ones = [tf.ones(variable.shape) for variable in head.trainable_variables]
    pixels = tf.zeros((size, backbone.image_size, backbone.image_size, 3), tf.uint8)
    batch = tf.cast(rows.gather(order, 0), tf.float32)
    after = found.flops_after + found.flops_backward_after
    parts: dict[str, tuple[Any, int]] = {
        "frozen layers, as Keras runs them": (lambda: as_keras(pixels), found.flops_before),
        "frozen layers, folded graph": (lambda: folded(pixels), found.flops_before),
        "tail, forward": (lambda: forward(batch), found.flops_after),
        "tail, forward and backward": (lambda: backward(batch), after),
        "optimizer's update": (lambda: update(ones), 0),
        "read a batch, cast it": (lambda: tf.cast(rows.gather(order, 0), tf.float32), 0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(6):
        for name, (call, _) in parts.items():
            started_s = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started_s)
    took_s = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for name, (_, flops) in parts.items():
        pace = f"{flops * size / took_s[name] / 1e9:8.0f} GFLOP/s" if flops else ""
        print(f"  {name:<34}{took_s[name] * 1e3:9.1f} ms a batch {pace}")
    print(
        "  FLOPs leave out batch normalisation and activations, which the cache spares as well,\n"
        "  so that the limit can be passed, and the optimizer's update, which it cannot spare."
    )


@contextmanager
def silence() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, use_reporter(Reporter(Console(file=nowhere))):
        yield


def measure(case: str, num_images: int, epochs: int, batch_size: int, image_size: int) -> None:
    cut = CUTS[case]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, image_size, image_size, 3), np.uint8)
    labels = (np.arange(num_images) % NUM_CLASSES).astype(np.int32)
    backbone = load_backbone(BackboneConfig(name="resnet50", weights="random"), image_size)
    # The first turn of each side traces the graphs; it is left out of the figures.
    config = HeadConfig(
        kind="tail" if case == "tail" else "linear",
        epochs=(epochs + 1) * CACHED_EPOCHS_A_TURN,
        batch_size=batch_size,
        learning_rate=1e-5,
        patience=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Store(Path(folder) / "store"), backbone, cut, images, labels)
        tail = backbone.tail(cut) if case == "tail" else None
        uncached = Turns()
        model = uncached_model(backbone, cut, config)
        cached = Turns(uncached_epochs(model, images, labels, batch_size, uncached))
        with silence():
            train_head(rows, None, config, NUM_CLASSES, tail, Path(folder) / "log", [cached])
        report(case, backbone, cut, uncached.seconds[1:], cached.seconds[CACHED_EPOCHS_A_TURN:])
        if case == "tail":
            explain_tail(rows, backbone, cut, config)


def report(
    case: str, backbone: Backbone, cut: str, uncached_s: list[float], cached_s: list[float]
) -> None:
    limit = backbone.resolve_cut(cut).speedup_limit_for(NUM_CLASSES)
    print(f"{case}: ResNet50, {backbone.image_size} pixels, cut {cut}")
    print(f"  uncached   {_spread(uncached_s)}")
    print(f"  cached     {_spread(cached_s)}")
    for name, pick in (("medians", statistics.median), ("fastest epochs", min)):
        speedup = pick(uncached_s) / pick(cached_s)
        share = f", {speedup / limit:.0%} of the limit" if case == "tail" else ""
        print(f"  speed-up   {speedup:10.2f} x by {name}{share}")
    if case == "tail":
        print(f"  FLOP limit {limit:10.2f} x")


def _spread(seconds: list[float]) -> str:
    return (
        f"{statistics.median(seconds):10.3f} s an epoch (median of {len(seconds)}; "
        f"{min(seconds):.3f} to {max(seconds):.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=[*CUTS, "both"], default="both")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}, {options.images} images, batches of {options.batch_size}"
    )
    for case in CUTS if options.case == "both" else [options.case]:
        measure(case, options.images, options.epochs, options.batch_size, options.image_size)


if __name__ == "__main__":
    main()

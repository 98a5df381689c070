"""Augmentation computed beforehand against augmentation on the fly, the same training.

    python benchmarks/views_vs_onfly.py --steps 40 --rounds 3

Three ways to feed one network the same kind of augmentation (pad and crop, flip, cutout), side by
side, in turns of a few steps, in changing order, so that other load on the machine meets all alike:

precomputed   views read from TFRecord shards, as `headstart scratch` does
tf.data       the same operations in a tf.data map over the images in memory, run in parallel
layers        Keras's RandomCrop on padded images, RandomFlip and RandomErasing in the model

For each: the median step, the fastest one, and the processor time of a step on all threads (which
other load does not change, and in which augmentation on other threads shows). Then what the input
costs, in two ways: the share of a step spent waiting for it (the time in next() of the iterator),
and the processor time of a batch that is read and thrown away, as a share of a step's. Then what K
epochs cost in all, precomputation included;
then the epoch from which on precomputing has paid for itself, if it ever does. In a time budget it
also counts that the precomputation is done before the clock starts, and that views are there for
the next run.

Where no Fashion-MNIST is at hand (--data), noise of the same size is used, which changes no time.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from headstart.config import (
    EpochViewsConfig,
    NetworkConfig,
    ScratchDatasetConfig,
    ScratchTrainingConfig,
)
from headstart.tasks.dataset.pixels import PixelsManifest, open_images, open_labels
from headstart.tasks.dataset.pixels import stage as make_pixels
from headstart.tasks.scratch.batches import steps_an_epoch, training_batches
from headstart.tasks.scratch.network import build_network
from headstart.tasks.scratch.training import compile_network
from headstart.tasks.store.artifacts import Store, use_store
from headstart.tasks.views.epoch_augment import epoch_views
from headstart.tasks.views.epoch_draws import as_uint64, image_keys, view_key
from headstart.tasks.views.epoch_stage import layout_of, recipe_of
from headstart.tasks.views.epoch_stage import stage as make_views

WARM_STEPS = 5
"""First steps of a turn that are not counted: they use up what was prefetched meanwhile."""
STEPS_A_TURN = 10
BATCHES_A_READ = 40
EPOCHS_TOLD = (1, 5, 10, 25, 50)
NUM_VIEWS = 2
"""Written for the measurement; the cost of a view is what is told."""


@dataclass
class Side:
    """One way to train, and what was seen of it."""

    name: str
    model: Any
    batches: Iterator[Any]
    steps_s: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    turns_cpu_s: list[float] = field(default_factory=list)
    reads_cpu_s: list[float] = field(default_factory=list)

    def read(self) -> None:
        """Read the batches of a turn and throw them away."""
        for _ in range(WARM_STEPS):
            next(self.batches)
        started_s = time.process_time()
        for _ in range(BATCHES_A_READ):
            next(self.batches)
        self.reads_cpu_s.append((time.process_time() - started_s) / BATCHES_A_READ)

    def step(self) -> tuple[float, float]:
        """Make a step; return its seconds and those spent waiting for its batch."""
        started_s = time.perf_counter()
        images, targets = next(self.batches)
        waited_s = time.perf_counter() - started_s
        self.model.train_on_batch(images, targets)
        return time.perf_counter() - started_s, waited_s

    def turn(self) -> None:
        """Make some steps."""
        for _ in range(WARM_STEPS):
            self.step()
        started_s = time.process_time()
        for _ in range(STEPS_A_TURN):
            step_s, waited_s = self.step()
            self.steps_s.append(step_s)
            self.waits_s.append(waited_s)
        self.turns_cpu_s.append((time.process_time() - started_s) / STEPS_A_TURN)


def build(pixels: PixelsManifest, width: float, augment: Callable[[Any], Any] | None = None) -> Any:
    """Build and compile the network, with augmentation in it where there is any."""
    training = ScratchTrainingConfig()
    model = build_network(NetworkConfig(pool_first=True), width, pixels, 0)
    if augment is not None:
        images = keras.Input(pixels.image_shape)
        model = keras.Model(images, model(augment(images)))
    compile_network(model, training).learning_rate.assign(1e-4)
    return model


def layers_of(pixels: PixelsManifest, config: EpochViewsConfig) -> Callable[[Any], Any]:
    """Return Keras's own layers for the recipe."""
    recipe, (height, width, _) = recipe_of(pixels, config), pixels.image_shape
    area = recipe.cutout**2 / (height * width)
    layers = [
        keras.layers.ZeroPadding2D(recipe.padding),
        keras.layers.RandomCrop(height, width, seed=0),
        keras.layers.RandomFlip("horizontal", seed=0),
        keras.layers.RandomErasing(
            1.0, scale=(area, area * 1.0001), fill_value=recipe.fill[0], seed=0
        ),
    ]

    def augment(images: Any) -> Any:
        for layer in layers:
            images = layer(images)
        return images

    return augment


def mapped(
    pixels: PixelsManifest, config: EpochViewsConfig, batch_size: int, *, augmented: bool
) -> tf.data.Dataset:
    """Shuffle the images in memory, batch them, and augment each batch in a map."""
    images, labels = np.asarray(open_images(pixels, "train")), open_labels(pixels, "train")
    recipe, num_classes = recipe_of(pixels, config), len(pixels.class_names)
    rows = tf.data.Dataset.from_tensor_slices((images, image_keys(images), labels))
    rows = rows.shuffle(len(images), seed=0).repeat().batch(batch_size, drop_remainder=True)
    keys = as_uint64([view_key(number, "on the fly") for number in range(1, 1001)])

    def prepare(number: Any, batch: Any) -> tuple[Any, Any]:
        pixels_, image_keys_, classes = batch
        if augmented:
            pixels_ = epoch_views(pixels_, image_keys_, keys[number % 1000], recipe)
        return tf.cast(pixels_, tf.float32), tf.one_hot(classes, num_classes)

    return rows.enumerate().map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(4)


def source_of(data: Path | None, folder: Path, num_images: int) -> ScratchDatasetConfig:
    """Return the data set, or noise of its size."""
    if data is not None:
        return ScratchDatasetConfig(images="fashion-mnist", data=data)
    generator = np.random.default_rng(0)
    for prefix, number in (("train", num_images), ("t10k", 1000)):
        images = generator.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", (np.arange(number) % 10).astype("u1"))
    return ScratchDatasetConfig(images=str(folder))


def write_idx(path: Path, array: Any) -> None:
    sides = b"".join(int(side).to_bytes(4, "big") for side in array.shape)
    path.write_bytes(bytes((0, 0, 8, array.ndim)) + sides + array.tobytes())


def measure(options: argparse.Namespace, folder: Path) -> None:
    config = EpochViewsConfig(padding=2, flip=True, cutout=8)
    (folder / "idx").mkdir()
    pixels = make_pixels(source_of(options.data, folder / "idx", options.images), None)
    started_s = time.perf_counter()
    views = make_views(pixels, config, NUM_VIEWS)
    view_s = (time.perf_counter() - started_s) / NUM_VIEWS
    stored = training_batches(
        views, layout_of(pixels), open_labels(pixels, "train"), len(pixels.class_names),
        options.batch_size, 0.0, 0,
    )  # fmt: skip
    sides = [
        Side("precomputed", build(pixels, options.width), iter(stored)),
        Side(
            "tf.data",
            build(pixels, options.width),
            iter(mapped(pixels, config, options.batch_size, augmented=True)),
        ),
        Side(
            "layers",
            build(pixels, options.width, layers_of(pixels, config)),
            iter(mapped(pixels, config, options.batch_size, augmented=False)),
        ),
    ]
    for side in sides:
        side.step()  # builds the graph
    for number in range(options.rounds * max(1, options.steps // STEPS_A_TURN)):
        first = number % len(sides)  # none always follows the same other one
        for side in sides[first:] + sides[:first]:
            side.turn()
            side.read()
    report(sides, view_s, steps_an_epoch(options.batch_size, pixels.num_images("train")))


def report(sides: list[Side], view_s: float, steps: int) -> None:
    first = sides[0]
    print(f"precomputing takes {view_s:.2f} s a view (an epoch), on all cores, before training")
    print(
        f"{'':<13}{'step':>10}{'fastest':>10}{'CPU':>10}{'waiting':>10}{'share':>8}{'reading':>10}"
        f"{'share':>8}   {steps} steps an epoch"
    )
    for side in sides:
        step_s, wait_s = statistics.median(side.steps_s), statistics.median(side.waits_s)
        cpu_s, read_s = statistics.median(side.turns_cpu_s), statistics.median(side.reads_cpu_s)
        print(
            f"{side.name:<13}{1e3 * step_s:>7.1f} ms{1e3 * min(side.steps_s):>7.1f} ms"
            f"{1e3 * cpu_s:>7.1f} ms"
            f"{1e3 * wait_s:>7.2f} ms{wait_s / step_s:>8.1%}"
            f"{1e3 * read_s:>7.2f} ms{read_s / cpu_s:>8.1%}"
        )
    totals = {side.name: statistics.median(side.steps_s) * steps for side in sides}
    print("seconds in all" + "".join(f"{epochs:>9} ep" for epochs in EPOCHS_TOLD))
    for name, epoch_s in totals.items():
        extra_s = view_s if name == first.name else 0.0
        row = "".join(f"{epochs * (epoch_s + extra_s):>12.1f}" for epochs in EPOCHS_TOLD)
        print(f"{name:<14}{row}")
    for side in sides[1:]:
        gain_s = totals[side.name] - totals[first.name]
        print(break_even(side.name, gain_s, view_s))


def break_even(name: str, gain_s: float, view_s: float) -> str:
    """Say when views, each used once or by several runs, have paid for themselves."""
    against = f"against {name}: an epoch trains {gain_s:+.2f} s faster, a view costs {view_s:.2f} s"
    if gain_s <= 0:
        return f"{against}: never"
    if gain_s >= view_s:
        return f"{against}: from the first epoch on"
    return f"{against}: once each view is read {-(-view_s // gain_s):.0f} times"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--steps", type=int, default=40, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=float, default=0.25)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}, ResNet9 of width {options.width:g}, batches of {options.batch_size}"
    )
    with tempfile.TemporaryDirectory() as folder, use_store(Store(Path(folder) / "store")):
        measure(options, Path(folder))


if __name__ == "__main__":
    main()

"""The baseline stage: a small network from scratch in so many seconds, which transfer must beat."""

import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import BaselineConfig, EvaluationConfig, HeadConfig, Split, ViewsConfig
from headstart.tasks.backbones.builders import seeded_initializers
from headstart.tasks.dataset.index import ImageRow
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.report_content import UNDEFINED
from headstart.tasks.progress import reporter
from headstart.tasks.ranking.features import draw_images
from headstart.tasks.running.devices import machine_fingerprint
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest, current_store
from headstart.tasks.store.versions import arithmetic_versions
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import Array, Fit, Target
from headstart.tasks.views.addresses import plain_rows
from headstart.tasks.views.recipes import plain_collection, plain_recipe

MAX_IMAGES = 20_000
"""Images kept in memory for it, 250 MB at 64 x 64; no budget here passes over more of them."""
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
FILTERS = (16, 32, 64, 128)
"""Few, so that a budget of a minute allows several passes over some thousand images on a CPU."""
CHUNK_ROWS = 256


class BaselineManifest(Manifest):
    """How far a network without a head start came."""

    accuracy: float | None
    """Of the judged split; None where targets are no classes."""
    metric: str = "accuracy"
    """What it is judged by: accuracy, mAP (of labels) or R² (of numbers)."""
    value: float | None = None
    """mAP or R²; None where it is the accuracy, or where the training diverged."""
    epochs: float
    """Passes over the training images that the budget allowed."""
    budget_s: float


def _baseline_key(
    dataset: DatasetManifest,
    views: ViewsConfig,
    image_size: int,
    judged: Split,
    budget_s: float,
    config: BaselineConfig,
) -> dict[str, Any]:
    return {
        "labels": dataset.labels_digest,
        "views": plain_recipe(views, image_size),
        "judged": judged,
        "budget_s": budget_s,
        "baseline": config,
        "machine": machine_fingerprint(),  # how far it comes in the time
        **arithmetic_versions(),
    }


def _train_from_scratch(
    folder: Path,
    dataset: DatasetManifest,
    views: ViewsConfig,
    image_size: int,
    judged: Split,
    budget_s: float,
    config: BaselineConfig,
) -> Made:
    index, target, judge = index_of(dataset), TARGETS[dataset.kind], JUDGES[dataset.kind]
    num_outputs = len(dataset.class_names)
    pixels, labels = {}, {}
    splits: tuple[Split, ...] = ("train", judged)
    for split in splits:
        rows = index.rows_of(split)
        chosen = [rows[i] for i in draw_images(len(rows), MAX_IMAGES, config.seed)]
        pixels[split] = _read_views(views, image_size, chosen, config.image_size)
        labels[split] = target.to_array(chosen, num_outputs)
    model = small_network(config.image_size, num_outputs, config.seed)
    fit = target.fit(labels["train"])
    steps = _fit_for(model, pixels["train"], labels["train"], target, fit, budget_s, config.seed)
    logits = [
        model(pixels[judged][start : start + CHUNK_ROWS], training=False).numpy()
        for start in range(0, len(labels[judged]), CHUNK_ROWS)
    ]
    outputs, few = np.concatenate(logits), EvaluationConfig(num_bootstrap=10)
    made = judge.evaluate(outputs, labels[judged], dataset.class_names, fit, few)
    figure, is_share = getattr(made, judge.ranked), dataset.kind == "class"
    if figure is not None and not math.isfinite(figure):  # the training diverged
        figure = None
    num_train = len(labels["train"])
    return Made(
        num_rows=num_train,
        num_rows_computed=num_train,
        fields={
            "accuracy": figure if is_share else None,
            "metric": judge.ranked_name,
            "value": None if is_share else figure,
            "epochs": steps * BATCH_SIZE / num_train,
            "budget_s": budget_s,
        },
    )


def small_network(image_size: int, num_classes: int, seed: int) -> keras.Model:
    """Build a plain convolutional network: four convolutions, each followed by pooling.

    Args:
        image_size: Side of its input in pixels, at least 16.
        num_classes: Width of the logits.
        seed: Seed of the initial weights.

    Returns:
        A model from RGB pixels [n, image_size, image_size, 3] in [0, 255] to logits
        [n, num_classes].
    """
    with seeded_initializers(seed):
        images = keras.Input((image_size, image_size, 3))
        x = keras.layers.Rescaling(1 / 127.5, -1.0)(images)
        for filters in FILTERS:
            x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization(momentum=0.9)(x)
            x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(images, keras.layers.Dense(num_classes)(x))


def _read_views(
    views: ViewsConfig, image_size: int, rows: list[ImageRow], side: int
) -> npt.NDArray[np.uint8]:
    """Read plain views and reduce them; uint8 [n, side, side, 3]."""
    collection = plain_collection(views, image_size, current_store())
    reader = collection.select(plain_rows([row.digest for row in rows]))
    small = np.empty((len(rows), side, side, 3), np.uint8)
    for start in range(0, len(rows), CHUNK_ROWS):
        places = range(start, min(start + CHUNK_ROWS, len(rows)))
        resized = tf.image.resize(reader.gather(places), (side, side), "area")
        small[start : start + len(places)] = np.rint(resized)
    return small


def _fit_for(
    model: keras.Model,
    pixels: npt.NDArray[np.uint8],
    labels: Array,
    target: Target,
    fit: Fit,
    budget_s: float,
    seed: int,
) -> int:
    """Train for so many seconds; return the steps.

    Half of the time with mirrored images, but for numbers, which may be of a side or an angle.
    """
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=0.01)
    loss_of, num_outputs = target.loss(HeadConfig()), int(model.output_shape[-1])
    mirrors = target.kind != "number"

    def step(images: Any, targets: Any) -> None:
        with tf.GradientTape() as tape:
            wanted = target.to_match(targets, num_outputs, 0.0, fit)
            loss = loss_of(wanted, model(tf.cast(images, tf.float32), training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    train = tf.function(step, autograph=False)
    generator = np.random.default_rng(seed)
    order, steps, told_s = np.empty(0, np.int64), 0, 0
    started_s = time.monotonic()
    with reporter().track("training from scratch", max(1, int(budget_s)), "seconds") as advance:
        while steps == 0 or time.monotonic() - started_s < budget_s:
            if not len(order):
                order = generator.permutation(len(labels))
            batch, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
            images = pixels[batch]
            if mirrors and generator.random() < 0.5:
                images = images[:, :, ::-1]
            train(tf.constant(images), tf.constant(labels[batch]))
            steps += 1
            elapsed_s = min(int(time.monotonic() - started_s), int(budget_s))
            advance(elapsed_s - told_s)
            told_s = elapsed_s
    return steps


def _describe(made: BaselineManifest) -> str:
    figure = made.accuracy if made.metric == "accuracy" else made.value
    told = UNDEFINED if figure is None else f"{figure:.4f}"
    return f"{made.metric} {told} after {made.epochs:,.1f} epochs in {made.budget_s:,g} s"


stage = Stage(
    "baseline",
    2,
    BaselineManifest,
    _train_from_scratch,
    _baseline_key,
    _describe,
)

"""Heads that are not trained: the nearest mean of a class, and the nearest training images.

A label has two means, of the images with it and of those without; its logit is the difference of
the cosines. Neighbours vote for labels too, and the mean of theirs is the answer for numbers.

Both compare directions: bottlenecks less the mean of all training images, scaled to length 1
(Wang et al., SimpleShot, 2019). What they compare with is in the weights of a stock Keras model, so
that such a head is judged and exported as every other.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from headstart.config import HeadConfig, TargetKind
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.pooled import pooled_features
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.judging import judge_head, one_epoch
from headstart.tasks.head.training import TrainedHead, decide

SHARPNESSES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Factors of a cosine in a logit; the one of the lowest loss on val is taken."""
DEFAULT_SHARPNESS = 10.0
"""Where there are no images to choose by."""
MAX_KNN_VALUES = 2**28
"""Numbers that a knn head may hold, 1 GiB of them: all training images go with the model."""
SMALLEST = 1e-12
"""Added to votes, whose logarithm are the logits."""
UNSURE = 1e-3
"""Share of the votes that no label has beyond: an answer of a few neighbours is never certain."""


def fit_head(
    train: LabelledRows,
    val: LabelledRows | None,
    config: HeadConfig,
    num_classes: int,
    log_dir: Path,
) -> TrainedHead:
    """Build a head from training images.

    Args:
        train: Rows of every class; their plain and augmented views are all used.
        val: Rows that choose how sharp the probabilities are.
        config: Kind and number of neighbours.
        num_classes: Width of the logits.
        log_dir: Folder for TensorBoard's event files, of which there are none.

    Raises:
        TrainingError: The labels cannot be trained on, or a knn head would be too large.
    """
    started_s = time.perf_counter()
    if train.kind == "number" and config.kind == "nearest_mean":
        raise TrainingError(
            "a nearest_mean head is for classes and labels: numbers have no class means",
            "dataset.target is number",
            "choose --set head.kind=knn, or linear",
        )
    train.target.check(train.labels, None if val is None else val.labels, num_classes)
    log_dir.mkdir(parents=True, exist_ok=True)
    val = val if val is not None and len(val) else None
    fit = train.target.fit(train.labels)
    vectors, targets = _gather(train, config)
    if train.kind == "number":
        targets = ((targets - np.array(fit.offset)) / np.array(fit.scale)).astype(np.float32)
    known = _Known(vectors, targets, train.shape, num_classes, train.kind)
    sharpness = DEFAULT_SHARPNESS
    if val is not None:
        losses = {one: judge_head(build(config, known, one), val, fit)[0] for one in SHARPNESSES}
        sharpness = min(losses, key=losses.__getitem__)
    head = build(config, known, sharpness)
    figures = one_epoch(head, train, val, started_s, fit)
    return TrainedHead(head, (figures,), 1, False, fit=decide(head, val, fit, config))


class _Known(NamedTuple):
    """The training images.

    Attributes:
        vectors: float32 [n, C]; of spatial bottlenecks their means over the positions.
        labels: int32 [n], every class among them; 0 and 1 [n, num_classes] of labels, standardised
            numbers [n, num_classes].
        num_classes: Number of classes, labels or numbers.
        kind: What the targets are: classes, labels or numbers.
    """

    vectors: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    shape: tuple[int, ...]
    num_classes: int
    kind: TargetKind = "class"


def build(config: HeadConfig, known: _Known, sharpness: float) -> keras.Model:
    """Build a head of stock layers.

    Args:
        config: Kind and number of neighbours.
        known: What a new image is compared with.
        sharpness: Factor of a cosine in a logit.

    Returns:
        A model float32 [n, *activation shape] -> logits float32 [n, num_classes].
    """
    bottleneck = x = keras.Input(known.shape, name="bottleneck", dtype="float32")
    if len(known.shape) > 1:
        x = keras.ops.mean(x, axis=tuple(range(1, len(known.shape))))
    centre = known.vectors.mean(axis=0)
    directions = _directions(known.vectors - centre)
    centring = keras.layers.Normalization(
        mean=centre, variance=np.ones_like(centre), name="head_centre"
    )
    x = centring(x)
    x = keras.layers.UnitNormalization(name="head_direction")(x)
    if config.kind == "nearest_mean":
        means = _means_of(directions, known)
        logits = _fixed(sharpness * means.T, "logits")(x)
        return keras.Model(bottleneck, logits, name="head")
    cosines = _fixed(directions.T, "head_neighbours")(x)
    least = keras.ops.top_k(cosines, min(config.num_neighbors, len(known.labels)))[0][:, -1:]
    votes = keras.ops.where(cosines >= least, keras.ops.exp(sharpness * cosines), 0.0)
    targets = known.labels
    if known.kind == "class":
        targets = np.eye(known.num_classes, dtype=np.float32)[known.labels]
    tally = _fixed(targets.astype(np.float32), "head_votes")(votes)
    if known.kind == "class":
        outputs = keras.ops.log(tally + SMALLEST)
    else:
        outputs = tally / keras.ops.sum(votes, axis=1, keepdims=True)
    if known.kind == "labels":
        held = keras.ops.clip(outputs, UNSURE, 1.0 - UNSURE)
        outputs = keras.ops.log(held) - keras.ops.log(1.0 - held)
    logits = keras.layers.Identity(name="logits")(outputs)
    return keras.Model(bottleneck, logits, name="head")


def _means_of(directions: npt.NDArray[np.float32], known: _Known) -> npt.NDArray[np.float32]:
    """Return what a direction is held against: [num_classes, C]."""
    if known.kind == "class":
        return _directions(_means(directions, known.labels, known.num_classes))
    having = known.labels.astype(np.float32)
    # Of a label that all images have, or none, one side is empty: a mean of 0.
    sides = [_directions((side.T @ directions).astype(np.float32)) for side in (having, 1 - having)]
    return np.asarray(sides[0] - sides[1], np.float32)


def nearest_mean_accuracy(train: LabelledRows, judged: LabelledRows, num_classes: int) -> float:
    """Return the share of some images whose class has the nearest mean."""
    config = HeadConfig(kind="nearest_mean")
    known = _Known(*_gather(train, config), train.shape, num_classes)
    return judge_head(build(config, known, DEFAULT_SHARPNESS), judged)[1]


def _gather(
    rows: LabelledRows, config: HeadConfig
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Read all views: float32 [n, C], and the target of each."""
    size = len(rows) * (1 + rows.num_augmented) * int(np.prod(rows.shape[-1:]))
    if config.kind == "knn" and size > MAX_KNN_VALUES:
        raise TrainingError(
            "a knn head holds all training images, which are too many here",
            f"{len(rows):,} images of {1 + rows.num_augmented} views, {rows.shape[-1]} values each",
            "choose --set head.kind=nearest_mean, or linear",
        )
    views = range(1 + rows.num_augmented)
    gathered = [pooled_features(rows, np.arange(len(rows)), view) for view in views]
    return np.concatenate(gathered), np.concatenate([rows.labels] * len(gathered))


def _means(
    directions: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], num_classes: int
) -> npt.NDArray[np.float32]:
    sums = np.zeros((num_classes, directions.shape[1]), np.float32)
    np.add.at(sums, labels, directions)
    counts = np.bincount(labels, minlength=num_classes)[:, np.newaxis]
    return (sums / counts).astype(np.float32)


def _directions(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: npt.NDArray[np.float32] = vectors / np.maximum(lengths, SMALLEST)
    return directions


def _fixed(kernel: npt.NDArray[np.float32], name: str) -> Any:
    """A dense layer without a bias, whose weights are known."""
    layer = keras.layers.Dense(kernel.shape[1], use_bias=False, trainable=False, name=name)
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel])
    return layer

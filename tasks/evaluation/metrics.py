"""Judge logits against labels: accuracy and its interval, classes, confusions, calibration.

Plain NumPy, no TensorFlow and no scikit-learn: importing ``sklearn.metrics`` takes longer than
everything here together. The tests hold every figure to scikit-learn's.

A figure that cannot be computed is None, never a 0 that looks like a result: the precision of a
class that was never predicted, the accuracy of a split without images.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from headstart.config import EvaluationConfig
from headstart.errors import DatasetError, TrainingError
from headstart.tasks.dataset.units import Units
from headstart.tasks.evaluation.resampling import bootstrap

NUM_CONFUSED_PAIRS = 10
"""Most pairs of classes listed in `SplitMetrics.most_confused`."""

CHUNK_ROWS = 4096
"""Rows turned into probabilities at a time: 33 MB of float64 at 1,000 classes."""


class Figures(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Frozen, closed, JSON-able: it travels in manifests and lands in metrics.json."""


class TopK(Figures):
    """How often the label is among the k classes with the highest logits."""

    k: int
    """The k in effect: the one asked for, capped by the number of classes."""
    accuracy: float | None


class ClassMetrics(Figures):
    """One class of a split."""

    name: str
    support: int
    """Images of this class."""
    precision: float | None
    """Share of the images taken for this class that are of it; None where there are none."""
    recall: float | None
    """Share of the images of this class that are taken for it; None where there are none."""
    f1: float | None
    """Harmonic mean of both; None where the class has no images and was never predicted."""


class CalibrationBin(Figures):
    """The predictions whose confidence lies in one interval (low, high]."""

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean probability of the predicted class; None for an empty bin."""
    accuracy: float | None
    """Share that is right; None for an empty bin."""


class ConfusedPair(Figures):
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    count: int
    share: float
    """Of the images of the true class."""


class SplitMetrics(Figures):
    """All figures of one split."""

    num_images: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    """Bounds of the percentile bootstrap interval of the accuracy; of Wilson's where all images or
    none are right."""
    interval_confidence: float
    """Coverage of that interval, such as 0.95."""
    top_k: TopK
    loss: float | None
    """Mean cross-entropy in nats, without label smoothing or class weights."""
    per_class: tuple[ClassMetrics, ...]
    """In the order of the class names."""
    macro_f1: float | None
    """Mean F1 of the classes that have images or were predicted."""
    confusion: tuple[tuple[int, ...], ...]
    """Number of images, [true class][predicted class]."""
    ece: float | None
    """Expected calibration error, in [0, 1]."""
    calibration: tuple[CalibrationBin, ...]
    most_confused: tuple[ConfusedPair, ...]
    """Most frequent first, at most `NUM_CONFUSED_PAIRS`; empty where all is right."""


class TopLoss(Figures):
    """An image with a high loss: mislabelled, ambiguous, or truly hard."""

    position: int
    """Row of the split."""
    label: int
    predicted: int
    probability_of_label: float
    predicted_probability: float
    loss: float
    """Cross-entropy in nats."""


class _RowScores(NamedTuple):
    """One value a row: int64 or float64 arrays of shape [n]."""

    predicted: NDArray[np.int64]
    label_rank: NDArray[np.int64]
    loss: NDArray[np.float64]
    probability_of_label: NDArray[np.float64]
    confidence: NDArray[np.float64]


def evaluate(
    logits: NDArray[np.float32],
    labels: NDArray[np.int32],
    class_names: Sequence[str],
    config: EvaluationConfig,
    units: Units = None,
) -> SplitMetrics:
    """Compute all figures of a split.

    Where logits tie, the class with the lower index is predicted and ranks higher, so that the
    same logits always give the same figures.

    Args:
        logits: float32 of shape [n, num_classes], finite; n may be 0.
        labels: int32 of shape [n], each in [0, num_classes).
        class_names: The name of each class, num_classes of them.
        config: Sizes of the bootstrap, of top-k and of the calibration bins.
        units: int64 [n]: images of one number belong together; None where each stands alone.

    Returns:
        The figures, None where one is undefined.

    Raises:
        TrainingError: The shapes do not fit together, or a logit is NaN or infinite.
        DatasetError: A label is not the index of a class.

    Source: macro F1 as scikit-learn's ``f1_score(average="macro")``.
    """
    if len(class_names) != logits.shape[-1]:
        raise TrainingError(
            "the logits do not have one column for each class name",
            f"logits of shape {logits.shape}, {len(class_names)} class names",
            "evaluate the head with the class names it was trained on",
        )
    scores = _score_rows(logits, labels)
    num_images, num_classes = logits.shape
    cells = labels.astype(np.int64) * num_classes + scores.predicted
    confusion = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
    per_class = _class_metrics(confusion, class_names)
    calibration = _calibration_bins(scores, config.num_calibration_bins)
    k = min(config.top_k, num_classes)
    return SplitMetrics(
        num_images=num_images,
        accuracy=_mean(scores.label_rank == 0),
        accuracy_interval=_bootstrap_interval(scores.label_rank == 0, config, units),
        interval_confidence=config.confidence,
        top_k=TopK(k=k, accuracy=_mean(scores.label_rank < k)),
        loss=_mean(scores.loss),
        per_class=per_class,
        macro_f1=_mean(np.array([one.f1 for one in per_class if one.f1 is not None])),
        confusion=tuple(map(tuple, confusion.tolist())),
        ece=_expected_calibration_error(calibration, num_images),
        calibration=calibration,
        most_confused=_most_confused(confusion, class_names),
    )


def top_losses(
    logits: NDArray[np.float32], labels: NDArray[np.int32], config: EvaluationConfig
) -> list[TopLoss]:
    """List the rows with the highest loss, worst first, ties in the order of the rows.

    Args:
        logits: float32 of shape [n, num_classes], finite.
        labels: int32 of shape [n], each in [0, num_classes).
        config: Says how many are wanted.

    Returns:
        At most ``config.num_top_losses`` rows.

    Raises:
        TrainingError: The shapes do not fit together, or a logit is NaN or infinite.
        DatasetError: A label is not the index of a class.
    """
    scores = _score_rows(logits, labels)
    worst = np.argsort(-scores.loss, kind="stable")[: config.num_top_losses]
    return [
        TopLoss(
            position=int(row),
            label=int(labels[row]),
            predicted=int(scores.predicted[row]),
            probability_of_label=float(scores.probability_of_label[row]),
            predicted_probability=float(scores.confidence[row]),
            loss=float(scores.loss[row]),
        )
        for row in worst
    ]


def _score_rows(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> _RowScores:
    _check(logits, labels)
    num_rows = len(logits)
    scores = _RowScores(
        np.empty(num_rows, np.int64),
        np.empty(num_rows, np.int64),
        np.empty(num_rows),
        np.empty(num_rows),
        np.empty(num_rows),
    )
    for start in range(0, num_rows, CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        for whole, part in zip(scores, _score_chunk(logits[rows], labels[rows]), strict=True):
            whole[rows] = part
    return scores


def _score_chunk(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> _RowScores:
    picked = (np.arange(len(logits)), labels)
    of_label = logits[picked][:, np.newaxis]  # [rows, 1]
    before_label = np.arange(logits.shape[1]) < labels[:, np.newaxis]  # [rows, num_classes]
    outranks = (logits > of_label) | ((logits == of_label) & before_label)
    # Subtracting the largest logit keeps exp() from overflowing and leaves the softmax as it is.
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))  # [rows]
    log_probability = shifted[picked] - log_sum
    return _RowScores(
        predicted=logits.argmax(axis=1).astype(np.int64),
        label_rank=outranks.sum(axis=1),
        loss=np.maximum(-log_probability, 0.0),  # -0.0 would print a sign
        probability_of_label=np.exp(log_probability),
        confidence=np.exp(-log_sum),
    )


def _check(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> None:
    if logits.ndim != 2 or logits.shape[1] < 1 or labels.shape != logits.shape[:1]:
        raise TrainingError(
            "wrong shapes: expected logits [n, num_classes] and labels [n]",
            f"logits {logits.shape}, labels {labels.shape}",
            "pass one row of logits and one label for each image",
        )
    num_bad_rows = int((~np.isfinite(logits).all(axis=1)).sum())
    if num_bad_rows:
        raise TrainingError(
            "some logits are not finite numbers",
            f"NaN or infinity in {num_bad_rows:,} of {len(logits):,} rows",
            "the head diverged: lower head.learning_rate and train again",
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= logits.shape[1]))
    if wrong.size:
        raise DatasetError(
            f"a label is not the index of one of the {logits.shape[1]} classes",
            f"label {labels[wrong[0]]} in row {wrong[0]}",
            "evaluate on a data set with the classes that the head was trained on",
        )


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if values.size else None


def _bootstrap_interval(
    correct: NDArray[np.bool_], config: EvaluationConfig, units: Units = None
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean of 0/1 outcomes.

    The number of right answers in n draws with replacement from n outcomes is exactly
    Binomial(n, accuracy), so that a resample costs one draw rather than n.

    Where all outcomes are equal every resample is, too, and the interval would be a point however
    few they are; Wilson's is given there. Groups are drawn as a whole, and count as one each.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    num_images = correct.size
    if num_images == 0:
        return None
    if correct.all() or not correct.any():
        from scipy.stats import binomtest

        num_alike = num_images if units is None else len(np.unique(units))
        exact = binomtest(num_alike if correct.all() else 0, num_alike)
        low, high = exact.proportion_ci(config.confidence, method="wilson")
        return float(low), float(high)
    if units is not None:
        shares = bootstrap(
            num_images, 1, config, lambda counts: {"": counts @ correct / counts.sum(axis=1)}, units
        )
        return shares[""]
    draws = np.random.default_rng(config.seed).binomial(
        num_images, correct.mean(), size=config.num_bootstrap
    )
    outside = (1.0 - config.confidence) / 2.0
    low, high = np.quantile(draws / num_images, (outside, 1.0 - outside))
    return float(low), float(high)


def _class_metrics(
    confusion: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    hits, support, taken = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassMetrics(
            name=name,
            support=int(support[index]),
            precision=ratio(hits[index], taken[index]),
            recall=ratio(hits[index], support[index]),
            f1=ratio(2 * hits[index], support[index] + taken[index]),
        )
        for index, name in enumerate(class_names)
    )


def ratio(part: Any, whole: Any) -> float | None:
    """Divide counts; None where there is nothing to divide by."""
    return float(part / whole) if whole else None


def _calibration_bins(scores: _RowScores, num_bins: int) -> tuple[CalibrationBin, ...]:
    edges = np.arange(num_bins + 1) / num_bins
    # The first upper edge that is not below: bins are open on the left, closed on the right.
    # Rounding can lift a confidence of 1 a hair above the last edge.
    bins = np.minimum(np.searchsorted(edges[1:], scores.confidence), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    confidences = np.bincount(bins, weights=scores.confidence, minlength=num_bins)
    hits = np.bincount(bins, weights=scores.label_rank == 0, minlength=num_bins)
    return tuple(
        CalibrationBin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            count=int(count),
            confidence=float(confidences[index] / count) if count else None,
            accuracy=float(hits[index] / count) if count else None,
        )
        for index, count in enumerate(counts)
    )


def _expected_calibration_error(bins: Sequence[CalibrationBin], num_images: int) -> float | None:
    """Mean over all images of the gap between accuracy and confidence of their bin.

    Source: Guo, Pleiss, Sun & Weinberger, On Calibration of Modern Neural Networks, 2017,
    equation 3.
    """
    if num_images == 0:
        return None
    gaps = (
        one.count * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    )
    return sum(gaps) / num_images


def _most_confused(
    confusion: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[ConfusedPair, ...]:
    support = confusion.sum(axis=1)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    true, predicted = np.nonzero(wrong)
    counts = wrong[true, predicted]
    # Equal counts weigh more in a smaller class; what still ties stays in class order.
    order = np.lexsort((predicted, true, support[true], -counts))[:NUM_CONFUSED_PAIRS]
    return tuple(
        ConfusedPair(
            true=class_names[true[index]],
            predicted=class_names[predicted[index]],
            count=int(counts[index]),
            share=float(counts[index] / support[true[index]]),
        )
        for index in order
    )

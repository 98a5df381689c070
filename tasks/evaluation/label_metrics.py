"""Judge labels: average precision, F1, Hamming loss, and their intervals over images.

A figure that cannot be computed is None: the average precision of a label that no image has.
The tests hold every figure to scikit-learn's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import EvaluationConfig
from headstart.tasks.dataset.units import Units
from headstart.tasks.evaluation.metrics import Figures, ratio
from headstart.tasks.evaluation.resampling import Counts, bootstrap
from headstart.tasks.targets.labels import DEFAULT_THRESHOLD

Array = npt.NDArray[Any]
Interval = tuple[float, float]

NUM_PAIRS = 10
NUM_CURVE_POINTS = 60
"""Of a precision-recall curve in metrics.json."""


class LabelMetrics(Figures):
    """One label of a split."""

    name: str
    support: int
    """Images that have it."""
    threshold: float
    """Probability from which it is said."""
    average_precision: float | None
    average_precision_interval: Interval | None
    precision: float | None
    recall: float | None
    f1: float | None
    ece: float | None
    """Expected calibration error of its probability, in [0, 1]."""
    calibration: tuple[tuple[float, float, int], ...]
    """Mean probability, share that has it, and images, of each bin that has some."""
    curve: tuple[tuple[float, float], ...]
    """Recall and precision over all thresholds, from the highest."""


class ErrorPair(Figures):
    """Two labels, the first of which was missed where the second was said wrongly."""

    missed: str
    said: str
    count: int


class LabelFigures(Figures):
    """All figures of one split."""

    num_images: int
    mean_average_precision: float | None
    """Mean over the labels that some image has."""
    mean_average_precision_interval: Interval | None
    f1_micro: float | None
    f1_micro_interval: Interval | None
    f1_macro: float | None
    f1_macro_interval: Interval | None
    hamming_loss: float | None
    """Share of all decisions, a label an image, that are wrong."""
    hamming_loss_interval: Interval | None
    subset_accuracy: float | None
    """Share of the images whose labels are all right."""
    subset_accuracy_interval: Interval | None
    interval_confidence: float
    loss: float | None
    """Mean binary cross-entropy in nats, over images and labels."""
    per_label: tuple[LabelMetrics, ...]
    error_pairs: tuple[ErrorPair, ...]


def evaluate_labels(
    logits: Array,
    targets: Array,
    probabilities: Array,
    names: Sequence[str],
    thresholds: Sequence[float],
    config: EvaluationConfig,
    units: Units = None,
) -> LabelFigures:
    """Compute all figures of a split.

    Args:
        logits: float32 [n, labels]; for the loss.
        targets: uint8 [n, labels], 1 where an image has a label.
        probabilities: float [n, labels], in [0, 1].
        names: Name of each label.
        thresholds: Probability from which each label is said; one half where empty.
        config: Settings of the bootstrap and of the calibration bins.
        units: int64 [n]: images of one number belong together; None where each stands alone.
    """
    limits = np.array(thresholds or [DEFAULT_THRESHOLD] * len(names))
    said, truth = probabilities >= limits, targets > 0
    intervals = _intervals(probabilities, truth, said, config, units)
    precisions = [average_precision(probabilities[:, k], truth[:, k]) for k in range(len(names))]
    hits, wrong = said & truth, said != truth
    num_images = len(truth)
    x = logits.astype(np.float64)
    loss = np.logaddexp(0.0, x) - truth * x
    f1 = [ratio(2 * h, s + t) for h, s, t in
          zip(hits.sum(axis=0), said.sum(axis=0), truth.sum(axis=0), strict=True)]  # fmt: skip

    def mean(values: Any) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    def interval(name: str) -> Interval | None:
        return intervals[name]

    return LabelFigures(
        num_images=num_images,
        mean_average_precision=mean(precisions),
        mean_average_precision_interval=interval("mean_average_precision"),
        f1_micro=ratio(2 * hits.sum(), said.sum() + truth.sum()),
        f1_micro_interval=interval("f1_micro"),
        f1_macro=mean(f1),
        f1_macro_interval=interval("f1_macro"),
        hamming_loss=float(wrong.mean()) if wrong.size else None,
        hamming_loss_interval=interval("hamming_loss"),
        subset_accuracy=float((~wrong.any(axis=1)).mean()) if num_images else None,
        subset_accuracy_interval=interval("subset_accuracy"),
        interval_confidence=config.confidence,
        loss=float(loss.mean()) if loss.size else None,
        per_label=tuple(
            _label(name, probabilities[:, k], truth[:, k], said[:, k], float(limits[k]),
                   precisions[k], intervals[f"average_precision {k}"], config)
            for k, name in enumerate(names)
        ),
        error_pairs=_pairs(truth & ~said, said & ~truth, names),
    )  # fmt: skip


def average_precision(probabilities: Array, truth: Array) -> float | None:
    """Average the precision at each image that has the label, as scikit-learn does."""
    if not truth.any():
        return None
    value = _resampled_precision(probabilities, truth, np.ones((1, len(truth)), np.int64))[0]
    return float(value)


def worst_labels(logits: Array, targets: Array, said: Array, count: int) -> list[dict[str, Any]]:
    """List the rows with the highest loss: which labels were missed, and which said wrongly."""
    x = logits.astype(np.float64)
    losses = (np.logaddexp(0.0, x) - (targets > 0) * x).mean(axis=1)
    return [
        {
            "position": int(row),
            "loss": float(losses[row]),
            "missed": np.flatnonzero((targets[row] > 0) & ~said[row]).tolist(),
            "wrongly_said": np.flatnonzero((targets[row] == 0) & said[row]).tolist(),
        }
        for row in np.argsort(-losses, kind="stable")[:count]
    ]


def _resampled_precision(probabilities: Array, truth: Array, counts: Counts) -> Array:
    """Return the average precision of each resample; NaN where none of its images has the label."""
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    # Of equal probabilities none comes before another: they are counted where they end.
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    weights = counts[:, order]
    hits = np.cumsum(weights * truth[order], axis=1)[:, ends]
    seen = np.cumsum(weights, axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(seen > 0, hits / np.maximum(seen, 1), 0.0)
        return np.asarray((gained * precision).sum(axis=1) / hits[:, -1])


def _intervals(
    probabilities: Array,
    truth: Array,
    said: Array,
    config: EvaluationConfig,
    units: Units = None,
) -> dict[str, Interval | None]:
    num_images, num_labels = truth.shape
    hits, wrong = said & truth, said != truth

    def figures(counts: Counts) -> dict[str, Array]:
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = counts.sum(axis=1)
            right, claimed, real = (counts @ one.astype(np.int64) for one in (hits, said, truth))
            each = 2 * right / (claimed + real)
            found: dict[str, Array] = {
                "f1_micro": 2 * right.sum(axis=1) / (claimed + real).sum(axis=1),
                "f1_macro": _nanmean(each),
                "hamming_loss": counts @ wrong.sum(axis=1) / (drawn * max(1, num_labels)),
                "subset_accuracy": counts @ (~wrong.any(axis=1)) / drawn,
            }
        if not num_images:
            nothing = np.full(len(counts), np.nan)
            precisions = [nothing for _ in range(num_labels)]
        else:
            precisions = [
                _resampled_precision(probabilities[:, k], truth[:, k], counts)
                for k in range(num_labels)
            ]
        found |= {f"average_precision {k}": values for k, values in enumerate(precisions)}
        found["mean_average_precision"] = _nanmean(np.stack(precisions, axis=1))
        return found

    return bootstrap(num_images, num_labels, config, figures, units)


def _nanmean(values: Array) -> Array:
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _label(
    name: str,
    probabilities: Array,
    truth: Array,
    said: Array,
    threshold: float,
    precision: float | None,
    interval: Interval | None,
    config: EvaluationConfig,
) -> LabelMetrics:
    hits = int((said & truth).sum())
    bins = _bins(probabilities, truth, config.num_calibration_bins)
    gaps = sum(count * abs(share - confidence) for confidence, share, count in bins)
    return LabelMetrics(
        name=name,
        support=int(truth.sum()),
        threshold=threshold,
        average_precision=precision,
        average_precision_interval=interval,
        precision=ratio(hits, said.sum()),
        recall=ratio(hits, truth.sum()),
        f1=ratio(2 * hits, said.sum() + truth.sum()),
        ece=gaps / len(truth) if len(truth) else None,
        calibration=bins,
        curve=_curve(probabilities, truth),
    )


def _bins(
    probabilities: Array, truth: Array, num_bins: int
) -> tuple[tuple[float, float, int], ...]:
    places = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    return tuple(
        (float(probabilities[places == one].mean()), float(truth[places == one].mean()),
         int((places == one).sum()))
        for one in np.unique(places)
    )  # fmt: skip


def _curve(probabilities: Array, truth: Array) -> tuple[tuple[float, float], ...]:
    if not truth.any():
        return ()
    hits = np.cumsum(truth[np.argsort(-probabilities, kind="stable")])
    places = np.unique(np.linspace(0, len(hits) - 1, NUM_CURVE_POINTS, dtype=int))
    return tuple((float(hits[k] / hits[-1]), float(hits[k] / (k + 1))) for k in places)


def _pairs(missed: Array, added: Array, names: Sequence[str]) -> tuple[ErrorPair, ...]:
    together = missed.astype(np.int64).T @ added.astype(np.int64)
    order = np.argsort(-together, axis=None, kind="stable")[:NUM_PAIRS]
    rows, columns = np.unravel_index(order, together.shape)
    return tuple(
        ErrorPair(missed=names[first], said=names[second], count=int(together[first, second]))
        for first, second in zip(rows, columns, strict=True)
        if together[first, second]
    )

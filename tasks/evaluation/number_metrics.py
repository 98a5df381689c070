"""Judge numbers: errors in the user's unit, their intervals over images, and the coverage.

All stand beside the constant predictor, which says the mean of the training images each time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import EvaluationConfig
from headstart.tasks.dataset.units import Units
from headstart.tasks.evaluation.metrics import Figures
from headstart.tasks.evaluation.resampling import Counts, bootstrap
from headstart.tasks.targets.target import COVERAGE, Fit

NUMBERS_VERSION = 2
"""Bump by hand when figures of numbers change; a part of the keys of their evaluations."""

Array = npt.NDArray[Any]
Interval = tuple[float, float]


class _Errors(Figures):
    mae: float | None
    mae_interval: Interval | None
    rmse: float | None
    rmse_interval: Interval | None
    r2: float | None
    """None where the number is the same in all images."""
    r2_interval: Interval | None
    median_absolute_error: float | None
    median_absolute_error_interval: Interval | None
    constant_mae: float | None
    """Of the mean of the training images, said each time."""


class NumberMetrics(_Errors):
    """One number of a split."""

    name: str
    constant_rmse: float | None
    radius: float | None
    """Half the width of the interval that goes with each answer."""
    coverage: float | None
    """Share of the images whose number lies in it."""


class NumberFigures(_Errors):
    """All figures of one split; of several numbers their means."""

    num_images: int
    interval_confidence: float
    wanted_coverage: float
    """Of the intervals around the answers."""
    loss: float | None
    """Mean squared error of standardised numbers."""
    per_number: tuple[NumberMetrics, ...]


def evaluate_numbers(
    answers: Array,
    targets: Array,
    names: Sequence[str],
    fit: Fit,
    config: EvaluationConfig,
    units: Units = None,
) -> NumberFigures:
    """Compute all figures of a split.

    Args:
        answers: float64 [n, numbers], in the user's unit.
        targets: float64 [n, numbers], the true values in the same unit.
        names: Name of each number.
        fit: What the training found: scale and intervals.
        config: Settings of the bootstrap.
        units: int64 [n]: images of one number belong together; None where each stands alone.
    """
    per_number = tuple(
        _number(name, answers[:, k], targets[:, k], k, fit, config) for k, name in enumerate(names)
    )

    def mean(name: str) -> float | None:
        values = [getattr(one, name) for one in per_number]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    intervals = _intervals(answers, targets, config, units)
    standard = (answers - targets) / np.array(fit.scale)
    return NumberFigures(
        num_images=len(targets),
        mae=mean("mae"),
        mae_interval=intervals["mae"],
        rmse=mean("rmse"),
        rmse_interval=intervals["rmse"],
        r2=mean("r2"),
        r2_interval=intervals["r2"],
        median_absolute_error=mean("median_absolute_error"),
        median_absolute_error_interval=intervals["median_absolute_error"],
        constant_mae=mean("constant_mae"),
        interval_confidence=config.confidence,
        wanted_coverage=COVERAGE,
        loss=float((standard**2).mean()) if standard.size else None,
        per_number=per_number,
    )


def worst_numbers(answers: Array, targets: Array, fit: Fit, count: int) -> list[dict[str, Any]]:
    """List the rows that are furthest off, in deviations of the training images."""
    off = (np.abs(answers - targets) / np.array(fit.scale)).mean(axis=1)
    return [
        {
            "position": int(row),
            "loss": float(off[row]),
            "true": targets[row].tolist(),
            "predicted": answers[row].tolist(),
        }
        for row in np.argsort(-off, kind="stable")[:count]
    ]


def _number(
    name: str, answers: Array, targets: Array, column: int, fit: Fit, config: EvaluationConfig
) -> NumberMetrics:
    errors = answers - targets
    intervals = _intervals(answers[:, np.newaxis], targets[:, np.newaxis], config)
    varies = targets.size and np.ptp(targets) > 0  # a mean of equal numbers may be rounded
    spread = ((targets - targets.mean()) ** 2).sum() if varies else 0.0
    constant = targets - fit.offset[column]
    radius = fit.radius[column] if fit.radius else None

    def of(values: Array) -> float | None:
        return float(values.mean()) if values.size else None

    def root(values: Array) -> float | None:
        return float(np.sqrt((values**2).mean())) if values.size else None

    covered = None if radius is None else of(np.abs(errors) <= radius)
    return NumberMetrics(
        name=name,
        mae=of(np.abs(errors)),
        mae_interval=intervals["mae"],
        rmse=root(errors),
        rmse_interval=intervals["rmse"],
        r2=float(1 - (errors**2).sum() / spread) if spread > 0 else None,
        r2_interval=intervals["r2"],
        median_absolute_error=float(np.median(np.abs(errors))) if errors.size else None,
        median_absolute_error_interval=intervals["median_absolute_error"],
        constant_mae=of(np.abs(constant)),
        constant_rmse=root(constant),
        radius=radius,
        coverage=covered,
    )


def _intervals(
    answers: Array,
    targets: Array,
    config: EvaluationConfig,
    units: Units = None,
) -> dict[str, Interval | None]:
    errors = answers - targets
    off = np.abs(errors)
    order = np.argsort(off, axis=0)
    # Differences to the mean are what R2 is made of, and keep the sums of large numbers exact.
    centred = targets - targets.mean(axis=0) if len(targets) else targets
    varying = np.ptp(targets, axis=0) > 0 if len(targets) else np.zeros(targets.shape[1], bool)

    def figures(counts: Counts) -> dict[str, Array]:
        with np.errstate(invalid="ignore", divide="ignore"):
            total = counts.sum(axis=1)[:, np.newaxis]
            squares = counts @ errors**2
            spread = counts @ centred**2 - (counts @ centred) ** 2 / total
            r2 = np.where(spread > 0, 1 - squares / spread, np.nan)[:, varying]
            return {
                "mae": (counts @ off / total).mean(axis=1),
                "rmse": np.sqrt(squares / total).mean(axis=1),
                "r2": r2.mean(axis=1) if varying.any() else np.full(len(counts), np.nan),
                "median_absolute_error": _medians(off, order, counts),
            }

    return bootstrap(len(targets), max(1, answers.shape[1]), config, figures, units)


def _medians(off: Array, order: Array, counts: Counts) -> Array:
    """Return the mean over the numbers of the median error of each resample."""
    if not len(off):
        return np.full(len(counts), np.nan)
    middle = (counts.sum(axis=1) + 1) // 2
    medians = []
    for column in range(off.shape[1]):
        own = order[:, column]
        place = (np.cumsum(counts[:, own], axis=1) < middle[:, np.newaxis]).sum(axis=1)
        medians.append(off[own[np.minimum(place, len(own) - 1)], column])
    return np.asarray(np.mean(medians, axis=0))

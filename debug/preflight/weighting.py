"""Weights of classes and rows that make a common class still heavier."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Array, Facts

MIN_IMBALANCE = 2.0
"""Rows of the commonest class over those of the rarest."""
MIN_ROWS = 30
"""Rows of a batch that stand for all."""
MIN_RATIO = 1.2
"""Largest weight over the least."""
MANY_ROWS = 200
FEW_EFFECTIVE, FEW_SHARE = 20.0, 0.03
"""Rows that all weights together come to, and their share, up to which little is left."""
TINY = 1e-3
ALIKE = 0.05
"""Spread of weights over rows, from class to class, up to which these were made of those."""


def weights_with_counts(
    facts: Facts, given: Mapping[str, Any], counts: Mapping[int, int], batches: Any = ()
) -> list[Diagnosis]:
    """Find weights that rise with how common a class is.

    Args:
        facts: What is known of the training.
        given: What ``fit``, or ``train_on_batch``, was given, by name.
        counts: Rows of each class, as far as the training was seen; all targets count more.
        batches: Its last batches, which may hold weights.

    Returns:
        A finding, or none; certain where the weights are the counts themselves.
    """
    labels = _labels_of(facts.targets)
    if labels is not None and (facts.is_complete or (not counts and len(labels) >= MIN_ROWS)):
        counts = dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)),
                          strict=True))  # fmt: skip
    name, weights = "class_weight", given.get("class_weight")
    if not isinstance(weights, Mapping):
        name, weights = "sample_weight", _by_class(given.get("sample_weight"), labels)
    if not weights and (weighted := [one for one in batches if len(one) == 3]):
        y, rows = (np.concatenate([np.asarray(one[place]) for one in weighted])
                   for place in (1, 2))  # fmt: skip
        weights = _by_class(rows, _labels_of(y))
    numbers = {int(label): float(weight) for label, weight in (weights or {}).items()}
    found = judged_weights(numbers, counts)
    if not found:
        return []
    common, rare, is_certain = found
    return [
        Diagnosis(
            symptom="weights-favour-common-class",
            cause=f"{name} gives the commonest class {common} ({counts[common]} rows) the largest "
            f"weight ({numbers[common]:.3g}), and the rarest, {rare} ({counts[rare]} rows), the "
            f"least ({numbers[rare]:.3g}): weights rise with the counts, which makes the "
            "imbalance worse instead of correcting it.",
            phase="data",
            confidence=0.93 if is_certain else 0.85,
            suggestions=(
                "weigh by the inverse: len(y) / (num_classes * count), as sklearn's "
                "compute_class_weight('balanced', ...) does",
            ),
            evidence={"at": "weights", "is_certain": is_certain, "argument": name},
        )
    ]


def concentrated_weights(given: Mapping[str, Any]) -> list[Diagnosis]:
    """Find weights of rows of which a few hold nearly everything.

    Args:
        given: What ``fit`` was given, by name.

    Returns:
        A finding, or none.
    """
    weights = np.asarray(given.get("sample_weight"), dtype=np.float64).reshape(-1)
    weights = weights[weights != 0.0]  # an exact 0 masks a row on purpose
    if len(weights) < MANY_ROWS or not np.isfinite(weights).all() or not weights.any():
        return []
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    if effective > FEW_EFFECTIVE or effective > FEW_SHARE * len(weights):
        return []
    tiny = float((weights < TINY * weights.max()).mean())
    return [
        Diagnosis(
            symptom="weights-nearly-zero",
            cause=f"sample_weight leaves almost nothing of the data: {tiny:.0%} of the "
            f"{len(weights)} weighted rows have a weight of practically 0 (below a thousandth of "
            f"the largest), and all rows together weigh as much as {effective:.1f} rows. Only "
            "those few are learnt from.",
            phase="data",
            confidence=0.95,
            suggestions=(
                "let weights fall more slowly (exp(-age / 365) instead of exp(-age)), and print "
                "the sum of weights over their maximum",
            ),
            evidence={"argument": "sample_weight", "at": "weights", "is_certain": True},
        )
    ]


def judged_weights(
    weights: Mapping[int, float], counts: Mapping[int, int]
) -> tuple[int, int, bool] | None:
    """Judge the weights of classes by how common these are.

    Args:
        weights: Weight of each class.
        counts: Rows of each class.

    Returns:
        The commonest class, the rarest, and whether the weights are made of the counts; None
        where weights do not rise with them.
    """
    known = sorted((rows, label) for label, rows in counts.items() if rows and label in weights)
    if len(known) < 2 or known[-1][0] < MIN_IMBALANCE * known[0][0]:
        return None
    rows = np.array([number for number, _ in known], dtype=np.float64)
    heavy = np.array([weights[label] for _, label in known])
    if not (heavy > 0.0).all() or heavy[-1] < MIN_RATIO * heavy[0] or (np.diff(heavy) < 0.0).any():
        return None
    per_row = heavy / rows
    is_made = bool(np.ptp(per_row) <= ALIKE * per_row.mean())
    return known[-1][1], known[0][1], is_made


def _labels_of(y: Array | None) -> Array | None:
    if y is None or not len(y):
        return None
    if y.ndim == 2 and y.shape[1] > 1:
        return np.asarray(y.argmax(axis=1)) if (y.sum(axis=1) == 1).all() else None
    if y.size != len(y) or (y != np.rint(y)).any():
        return None
    return np.asarray(y.reshape(-1).astype(np.int64))


def _by_class(weights: Any, labels: Array | None) -> dict[int, float]:
    """Return the weight of each class, where all of its rows have the same."""
    if weights is None or labels is None or np.size(weights) != len(labels):
        return {}
    rows = np.asarray(weights, dtype=np.float64).reshape(-1)
    by_class = {int(label): rows[labels == label] for label in np.unique(labels)}
    if len(by_class) > 100 or any(np.ptp(part) > 1e-6 for part in by_class.values()):
        return {}
    return {label: float(part[0]) for label, part in by_class.items()}

"""Rows of the table of `outputs` about what the loss and the metrics take the targets for."""

import numpy as np

from headstart.debug.preflight.facts import Array, Facts
from headstart.debug.preflight.objectives import REGRESSIONS

SUM_TOLERANCE = 0.02
"""How far the sum of a distribution may be from 1."""
MIN_OFF = 0.5
"""Share of the rows that are further off from which on they are not meant as distributions."""
MAX_CLASSES = 50
"""Integer targets of more values than this are counts or measurements, not classes."""


def number_loss_for_classes(facts: Facts) -> str:
    """Say that classes are trained with a loss for numbers; empty where they are not."""
    y, name = values_of(facts), facts.activation
    if facts.family not in REGRESSIONS or y is None or name not in ("sigmoid", "softmax"):
        return ""
    if not np.isin(y, (0, 1)).all() or (y.size > len(y) and y.size != len(y) * facts.units):
        return ""
    if len(facts.inputs) == 1 and facts.inputs[0].shape == y.shape:
        return ""  # an autoencoder
    return (
        f"{facts.family} is a loss for numbers, but the targets are classes (0 and 1) and the "
        f"last layer is a {name}: where it is wrong and sure, hardly any gradient is left. A "
        "classification wants a cross-entropy."
    )


def no_distribution(facts: Facts) -> str:
    """Say that a divergence is taken of what is no distribution; empty where it is one."""
    y = facts.y
    if facts.family != "kl_divergence" or y is None or y.ndim < 2 or not np.isfinite(y).all():
        return ""
    sums = y.reshape(-1, y.shape[-1]).astype(np.float64).sum(axis=-1)
    sums = sums[sums != 0.0]  # rows of padding
    off = float((np.abs(sums - 1.0) > SUM_TOLERANCE).mean()) if sums.size else 0.0
    if off < MIN_OFF:
        return ""
    ends = f" (and the last layer ends in {facts.activation}, not in softmax)" if (
        facts.activation not in ("", "softmax")) else ""  # fmt: skip
    return (
        "The KL divergence (kl_divergence) compares probability distributions, but the targets are "
        f"none: their rows sum to {sums.min():.4g} to {sums.max():.4g} and not to 1{ends}. Such a "
        "loss goes below 0 and drives the outputs up."
    )


def classes_as_numbers(facts: Facts) -> str:
    """Say that class numbers are trained as a regression, with accuracy asked for."""
    y = values_of(facts)
    if facts.family not in REGRESSIONS or facts.units != 1 or y is None:
        return ""
    classes = classes_in(y)
    if not 2 <= len(classes) <= 20 or not _has_accuracy(facts):
        return ""
    return (
        f"The targets are {len(classes)} class numbers and accuracy is asked for, but the model "
        f"is one unit under {facts.family}, a regression: class 2 is not twice class 1."
    )


def accuracy_of_numbers(facts: Facts) -> str:
    """Say that accuracy is asked of a regression."""
    y = values_of(facts)
    if facts.family not in (*REGRESSIONS, "msle") or y is None or not _has_accuracy(facts):
        return ""
    if classes_in(y) or (
        float((y != np.rint(y)).mean()) < 0.1 and np.unique(y).size <= MAX_CLASSES
    ):
        return ""
    return (
        "The metric 'accuracy' counts answers that are exactly right, but this is a regression "
        f"({facts.family}) of targets from {y.min():.4g} to {y.max():.4g}: it stays near 0 "
        "however good the model is."
    )


def accuracy_on_logits(facts: Facts) -> str:
    """Say that accuracy cuts logits at 0.5."""
    if facts.family != "binary_crossentropy" or not facts.objective.from_logits:
        return ""
    for metric in _metrics(facts.model):
        threshold = getattr(metric, "threshold", getattr(metric, "_threshold", None))
        named = str(getattr(metric, "name", ""))
        if named in ("accuracy", "acc", "binary_accuracy") and threshold in (None, 0.5):
            return (
                f"The metric {named!r} cuts at 0.5, but the outputs are logits "
                "(from_logits=True), whose border is 0: it counts wrongly."
            )
    return ""


def _has_accuracy(facts: Facts) -> bool:
    return any("acc" in str(getattr(one, "name", "")).split("_") or
               "accuracy" in str(getattr(one, "name", "")) for one in
               _metrics(facts.model))  # fmt: skip


def _metrics(model: object) -> list[object]:
    found = []
    for metric in getattr(model, "metrics", []):
        found += [*getattr(metric, "metrics", []), metric]
    return found


def values_of(facts: Facts) -> Array | None:
    """Return the targets as numbers; None where they are not known or not finite."""
    y = facts.targets
    if y is None or y.size == 0 or not np.isfinite(y).all():
        return None
    return y.astype(np.float64)


def ends_frozen(facts: Facts) -> bool:
    """Tell whether the last layer with weights is frozen: its targets are asked of another part."""
    weighted = [use.layer for use in facts.uses if use.layer.weights]
    return bool(weighted) and not weighted[-1].trainable_variables


def classes_in(values: Array) -> list[int]:
    """The class numbers in targets of one column; empty where they are no class numbers."""
    if values.size != len(values):
        return []
    distinct = np.unique(values)
    if distinct.size > MAX_CLASSES or (distinct != np.rint(distinct)).any():
        return []
    return [int(value) for value in distinct]

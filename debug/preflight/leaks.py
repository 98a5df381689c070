"""What a training should not know: a target that stands among its own inputs."""

import itertools

import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Array, Facts
from headstart.debug.preflight.targets import classes_in

MIN_ROWS = 50
MAX_COLUMNS = 1000
MIN_CORRELATION = 0.995
"""Correlation of one column with the target from which on it is the target, nearly."""
OTHERS = 0.95
"""... where no other column comes near: neighbours in a series all do."""
SOME = 0.25
"""... and where some other column tells something too: else the one column is all there is to
learn, as in a made-up example."""
CLEAR = 10.0
"""Gap between two classes in one column, over its spread within them, from which on it was made
of the class..."""
OVERLAP = 1.0
"""... where no other column has even this much."""
SAME = 0.98
"""Share of the rows whose target is one entry of their own window from which on it is copied."""
MIN_VALUES = 10
"""Distinct targets before that means something."""
MAX_ENTRIES = 4000
RESTLESS = 0.5
"""Share of the steps at which a series must change: in one that stands still all entries agree."""
RELATED = 0.3
"""Correlation of neighbouring steps from which on a window is cut from a series."""


def leaking_column(facts: Facts) -> list[Diagnosis]:
    """Find a column that alone tells the target, as no other comes near to do.

    Args:
        facts: What is known of the training.

    Returns:
        A finding, or none.
    """
    y = facts.y
    if y is None or len(facts.inputs) != 1 or len(y) < MIN_ROWS:
        return []
    x = facts.inputs[0]
    copied = _copied_entry(x, y)
    if copied or x.ndim != 2 or not 2 <= x.shape[1] <= MAX_COLUMNS or x.dtype.kind not in "fiub":
        return copied
    x = x.astype(np.float64)
    labels = _labels_of(y, facts.family)
    if not np.isfinite(x).all() or len(x) != len(y):
        return []
    if labels is not None:
        place, how = _by_class(x, labels)
    else:
        place, how = _by_number(x, y)
    if place < 0:
        return []
    return [
        Diagnosis(
            symptom="target-leakage",
            cause=f"Column {place} of the inputs gives the target away (leakage): {how}. The model "
            "only has to copy it, and will be useless when the target is not known.",
            phase="data",
            severity="warning",
            confidence=0.9,
            suggestions=(
                "remove the target, and anything derived from it, from the inputs: "
                "x = table.drop(columns=[target])",
                "check for each column whether it is known before the target is",
            ),
            evidence={"column": place, "at": "fit"},
        )
    ]


def _copied_entry(x: Array, y: Array) -> list[Diagnosis]:
    """Find windows of a series that hold their own target, always at the same place."""
    windows = x[..., None] if x.ndim == 2 else x
    if windows.ndim != 3 or y.size != len(y) or len(y) != len(x) or x.dtype.kind not in "fiu":
        return []
    num_steps, num_values = windows.shape[1:]
    if num_steps < 2 or num_steps * num_values > MAX_ENTRIES or np.unique(y).size < MIN_VALUES:
        return []
    wanted = y.reshape(-1, 1, 1).astype(windows.dtype)
    shares = (windows == wanted).mean(axis=0)
    step, value = (int(place) for place in np.unravel_index(shares.argmax(), shares.shape))
    series = windows[:, :, value].astype(np.float64)
    if shares[step, value] < SAME or (series[:, 1:] != series[:, :-1]).mean() < RESTLESS:
        return []
    if x.ndim == 2 and not _are_alike(series):
        return []
    related = np.corrcoef(series[:, :-1].ravel(), series[:, 1:].ravel())[0, 1]
    if not related > RELATED:  # one number of several: a task of remembering, or a plain column
        return []
    place = f"entry {step} of {num_steps}" + (f", column {value}" if x.ndim == 3 else "")
    return [
        Diagnosis(
            symptom="target-leakage",
            cause=f"The target is one of the inputs: in {shares[step, value]:.0%} of the rows it "
            f"equals {place}, in the row's own window. The model only has to copy it, and "
            "forecasts nothing: the targets do not lie past the end of the window.",
            phase="data",
            severity="warning",
            confidence=0.95,
            suggestions=(
                "shift the targets by the length of the window: keras.utils."
                "timeseries_dataset_from_array(series[:-length], targets=series[length:], "
                "sequence_length=length)",
                "by hand: x = series[i : i + length], y = series[i + length]",
            ),
            evidence={"step": step, "column": value, "at": "fit"},
        )
    ]


def _are_alike(columns: Array) -> bool:
    """Tell whether columns may be steps of one series: of the same mean and spread."""
    means, spreads = columns.mean(axis=0), columns.std(axis=0)
    return bool(np.ptp(means) <= spreads.mean() and spreads.max() <= 2.0 * spreads.min())


def _labels_of(y: Array, family: str) -> Array | None:
    """Return the class of each row; None where the targets are numbers."""
    if y.ndim == 2 and y.shape[1] > 1:
        is_one_hot = np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
        return np.asarray(y.argmax(axis=1)) if is_one_hot else None
    if "crossentropy" in family or np.unique(y).size == 2:
        return np.asarray(y.reshape(-1)) if y.size == len(y) and classes_in(y) else None
    return None


def _by_class(x: Array, labels: Array) -> tuple[int, str]:
    classes = np.unique(labels)
    if classes.size < 2 or min(int((labels == one).sum()) for one in classes) < 2:
        return -1, ""
    gaps = np.zeros(x.shape[1])
    for column in range(x.shape[1]):
        parts = sorted((x[labels == one, column] for one in classes), key=np.mean)
        spread = max(float(part.std()) for part in parts)
        between = min(
            float(after.min() - before.max()) for before, after in itertools.pairwise(parts)
        )
        gaps[column] = between / max(spread, 1e-9) if between > 0.0 else 0.0
    place = int(gaps.argmax())
    others = np.delete(gaps, place)
    if gaps[place] < CLEAR or others.max() > OVERLAP:
        return -1, ""
    return place, "it has a value, or a narrow range of values, of its own for each class"


def _by_number(x: Array, y: Array) -> tuple[int, str]:
    if y.size != len(y) or np.unique(y).size < 10:
        return -1, ""
    values = y.reshape(-1).astype(np.float64)
    spreads = x.std(axis=0)
    if values.std() < 1e-12 or (spreads > 1e-12).sum() < 2:
        return -1, ""
    centred = (x - x.mean(axis=0)) * ((values - values.mean()) / values.std())[:, None]
    correlations = np.abs(centred.mean(axis=0) / np.maximum(spreads, 1e-12))
    place = int(correlations.argmax())
    second = float(np.delete(correlations, place).max())
    if correlations[place] < MIN_CORRELATION:
        return -1, ""
    # A copy is one however near the others come, but not where these are copies too.
    equal = (x == values[:, None]).mean(axis=0)
    is_copy = equal[place] >= SAME and np.delete(equal, place).max() < RESTLESS
    if second > OTHERS and not is_copy:
        return -1, ""
    if second < SOME + 2.0 / np.sqrt(len(y)):
        return -1, ""
    return place, f"its correlation with the target is {correlations[place]:.4f}"

"""Validation rows that were trained on: what they measure is memory.

Rows are copied before a split most often by upsampling a rare class. Rows of few distinct values
are alike by nature, and say nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Array
from headstart.debug.symptoms.overlaps import keys_of, looked_at

MIN_ROWS = 20
MAX_BYTES = 256 << 20
"""Size of the arrays up to which their rows are compared."""
MAX_BATCHES = 64
MAX_BATCH_BYTES = 4 << 20
"""Number and size of a validation set's batches up to which it is gone through."""
MIN_SHARED = 0.05
"""Share of the validation rows that are also training rows."""
VARIED = 0.5
"""Distinct values of a column, over distinct rows, from which on equal rows are no accident..."""
MIN_DISTINCT = 0.3
"""Share of the rows that must differ: of a few combinations of values all come again."""
MANY_VALUES = 16
"""... or distinct values within a typical row, of images and series."""


def shared_rows(given: Mapping[str, Any]) -> list[Diagnosis]:
    """Find validation rows that are copies of training rows.

    Args:
        given: What ``fit`` was given, by name.

    Returns:
        A finding, or none; advice where the validation data are the training data.
    """
    parts = parts_of(given)
    if parts is None:
        return []
    trained, held_out = parts
    if trained.shape[1:] != held_out.shape[1:] or min(len(trained), len(held_out)) < MIN_ROWS:
        return []
    if not is_varied(trained):
        return []
    known = set(_keys(trained, trained.dtype))
    keys = _keys(held_out, trained.dtype)
    share = sum(key in known for key in keys) / len(keys)
    if share <= MIN_SHARED:
        return []
    is_all = share == 1.0 and len(known) > VARIED * len(trained)
    return [_finding(share, len(keys), is_all, len(trained) - len(known))]


def shared_with_stream(
    rows: Collection[int], batches: Sequence[Any], given: Mapping[str, Any]
) -> list[Diagnosis]:
    """Find validation rows, of a data set, that are copies of rows that were trained on.

    Args:
        rows: What the rows that were trained on are known by (`overlaps.keys_of`).
        batches: The last batches of the training.
        given: What ``fit`` was given, by name.

    Returns:
        As `shared_rows`.
    """
    held_out: Any = given.get("validation_data")
    if not rows or not batches or not hasattr(held_out, "cardinality"):
        return []
    if not 0 < int(held_out.cardinality()) <= MAX_BATCHES or not is_varied(_first(batches[-1])):
        return []  # endless, or made by Python: going through it again may not be harmless
    num_rows = num_shared = 0
    for batch in held_out:
        some = _first(batch)
        if some.ndim < 2 or some.nbytes > MAX_BATCH_BYTES:
            return []
        num_rows += len(some)
        num_shared += sum(
            key in rows and np.unique(row).size >= min(MANY_VALUES, len(row)) // 2
            for key, row in zip(keys_of(some), looked_at(some), strict=True)
        )
    if num_rows < MIN_ROWS or num_shared <= MIN_SHARED * num_rows:
        return []
    return [_finding(num_shared / num_rows, num_rows, num_shared == num_rows)]


def _first(batch: Any) -> Array:
    """Return the first input of a batch."""
    import keras

    x = keras.tree.flatten(keras.utils.unpack_x_y_sample_weight(batch)[0])
    return np.asarray(x[0])


def _finding(share: float, num_rows: int, is_all: bool, num_copies: int = 0) -> Diagnosis:
    copies = f", and {num_copies} of the training rows are copies of others" if num_copies else ""
    return Diagnosis(
        symptom="validation-on-training-rows",
        cause=(
            f"All {num_rows} validation rows are also training rows: validation says nothing "
            "about rows that the model has not seen, and cannot show overfitting."
            if is_all
            else f"{share:.0%} of the {num_rows} validation rows are exact copies of training "
            f"rows{copies}: rows were copied (upsampled) before they were split. The validation "
            "figures are too optimistic."
        ),
        phase="data",
        severity="advice" if is_all else "warning",
        confidence=0.9,
        suggestions=("hold rows out: validation_split=0.2, or train_test_split",)
        if is_all
        else (
            "split first, then upsample the training part alone",
            "or leave the rows as they are, and use class_weight",
        ),
        evidence={"share": share, "at": "fit", "is_told_anyway": True},
    )


def parts_of(given: Mapping[str, Any]) -> tuple[Array, Array] | None:
    """Return the rows that a ``fit`` trains on and those that it holds out, where both are arrays.

    Args:
        given: What ``fit`` was given, by name.
    """
    x, held_out, split = given.get("x"), given.get("validation_data"), given.get("validation_split")
    if getattr(x, "nbytes", 0) > MAX_BYTES:  # on a disk, perhaps
        return None
    if isinstance(held_out, tuple | list) and held_out:
        pair = (x, held_out[0])
    elif split and held_out is None and x is not None and hasattr(x, "__len__"):
        first = int(len(x) * (1.0 - float(split)))
        pair = (x[:first], x[first:])
    else:
        return None
    if not all(hasattr(part, "dtype") or hasattr(part, "iloc") for part in pair):
        return None
    trained, others = np.asarray(pair[0]), np.asarray(pair[1])
    if any(part.dtype.kind not in "fiu" or part.ndim < 2 for part in (trained, others)):
        return None
    return None if trained.nbytes + others.nbytes > MAX_BYTES else (trained, others)


def _keys(rows: Array, dtype: Any) -> list[int]:
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1), dtype=dtype)
    return [hash(row.tobytes()) for row in flat]


def is_varied(rows: Array) -> bool:
    """Tell whether rows differ so much by nature that equal ones are copies.

    Args:
        rows: Some rows.
    """
    flat = rows.reshape(len(rows), -1)[:2000]
    if rows.ndim > 2:
        return float(np.median([np.unique(row).size for row in flat[:200]])) >= MANY_VALUES
    if rows.dtype.kind != "f":
        return False
    num_rows = len(np.unique(flat, axis=0))
    return num_rows >= MIN_DISTINCT * len(flat) and any(
        np.unique(column).size >= VARIED * num_rows and (column != np.rint(column)).any()
        for column in flat.T[:200]
    )

"""Batches that are shifted by a row or two instead of by a batch: ``x[i:i + n]`` for ``x[i * n:]``.

A few bytes of each row tell which rows a batch shares with an earlier one. Rows that come again in
another order, or a whole epoch later, are no overlap.
"""

from collections.abc import Mapping
from types import CodeType
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, is_users, locals_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.syntax import sliding_slices, yields

MAX_BYTES = 1024
"""Looked at of each row."""
MAX_ROWS = 50_000
MIN_BATCHES = 8
MIN_ROWS = 4
"""Rows of a batch before a shift can be told from chance."""
DISTINCT = 0.9
"""Share of a batch's rows that must differ from one another: coarse data repeat by nature."""
MOST = 0.5
"""Share of the steps whose batch is an earlier one, shifted."""
FEW_MORE = 0.1
"""How far the number of distinct rows may be from what a shift by one row a batch gives."""
MIN_MORE = 2.0
"""Rows at hand over rows fed from which on most of the data are left out."""
MAX_PARTS = 8
"""Arrays of a list or a dictionary that are looked at."""


class Overlaps:
    """Which rows of the batches of one training were in earlier batches, and where."""

    def __init__(self) -> None:
        self.num_steps = 0
        self.rows_at_hand = 0
        self.rows: set[int] = set()
        self._num_shifted = 0
        self._num_rows = 0
        self._batches: dict[tuple[int, ...], None] = {}
        self._last: dict[int, tuple[tuple[int, ...], int]] = {}
        self._followers: set[int] = set()

    @property
    def num_rows(self) -> int:
        """Distinct rows that were fed."""
        return len(self._last)

    @property
    def num_batches(self) -> int:
        """Distinct batches."""
        return len(self._batches)

    def on_batch(self, x: Any) -> None:
        """Note the batch of a step."""
        if len(x) < MIN_ROWS or len(self.rows) > MAX_ROWS:
            return
        keys = keys_of(np.asarray(x))
        self.rows.update(keys)
        if len(set(keys)) < DISTINCT * len(x):
            return
        self.num_steps += 1
        self._num_rows = max(self._num_rows, len(keys))
        self._num_shifted += self._is_shifted(keys)
        self._batches[keys] = None
        self._followers.update(keys[1:])
        self._last.update({key: (keys, place) for place, key in enumerate(keys)})

    def _is_shifted(self, keys: tuple[int, ...]) -> bool:
        """Tell whether at least half of a batch stands in an earlier one, in order, elsewhere."""
        middle = len(keys) // 2
        earlier, place = self._last.get(keys[middle], ((), 0))
        shift = place - middle
        if not earlier or not shift:
            return False
        ours = keys[max(0, -shift) : len(earlier) - shift]
        theirs = earlier[max(0, shift) : max(0, shift) + len(ours)]
        return ours[: len(theirs)] == theirs

    def note_rows_at_hand(self, num_rows: int) -> None:
        """Note how many rows there are to train on."""
        self.rows_at_hand = max(self.rows_at_hand, num_rows)

    def diagnoses(self, site: CallSite | None) -> list[Diagnosis]:
        """Return what was found.

        Args:
            site: The user's line to name.
        """
        if self.num_batches < MIN_BATCHES or self._num_shifted < MOST * self.num_steps:
            return []
        # Data gone through again and again, in batches that do not come out even, close a circle.
        if all(key in self._followers for key in self._last):
            return []
        by_one = self.num_batches + self._num_rows - 1
        if abs(self.num_rows - by_one) > FEW_MORE * by_one:
            return []
        leaves_out = self.rows_at_hand >= MIN_MORE * self.num_rows
        of_all = f" of {self.rows_at_hand}" if leaves_out else ""
        return [
            Diagnosis(
                symptom="overlapping-batches",
                cause=f"Batches overlap: each is an earlier one shifted by one row, so "
                f"{self.num_batches} batches of {self._num_rows} rows hold only {self.num_rows} "
                f"different rows{of_all}, each many times over. The index counts batches but is "
                "used as if it counted rows; the rest of the data is never seen.",
                phase="data",
                confidence=0.97,
                suggestions=("x[i * batch_size : (i + 1) * batch_size], and y alike",),
                evidence={"rows": self.num_rows, "batches": self.num_batches,
                          "is_told_anyway": leaves_out},
            ).at(site)
        ]  # fmt: skip


def rows_held(source: Any, row_shape: tuple[int, ...]) -> list[int]:
    """Return how many rows the arrays have that a ``fit`` is fed from, as far as that shows them.

    Args:
        source: A ``PyDataset`` or a generator; the globals that it reads count too.
        row_shape: Shape of a row.

    Returns:
        The rows of each array of such rows.
    """
    code, held = _code_of(source), [_held(source)]
    if code is not None:
        frame = getattr(source, "gi_frame", None)
        known = getattr(type(source), "__getitem__", None) if frame is None else frame
        names = getattr(known, "f_globals", None) or getattr(known, "__globals__", {})
        held.append({name: names[name] for name in code.co_names if name in names})
    values = [value for one in held for value in one.values()]
    values += [part for value in values for part in _parts(value)]
    shapes = [value.shape for value in values if isinstance(value, np.ndarray)]
    return [shape[0] for shape in shapes if shape and shape[1:] == row_shape]


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return list(value[:MAX_PARTS]) if isinstance(value, list | tuple) else []


def _held(source: Any) -> Mapping[str, Any]:
    frame = getattr(source, "gi_frame", None)
    if frame is not None:
        return locals_of(frame)
    return getattr(source, "__dict__", {}) if hasattr(source, "__getitem__") else {}


def _code_of(source: Any) -> CodeType | None:
    """Return the code of the user's that makes the batches."""
    code = getattr(source, "gi_code", None)
    if code is None:
        code = getattr(getattr(type(source), "__getitem__", None), "__code__", None)
    return code if code is not None and is_users(code.co_filename) else None


def line_of_batches(source: Any) -> CallSite | None:
    """Return where a program's own data set, or generator, takes a batch from its rows.

    Args:
        source: What a ``fit`` was given.
    """
    code = _code_of(source)
    if code is None:
        return None
    last = max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)
    lines = sliding_slices(code.co_filename, code.co_firstlineno, last)
    lines = lines or yields(code.co_filename, code.co_firstlineno, last)
    return CallSite(code.co_filename, (lines or [code.co_firstlineno])[0])


def line_of_slice(site: CallSite | None) -> CallSite | None:
    """Return the last slice that slides with an index, up to the line that trains on it.

    Args:
        site: The user's line that trains.
    """
    lines = sliding_slices(site.file, 1, site.line) if site is not None else []
    return CallSite(site.file, lines[-1]) if site is not None and lines else site


def looked_at(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return some values of each row, spread evenly over it: all of them where it is short.

    Args:
        rows: A batch of numbers.
    """
    flat = rows.reshape(len(rows), -1)
    apart = -(-flat.shape[1] * rows.itemsize // MAX_BYTES) or 1
    return np.ascontiguousarray(flat[:, ::apart])


def keys_of(rows: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """Return a number for each row, equal for equal rows; nothing of what is no number."""
    if rows.dtype.kind not in "fiub":
        return ()
    return tuple(hash(row.tobytes()) for row in looked_at(rows))

"""Rows that come again with another label: inputs and labels are shuffled apart between epochs."""

from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.syntax import lone_shuffles
from headstart.debug.symptoms.overlaps import keys_of

MAX_ROWS = 20_000
MIN_AGAIN = 50
"""Rows that come again before it means something."""
MOST = 0.4
"""Share of these with another label: nine of ten classes differ by chance, one of two."""


MIN_DISTINCT = 0.9
"""Share of the rows below which the same row may well have several labels: words with their
neighbours, windows of a series that has few values."""


def has_equal_rows(x: Any) -> bool:
    """Tell whether an array has many rows that are equal."""
    if not isinstance(x, np.ndarray) or not len(x):
        return False
    keys = keys_of(x[:MAX_ROWS])
    return len(set(keys)) < MIN_DISTINCT * len(keys)


class Pairs:
    """Which label each row of one training had."""

    def __init__(self) -> None:
        self._labels: dict[int, int] = {}
        self._num_again = 0
        self._num_changed = 0
        self._is_off = False

    def on_batch(self, x: Any, labels: Any) -> None:
        """Note the rows of a step with their classes.

        Args:
            x: The first input.
            labels: Class numbers, one a row.
        """
        if self._is_off:
            return
        known, seen = self._labels, set()
        for key, label in zip(keys_of(np.asarray(x)), labels.tolist(), strict=False):
            if key in seen or (key not in known and len(known) >= MAX_ROWS):
                continue
            seen.add(key)
            if key in known:
                self._num_again += 1
                self._num_changed += known[key] != label
            known[key] = label
        # Equal rows within one batch are coarse: they may well have several labels.
        self._is_off = len(seen) < MIN_DISTINCT * len(labels) and len(known) < MAX_ROWS

    def diagnoses(self, site: CallSite | None) -> list[Diagnosis]:
        """Return a finding, or none; call it when the training has ended.

        Args:
            site: The user's line that trains.
        """
        if self._is_off or self._num_again < MIN_AGAIN:
            return []
        share = self._num_changed / self._num_again
        if share < MOST:
            return []
        lines = lone_shuffles(site.file) if site is not None else []
        place = CallSite(site.file, lines[0]) if site is not None and len(lines) == 1 else site
        return [
            Diagnosis(
                symptom="shuffled-apart",
                cause=f"{share:.0%} of the rows seen more than once came back with a different "
                "label: inputs and labels are shuffled apart (only one of the two is shuffled), so "
                "labels no longer belong to their inputs.",
                phase="data",
                confidence=0.96,
                suggestions=(
                    "shuffle both in the same order: order = np.random.permutation(len(x)); "
                    "x, y = x[order], y[order]",
                ),
                evidence={"again": self._num_again, "changed": self._num_changed},
            ).at(place)
        ]

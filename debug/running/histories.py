"""Values of a number over a training of any length, in a bounded list."""

from collections import defaultdict, deque
from typing import Any

import numpy as np

NUM_LATEST = 100
"""Latest values that are all kept: what led to an end stands there."""


class History:
    """Keeps the values of a number: every one at first, every second, fourth, ... of a long run.

    Args:
        most: Values that are kept, besides the latest.
        num_latest: The latest of which every one is kept.
    """

    def __init__(self, most: int = 10_000, num_latest: int = NUM_LATEST) -> None:
        self.num_seen = 0
        self._most = most
        self._every = 1
        self._even: list[float] = []
        self._latest: deque[float] = deque(maxlen=num_latest)

    def append(self, value: float) -> None:
        """Note the next value."""
        if self.num_seen % self._every == 0:
            if len(self._even) == self._most:
                self._even = self._even[::2]
                self._every *= 2
            if self.num_seen % self._every == 0:
                self._even.append(value)
        self._latest.append(value)
        self.num_seen += 1

    @property
    def values(self) -> list[float]:
        """What is kept, in order."""
        before = self.num_seen - len(self._latest)
        return [*self._even[: -(-before // self._every)], *self._latest]


class Histories:
    """The history of each number of a program, by its name."""

    def __init__(self) -> None:
        self._of: dict[str, History] = defaultdict(History)

    def note(self, name: str, value: float) -> int:
        """Note a value, and return how many of that name there were."""
        self._of[name].append(value)
        return self._of[name].num_seen

    @property
    def values(self) -> dict[str, list[float]]:
        """What is kept, by name."""
        return {name: history.values for name, history in self._of.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Values that were noted, by name."""
        return {name: history.num_seen for name, history in self._of.items()}


def numbers_in(values: Any) -> list[float]:
    """Return the single numbers in a structure of tensors.

    Args:
        values: Tensors, and what else a step may return.
    """
    import tensorflow as tf

    return [
        float(np.asarray(tensor).reshape(()))
        for tensor in tf.nest.flatten(values)
        if isinstance(tensor, tf.Tensor)
        and tensor.dtype.is_floating
        and tensor.shape.num_elements() == 1
    ]

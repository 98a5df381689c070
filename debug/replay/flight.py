"""What a flight recorder holds of a training run, and a crash bundle is written from."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Snapshot:
    """The state of a training run before a step.

    Args:
        step: The step, counted from 0 since the recorder was armed.
        variables: Weights, optimizer and metric state there was.
        values: Their values, as immutable tensors.
        python_random: State of Python's random module.
        numpy_random: State of NumPy's legacy generator.
        tf_generator: State of TensorFlow's global generator, int64; None where there is none.
    """

    step: int
    variables: tuple[Any, ...]
    values: tuple[Any, ...]
    python_random: tuple[Any, ...]
    numpy_random: dict[str, Any]
    tf_generator: Any


@dataclass
class Flight:
    """What a recorder holds.

    Args:
        snapshots: The last two, older first.
        batches: Step and batch, oldest first.
        losses: Logged loss by step.
        step: The last step begun.
    """

    snapshots: deque[Snapshot] = field(default_factory=lambda: deque(maxlen=2))
    batches: deque[tuple[int, Any]] = field(default_factory=deque)
    losses: dict[int, float] = field(default_factory=dict)
    step: int = -1

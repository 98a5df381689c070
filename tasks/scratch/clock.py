"""How far a training is: by its steps, or by the clock of its budget."""

import time
from typing import Any, Protocol

import keras

from headstart.config import ScratchTrainingConfig
from headstart.tasks.scratch.one_cycle import CycledSGD, cycle_point

SMOOTHING = 0.2
"""Weight of the latest step in the running mean of a step's seconds."""


class Clock(Protocol):
    """Says how far a training is."""

    def start(self) -> None:
        """Begin to count."""

    def share(self) -> float:
        """Return the share of the training that is done, in [0, 1]."""

    def step_done(self) -> bool:
        """Count a step; return whether it was the last."""


class StepClock:
    """Counts steps: the same training on any machine."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._done = 0

    def start(self) -> None:
        """Begin to count."""
        self._done = 0

    def share(self) -> float:
        """Return the share of the steps that are done."""
        return self._done / self._num_steps

    def step_done(self) -> bool:
        """Count a step."""
        self._done += 1
        return self._done >= self._num_steps


class BudgetClock:
    """Counts seconds: a training that ends on time, annealed, however fast the machine runs.

    The share is that of the time, so a machine that slows down half-way takes fewer steps, each
    further along the cycle. The last step is the one after which another would end too late.

    Args:
        budget_s: Seconds from the first step's begin to the last one's end.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._started_s = self._last_s = 0.0
        self._step_s: float | None = None
        self.num_steps = 0

    def start(self) -> None:
        """Begin to count."""
        self._started_s = self._last_s = time.monotonic()
        self._step_s, self.num_steps = None, 0

    def share(self) -> float:
        """Return the share of the seconds that have gone by."""
        elapsed_s = time.monotonic() - self._started_s
        return min(1.0, elapsed_s / self._budget_s)

    def step_done(self) -> bool:
        """Count a step."""
        now_s = time.monotonic()
        step_s = now_s - self._last_s
        self._last_s = now_s
        self.num_steps += 1
        # The first step also builds the graph, and says nothing of the others.
        if self.num_steps > 1:
            old_s = self._step_s if self._step_s is not None else step_s
            self._step_s = old_s + SMOOTHING * (step_s - old_s)
        return now_s - self._started_s + (self._step_s or 0.0) > self._budget_s


class Annealing(keras.callbacks.Callback):  # type: ignore[misc]
    """Sets learning rate and momentum before each step, and ends the training after the last.

    Args:
        optimizer: The one that steps, inside a loss scaling where there is one.
        config: Peak, warm-up and final values of the cycle.
        clock: How far the training is.

    Attributes:
        final_share: Share of the training that was done when the last step was made.
    """

    def __init__(self, optimizer: CycledSGD, config: ScratchTrainingConfig, clock: Clock) -> None:
        super().__init__()
        self._optimizer, self._config, self._clock = optimizer, config, clock
        self.final_share = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._clock.start()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move along the cycle."""
        self.final_share = self._clock.share()
        point = cycle_point(self.final_share, self._config)
        self._optimizer.learning_rate.assign(point.learning_rate)
        self._optimizer.momentum.assign(point.momentum)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step."""
        if self._clock.step_done():
            self.model.stop_training = True

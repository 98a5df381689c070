"""What fits into a time budget: the machine's first steps are timed, width and epochs chosen."""

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from headstart.errors import ConfigError

WIDTHS = (0.125, 0.1875, 0.25, 0.375, 0.5, 0.75, 1.0)
"""Widths that are tried, narrow ones first."""
WANTED_EPOCHS = 20
"""The widest network with at least this many epochs is taken. A rule of thumb, near the 24 epochs
of the published recipe; where width and epochs are best traded was not measured."""
MOST_MEASURING = 0.08
"""Share of the budget that measuring may take."""
NUM_TIMED_STEPS = 5
EVALUATION_STEPS = 1 / 3
"""A forward pass in steps of training: backward costs about twice the forward."""


class Timing(NamedTuple):
    """How fast one width trains.

    Attributes:
        width: Factor of the channels.
        step_s: Median seconds of a step.
        epochs: Number of epochs that fit into the rest of the budget.
    """

    width: float
    step_s: float
    epochs: float


class Choice(NamedTuple):
    """What was chosen, and why.

    Attributes:
        width: Factor of the channels.
        epochs: Number of epochs expected to fit; the clock has the last word.
        training_s: Seconds left for the training itself.
        measured_s: Seconds that measuring took.
        timings: What was measured of each width tried.
        reason: Why this width, in words.
    """

    width: float
    epochs: float
    training_s: float
    measured_s: float
    timings: tuple[Timing, ...]
    reason: str


def choose(
    budget_s: float,
    widths: tuple[float, ...],
    steps_an_epoch: int,
    evaluation_batches: float,
    time_steps: Callable[[float], float],
) -> Choice:
    """Choose the width and the epochs that a budget allows.

    Args:
        budget_s: Seconds for measuring, training and judging the test images.
        widths: To choose from, ascending; one leaves only the epochs to find out.
        steps_an_epoch: Steps of an epoch.
        evaluation_batches: Images judged in the end, in batches as large as a step's.
        time_steps: Trains some steps of a width and returns the seconds of one.

    Raises:
        ConfigError: Measuring and judging leave nothing of the budget.
    """
    started_s = time.monotonic()
    timings: list[Timing] = []
    for width in widths:
        step_s = time_steps(width)
        measured_s = time.monotonic() - started_s
        left_s = budget_s - measured_s - EVALUATION_STEPS * evaluation_batches * step_s
        epochs = max(0.0, left_s) / (step_s * steps_an_epoch)
        timings.append(Timing(width, step_s, epochs))
        if epochs < WANTED_EPOCHS or measured_s > MOST_MEASURING * budget_s:
            break
    enough = [timing for timing in timings if timing.epochs >= WANTED_EPOCHS]
    chosen = enough[-1] if enough else timings[0]
    measured_s = time.monotonic() - started_s
    reserve_s = EVALUATION_STEPS * evaluation_batches * chosen.step_s
    training_s = budget_s - measured_s - reserve_s
    # The training builds its graph once more, which is most of what timing a width takes.
    if training_s < max(chosen.step_s, measured_s / len(timings)):
        raise ConfigError(
            "the time budget leaves no time for training, after timing the machine's first steps "
            "and evaluating the test images",
            f"{budget_s:g} s, of which they take {measured_s + reserve_s:.1f} s",
            f"give more time: --budget-s {math.ceil(10 * (measured_s + reserve_s))}",
        )
    epochs = training_s / (chosen.step_s * steps_an_epoch)
    return Choice(
        chosen.width,
        epochs,
        training_s,
        measured_s,
        tuple(timings),
        _explain(chosen, timings, widths, training_s, epochs),
    )


def time_call(step: Callable[[], object]) -> float:
    """Return the median seconds of a training step, after a first one that builds the graph."""
    step()
    seconds = []
    for _ in range(NUM_TIMED_STEPS):
        started_s = time.monotonic()
        step()
        seconds.append(time.monotonic() - started_s)
    return statistics.median(seconds)


def _explain(
    chosen: Timing,
    timings: list[Timing],
    widths: tuple[float, ...],
    training_s: float,
    epochs: float,
) -> str:
    text = (
        f"width {chosen.width:g}: {1000 * chosen.step_s:.0f} ms per training step, so about "
        f"{epochs:.1f} epochs in {training_s:.0f} s"
    )
    wider = [timing for timing in timings if timing.width > chosen.width]
    if len(widths) == 1:
        return text
    if wider:
        return f"{text}; width {wider[0].width:g} would get {wider[0].epochs:.1f}"
    if chosen.epochs < WANTED_EPOCHS:
        return f"{text}; the narrowest, as {WANTED_EPOCHS} epochs do not fit"
    return f"{text}; the widest that was tried"

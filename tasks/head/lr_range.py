"""The learning-rate range test: the rate rises from step to step until the loss breaks away.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3,
https://arxiv.org/abs/1506.01186; with an exponential rise and a smoothed loss as in Gugger's
"How Do You Find A Good Learning Rate", 2018.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from headstart.errors import TrainingError
from headstart.tasks.progress import reporter

PICTURE_NAME = "range_test.png"
LOG_NAME = "tensorboard"
RATES, ADAM_RATES = (1e-4, 10.0), (1e-5, 1.0)
"""Lowest and highest rate that is passed through; Adam's steps are normalised, and so larger."""
SMOOTHING = 0.95
"""Weight of the past in the smoothed loss, at each step (bias-corrected)."""
BREAK_AWAY = 3.0
"""The test ends where the smoothed loss is this many times its lowest."""
FALLING_SHARE = 0.25
"""The suggestion is where the loss is lowest times this: the lowest loss itself is on the brink.
A rule of thumb."""
MOST = 0.75
"""Share of the loss's fall at the highest rate that is suggested for a new head: a dense layer
bears rates for a hundred steps that it does not bear for its whole training. At half of the fall
the rates were 9 to 12 times below the best of a grid (docs/finetuning.md)."""
NEARLY_ALL = 0.9
"""Share of the loss's fall by which a rate has shown that it trains. Where the loss never breaks
away, as with batch normalisation, whose layers forgive any scale, its lowest place is on a long
flat stretch and says nothing: there the lowest rate that reached this share is suggested."""


class RangeTest(NamedTuple):
    """What a range test saw.

    Attributes:
        rates: Learning rate of each step, rising.
        losses: Smoothed loss after it.
        suggested: Learning rate to train with.
        broke_away: Whether the loss broke away before the highest rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float
    broke_away: bool


def trainer(model: Any, optimizer: Any, batches: Iterable[Any]) -> Callable[[float], float]:
    """Return what makes one training step at a rate, and gives its loss.

    Args:
        model: A compiled model; its weights are spoilt by it.
        optimizer: The model's own, whose learning rate is a number.
        batches: Endless: what `train_on_batch` takes.
    """
    following = iter(batches)

    def step(rate: float) -> float:
        optimizer.learning_rate.assign(rate)
        model.reset_metrics()  # else Keras's loss is the mean since the first step
        return float(model.train_on_batch(*next(following))[0])

    return step


def range_test(
    step: Callable[[float], float],
    num_steps: int,
    rates_between: tuple[float, float] = RATES,
    fallen: float | None = None,
) -> RangeTest:
    """Train with a rising rate.

    Args:
        step: Trains one step at a rate and returns its loss; made by `trainer`.
        num_steps: Steps from the lowest to the highest rate.
        rates_between: Lowest and highest rate.
        fallen: Share of the loss's fall beyond whose rate none is suggested.

    Raises:
        TrainingError: The loss was not a finite number at the first steps already.
    """
    rates: list[float] = []
    losses: list[float] = []
    broke_away = False
    with reporter().track("range test", num_steps, "steps") as advance:
        for rate, loss in _smoothed(step, num_steps, rates_between):
            if not math.isfinite(loss) or (losses and loss > BREAK_AWAY * min(losses)):
                broke_away = True
                break
            rates.append(rate)
            losses.append(loss)
            advance(1)
    if len(rates) < 2:
        raise TrainingError(
            "the loss is not a finite number even at the lowest learning rates",
            f"not finite at {rates_between[0]:g}",
            "check the data, or run `headstart debug`",
        )
    suggested = suggest(rates, losses, broke_away, fallen)
    return RangeTest(tuple(rates), tuple(losses), suggested, broke_away)


def suggest(
    rates: list[float], losses: list[float], broke_away: bool, fallen: float | None = None
) -> float:
    """Suggest a rate: a share of that at which the smoothed loss is lowest, or less.

    Args:
        rates: Learning rate of each step, rising.
        losses: Smoothed loss at each.
        broke_away: Whether the loss broke away in the end.
        fallen: Share of the loss's fall beyond whose rate none is suggested.

    Returns:
        A learning rate, rounded to two digits.
    """
    lowest = int(np.argmin(losses))
    rate = FALLING_SHARE * rates[lowest]
    if fallen is None and not broke_away:
        fallen = NEARLY_ALL
    if fallen is not None:
        enough = losses[0] - fallen * (losses[0] - losses[lowest])
        rate = min(rate, rates[int(np.argmax(np.array(losses) <= enough))])
    return float(f"{rate:.2g}")


def write_curve(folder: Path, test: RangeTest) -> Path:
    """Write the curve as range_test.png and for TensorBoard.

    Args:
        folder: Folder of the results; an earlier curve in it is replaced.
        test: Rates and losses to draw.

    Returns:
        The picture's path. In TensorBoard the step is the rate in millionths.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(test.rates, test.losses)
    axes.axvline(test.suggested, linestyle="--", color="tab:orange")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
    axes.set_title(f"suggested {test.suggested:g}")
    path = folder / PICTURE_NAME
    figure.savefig(path, dpi=120)
    shutil.rmtree(folder / LOG_NAME, ignore_errors=True)
    writer = tf.summary.create_file_writer(str(folder / LOG_NAME))
    with writer.as_default():
        for rate, loss in zip(test.rates, test.losses, strict=True):
            tf.summary.scalar("range_test/loss", loss, step=round(rate * 1e6))
        for step, rate in enumerate(test.rates):
            tf.summary.scalar("range_test/learning_rate", rate, step=step)
    writer.close()
    return path


def told(folder: Path, test: RangeTest, setting: str) -> dict[str, Any]:
    """Write the curve, and give the result as JSON data.

    Args:
        folder: Folder of the results.
        test: Rates and losses to draw.
        setting: The configuration's field that the suggestion is for.
    """
    return {
        "setting": setting,
        "suggested": test.suggested,
        "broke_away": test.broke_away,
        "picture": str(write_curve(folder, test)),
        "run_dir": str(folder),
        "rates": list(test.rates),
        "losses": list(test.losses),
    }


def holds_curve(folder: Path) -> bool:
    """Say whether a folder holds what `write_curve` writes, and nothing else."""
    names = {path.name for path in folder.iterdir()}
    logs = folder / LOG_NAME
    written = all("tfevents" in path.name for path in logs.iterdir()) if logs.is_dir() else True
    return PICTURE_NAME in names and names <= {PICTURE_NAME, LOG_NAME} and written


def _smoothed(
    step: Callable[[float], float], num_steps: int, rates_between: tuple[float, float]
) -> Iterator[tuple[float, float]]:
    low, high = rates_between
    mean = 0.0
    for number in range(num_steps):
        rate = low * (high / low) ** (number / max(1, num_steps - 1))
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * step(rate)
        yield rate, mean / (1.0 - SMOOTHING ** (number + 1))

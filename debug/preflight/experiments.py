"""Experiments on one batch, where a training came to nothing and no rule says why.

The model is trained anew on a few rows, which any sound model can learn by heart, with one thing
changed at a time: the optimizer, the initial weights, the scale of the inputs. What helps tells
the cause. Source: A. Karpathy, "A Recipe for Training Neural Networks" (2019), overfit one batch.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Facts, pick_rows
from headstart.debug.preflight.objectives import optimizer_of
from headstart.debug.preflight.samples import Batch, Sample, restored
from headstart.debug.preflight.training import steps_on
from headstart.debug.preflight.verdict import Level, verdict_of

LIMIT_S = 20.0
"""Seconds that the experiments of one program take, however many of its trainings fail."""
ROWS = 32
STEPS = 200
MAX_OWN_STEPS = 300
RATE = 5e-3
"""Of the Adam that is tried in place of the program's own optimizer."""
LEARNT = 0.5
"""Share of a constant's loss on the batch that is gone in an experiment that succeeds."""
FAILED = 0.2
"""... and in one that fails."""
APART = 0.3
FACTOR = 30
"""By which the program's own learning rate is tried higher, and lower."""
_INITIAL = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel", "bias",
            "embeddings", "gamma", "beta", "moving_mean", "moving_variance")  # fmt: skip


@dataclass
class Budget:
    """The time that is left for experiments.

    Args:
        left_s: Seconds.
    """

    left_s: float = LIMIT_S


PROGRAM = Budget()
"""That of the program that runs in this process."""


@dataclass
class Bench:
    """One model and some of its rows, to try things on.

    Args:
        facts: What is known of the training, with the rows to learn.
        deadline: When no further experiment is begun.
    """

    facts: Facts
    deadline: float

    def skill(self, optimizer: Any, steps: int, usual: bool = False, scaled: bool = False) -> float:
        """Train from new weights and return the share of a constant's loss that is gone.

        Args:
            optimizer: With what.
            steps: How long.
            usual: Whether weights are drawn as is usual, instead of as the program says.
            scaled: Whether the inputs are standardised.

        Returns:
            The share; minus infinity where the loss explodes, NaN where time is up: that is no
            failure of the model's.
        """
        left_s = self.deadline - time.monotonic()
        if left_s <= 0.0:
            return math.nan
        model, facts = self.facts.model, self.facts
        x = _standardised(facts.x) if scaled else facts.x
        with restored(model):
            _draw_anew(model, usual)
            sample = Sample(model, (Batch(x, facts.y, None),), None, facts.objective, True)
            losses = steps_on(sample, optimizer, steps, left_s)
            if len(losses) < steps or not all(map(math.isfinite, losses)):
                return -math.inf if losses and not math.isfinite(losses[-1]) else math.nan
            answers = np.asarray(model(x, training=True))
        return verdict_of(replace(facts, x=x, y_pred=answers)).skill


def one_batch(
    facts: Facts,
    num_steps: int,
    rates: Sequence[float] = (),
    level: Level = "nothing",
    budget: Budget = PROGRAM,
) -> list[Diagnosis]:
    """Find out by experiments why a training came to nothing.

    Args:
        facts: What is known of it.
        num_steps: Steps it took.
        rates: The learning rate at some of them; at the end a schedule has lowered it.
        level: What the training came to. What is said of the optimizer of one that came to
            something, or that took more steps than are tried, is a warning.
        budget: The time there is.

    Returns:
        A finding, or none.
    """
    began = time.monotonic()
    try:
        found = _by_experiment(facts, num_steps, rates, budget.left_s)
    finally:
        budget.left_s -= time.monotonic() - began
    is_sure = level != "little" and num_steps <= MAX_OWN_STEPS
    return [
        one if is_sure or one.phase != "optimizer" else replace(one, severity="warning")
        for one in found
    ]


def _by_experiment(
    facts: Facts, num_steps: int, rates: Sequence[float], left_s: float
) -> list[Diagnosis]:
    model, optimizer = facts.model, optimizer_of(facts.model)
    is_plain = type(model).train_step is keras.Model.train_step
    if optimizer is None or not is_plain or facts.y is None or len(facts.y) < ROWS:
        return []
    few = replace(facts, x=pick_rows(facts.x, ROWS), y=pick_rows(facts.y, ROWS))
    bench = Bench(few, time.monotonic() + left_s)
    with_adam = bench.skill(_adam(), STEPS)
    if with_adam >= LEARNT:
        steps = min(MAX_OWN_STEPS, max(STEPS, num_steps))
        rate = max((one for one in rates if one > 0.0), default=_rate(optimizer))
        return _of_optimizer(bench, optimizer, rate, steps)
    if not with_adam < FAILED:
        return []
    least = max(with_adam, 0.0) + APART
    usually = bench.skill(_adam(), STEPS, usual=True)
    if usually >= least:
        return [_finding("odd-initialisation", "default initial weights (glorot_uniform, biases "
                         "of 0) it learns them; with the program's own initialisers it does not",
                         "leave the initializers at their defaults, or use he_normal")]  # fmt: skip
    trials = [with_adam, usually]
    if _standardised(few.x) is not None:
        trials.append(bench.skill(_adam(), STEPS, usual=True, scaled=True))
        if trials[-1] >= least:
            return [_finding("unscaled-input", "standardised inputs (mean 0, deviation 1) it "
                             "learns them; with the inputs as they are it does not",
                             "standardise the inputs: keras.layers.Normalization, or sklearn's "
                             "StandardScaler")]  # fmt: skip
    return [_hopeless(bench)] if all(map(math.isfinite, trials)) else []


def _of_optimizer(bench: Bench, optimizer: Any, rate: float, num_steps: int) -> list[Diagnosis]:
    """Compare the program's own optimizer with others, of which one learnt the batch."""
    if math.isnan(rate) or not bench.skill(_with_rate(optimizer, rate), num_steps) < FAILED:
        return []
    name, trials = type(optimizer).__name__, list[float]()
    for factor, word, what in ((FACTOR, "low", "higher"), (1 / FACTOR, "high", "lower")):
        trials.append(bench.skill(_with_rate(optimizer, factor * rate), num_steps))
        if trials[-1] >= LEARNT:
            how = (f"a learning rate {FACTOR} times {what} than the {rate:g} of {name} it learns "
                   f"them; with {rate:g} it does not: the learning rate is too {word}")  # fmt: skip
            return [_finding(f"learning-rate-too-{word}", how, f"try {factor * rate:g}")]
    if any(
        map(math.isnan, trials)
    ):  # time was up: nobody knows whether another rate would have helped
        return []
    return [_finding("odd-optimizer", f"Adam({RATE:g}) it learns them; with {name} and its "
                     "current settings it does not",
                     f"use Adam, or look at the settings of {name}")]  # fmt: skip


def _hopeless(bench: Bench) -> Diagnosis:
    answers = bench.facts.y_pred
    is_constant = answers is not None and float(np.ptp(answers, axis=0).max()) < 1e-6
    constant = " Its output is the same for every row: it does not depend on the input."
    return Diagnosis(
        symptom="cannot-overfit",
        cause=f"The model cannot overfit {ROWS} rows in {STEPS} training steps with Adam, even "
        "from new weights or with standardised inputs: the fault is in the layers or in the loss."
        f"{constant if is_constant else ''}",
        phase="model",
        confidence=0.7,
        suggestions=(
            "check that the last layer's activation suits the loss and the targets",
            "look for dead or saturated layers, a blocked gradient, strong dropout or penalties",
        ),
        evidence={"at": "fit"},
    )


def _finding(symptom: str, helps: str, advice: str) -> Diagnosis:
    at = "optimizer" if symptom.startswith(("learning", "odd-optimizer")) else "fit"
    return Diagnosis(
        symptom=symptom,
        cause=f"The model was trained again on {ROWS} rows: with {helps}.",
        phase="optimizer" if at == "optimizer" else "model",
        confidence=0.8,
        suggestions=(advice,),
        evidence={"at": at, "is_experiment": True},
    )


def _adam() -> Any:
    return keras.optimizers.Adam(RATE)


def _rate(optimizer: Any) -> float:
    try:
        return float(np.asarray(optimizer.learning_rate))
    except (TypeError, ValueError):
        return math.nan


def _with_rate(optimizer: Any, rate: float) -> Any:
    config = {**optimizer.get_config(), "learning_rate": rate}
    return type(optimizer).from_config(config)


def _draw_anew(model: Any, usual: bool) -> None:
    for layer in model._flatten_layers(include_self=False):
        for name in _INITIAL:
            variable = getattr(layer, name, None)
            initializer = getattr(layer, f"{name}_initializer", None)
            if not layer.trainable or variable is None or not callable(initializer):
                continue
            if usual and "kernel" in name:
                initializer = keras.initializers.GlorotUniform(seed=0)
            elif usual and name == "bias":
                initializer = keras.initializers.Zeros()
            variable.assign(initializer(variable.shape, dtype=variable.dtype))


def _standardised(x: Any) -> Any:
    """Return inputs of mean 0 and deviation 1, by column; None where they are no numbers."""
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fu" or x.ndim < 2:
        return None
    axes = tuple(range(x.ndim - 1))
    values = x.astype(np.float32)
    spread = values.std(axis=axes)
    return (values - values.mean(axis=axes)) / np.where(spread > 0.0, spread, 1.0)

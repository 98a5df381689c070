"""Symptom rules that read the curves: loss by step, logs by epoch.

Each rule takes a `TrainingTrace` and returns its findings, mostly none. A rule speaks only where
the run went badly as a whole: a healthy program that is noisy, wide or short must stay silent.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.symptoms.trace import TrainingTrace

DIVERGENCE_FACTOR = 1e3
"""Growth of an own loop's loss before it ended in NaN or Inf from which on it has diverged."""
MIN_STEPS = 40
"""Steps before a loss may be called stuck; fewer are warm-up."""
MIN_FALL = 0.03
"""Relative fall of the loss over the run below which it is stuck.
Source: Amazon SageMaker Debugger, LossNotDecreasing (flat over 10 steps); wider, for noise."""
MAX_STUCK_SHARE = 0.8
"""A classifier is stuck only with a loss above this share of ln(classes)."""
DIVERGED_FACTOR = 3.0
"""A last loss this many times the first has diverged."""
LEAST_PEAK = 0.02
"""... where it is not still that of a nearly perfect answer: of a focal loss of rare classes, or of
batches with none of them, the first may be next to nothing."""
SPIKE_FACTOR = 10.0
"""A loss this many times the first has thrown away the initialisation."""
HUGE_LOSS = 1e5
"""A loss from here on has exploded. Source: Zhang et al., AutoTrainer, ICSE 2021."""
NUM_WINDOWS = 10
"""Windows the second half of a run is cut into to look for swings."""
MIN_SWING = 0.3
"""Standard deviation over mean of the window losses from which on they swing."""
MIN_SWING_OVER_NOISE = 2.0
"""... where they swing this many times as much as the difference between batches explains."""
MIN_VAL_RISE = 1.5
"""A validation loss this many times its own minimum has turned."""
MIN_GAP = 0.5
"""Training loss as a share of the validation loss below which the two have parted."""
MIN_ACCURACY_GAP = 0.1
"""Training accuracy minus validation accuracy from which on the gap counts."""
WIDE_ACCURACY_GAP = 0.3
"""... and from which on it is memorising, wherever the validation loss goes."""
STEADY = 0.8
"""Fall of the last quarter over that of the one before from which on a loss does not slow down."""
HUGE_FALL = 10.0
"""Times its first size below 0 at which a loss left the numbers: it had no lower end."""
MIN_ENDLESS_FALL = 3.0
"""Fall of a loss, in its own units, before it may be called endless: more than ln(20), what a
classifier can lose."""


def is_stuck(trace: TrainingTrace) -> bool:
    """Tell whether the loss has not fallen although it should have.

    Returns:
        True after enough steps without a fall, unless the model was trained or good before.
    """
    losses = trace.finite_losses
    if len(losses) < MIN_STEPS or is_good(trace):
        return False
    least = MIN_FALL * abs(trace.first_loss)
    has_fallen = trace.first_loss - trace.last_loss >= least
    if trace.num_classes < 2:
        return not has_fallen and not trace.is_resumed
    chance = math.log(trace.num_classes)
    if not has_fallen:
        return trace.last_loss > MAX_STUCK_SHARE * chance
    # Down from a bad start and then at chance for good: it has lost its inputs, not learnt.
    quarter = len(losses) // 4
    before, after = _mean(losses[-2 * quarter : -quarter]), _mean(losses[-quarter:])
    return after > (1.0 - MIN_FALL) * max(chance, before)


def has_spiked(trace: TrainingTrace) -> bool:
    """Tell whether a classifier's loss shot up and came back to no better than a guess."""
    if trace.num_classes < 2 or not trace.finite_losses or is_good(trace):
        return False
    peak = max(trace.finite_losses)
    at_chance = trace.last_loss > MAX_STUCK_SHARE * math.log(trace.num_classes)
    return at_chance and peak > SPIKE_FACTOR * trace.first_loss


def is_good(trace: TrainingTrace) -> bool:
    """Tell whether a classifier is more than half way from chance to perfect accuracy."""
    if trace.num_classes < 2 or math.isnan(trace.accuracy):
        return False
    chance = 1.0 / trace.num_classes
    return trace.accuracy > chance + 0.5 * (1.0 - chance)


def has_halved(histories: Iterable[Sequence[float]]) -> bool:
    """Say whether losses of own loops fell by at least half of where they began.

    Args:
        histories: Of each, its values in order; those of few steps do not count.
    """
    traces = [TrainingTrace(losses=list(one)) for one in histories if len(one) >= MIN_STEPS]
    return bool(traces) and all(
        one.last_loss < one.first_loss - abs(one.first_loss) / 2 for one in traces
    )


def loss_not_falling(trace: TrainingTrace) -> list[Diagnosis]:
    """Say that the loss is where it started; other rules may know why."""
    if not is_stuck(trace) or divergence(trace):
        return []
    return [
        Diagnosis(
            symptom="loss-not-falling",
            cause=f"The loss has not fallen in {len(trace.losses)} training steps "
            f"({trace.first_loss:.4g} at first, {trace.last_loss:.4g} now).",
            phase="loss",
            confidence=0.4,
            suggestions=(
                "run `headstart debug check` on the script: can the model overfit one batch?",
                "check that inputs and labels belong together after shuffling",
                "try a learning rate 10 times higher and one 10 times lower",
            ),
            evidence={"first_loss": trace.first_loss, "last_loss": trace.last_loss},
        )
    ]


def divergence(trace: TrainingTrace) -> list[Diagnosis]:
    """Say that the loss grew instead of falling, up to NaN where it came to that."""
    finite, step = trace.finite_losses, len(trace.finite_losses)
    if len(finite) < 2 or trace.first_loss <= 0.0:
        return []
    has_ended = step < len(trace.losses)
    peak = max(finite[-NUM_WINDOWS:]) if has_ended else _median(finite[-NUM_WINDOWS:])
    growing = len(finite) >= (2 if has_ended else NUM_WINDOWS)
    has_grown = peak > max(DIVERGED_FACTOR * trace.first_loss, LEAST_PEAK)
    if not growing or not (has_grown or (has_ended and peak >= HUGE_LOSS)):
        return []
    end = "and then to NaN or Inf" if has_ended else "and has not come down"
    return [
        Diagnosis(
            symptom="divergence",
            cause=f"The loss grew from {trace.first_loss:.4g} to {peak:.4g} {end}: the updates "
            "overshoot, most often because the learning rate is too high.",
            step=step if has_ended else len(finite) - 1,
            phase="optimizer",
            confidence=0.85,
            suggestions=(
                "divide the learning rate by 10",
                "warm the learning rate up over the first few hundred training steps",
                "clip gradients (`global_clipnorm=1.0` in the optimizer)",
            ),
            evidence={"first_loss": trace.first_loss, "peak_loss": peak},
        )
    ]


def falls_without_end(trace: TrainingTrace) -> list[Diagnosis]:
    """Say that the loss went below 0 and falls ever on.

    What has a lower end falls more slowly all the time; what has none is not to be minimised.
    """
    losses = trace.finite_losses
    if not losses or losses[-1] >= 0.0:
        return []
    has_ended = len(losses) < len(trace.losses)
    if not _falls_steadily(losses) and not (
        has_ended and losses[-1] < -HUGE_FALL * max(1.0, abs(losses[0]))
    ):
        return []
    return [
        Diagnosis(
            symptom="loss-falls-without-end",
            cause=f"The loss is negative and falls without end (from {trace.first_loss:.4g} to "
            f"{losses[-1]:.4g}, as fast at the end as before): most likely its sign is wrong. A "
            "log-likelihood or a score that should be maximised is minimised instead.",
            step=len(losses) - 1,
            phase="loss",
            confidence=0.95,
            suggestions=(
                "minimise the negative: loss = -tf.reduce_mean(log_likelihood)",
                "look for a term without a lower bound (a log of something that may reach 0)",
            ),
            evidence={"first_loss": trace.first_loss, "last_loss": losses[-1]},
        )
    ]


def _falls_steadily(losses: Sequence[float]) -> bool:
    if len(losses) < MIN_STEPS:
        return False
    first, second, third, last = windows_of(losses, 4)
    fall = first - last
    is_steady = third - last >= STEADY * max(second - third, fall / 4.0)
    return first > second > third > last and is_steady and fall >= MIN_ENDLESS_FALL


def oscillation(trace: TrainingTrace) -> list[Diagnosis]:
    """Say that the loss swings from window to window without getting anywhere."""
    losses = trace.finite_losses
    windows = windows_of(losses[len(losses) // 2 :], NUM_WINDOWS)
    if len(losses) < 4 * NUM_WINDOWS or trace.first_loss <= 0.0:
        return []
    mean = _mean(windows)
    deviation = math.sqrt(_mean([(value - mean) ** 2 for value in windows]))
    steps = [after - before for before, after in itertools.pairwise(windows)]
    turns = sum(a * b < 0.0 for a, b in itertools.pairwise(steps))
    by_chance = _noise_of_mean(losses[len(losses) // 2 :], NUM_WINDOWS)
    swings = deviation > MIN_SWING * mean and turns >= len(windows) // 2
    if deviation < MIN_SWING_OVER_NOISE * by_chance:
        return []  # batches that differ, not stretches
    if not swings or mean < 0.5 * trace.first_loss or is_good(trace):
        return []
    return [
        Diagnosis(
            symptom="oscillation",
            cause=f"The loss swings around {mean:.4g} by {deviation / mean:.0%} from one stretch "
            "of training steps to the next: the learning rate is too high or the batches too "
            "small.",
            phase="optimizer",
            severity="warning",
            confidence=0.6,
            suggestions=(
                "divide the learning rate by 3 to 10",
                "use larger batches",
                "shuffle the data: batches of a single class also make the loss swing",
            ),
            evidence={"mean_loss": mean, "deviation": deviation},
        )
    ]


def overfitting(trace: TrainingTrace) -> list[Diagnosis]:
    """Say that the validation loss has turned upwards while the training loss falls."""
    both = [logs for logs in trace.epochs if "loss" in logs and "val_loss" in logs]
    if len(both) < 3:
        return []
    val_losses = [logs["val_loss"] for logs in both]
    best = min(range(len(both)), key=val_losses.__getitem__)
    last = both[-1]
    gap = _accuracy_gap(last)
    parted = last["loss"] < min(MIN_GAP * last["val_loss"], both[best]["loss"])
    turned = last["val_loss"] > MIN_VAL_RISE * val_losses[best] and gap >= MIN_ACCURACY_GAP
    memorised = WIDE_ACCURACY_GAP <= gap < math.inf and last["loss"] < 0.1 * last["val_loss"]
    if not parted or best >= len(both) - 2 or not (turned or memorised):
        return []
    return [
        Diagnosis(
            symptom="overfitting",
            cause=f"The validation loss was best at epoch {best + 1} ({val_losses[best]:.4g}) and "
            f"is {last['val_loss']:.4g} now, while the training loss fell to {last['loss']:.4g}.",
            phase="model",
            severity="warning",
            confidence=0.7,
            suggestions=(
                "stop early: keras.callbacks.EarlyStopping(restore_best_weights=True)",
                "augment the data, or add dropout or weight decay",
                "use a smaller model or more data",
            ),
            evidence={"best_epoch": best, "val_loss": last["val_loss"], "loss": last["loss"]},
        )
    ]


def _accuracy_gap(logs: dict[str, float]) -> float:
    """Training minus validation accuracy; infinite where none is logged."""
    for name, value in logs.items():
        if "acc" in name and f"val_{name}" in logs:
            return value - logs[f"val_{name}"]
    return math.inf


def windows_of(values: Sequence[float], count: int) -> list[float]:
    """Return the means of as many windows of equal size, one after the other.

    Args:
        values: A number at each step.
        count: Windows wanted; fewer of few values.
    """
    size = max(1, len(values) // count)
    return [_mean(values[i : i + size]) for i in range(0, size * count, size) if values[i:]]


def _noise_of_mean(values: Sequence[float], count: int) -> float:
    """Standard error of a window's mean, from how much the steps within windows differ."""
    size = max(1, len(values) // count)
    within = []
    for i in range(0, size * count, size):
        window = values[i : i + size]
        mean = _mean(window)
        within += [(value - mean) ** 2 for value in window]
    return math.sqrt(_mean(within) / max(1, size - 1)) if size > 1 else math.inf


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else math.nan


def own_divergence(
    losses_by_name: Mapping[str, Sequence[float]],
    site: CallSite | None,
    hint: str,
    counts: Mapping[str, int],
) -> list[Diagnosis]:
    """Find a loss of an own loop that grew until it was no number any more.

    Args:
        losses_by_name: What may be losses, step by step.
        site: The user's line that makes the optimizer, or else the loss.
        hint: More on the cause, to be put behind it.
        counts: Number of steps of each, where not all of them are given.

    Returns:
        A finding, or none.
    """
    for name, losses in losses_by_name.items():
        finite = [loss for loss in losses if math.isfinite(loss)]
        if len(finite) < 2 or abs(finite[-1]) < DIVERGENCE_FACTOR * max(abs(finite[0]), 1e-2):
            continue
        num_steps = counts.get(name, len(losses)) - (len(losses) - len(finite))
        return [
            Diagnosis(
                symptom="divergence",
                cause=f"The loss grew from {finite[0]:.4g} to {finite[-1]:.4g} within "
                f"{num_steps} training steps and then became NaN or Inf: the learning rate is "
                f"too high or the gradients explode.{hint}",
                step=num_steps,
                phase="optimizer",
                confidence=0.95,
                suggestions=(
                    "divide the learning rate by 10 until the loss falls",
                    "clip the gradients: optimizer(clipnorm=1.0)",
                ),
                evidence={"losses": finite[-5:], "of": name},
            ).at(site)
        ]
    return []

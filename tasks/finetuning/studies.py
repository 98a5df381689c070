"""What studies are made of: their trials, and what these come to over the seeds."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import BaseModel

from headstart.config import CompareConfig, StudyConfig, TransferabilityConfig, TuningConfig
from headstart.errors import ConfigError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import PIXELS, TOP
from headstart.tasks.evaluation.judges import JUDGES, judge_of
from headstart.tasks.evaluation.report_content import percent
from headstart.tasks.finetuning.network import falling
from headstart.tasks.finetuning.rungs import plan_rungs, spread_cuts
from headstart.tasks.finetuning.trial import Trial, TrialManifest, intervals_of_means

FROZEN, FINETUNED = "frozen", "fine-tuned"


class Line(BaseModel, frozen=True):
    """One way of training, over all seeds."""

    name: str
    split: str
    """That the figures are of: test where there is one, else val."""
    accuracies: tuple[float, ...]
    """One a seed; none where targets are no classes."""
    accuracy: float | None
    """Their mean."""
    interval: tuple[float, float] | None
    """Of the mean: over images, and over seeds where there are several."""
    num_trained: int
    flops: float
    """Of the training, mean over seeds."""
    once_flops: int
    """Of the pass of the frozen layers that the training is spared, over all images."""
    train_s: float
    """Mean over seeds."""
    once_s: float
    """Of making views and bottlenecks, which all seeds share."""
    peak_bytes: int | None
    """That a training adds to what is in use before it; largest over seeds."""
    largest_changes: dict[str, float]
    """Of any weight of the first two convolutions, by layer, in the first seed's training."""
    metric: str = "accuracy"
    """What is compared: accuracy, mAP (of labels) or MAE (of numbers)."""
    values: tuple[float, ...] = ()
    """mAP or MAE, one a seed; none where it is the accuracy."""
    value: float | None = None
    """Their mean."""

    @property
    def figure(self) -> float:
        """What is compared."""
        found = self.accuracy if self.metric == "accuracy" else self.value
        return math.nan if found is None else found

    @property
    def is_error(self) -> bool:
        """Whether less of it is better."""
        return self.metric == JUDGES["number"].main_name

    @property
    def goodness(self) -> float:
        """It, so that more is better."""
        return -self.figure if self.is_error else self.figure

    def write(self, figure: float) -> str:
        """Write such a figure."""
        return f"{figure:.4g}" if self.is_error else percent(figure)

    @property
    def told(self) -> str:
        """Name it and write it."""
        name = "" if self.metric == "accuracy" else f"{self.metric} "
        return f"{name}{self.write(self.figure)}"


def block_cut(network: Backbone, config: CompareConfig) -> str:
    """Return where the last block begins.

    Raises:
        ConfigError: The backbone has no cut before its top to choose.
        BackboneError: There is no such cut.
    """
    wanted = config.block_cut
    chosen = plan_rungs(network, 1) if wanted is None else [network.resolve_cut(wanted).name]
    if chosen in ([], [TOP]):
        raise ConfigError(
            "there is no last block to train: it consists of the layers behind a cut before the "
            "top",
            f"{network.name} at its top" if chosen else f"{network.name}, which has no other cut",
            "leave last_block out: --set 'strategies=[scratch, last_layer, full]'",
        )
    return chosen[0]


def compare_trials(network: Backbone, config: CompareConfig) -> list[tuple[Trial, TuningConfig]]:
    """List what a comparison trains, each with its tuning.

    Returns:
        One trial a strategy or, in a sweep, one a rate of the inner layers.
    """
    tuning = config.tuning
    if config.inner_rates:
        block = block_cut(network, config)
        return [
            (Trial(name=f"inner x{rate:g}", starts=(block,), factors=(1.0, rate)), tuning)
            for rate in config.inner_rates
        ]
    rates = falling(3, tuning.rate_decay)
    trials = []
    for name in config.strategies:
        if name == "scratch":
            # All layers alike, and the batches' statistics: the stored ones are not trained yet.
            own = {"batch_norm": "training", "learning_rate": config.scratch_learning_rate}
            trial = Trial(name=name, starts=(PIXELS,), factors=(1.0, 1.0), fresh=True)
            trials.append((trial, tuning.model_copy(update=own)))
        elif name == "last_layer":
            trials.append((Trial(name=name), _of_dense_layer(config)))
        elif name == "last_block":
            block = block_cut(network, config)
            trials.append((Trial(name=name, starts=(block,), factors=tuple(rates[:2])), tuning))
        else:
            inner = plan_rungs(network, 1)
            starts = (*inner, PIXELS)
            factors = tuple(rates[: 1 + len(starts)])
            trials.append((Trial(name=name, starts=starts, factors=factors), tuning))
    return trials


def transferability_trials(
    names: Sequence[str], config: TransferabilityConfig
) -> list[tuple[Trial, TuningConfig]]:
    """List what a transferability curve trains: a head a cut and, where asked, all below it."""
    trials = [(Trial(name=f"{FROZEN} {name}", end=name), _of_dense_layer(config)) for name in names]
    if config.finetuned:
        factors = tuple(falling(2, config.tuning.rate_decay))
        trials += [
            (
                Trial(name=f"{FINETUNED} {name}", end=name, starts=(PIXELS,), factors=factors),
                config.tuning,
            )
            for name in names
        ]
    return trials


def transferability_cuts(network: Backbone, config: TransferabilityConfig) -> tuple[str, ...]:
    """Return the cuts of a transferability curve, from the input to the top."""
    if config.cuts is None:
        return tuple(spread_cuts(network, config.num_cuts))
    order = [cut.name for cut in network.cuts]
    return tuple(sorted({network.resolve_cut(name).name for name in config.cuts}, key=order.index))


def cuts_of(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the cuts at which trials take bottlenecks, or averages of them, each once."""
    found = [trial.end for trial in trials if not trial.starts]
    found += [trial.starts[-1] for trial in trials if trial.starts and trial.starts[-1] != PIXELS]
    return tuple(dict.fromkeys(found))


def summarise(
    done: Mapping[str, Sequence[TrialManifest]],
    once_s: Mapping[str, float],
    once_flops: Mapping[str, int],
    confidence: float,
) -> list[Line]:
    """Sum up the trials of a study.

    Args:
        done: By name, one a seed.
        once_s: By name, seconds of making what they train on.
        once_flops: By name, FLOPs of that.
        confidence: Coverage of the intervals.
    """
    first = next(iter(done.values()))[0]
    split = "test" if "test" in first.metrics else "val"
    judge = judge_of(first.metrics[split])
    is_share = judge.main == "accuracy"
    found = {
        name: [float(trial.metrics[split][judge.main]) for trial in trials]
        for name, trials in done.items()
    }
    num_images = int(first.metrics[split]["num_images"])
    own = f"{judge.main}_interval"
    halves = (
        None
        if is_share
        else {
            name: [_half(trial.metrics[split][own]) for trial in trials]
            for name, trials in done.items()
        }
    )
    most = 1.0 if judge.higher_is_better else math.inf
    intervals = intervals_of_means(found, num_images, confidence, halves, most)
    lines = []
    for name, trials in done.items():
        peaks = [trial.peak_bytes for trial in trials if trial.peak_bytes is not None]
        lines.append(
            Line(
                name=name,
                split=split,
                accuracies=tuple(found[name]) if is_share else (),
                accuracy=float(np.mean(found[name])) if is_share else None,
                metric=judge.main_name,
                values=() if is_share else tuple(found[name]),
                value=None if is_share else float(np.mean(found[name])),
                interval=intervals[name] or trials[0].metrics[split][own],
                num_trained=trials[0].num_trained,
                flops=float(np.mean([trial.flops for trial in trials])),
                once_flops=once_flops[name],
                train_s=float(np.mean([trial.train_s for trial in trials])),
                once_s=once_s[name],
                peak_bytes=max(peaks, default=None),
                largest_changes=trials[0].largest_changes,
            )
        )
    return lines


def _half(interval: Sequence[float] | None) -> float:
    return 0.0 if interval is None else (interval[1] - interval[0]) / 2


def headline(lines: Sequence[Line]) -> str:
    """Say which line is best, or that no one can tell.

    Returns:
        A sentence without a full stop.
    """
    best, *others = sorted(lines, key=lambda line: -line.goodness)
    word = "of" if best.metric == "accuracy" else "on"
    text = f"{best.told} {word} the {best.split} images"
    rivals = [line.name for line in others if not is_clear(best, line)]
    if rivals:
        return (
            f"no clear winner: {best.name} has {text}, and the difference from "
            f"{', '.join(rivals)} is within noise"
        )
    return f"{best.name} is best, with {text}"


def is_clear(better: Line, worse: Line) -> bool:
    """Say whether a difference is larger than what seeds and images explain.

    Both are judged on the same images, so that the true spread of a difference is smaller than
    the root of the squared half intervals taken here: a cautious answer.

    Args:
        better: The line with the better mean.
        worse: The line with the worse mean: of an error, the higher one.
    """
    if better.interval is None or worse.interval is None:
        return False
    near, far = (1, 0) if better.is_error else (0, 1)
    down = abs(better.figure - better.interval[near])
    up = abs(worse.interval[far] - worse.figure)
    return better.goodness - worse.goodness > math.hypot(down, up)


def order_sentence(lines: Mapping[str, Line]) -> str:
    """Say whether the order that lectures lead one to expect holds: full > scratch > last layer.

    Returns:
        A sentence; "" where one of the three was not trained.
    """
    names = ("full", "scratch", "last_layer")
    if not set(names) <= lines.keys():
        return ""
    by_figure = sorted(names, key=lambda name: -lines[name].goodness)
    clear = "<" if lines["full"].is_error else ">"
    signs = [
        clear if is_clear(lines[high], lines[low]) else "≈" for high, low in pairwise(by_figure)
    ]
    first, *others = [_in_order(name, lines[name]) for name in by_figure]
    found = " ".join([first, *(f"{sign} {one}" for sign, one in zip(signs, others, strict=True))])
    if by_figure == list(names) and "≈" not in signs:
        return f"The usual order holds here: {found}."
    outcome = "is not shown here" if "≈" in signs else "does not hold here"
    return (
        "The usual order, full fine-tuning > from scratch at equal epochs > last layer only, "
        f"{outcome}: {found}" + ("; ≈ is within noise." if "≈" in signs else ".")
    )


def _in_order(name: str, line: Line) -> str:
    is_share = line.metric == "accuracy"
    return f"{name} {100 * line.figure:.1f} %" if is_share else f"{name} {line.told}"


def _of_dense_layer(config: StudyConfig) -> TuningConfig:
    # What suits new dense layers on fixed features, as `train` has it, for as many epochs.
    own: dict[str, Any] = {
        "optimizer": "sgd" if config.head.optimizer == "sgd" else "adamw",
        "learning_rate": config.head.learning_rate,
        "batch_size": config.head.batch_size,
        "weight_decay": config.head.weight_decay,
    }
    return config.tuning.model_copy(update=own)

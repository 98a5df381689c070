"""Symptom rules about classifiers: one answer for everything, or answers no better than a guess."""

import math

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.symptoms.loss import is_good, is_stuck, windows_of
from headstart.debug.symptoms.trace import TrainingTrace

MIN_PROBE_ROWS = 32
"""Rows looked at before all of them in one class mean something."""
COLLAPSED_SHARE = 0.98
"""Share of the predictions in one class from which on the model has collapsed."""
MAX_LABEL_SHARE = 0.8
"""A class with more of the labels than this makes collapse a matter of imbalance."""
MIN_FALLING, FALLEN, STEADY_SHARE = 16, 0.95, 0.25
"""Steps, share of the first loss, and of the first fall, of a loss that still falls at the end."""
IMBALANCE_RATIO = 10.0
"""Commonest over rarest class from which on data are imbalanced.
Source: SageMaker, ClassImbalance."""
ORDERED_SHARE = 0.95
"""Share of neighbouring rows with equal labels from which on the data are sorted..."""
MAX_EQUAL_BY_CHANCE = 0.7
"""... unless that many are equal in any order."""
MIN_LABELS = 100
"""Labels seen before their balance is judged."""
CHANCE_STEPS = 100
"""Steps, and..."""
CHANCE_EPOCHS = 3
"""... epochs after which a classifier should know more than how common its classes are."""
CHANCE_LOSS_SHARE = 0.97
"""Loss over the entropy of the labels above which nothing was learnt of the inputs: a model that
knows the share of each class and nothing else has exactly that entropy.
Source: A. Karpathy, "A Recipe for Training Neural Networks" (2019): input-independent baseline."""
CHANCE_SIGMAS = 2.0
"""Standard errors by which the accuracy may exceed the commonest class's share by chance."""
SLIGHT_GAIN = 0.1
"""Part of the way from the commonest class's share to 1 that an accuracy must have gone before the
rarer classes count for something."""


def not_shuffled(trace: TrainingTrace) -> list[Diagnosis]:
    """Find batches of one class each in a training that goes badly."""
    labels = sum(trace.label_counts.values())
    if len(trace.label_counts) < 2 or trace.num_pairs < MIN_LABELS or is_good(trace):
        return []
    equal = trace.num_equal_pairs / trace.num_pairs
    by_chance = sum((count / labels) ** 2 for count in trace.label_counts.values())
    if equal < ORDERED_SHARE or by_chance > MAX_EQUAL_BY_CHANCE:
        return []
    return [
        Diagnosis(
            symptom="not-shuffled",
            cause=f"The rows come sorted by class: {equal:.0%} of neighbouring rows have the same "
            "label, so each training step sees one class and forgets the others.",
            phase="data",
            confidence=0.9,
            suggestions=(
                "shuffle before batching: ds.shuffle(buffer as large as the data).batch(...)",
                "shuffle the list of files, if the data do not fit in memory",
            ),
            evidence={"equal_neighbours": equal, "by_chance": by_chance},
        )
    ]


def accuracy_at_chance(trace: TrainingTrace) -> list[Diagnosis]:
    """Find a classifier that does no better than one that never saw its inputs."""
    labels = sum(trace.label_counts.values())
    long = len(trace.losses) >= CHANCE_STEPS and len(trace.epochs) >= CHANCE_EPOCHS
    if trace.num_classes < 2 or len(trace.label_counts) < 2 or not long or trace.is_weighted:
        return []
    shares = [count / labels for count in trace.label_counts.values()]
    share = max(shares)
    slack = CHANCE_SIGMAS * math.sqrt(share * (1.0 - share) / labels)
    entropy = -sum(p * math.log(p) for p in shares)
    if math.isnan(trace.accuracy) or trace.accuracy > share + slack:
        return []
    if trace.last_loss < CHANCE_LOSS_SHARE * entropy or math.isnan(trace.last_loss):
        return []
    return [
        Diagnosis(
            symptom="accuracy-at-chance",
            cause=f"After {len(trace.epochs)} epochs the training accuracy is "
            f"{trace.accuracy:.1%}: no better than always answering the commonest class "
            f"({share:.1%} of the labels). The model learns nothing about the labels from its "
            "inputs.",
            phase="data",
            severity="warning",
            confidence=0.6,
            suggestions=(
                "look at a few rows as they reach the model: do labels still belong to inputs "
                "(shuffled apart, sorted files, an index that is off by one)?",
                "run `headstart debug check`: can the model overfit one batch?",
                "try a learning rate 10 times higher and one 10 times lower",
            ),
            evidence={"accuracy": trace.accuracy, "chance": share, "loss": trace.last_loss},
        )
    ]


def class_collapse(trace: TrainingTrace) -> list[Diagnosis]:
    """Find a classifier that gives one class for everything, and say whether labels explain it."""
    counts, labels = _class_counts(trace)
    rows = sum(counts.values())
    if rows < MIN_PROBE_ROWS or len(labels) < 2 or not trace.probes or trace.is_weighted:
        return []
    favourite = max(counts, key=counts.__getitem__)
    share = max(labels.values()) / sum(labels.values())
    imbalance = max(labels.values()) / min(labels.values())
    many = sum(labels.values()) >= MIN_LABELS
    uneven = many and (imbalance > IMBALANCE_RATIO or share > MAX_LABEL_SHARE)
    collapsed = counts[favourite] >= COLLAPSED_SHARE * rows
    if uneven and (collapsed or _hardly_beats(trace, share)):
        return [_imbalanced(trace, favourite, imbalance, share)]
    if not collapsed or share > MAX_LABEL_SHARE or not is_stuck(trace) or _still_falls(trace):
        return []
    return [
        Diagnosis(
            symptom="class-collapse",
            cause=f"The model predicts class {favourite} for {counts[favourite]} of {rows} "
            f"training rows, although {len(labels)} classes occur.",
            step=trace.probes[-1].step,
            phase="model",
            confidence=0.6,
            suggestions=(
                "check labels, loss and last layer with `headstart debug check`",
                "lower the learning rate",
            ),
            evidence={"predicted": _text_keys(counts), "labels": _text_keys(labels)},
        )
    ]


def _still_falls(trace: TrainingTrace) -> bool:
    """Tell whether the loss falls on and on, of a training that was only too short.

    A start at which one class is ahead everywhere is no rare one.
    """
    losses = trace.finite_losses
    if len(losses) < MIN_FALLING:
        return False
    first, second, third, last = windows_of(losses, 4)
    is_steady = third - last >= STEADY_SHARE * (first - second)
    return first > second > third > last and last < FALLEN * first and is_steady


def _hardly_beats(trace: TrainingTrace, share: float) -> bool:
    """Tell whether the accuracy hardly beats that of one answer for everything."""
    return trace.accuracy < share + SLIGHT_GAIN * (1.0 - share)


def _imbalanced(trace: TrainingTrace, favourite: int, ratio: float, share: float) -> Diagnosis:
    return Diagnosis(
        symptom="class-imbalance",
        cause=f"The commonest class has {share:.0%} of the labels, {ratio:.0f} times the rarest, "
        f"and the model predicts class {favourite} for nearly every row.",
        step=trace.probes[-1].step,
        phase="data",
        confidence=0.7,
        suggestions=(
            "pass class_weight to fit, or sample the classes evenly",
            "monitor per-class recall or balanced accuracy instead of accuracy",
        ),
        evidence={"labels": _text_keys(trace.label_counts), "ratio": ratio},
    )


def _class_counts(trace: TrainingTrace) -> tuple[dict[int, int], dict[int, int]]:
    """Predictions of the last two probes together, and all labels seen."""
    counts: dict[int, int] = {}
    for probe in trace.probes[-2:]:
        for label, rows in probe.predicted_counts.items():
            counts[label] = counts.get(label, 0) + rows
    return counts, trace.label_counts


def _text_keys(counts: dict[int, int]) -> dict[str, int]:
    return {str(label): rows for label, rows in sorted(counts.items())}

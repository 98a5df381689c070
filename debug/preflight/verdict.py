"""Whether a training came to anything, measured against the best that a constant could do.

A model that never saw its inputs can still answer the mean of the targets, or how common each
class is. What does no better has learnt nothing, however far its loss has fallen.
Source: A. Karpathy, "A Recipe for Training Neural Networks" (2019), input-independent baseline.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.debug.preflight.facts import Array, Facts
from headstart.debug.preflight.objectives import REGRESSIONS

Level = Literal["unknown", "nothing", "little", "well"]

NOTHING = 0.03
"""Share of the constant's loss that must be gone before anything counts as learnt."""
WELL = 0.3
"""... and from which on a training has come to something."""
AGREES = 0.15
"""Share of the loss that must be gone before a high accuracy counts in full: an untrained model may
be right by luck, and one that explodes may be right here and there."""
GOOD_AUC = 0.8
"""Area under the ROC curve from which on a yes-or-no model has learnt, however rare the yes."""
NO_LOSS = 1e-5
"""Loss of a constant below which the targets are all one: nothing to compare with."""
NUM_NEIGHBOURS = 5
MIN_LEARNABLE_ROWS = 60
MAX_FEATURES = 1024
NOISE_ROWS = 400.0
"""Rows whose share of a constant's loss may be gone by chance: sqrt(1 / rows) on top."""


@dataclass(frozen=True)
class Verdict:
    """What came of a training.

    Args:
        level: ``well``, ``little``, ``nothing``, or ``unknown`` where there is nothing to compare.
        skill: Share of the constant's loss that is gone; NaN where not known.
        loss: The model's loss on the rows looked at.
        constant_loss: Loss of the best constant prediction.
        accuracy: Share of right answers, where it is a classifier; else NaN.
        constant_accuracy: That of always giving the commonest class.
        best: The greater of ``skill`` and the like for the accuracy.
    """

    level: Level
    skill: float = math.nan
    loss: float = math.nan
    constant_loss: float = math.nan
    accuracy: float = math.nan
    constant_accuracy: float = math.nan
    best: float = math.nan

    def in_words(self) -> str:
        """Return the comparison as a clause."""
        if not math.isnan(self.accuracy):
            return (
                f"accuracy {self.accuracy:.1%}, and always answering the commonest class gives "
                f"{self.constant_accuracy:.1%}"
            )
        return f"loss {self.loss:.4g}, and a constant answer gives {self.constant_loss:.4g}"


def verdict_of(
    facts: Facts, last_loss: float = math.nan, label_counts: Mapping[int, int] | None = None
) -> Verdict:
    """Compare a model's answers with the best constant.

    Args:
        facts: What is known of the training, the model's answers after it among them.
        last_loss: Training loss at the end, which counts where it is the better of the two: some
            models answer worse in inference mode.
        label_counts: How often each class was trained on, as far as that was seen: the last loss
            is compared with what a constant makes of these, of which the rows looked at may hold
            few of the rare ones.

    Returns:
        The verdict.
    """
    y, y_pred = facts.y, facts.y_pred
    if y is None or y_pred is None or facts.loss is None or len(y) != len(y_pred):
        return Verdict("unknown")
    if not np.isfinite(y_pred).all() or not np.isfinite(y).all():
        return Verdict("unknown")
    constant = min((_loss(facts, answer) for answer in _constants(facts)), default=math.nan)
    own = _loss(facts, y_pred)
    if not math.isfinite(constant) or constant < NO_LOSS:
        return Verdict("unknown")
    skill = 1.0 - own / constant
    if not facts.is_weighted and math.isfinite(last_loss):
        skill = max(skill, 1.0 - last_loss / _constant_of(facts, label_counts or {}, constant))
    accuracy, common = _accuracies(facts)
    gain = (accuracy - common) / (1.0 - common) if common < 1.0 else math.nan
    if skill < AGREES and not facts.is_weighted:
        gain = min(gain, WELL - 0.01)
    best = max(skill, -1.0 if math.isnan(gain) else gain)
    if _auc(facts) >= GOOD_AUC and (facts.is_weighted or skill > AGREES):
        best = max(best, WELL)
    slack = NOTHING + 1.0 / math.sqrt(NOISE_ROWS + len(y)) * 0.5
    level: Level = "well" if best >= WELL else "nothing" if best < slack else "little"
    return Verdict(level, skill, own, constant, accuracy, common, best)


def inputs_tell_targets(facts: Facts) -> bool | None:
    """Tell whether near neighbours among the inputs have the same targets.

    Args:
        facts: What is known of the training.

    Returns:
        True where a vote of the nearest rows beats a constant clearly, False where it does not,
        None where this cannot be asked.
    """
    y = facts.y
    if y is None or len(facts.inputs) != 1 or len(y) < MIN_LEARNABLE_ROWS:
        return None
    x = facts.inputs[0].reshape(len(facts.inputs[0]), -1).astype(np.float64)
    if x.shape[1] > MAX_FEATURES or len(x) != len(y) or not np.isfinite(x).all():
        return None
    labels = class_numbers(facts)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-12)
    distances = (x**2).sum(axis=1)[:, None] - 2.0 * x @ x.T + (x**2).sum(axis=1)[None]
    np.fill_diagonal(distances, np.inf)
    near = np.argsort(distances, axis=1)[:, :NUM_NEIGHBOURS]
    if labels is not None:
        votes = labels[near]
        answers = np.array([np.bincount(row).argmax() for row in votes])
        common = np.bincount(labels).max() / len(labels)
        right = float((answers == labels).mean())
        return bool(right > common + 3.0 * math.sqrt(common * (1.0 - common) / len(labels)))
    if y.size != len(y):
        return None
    values = y.reshape(-1).astype(np.float64)
    error = float(((values[near].mean(axis=1) - values) ** 2).mean())
    return bool(error < 0.9 * float(values.var()))


def _loss(facts: Facts, answers: Array) -> float:
    assert facts.loss is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = float(np.mean(np.asarray(facts.loss(_shaped(facts), answers))))
    except Exception:  # the loss does not take these: other rules say why
        return math.nan
    return value


def _constant_of(facts: Facts, label_counts: Mapping[int, int], otherwise: float) -> float:
    """Return the cross-entropy of always answering how common each class is."""
    if not facts.family.endswith("crossentropy") or len(label_counts) < 2:
        return otherwise
    total = sum(label_counts.values())
    return -sum(n / total * math.log(n / total) for n in label_counts.values() if n)


def _shaped(facts: Facts) -> Array | None:
    """Return the targets in the shape of the answers: plain loss functions would broadcast."""
    y, y_pred = facts.y, facts.y_pred
    if y is None or y_pred is None or y.size != y_pred.size or facts.family.startswith("sparse"):
        return y
    return y.reshape(y_pred.shape)


def _constants(facts: Facts) -> list[Array]:
    """The answers that a model can give without a look at its inputs."""
    y, y_pred = facts.y, facts.y_pred
    assert y is not None
    assert y_pred is not None
    numbers = y.astype(np.float32)
    if facts.family == "sparse_categorical_crossentropy":
        if numbers.min() < 0 or numbers.max() >= y_pred.shape[-1]:
            return []
        shares = np.bincount(numbers.reshape(-1).astype(np.int64), minlength=y_pred.shape[-1])
        row = shares / shares.sum()
    elif facts.family == "categorical_crossentropy":
        if numbers.shape != y_pred.shape:
            return []
        row = numbers.reshape(-1, numbers.shape[-1]).mean(axis=0)
    elif numbers.size == y_pred.size:
        shaped = numbers.reshape(y_pred.shape)
        rows = [shaped.mean(axis=0), np.median(shaped, axis=0)]
        if facts.objective.from_logits:
            rows = [_logit(rows[0])]
        return [np.broadcast_to(row, y_pred.shape).astype(np.float32) for row in rows]
    else:
        return []
    if facts.objective.from_logits:
        row = np.log(np.maximum(row, 1e-7))
    return [np.broadcast_to(row, y_pred.shape).astype(np.float32)]


def _logit(share: Array) -> Array:
    inside = np.clip(share, 1e-6, 1.0 - 1e-6)
    return np.asarray(np.log(inside / (1.0 - inside)))


def class_numbers(facts: Facts) -> Array | None:
    """Return the class of each row; None where there is not one a row.

    Args:
        facts: What is known of the training.
    """
    y = facts.y
    if y is None:
        return None
    if facts.family == "categorical_crossentropy" and y.ndim == 2:
        return np.asarray(y.argmax(axis=-1), np.int64)
    if y.size != len(y) or (facts.family in REGRESSIONS and np.unique(y).size > 2):
        return None
    values = y.reshape(-1)
    if (values != np.rint(values)).any() or values.min() < 0 or values.max() > 10_000:
        return None
    return np.asarray(values, np.int64)


def _accuracies(facts: Facts) -> tuple[float, float]:
    if not facts.objective.is_classification or facts.y is None or facts.y_pred is None:
        return math.nan, math.nan
    predicted, labels = facts.objective.predictions(facts.y_pred), facts.objective.labels(facts.y)
    if not predicted.size or predicted.shape != labels.shape or labels.min() < 0:
        return math.nan, math.nan
    common = float(np.bincount(labels).max()) / len(labels)
    return float((predicted == labels).mean()), common


def _auc(facts: Facts) -> float:
    y, y_pred = facts.y, facts.y_pred
    if facts.family != "binary_crossentropy" or y is None or y_pred is None:
        return 0.0
    if y.size != y_pred.size or not np.isin(y, (0, 1)).all():
        return 0.0
    positive, scores = y.reshape(-1) == 1, y_pred.reshape(-1).astype(np.float64)
    num = int(positive.sum())
    if num < 5 or num > len(scores) - 5:
        return 0.0
    distinct, ranks = np.unique(scores, return_inverse=True)
    sizes = np.bincount(ranks, minlength=len(distinct))
    middle = np.cumsum(sizes) - (sizes - 1) / 2.0
    total = float(middle[ranks][positive].sum())
    return (total - num * (num + 1) / 2.0) / (num * (len(scores) - num))

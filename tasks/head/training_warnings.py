"""What speaks against training on a data set, or against a head that was trained on it."""

import math
from collections.abc import Sequence
from statistics import median

from headstart.config import SPLITS, HeadConfig, Split
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.head.stage import HeadManifest
from headstart.tasks.targets.choice import TARGETS

FEW_IMAGES = 5
"""Training images of the middle class up to which a nearest mean is proposed."""
MAX_NAMES = 5
"""Classes that a message names; the others are counted."""


def check_classes(index: DatasetIndex) -> None:
    """Refuse a data set of which a classifier cannot learn every class, or nothing at all.

    Raises:
        TrainingError: A class has no training image, or there is nothing to learn of the targets.
    """
    if index.kind != "class":  # a label that no training image has is told of with the data set
        target, num_outputs = TARGETS[index.kind], len(index.class_names)
        train = target.to_array(index.rows_of("train"), num_outputs)
        target.check(train, None, num_outputs, index.class_names)
        return
    nothing = (0,) * len(index.class_names)
    counts = {split: index.split_counts.get(split, nothing) for split in SPLITS}
    missing = [label for label, count in enumerate(counts["train"]) if count == 0]
    if not missing:
        return
    held_out = sum(counts[split][label] for split in ("val", "test") for label in missing)
    raise TrainingError(
        "a class has no training image",
        f"none of {_list([index.class_names[label] for label in missing])}"
        f" (val and test hold {held_out:,} of them)",
        "add training images of these classes, or remove their folders",
    )


def doubts(head: HeadManifest, index: DatasetIndex, config: HeadConfig) -> list[str]:
    """Say what makes a trained head doubtful.

    Returns:
        Sentences; none where the head is better than guessing. A loss above that of equal odds
        with an accuracy that one answer to everything would reach is a training that diverged.
    """
    best = head.history[head.best_epoch - 1]
    split: Split = "val" if head.has_val else "train"
    loss = best.val_loss if head.has_val else best.train_loss
    accuracy = best.val_accuracy if head.has_val else best.train_accuracy
    if loss is None or accuracy is None or head.penalty is not None or head.kind:
        return []  # what is solved or not trained has no rate
    counts = index.split_counts[split]
    equal_odds = math.log(head.num_classes)
    if loss < equal_odds or accuracy > max(counts) / sum(counts):
        return []
    return [
        f"this head is no better than guessing: {split} accuracy {accuracy:.4f}, loss {loss:.4g} "
        f"where guessing gives {equal_odds:.4g}. The likely cause is the learning rate "
        f"({config.learning_rate:g}): try --set head.learning_rate={config.learning_rate / 10:.3g}"
    ]


def propose_few_shot(features: Features, head: HeadManifest, config: HeadConfig) -> str:
    """Hold a trained head against the nearest mean, where a class has one to five images.

    Returns:
        A sentence with both figures; empty where there are more images, or none to judge by.
    """
    accuracy = head.history[head.best_epoch - 1].val_accuracy
    if not config.is_trained or accuracy is None:  # none where targets are no classes
        return ""
    if features.target.kind != "class":
        return ""
    if not few_images(index_of(features.dataset).split_counts["train"]):
        return ""
    rows = features.open(("train", "val"))
    from headstart.tasks.head.few_shot import nearest_mean_accuracy

    other = nearest_mean_accuracy(rows["train"], rows["val"], head.num_classes)
    told = f"of {len(rows['val']):,} val images a head without training gets {other:.4f} right"
    if other < accuracy:
        return f"with so few images per class: {told}, this one {accuracy:.4f}"
    return (
        f"with so few images per class, use --set head.kind=nearest_mean: {told}, this one "
        f"{accuracy:.4f}, and a new class only needs its own images"
    )


def few_images(counts: Sequence[int]) -> bool:
    """Say whether the typical class has so few images that training may do no better than none."""
    return bool(counts) and median(counts) <= FEW_IMAGES


def _list(names: Sequence[str]) -> str:
    shown = [printable(name) for name in names]
    more = len(shown) - MAX_NAMES
    return ", ".join(shown[:MAX_NAMES]) + (f" and {more:,} more" if more > 0 else "")

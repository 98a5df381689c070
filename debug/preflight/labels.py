"""Preflight checks that hold labels, last layer and loss against each other."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Facts
from headstart.debug.preflight.samples import Sample

MAX_FIRST_LOSS_FACTOR = 3.0
"""Loss at step 0 over ln(classes) from which on something is off. Source: A. Karpathy, "A Recipe
for Training Neural Networks" (2019): verify loss @ init; 3 leaves room for any initialiser."""

MIN_EMPTY = 0.02
"""Share of the rows without a class that is no accident."""


def label_format(sample: Sample) -> list[Diagnosis]:
    """Find one-hot labels with a sparse loss, and class indices with a categorical one."""
    y, y_pred = sample.y, sample.y_pred
    if y is None or y_pred is None or y_pred.shape[-1] < 2:
        return []
    one_hot = y.ndim == y_pred.ndim and y.shape[-1] == y_pred.shape[-1]
    kind = sample.objective.kind
    if kind == "sparse" and one_hot:
        received, wanted = "one-hot rows", "categorical_crossentropy"
    elif kind == "categorical" and y.ndim == y_pred.ndim and y.shape[-1] > 1 and not one_hot:
        return [_columns(y, y_pred.shape[-1])]
    elif kind == "categorical" and not one_hot:
        received, wanted = "class indices", "sparse_categorical_crossentropy"
    else:
        return []
    return [
        Diagnosis(
            symptom="label-format",
            cause=f"{sample.objective.name} does not accept {received}: labels have shape "
            f"{y.shape}, predictions {y_pred.shape}.",
            phase="loss",
            confidence=0.95,
            suggestions=(f"use loss={wanted!r}", "or convert the labels in the input pipeline"),
            evidence={"labels_shape": list(y.shape), "predictions_shape": list(y_pred.shape)},
        )
    ]


def _columns(y: npt.NDArray[Any], units: int) -> Diagnosis:
    """Say that there are more or fewer columns of labels than units."""
    columns = y.shape[-1]
    starts_at_one = columns == units + 1 and not y[..., 0].any()
    why = (
        " The first column is always 0: the labels count from 1, and to_categorical makes a column "
        "for each number from 0 to the largest."
        if starts_at_one
        else ""
    )
    return Diagnosis(
        symptom="label-columns",
        cause=f"The labels have {columns} columns (one-hot), but the last layer has {units} units: "
        f"one is needed for each class.{why}",
        phase="data",
        confidence=0.96,
        suggestions=(
            "count the classes from 0: keras.utils.to_categorical(y - 1)"
            if starts_at_one
            else "look at the labels: np.unique(y)",
            f"or give the last layer {columns} units",
        ),
        evidence={"columns": columns, "units": units},
    )


def label_range(sample: Sample) -> list[Diagnosis]:
    """Find labels that are no class of the model."""
    if label_format(sample) or sample.num_classes < 2 or sample.objective.kind == "categorical":
        return []
    labels, classes = sample.labels(), sample.num_classes
    labels = labels[labels != sample.objective.ignored_class]
    if not labels.size or (labels.min() >= 0 and labels.max() < classes):
        return []
    return [
        Diagnosis(
            symptom="label-out-of-range",
            cause=f"Labels go from {labels.min()} to {labels.max()}, but the model has {classes} "
            f"classes: 0 to {classes - 1} are allowed.",
            phase="data",
            confidence=0.95,
            suggestions=(
                "count the classes from 0 (labels - 1?)",
                f"give the last layer at least {int(labels.max()) + 1} units",
            ),
            evidence={"min": int(labels.min()), "max": int(labels.max()), "classes": classes},
        )
    ]


def empty_rows(facts: Facts) -> list[Diagnosis]:
    """Find one-hot labels of which some rows are all 0: a class that the depth left out.

    Args:
        facts: What is known of the training.

    Returns:
        A finding, or none.
    """
    y = facts.y
    if facts.family != "categorical_crossentropy" or facts.is_weighted or y is None:
        return []
    if y.ndim != 2 or not np.isin(y, (0, 1)).all() or (y.sum(axis=1) > 1).any():
        return []
    share = float((y.sum(axis=1) == 0).mean())
    if share < MIN_EMPTY:
        return []
    unused = [int(place) for place in np.flatnonzero(~y.any(axis=0))]
    which = f", and column {unused[0]} is never 1 (do the classes start at 1?)" if unused else ""
    return [
        Diagnosis(
            symptom="one-hot-rows-empty",
            cause=f"{share:.0%} of the one-hot label rows are all zeros: they have no class{which}."
            " A class number was out of range for the depth (num_classes) used to encode "
            "them; nothing can be learnt from such rows.",
            phase="data",
            confidence=0.96,
            suggestions=(
                "count the classes from 0: tf.one_hot(labels - 1, depth)",
                "or make the depth one larger than the largest class number",
            ),
            evidence={"share": share, "unused": unused, "at": "fit", "is_certain": True},
        )
    ]


def divided_masks(facts: Facts) -> list[Diagnosis]:
    """Find targets of 0 and 1 that were divided by 255, as if they were pixels.

    Args:
        facts: What is known of the model and its targets.
    """
    y = facts.targets if facts.targets is not None else facts.y
    if y is None or y.dtype.kind != "f" or not y.size:
        return []
    values = np.unique(y)
    if len(values) != 2 or values[0] != 0.0 or not np.isclose(values[1], 1 / 255, rtol=1e-3):
        return []
    return [
        Diagnosis(
            symptom="labels-are-fractions",
            cause=f"The targets are 0 and {values[1]:.4g}, which is 1/255: labels or masks of 0 "
            "and 1 were divided by 255, as pixels are. The model learns to predict nothing.",
            phase="data",
            confidence=0.97,
            suggestions=("divide the images alone; masks of 0 and 255: mask > 127",),
        )
    ]


def text_labels(given: Mapping[str, Any]) -> list[Diagnosis]:
    """Find labels that are strings.

    Args:
        given: What ``fit`` was given, by name.

    Returns:
        A finding, or none.
    """
    y = given.get("y")
    if not isinstance(y, list | tuple | np.ndarray):
        return []
    first = np.asarray(y[:1], dtype=object).reshape(-1)[:1]
    if not len(first) or not isinstance(first[0], str | bytes):
        return []
    return [
        Diagnosis(
            symptom="text-labels",
            cause=f"The labels are text (strings such as {first[0]!r}): they were never "
            "turned into class numbers, and a loss takes only numbers.",
            phase="data",
            confidence=0.97,
            suggestions=(
                "encode them: sklearn's LabelEncoder, keras.layers.StringLookup, or "
                "np.unique(labels, return_inverse=True)[1]",
            ),
            evidence={"at": "fit"},
        )
    ]


def high_first_loss(sample: Sample, first_loss: float | None) -> list[Diagnosis]:
    """Find a loss at step 0 that is far from that of a guess.

    Args:
        sample: The rows looked at.
        first_loss: The loss of the first step; None before it.

    Returns:
        A finding, or none.
    """
    if sample.num_classes < 2 or (first_loss is None and not sample.is_new):
        return []
    if first_loss is None and label_format(sample):
        return []  # there is no such loss
    if first_loss is None:
        batch = sample.batches[0]
        y_pred = sample.model(batch.x, training=False)
        first_loss = float(
            np.asarray(sample.model.compute_loss(batch.x, batch.y, y_pred, batch.weights))
        )
    chance = math.log(sample.num_classes)
    if not first_loss > MAX_FIRST_LOSS_FACTOR * chance:
        return []
    return [
        Diagnosis(
            symptom="first-loss",
            cause=f"The loss before any training is {first_loss:.4g}, but guessing among "
            f"{sample.num_classes} classes gives ln({sample.num_classes}) = {chance:.4g}.",
            step=0,
            phase="loss",
            severity="warning",
            confidence=0.6,
            suggestions=(
                "scale the inputs, and check that the last layer's activation suits the loss",
                "initialise the last layer with small weights",
            ),
            evidence={"loss": first_loss, "chance": chance, "at": "fit"},
        )
    ]

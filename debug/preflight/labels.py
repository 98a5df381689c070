"""Preflight checks that hold labels, last layer and loss against each other."""

import math
from typing import Any

import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.objectives import are_probabilities
from headstart.debug.preflight.samples import Sample

MAX_FIRST_LOSS_FACTOR = 3.0
"""Loss at step 0 over ln(classes) from which on something is off. Source: A. Karpathy, "A Recipe
for Training Neural Networks" (2019): verify loss @ init; 3 leaves room for any initialiser."""


def label_format(sample: Sample) -> list[Diagnosis]:
    """Find one-hot labels with a sparse loss, and class indices with a categorical one."""
    y, y_pred = sample.y, sample.y_pred
    if y is None or y_pred is None or y_pred.shape[-1] < 2:
        return []
    one_hot = y.ndim == y_pred.ndim and y.shape[-1] == y_pred.shape[-1]
    kind = sample.objective.kind
    if kind == "sparse" and one_hot:
        received, wanted = "one-hot rows", "categorical_crossentropy"
    elif kind == "categorical" and not one_hot:
        received, wanted = "class indices", "sparse_categorical_crossentropy"
    else:
        return []
    return [
        Diagnosis(
            symptom="label-format",
            cause=f"{sample.objective.name} does not go with {received}: labels have shape "
            f"{y.shape}, predictions {y_pred.shape}.",
            phase="loss",
            confidence=0.95,
            suggestions=(f"use loss={wanted!r}", "or convert the labels in the input pipeline"),
            evidence={"labels_shape": list(y.shape), "predictions_shape": list(y_pred.shape)},
        )
    ]


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


def softmax_and_logits(sample: Sample) -> list[Diagnosis]:
    """Find a loss that expects logits behind a softmax or sigmoid, and the other way round."""
    y_pred, objective = sample.y_pred, sample.objective
    if y_pred is None or not objective.is_classification or not np.isfinite(y_pred).all():
        return []
    activation = _last_activation(sample)
    if objective.kind != "binary" and y_pred.shape[-1] == 1:
        return [_one_unit(sample)]
    if objective.kind == "binary":
        if activation == "softmax" and y_pred.shape[-1] == 1:
            return [_one_unit(sample)]
        squashed = activation == "sigmoid"
        outside = bool(y_pred.min() < 0.0 or y_pred.max() > 1.0)
    else:
        squashed = activation == "softmax" or are_probabilities(y_pred)
        outside = not are_probabilities(y_pred)
    if objective.from_logits and squashed:
        return [_twice(sample, activation or "softmax")]
    return [_never(sample)] if not objective.from_logits and outside else []


def _twice(sample: Sample, activation: str) -> Diagnosis:
    return Diagnosis(
        symptom="softmax-with-from-logits",
        cause=f"The model ends in a {activation} and {sample.objective.name} with from_logits=True "
        "applies it again: gradients are squashed.",
        phase="loss",
        confidence=0.9,
        suggestions=(
            "drop the activation of the last layer",
            "or leave from_logits at False",
        ),
    )


def _never(sample: Sample) -> Diagnosis:
    return Diagnosis(
        symptom="logits-without-from-logits",
        cause=f"{sample.objective.name} expects probabilities, but the model's outputs are none: "
        "no softmax or sigmoid at the end, and from_logits is False.",
        phase="loss",
        confidence=0.9,
        suggestions=("pass from_logits=True to the loss", "or end in a softmax (or sigmoid)"),
    )


def _one_unit(sample: Sample) -> Diagnosis:
    return Diagnosis(
        symptom="softmax-on-one-unit",
        cause=f"A softmax or {sample.objective.name} over a single unit is always 1: nothing can "
        "be learnt.",
        phase="model",
        confidence=0.9,
        suggestions=(
            "one unit: sigmoid and binary_crossentropy",
            "or one unit a class and sparse_categorical_crossentropy",
        ),
    )


def first_loss(sample: Sample) -> list[Diagnosis]:
    """Find a loss at step 0 that is far from that of a guess."""
    if sample.num_classes < 2 or not sample.is_new or _explained(sample):
        return []
    batch = sample.batches[0]
    y_pred = sample.model(batch.x, training=False)
    loss = float(np.asarray(sample.model.compute_loss(batch.x, batch.y, y_pred, batch.weights)))
    chance = math.log(sample.num_classes)
    if loss <= MAX_FIRST_LOSS_FACTOR * chance:
        return []
    return [
        Diagnosis(
            symptom="first-loss",
            cause=f"The loss before any training is {loss:.4g}; a model that guesses among "
            f"{sample.num_classes} classes has ln({sample.num_classes}) = {chance:.4g}.",
            step=0,
            phase="loss",
            severity="warning",
            confidence=0.6,
            suggestions=(
                "scale the inputs, check the last layer's activation against the loss",
                "initialise the last layer with small weights",
            ),
            evidence={"loss": loss, "chance": chance},
        )
    ]


def _explained(sample: Sample) -> bool:
    return bool(label_format(sample) or label_range(sample) or softmax_and_logits(sample))


def _last_activation(sample: Sample) -> str:
    layers = getattr(sample.model, "layers", [])
    last: Any = layers[-1] if layers else None
    while getattr(last, "layers", None):  # a nested model
        last = last.layers[-1]
    if type(last).__name__ == "Softmax":
        return "softmax"
    return getattr(getattr(last, "activation", None), "__name__", "")

"""One table: last layer against loss, targets and metric.

Every row of `TABLE` says what must not meet. A row speaks of what was measured: the activation
that gives the output its range, its width, the loss, and the values of the targets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.debug.diagnosis import Diagnosis, Phase
from headstart.debug.preflight.facts import Facts
from headstart.debug.preflight.objectives import REGRESSIONS
from headstart.debug.preflight.targets import (
    accuracy_of_numbers,
    accuracy_on_logits,
    classes_as_numbers,
    classes_in,
    ends_frozen,
    no_distribution,
    number_loss_for_classes,
    values_of,
)
from headstart.debug.symptoms.trace import TrainingTrace

RANGES = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, np.inf),
    "exponential": (0.0, np.inf),
    "softsign": (-1.0, 1.0),
}
"""What each activation can give."""
MAX_OUTSIDE = 0.01
"""Share of the targets that may lie outside: outliers of a scaler that saw other rows."""
MIN_VARIED = 4
"""Answers of which one at least must not be 0."""
SUM_TOLERANCE = 1e-3
"""How far a sum of probabilities may be from 1."""
MIN_ROWS = 64
"""Targets before "all are equal" means something."""
CROSS_ENTROPIES = (
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
)


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        symptom: Short code of the finding.
        finds: Returns the cause in a sentence, or an empty text where all is well.
        suggestions: What the user can try.
        at: ``last`` where the last layer is the line to name, ``compile`` or ``data``.
        confidence: How sure it is.
        is_certain: Whether nothing can come of the training; otherwise the finding is told only
            of a training that went badly.
    """

    symptom: str
    finds: Callable[[Facts], str]
    suggestions: tuple[str, ...]
    at: str = "last"
    confidence: float = 0.97
    is_certain: bool = True


def check_outputs(facts: Facts) -> list[Diagnosis]:
    """Hold the last layer against loss and targets.

    Args:
        facts: What is known of the training.

    Returns:
        The findings; ``evidence["is_certain"]`` tells those with which nothing can be learnt.
    """
    found = []
    for row in TABLE:
        cause = row.finds(facts)
        if cause:
            found.append(_diagnosis(row, cause, facts))
    return found


def one_class_seen(facts: Facts, trace: TrainingTrace) -> list[Diagnosis]:
    """Find a stream of labels that are all one class, however many batches it gave.

    Args:
        facts: What is known of the training.
        trace: The record of it, with the labels that were counted.

    Returns:
        A finding, or none; of arrays the table itself tells.
    """
    counts = trace.label_counts
    if facts.is_complete or len(counts) != 1 or len(facts.inputs) > 1:
        return []
    label, rows = next(iter(counts.items()))
    if rows < MIN_ROWS or len(trace.epochs) < 1:
        return []
    row = next(one for one in TABLE if one.symptom == "one-class-only")
    return [_diagnosis(row, _all_alike(rows, f"{label}"), facts)]


def _all_alike(num_rows: int, value: str) -> str:
    return (
        f"All {num_rows} targets checked are the same: every label is {value}. With only one class "
        "there is nothing to tell apart. Were they compared with a string that none of them equals "
        "(case, spaces), or cast to a whole number?"
    )


def _diagnosis(row: Row, cause: str, facts: Facts) -> Diagnosis:
    phases: dict[str, Phase] = {"last": "model", "compile": "loss", "data": "data"}
    last = facts.last
    return Diagnosis(
        symptom=row.symptom,
        cause=cause,
        layer=last.path if row.at == "last" and last is not None else None,
        phase=phases[row.at],
        confidence=row.confidence,
        suggestions=row.suggestions,
        evidence={
            "is_certain": row.is_certain,
            "at": row.at,
            "activation": facts.activation,
            "units": facts.units,
            "loss": facts.family or facts.objective.name,
        },
    )


def _softmax_on_one_unit(facts: Facts) -> str:
    if facts.activation != "softmax" or facts.units != 1:
        return ""
    return (
        "Softmax over a single unit is always 1, whatever the input: the output is constant and "
        f"nothing can be learnt{_aim(facts)}."
    )


def _aim(facts: Facts) -> str:
    values = values_of(facts)
    if values is None:
        return ""
    classes = classes_in(values)
    if classes and len(classes) > 2:
        return f" (the targets have {len(classes)} values)"
    return "" if classes else f" (the targets go from {values.min():.4g} to {values.max():.4g})"


def _one_unit_for_classes(facts: Facts) -> str:
    """One unit under a categorical cross-entropy: the row of one is divided by its own sum."""
    if facts.units != 1 or facts.activation == "softmax":
        return ""
    if facts.family == "categorical_crossentropy":
        return (
            "categorical_crossentropy over a single unit is always 0: it divides the one output "
            "by itself. Nothing can be learnt."
        )
    if facts.family == "sparse_categorical_crossentropy":
        return (
            "The output has one unit, but sparse_categorical_crossentropy needs one unit per "
            "class: with a single unit the answer is always class 0."
        )
    if facts.family == "binary_crossentropy":
        values = values_of(facts)
        classes = classes_in(values) if values is not None else []
        if len(classes) > 2 and min(classes) >= 0 and max(classes) > 1:
            return (
                f"The labels have {len(classes)} classes ({classes[0]} to {classes[-1]}), but the "
                "output is one unit under binary_crossentropy, which only distinguishes 0 and 1."
            )
    return ""


def _binary_labels_outside(facts: Facts) -> str:
    values = values_of(facts)
    if facts.family != "binary_crossentropy" or values is None or _one_unit_for_classes(facts):
        return ""
    if values.min() >= -1e-6 and values.max() <= 1.0 + 1e-6:
        return ""
    return (
        f"binary_crossentropy takes targets from 0 to 1, but they go from {values.min():.4g} to "
        f"{values.max():.4g}: its loss falls without end below 0."
    )


def _softmax_over_rows(facts: Facts) -> str:
    """A softmax whose sums of 1 go down the batch and not along the classes."""
    y_pred = facts.y_pred
    if y_pred is None or y_pred.ndim != 2 or len(y_pred) < MIN_VARIED:
        return ""
    values = y_pred.astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0.0 or not np.ptp(values) > 0.0:
        return ""
    down, along = values.sum(axis=0), values.sum(axis=1)
    if np.abs(down - 1.0).max() > SUM_TOLERANCE or np.abs(along - 1.0).max() <= SUM_TOLERANCE:
        return ""
    return (
        f"The softmax at the end is taken over the wrong axis: over the {len(values)} rows of the "
        f"batch (axis=0) each output sums to 1, instead of the {facts.units} outputs of a row. A "
        "prediction depends on whichever rows share its batch."
    )


def _no_probabilities(facts: Facts) -> str:
    """relu, tanh or nothing at the end of a network whose loss takes probabilities."""
    if facts.family not in CROSS_ENTROPIES or facts.objective.from_logits:
        return ""
    name = facts.activation
    if name in ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "softplus"):
        return (
            f"The last layer ends in {name}, but {facts.family} takes probabilities: the outputs "
            "are not between 0 and 1, rows do not sum to 1, and a 0 goes into the logarithm."
        )
    if name == "tanh":
        return (
            f"The last layer ends in tanh, which goes from -1 to 1, but {facts.family} takes "
            "probabilities between 0 and 1: a negative output has no logarithm."
        )
    if name == "linear":
        return (
            f"The last layer has no activation (no softmax or sigmoid), so its outputs are logits "
            f"and not probabilities, but {facts.family} is left at from_logits=False."
        )
    y_pred = facts.y_pred
    if name or y_pred is None or not np.isfinite(y_pred).all():
        return ""
    if y_pred.min() >= -1e-3 and y_pred.max() <= 1.0 + 1e-3:
        return ""
    return (
        f"{facts.family} takes probabilities, but the model's outputs go from "
        f"{y_pred.min():.4g} to {y_pred.max():.4g}: no softmax or sigmoid at the end, and "
        "from_logits is False."
    )


def _relu_logits(facts: Facts) -> str:
    if not facts.objective.from_logits or facts.activation not in ("relu", "relu6"):
        return ""
    return (
        f"relu on the last layer cuts off every negative logit, and {facts.objective.name} with "
        "from_logits=True takes scores of either sign: below 0 there is no gradient."
    )


def _squashed_twice(facts: Facts) -> str:
    if not facts.objective.from_logits or facts.activation not in ("softmax", "sigmoid"):
        return ""
    return (
        f"The model ends in a {facts.activation}, and {facts.objective.name} with "
        "from_logits=True applies it again: the gradients are squashed."
    )


def _sigmoid_for_exclusive(facts: Facts) -> str:
    if facts.activation not in ("sigmoid", "hard_sigmoid") or facts.units < 2:
        return ""
    if facts.family not in ("categorical_crossentropy", "sparse_categorical_crossentropy"):
        return ""
    if facts.objective.from_logits:
        return ""
    return (
        f"Sigmoid on the last layer under {facts.family}: the {facts.units} outputs are "
        "independent and do not sum to 1, but the loss takes a distribution over exclusive "
        "classes, which softmax gives."
    )


def _softmax_for_several(facts: Facts) -> str:
    y = facts.targets
    if facts.activation != "softmax" or facts.units < 2 or y is None or y.ndim < 2:
        return ""
    if y.shape[-1] != facts.units or not np.isin(y, (0, 1)).all():
        return ""
    several = float((y.reshape(-1, y.shape[-1]).sum(axis=-1) > 1).mean())
    if several < MAX_OUTSIDE:
        return ""
    return (
        f"Softmax makes the {facts.units} outputs compete for a sum of 1, but the labels are "
        f"independent: {several:.0%} of the rows have several of them at once (multi-label)."
    )


def _softmax_for_numbers(facts: Facts) -> str:
    y = facts.targets
    if facts.activation != "softmax" or facts.units < 2 or y is None:
        return ""
    if facts.family not in (*REGRESSIONS, "msle"):
        return ""
    sums = y.reshape(-1, y.shape[-1]).sum(axis=-1) if y.ndim > 1 else y
    if y.ndim > 1 and y.shape[-1] == facts.units and np.abs(sums - 1.0).max() < 1e-3:
        return ""
    if y.min() >= 0.0 and y.max() <= 1.0 and _softmax_for_several(facts):
        return ""
    return (
        f"Softmax gives {facts.units} probabilities that sum to 1, but this is a regression "
        f"({facts.family}) of targets from {y.min():.4g} to {y.max():.4g}: outside the range "
        "of a softmax."
    )


def _out_of_range(facts: Facts) -> str:
    y, name = values_of(facts), facts.activation
    if name not in RANGES or y is None or name == "softmax":
        return ""
    if facts.family not in (*REGRESSIONS, "msle", "poisson"):
        return ""
    least, most = RANGES[name]
    outside = float(((y < least - 1e-3) | (y > most + 1e-3)).mean())
    if outside <= MAX_OUTSIDE:
        return ""
    span = f"from {least:g} to {most:g}" if np.isfinite(most) else "nothing below 0"
    return (
        f"The last layer ends in {name}, which gives {span}, but the targets go from "
        f"{y.min():.4g} to {y.max():.4g}: {outside:.0%} of them are outside its range and can "
        "never be reached."
    )


def _silent_output(facts: Facts) -> str:
    y, y_pred = values_of(facts), facts.y_pred
    if facts.activation not in ("relu", "relu6") or y_pred is None or y is None or not y.any():
        return ""
    if len(y_pred) < MIN_VARIED or y_pred.any():
        return ""
    return (
        "relu on the last layer gives 0 for every row: a relu unit below 0 has no gradient, so "
        "the output can never leave it (dying relu)."
    )


def _relu_for_yes_or_no(facts: Facts) -> str:
    y = values_of(facts)
    if facts.activation not in ("relu", "relu6") or facts.family not in REGRESSIONS or y is None:
        return ""
    if not np.isin(y, (0, 1)).all():
        return ""
    return (
        f"relu on the last layer for targets of 0 and 1 under {facts.family}: its output is not a "
        "probability, and a unit below 0 gets no gradient. This is a classification problem."
    )


def _binary_loss_for_classes(facts: Facts) -> str:
    if facts.family != "binary_crossentropy" or facts.activation != "softmax" or facts.units < 2:
        return ""
    if _softmax_for_several(facts):
        return ""
    return (
        f"binary_crossentropy after a softmax over {facts.units} exclusive classes: it scores "
        "each output on its own, as yes or no. The loss for one class out of several is "
        "categorical_crossentropy."
    )


def _fractional_labels(facts: Facts) -> str:
    y = facts.targets
    if facts.family != "sparse_categorical_crossentropy" or y is None or y.dtype.kind != "f":
        return ""
    fractions = float((y != np.rint(y)).mean()) if np.isfinite(y).all() else 0.0
    if fractions <= MAX_OUTSIDE:
        return ""
    return (
        f"The labels are fractions (from {y.min():.4g} to {y.max():.4g}), but "
        "sparse_categorical_crossentropy takes class numbers: cut to integers they are "
        f"{np.unique(y.astype(np.int64)).size} class(es)."
    )


def _one_value(facts: Facts) -> str:
    y = facts.targets
    if y is None or not facts.is_complete or len(y) < MIN_ROWS or not facts.family:
        return ""
    is_of_pairs = len(facts.inputs) > 1  # the first is always the better one
    is_regression = facts.family in REGRESSIONS and facts.activation not in ("sigmoid", "softmax")
    if is_of_pairs or is_regression or ends_frozen(facts):
        return ""  # residuals that should be 0, or what a generator has to be taken for
    if not all(np.isfinite(part).all() for part in facts.inputs if part.dtype.kind == "f"):
        return ""  # NaN in the inputs ends the training before the targets matter
    flat = y.reshape(len(y), -1)
    if (flat != flat[:1]).any():
        return ""
    return _all_alike(len(y), ", ".join(f"{number:g}" for number in flat[0][:4]))


def _sequence_for_one(facts: Facts) -> str:
    y, y_pred = facts.y, facts.y_pred
    if y is None or y_pred is None or y_pred.ndim < 3 or len(y) != len(y_pred):
        return ""
    single = y.size == len(y)
    if facts.family.startswith("sparse") and y.shape == y_pred.shape[:-1]:
        return ""  # a class for each step, however many steps there are
    one_hot = y.ndim == 2 and y.shape[1] == y_pred.shape[-1]
    if not single and not one_hot:
        return ""
    if y_pred.size == y.size or (y_pred.shape[1:-1] == (1,) * (y_pred.ndim - 2)):
        return ""
    shape = ", ".join(map(str, y_pred.shape[1:]))
    returns = [use for use in facts.uses if getattr(use.layer, "return_sequences", False)]
    if returns:
        return (
            f"The model gives a whole sequence ({shape}) for each row, but there is one target per "
            "row: the last recurrent layer has return_sequences=True, and every time step is "
            "compared with the same target by broadcasting."
        )
    return (
        f"Flatten is missing: the model gives an output of shape ({shape}) for each row instead of "
        f"one, because the Dense layers work on the last axis only; there is one target per row."
    )


_LINEAR = "give the last layer no activation (linear), and scale the targets to about -1 to 1"
TABLE: tuple[Row, ...] = (
    Row("softmax-on-one-unit", _softmax_on_one_unit, (
        "yes or no: one unit with sigmoid, and binary_crossentropy",
        "several classes: a softmax with one unit for each class, and "
        "sparse_categorical_crossentropy",
        "a number (regression): one unit without activation (linear), and mse"), confidence=0.99),
    Row("one-unit-for-classes", _one_unit_for_classes, (
        "several classes: one unit for each class, softmax, and sparse_categorical_crossentropy",
        "yes or no: one unit with sigmoid, and binary_crossentropy"), confidence=0.98),
    Row("softmax-over-rows", _softmax_over_rows, (
        "take it over the classes, which is the default: softmax(logits, axis=-1)",),
        confidence=0.98),
    Row("missing-flatten", _sequence_for_one, (
        "recurrent layers: leave return_sequences=False in the last one",
        "images: put Flatten() or GlobalAveragePooling2D() before the Dense layers"),
        confidence=0.98),
    Row("labels-are-fractions", _fractional_labels, (
        "do not divide or scale the labels with the inputs: give the class numbers 0, 1, 2, ...",
        "a regression instead: one linear unit and mse"), "data", 0.97),
    Row("one-class-only", _one_value, (
        "look at the labels after each conversion: a cast to int cuts 0.9 to 0 "
        "(compare with a threshold first)",
        "compare strings exactly as they are written: print(set(labels)) first",
        "look at how the rows were selected"), "data", 0.96),
    Row("logits-without-from-logits", _no_probabilities, (
        "end in softmax (one class of several), or sigmoid (yes or no, independent labels)",
        "or end in no activation and pass from_logits=True to the loss")),
    Row("relu-on-logits", _relu_logits, (
        "give the last layer no activation",), confidence=0.9, is_certain=False),
    Row("softmax-with-from-logits", _squashed_twice, (
        "drop the activation of the last layer", "or leave from_logits at False"), "compile", 0.9),
    Row("labels-out-of-range", _binary_labels_outside, (
        "turn labels of -1 and 1 into 0 and 1, or use hinge with tanh",
        "scale continuous targets to 0..1, or use a linear unit with mse"), "data", 0.96),
    Row("targets-no-distribution", no_distribution, (
        "values to be met one by one (a heat map): a linear or sigmoid unit each, and mse or "
        "binary_crossentropy",
        "distributions: divide each row of the targets by its sum, and end in softmax"),
        "compile", 0.96),
    Row("softmax-on-independent-labels", _softmax_for_several, (
        "use sigmoid in the last layer and binary_crossentropy: one yes or no for each label",),
        confidence=0.96),
    Row("softmax-on-regression", _softmax_for_numbers, (
        _LINEAR, "one class of several: categorical_crossentropy with one-hot labels"),
        confidence=0.96),
    Row("targets-out-of-range", _out_of_range, (
        _LINEAR, "or scale the targets into the range of the activation"), confidence=0.97),
    Row("silent-output", _silent_output, (
        "give the last layer no activation (linear), softplus, or sigmoid for yes or no",),
        confidence=0.95),
    Row("sigmoid-on-exclusive-classes", _sigmoid_for_exclusive, (
        "use softmax in the last layer",
        "labels that do not exclude each other: keep sigmoid, and use binary_crossentropy"),
        confidence=0.88, is_certain=False),
    Row("relu-on-yes-or-no", _relu_for_yes_or_no, (
        "use sigmoid in the last layer and binary_crossentropy",),
        confidence=0.88, is_certain=False),
    Row("binary-loss-on-classes", _binary_loss_for_classes, (
        "use categorical_crossentropy (one-hot labels) or sparse_categorical_crossentropy",
        "labels that do not exclude each other: keep binary_crossentropy, and use sigmoid"),
        "compile", 0.87, is_certain=False),
    Row("mse-on-classes", number_loss_for_classes, (
        "sigmoid on one unit: binary_crossentropy",
        "softmax: categorical_crossentropy (one-hot labels) or sparse_categorical_crossentropy",
        "and train longer: more epochs, Adam instead of sgd"), "compile", 0.82, is_certain=False),
    Row("classes-as-numbers", classes_as_numbers, (
        "one unit for each class, softmax, and sparse_categorical_crossentropy",
        "yes or no: one unit with sigmoid, and binary_crossentropy"), "compile", 0.7,
        is_certain=False),
    Row("accuracy-on-regression", accuracy_of_numbers, (
        "metrics=['mae'] or keras.metrics.R2Score() for a regression",
        "if these are classes: one unit for each, softmax, and a cross-entropy"), "compile", 0.6,
        is_certain=False),
    Row("accuracy-on-logits", accuracy_on_logits, (
        "metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)]",), "compile", 0.55,
        is_certain=False),
)  # fmt: skip
"""Combinations of last layer, loss and targets that cannot work."""

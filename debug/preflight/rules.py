"""One list of what is held against a model, its data and its settings.

`headstart debug check` goes through it before the first step, `headstart debug run` when a `fit`
has ended, and of the first `fit` also before its first step: by the rules that are always told. A
rule stands here once; where one of the two leaves it out, the list says why.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import failures
from headstart.debug.preflight import (
    augmentation,
    data,
    held_out,
    inputs,
    labels,
    layers,
    settings,
    training,
)
from headstart.debug.preflight.facts import MAX_ROWS, Facts, facts_of, pick_rows
from headstart.debug.preflight.leaks import leaking_column
from headstart.debug.preflight.lookups import ids_beyond_tables
from headstart.debug.preflight.monitors import wrong_modes
from headstart.debug.preflight.moving import moving_split
from headstart.debug.preflight.objectives import optimizer_of
from headstart.debug.preflight.outputs import check_outputs, one_class_seen
from headstart.debug.preflight.own_losses import wrong_sign
from headstart.debug.preflight.precision import half_precision
from headstart.debug.preflight.row_losses import few_rows
from headstart.debug.preflight.samples import Batch, Sample
from headstart.debug.preflight.untracked import partly_tracked
from headstart.debug.preflight.verdict import Verdict
from headstart.debug.preflight.weighting import concentrated_weights, weights_with_counts
from headstart.debug.preflight.wrapping import wrapped_integers
from headstart.debug.symptoms.trace import TrainingTrace

FEW = 32
"""Rows to take a step on."""

Told = Literal["always", "improvable", "badly", "settings"]

_log = logging.getLogger("headstart.debug")


@dataclass(frozen=True)
class Case:
    """What the rules are given.

    Args:
        model: The compiled Keras model.
        given: What ``fit`` was given, by name.
        facts: What was measured of it; None where the model takes no such look.
        trace: The record of the training; None before its first step.
        batches: The last batches it saw, for data that cannot be read again.
        rows: What the rows that are trained on are known by (`overlaps.keys_of`).
        is_broken: Whether the training ended in an exception, or in NaN.
        verdict: What it came to.
    """

    model: Any
    given: Mapping[str, Any]
    facts: Facts | None
    trace: TrainingTrace | None = None
    batches: Any = ()
    rows: Collection[int] = ()
    is_broken: bool = False
    verdict: Verdict = field(default_factory=lambda: Verdict("unknown"))

    @property
    def sample(self) -> Sample | None:
        """The rows looked at, as one batch."""
        facts = self.facts
        if facts is None:
            return None
        steps = getattr(optimizer_of(self.model), "iterations", None)
        is_new = steps is None or int(steps.numpy()) == 0
        batch = Batch(facts.x, facts.y, None)
        return Sample(self.model, (batch,), facts.y_pred, facts.objective, is_new)

    @property
    def few(self) -> Sample | None:
        """Few rows, to take a step on; None where a step has failed already."""
        sample = None if self.is_broken else self.sample
        if sample is None:
            return None
        batch = sample.batches[0]
        first = Batch(pick_rows(batch.x, FEW), pick_rows(batch.y, FEW), None)
        return replace(sample, batches=(first,), y_pred=None)

    @property
    def callbacks(self) -> Any:
        """The callbacks that ``fit`` was given."""
        return self.given.get("callbacks") or ()

    @property
    def validation_split(self) -> float:
        """Share of the arrays that ``fit`` holds out."""
        return float(self.given.get("validation_split") or 0.0)

    @property
    def targets(self) -> Any:
        """The targets that ``fit`` was given; empty where they are in a stream."""
        y = self.given.get("y")
        return () if y is None else y

    @property
    def first_loss(self) -> float | None:
        """The loss of the first step, which no step had changed; None before it."""
        if self.trace is None or self.trace.is_resumed or not self.trace.losses:
            return None
        return self.trace.losses[0]

    @property
    def rates(self) -> list[float]:
        """The learning rate at some steps."""
        return [] if self.trace is None else [one.learning_rate for one in self.trace.samples]

    @property
    def label_counts(self) -> Mapping[int, int]:
        """Rows of each class, as far as the training was seen."""
        return {} if self.trace is None else self.trace.label_counts


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        finds: Returns the findings.
        needs: What it is given: attributes of `Case`. Without one of them it is not asked.
        told: Of which trainings `run` tells it, and `check` as a warning but for ``always``: of
            every one, where scaling could still help, of one that went badly, or as settings are
            (those far off always).
        only: The one of the two that applies it; empty for both.
        because: Why the other does not.
    """

    finds: Callable[..., list[Diagnosis]]
    needs: str
    told: Told = "always"
    only: Literal["", "check", "run"] = ""
    because: str = ""

    def of(self, case: Case) -> list[Diagnosis]:
        """Apply the rule; one that breaks says nothing, and is kept as a failure.

        Args:
            case: What it is about.

        Returns:
            The findings.
        """
        try:
            arguments = [getattr(case, name) for name in self.needs.split()]
            if any(one is None and name in ("facts", "sample", "few", "trace")
                   for one, name in zip(arguments, self.needs.split(), strict=True)):  # fmt: skip
                return []
            return self.finds(*arguments)
        except Exception as error:
            failures.setdefault(f"the rule {self.finds.__name__}", repr(error))
            _log.debug("%s could not be applied: %r", self.finds.__name__, error)
            return []


RULES: tuple[Rule, ...] = (
    Rule(training.nothing_to_train, "model"),
    Rule(settings.impossible_settings, "model"),
    Rule(training.untouched_normalization, "model", only="run",
         because="looks at what the steps left behind"),
    Rule(labels.text_labels, "given"),
    Rule(ids_beyond_tables, "model given"),
    Rule(moving_split, "given"),
    Rule(held_out.shared_rows, "given"),
    Rule(held_out.shared_with_stream, "rows batches given"),
    Rule(inputs.split_order, "targets validation_split"),
    Rule(inputs.scale_of_splits, "given batches"),
    Rule(wrong_modes, "model callbacks facts", only="run",
         because="a callback knows what it compares only once the training has begun"),
    Rule(check_outputs, "facts"),
    Rule(labels.label_format, "sample"),
    Rule(labels.label_range, "sample"),
    Rule(labels.empty_rows, "facts"),
    Rule(labels.divided_masks, "facts"),
    Rule(training.stale_trainable_flags, "sample"),
    Rule(layers.softmax_of_one, "facts"),
    Rule(layers.inverted_mask, "facts"),
    Rule(layers.idle_masking, "facts"),
    Rule(layers.shuffled_states, "model given"),
    Rule(few_rows, "facts"),
    Rule(partly_tracked, "facts"),
    Rule(wrong_sign, "facts trace", only="run", because="it looks where the loss went"),
    Rule(leaking_column, "facts"),
    Rule(weights_with_counts, "facts given label_counts batches"),
    Rule(concentrated_weights, "given"),
    Rule(half_precision, "facts is_broken"),
    Rule(one_class_seen, "facts trace", only="run", because="it counts the labels of the steps"),
    Rule(inputs.too_few_rows, "given trace", only="run", because="it counts the steps"),
    Rule(inputs.exchanged, "given trace", only="run", because="it counts the steps"),
    Rule(layers.lagging_normalization, "facts trace verdict", only="run",
         because="it compares training with inference"),
    Rule(settings.odd_settings, "facts rates", "settings"),
    Rule(wrapped_integers, "", "badly"),
    Rule(data.bad_values, "sample", "badly"),
    Rule(data.constant_rows, "sample", "badly"),
    Rule(data.backbone_range, "sample", "badly"),
    Rule(inputs.unscaled_inputs, "facts", "improvable"),
    Rule(inputs.tiny_inputs, "facts", "improvable"),
    Rule(labels.high_first_loss, "sample first_loss", "badly"),
    Rule(layers.unmasked_padding, "facts", "badly", only="run",
         because="many models learn in spite of it"),
    Rule(augmentation.unmoved_targets, "facts", "badly", only="run",
         because="a flip that the data set makes is known once it has made some"),
    Rule(inputs.unscaled_targets, "facts", "badly", only="run",
         because="many models reach them in time"),
    Rule(training.frozen_layers, "few", "badly"),
    Rule(training.batch_normalization, "few", "badly"),
    Rule(training.gradients, "few", only="check",
         because="run measures the gradients of the steps (symptoms/network.py)"),
)  # fmt: skip
"""What is held against a training, in the order in which it is asked."""
STEPPING = (training.frozen_layers, training.batch_normalization, training.gradients)
"""Rules that take a step on a batch: the caller puts the model back."""
SAY_MORE = {
    "unscaled-input": ("input-scale",),
    "one-class-only": ("label-out-of-range",),
    "label-format": ("one-unit-for-classes", "softmax-on-one-unit", "missing-flatten"),
    "label-out-of-range": ("one-unit-for-classes", "softmax-on-one-unit", "missing-flatten",
                           "labels-are-fractions"),
}  # fmt: skip
"""Symptom -> those that say the same, and more."""


def apply_rules(case: Case, rules: Iterable[Rule]) -> list[Diagnosis]:
    """Apply rules to a training.

    Args:
        case: What they are about.
        rules: The rules, some of `RULES`.

    Returns:
        The findings, in the order of the rules, without those of which another says more.
    """
    return said_once([one for rule in rules for one in rule.of(case)])


def said_once(found: list[Diagnosis]) -> list[Diagnosis]:
    """Leave out what another finding says as well, and more.

    Args:
        found: Findings of one training.
    """
    named = {one.symptom for one in found}
    return [one for one in found if not named.intersection(SAY_MORE.get(one.symptom, ()))]


def facts_for(
    model: Any,
    given: Mapping[str, Any],
    batches: Any,
    is_weighted: bool = False,
    max_rows: int = MAX_ROWS,
) -> Facts | None:
    """Look at a model on some rows of the data of a ``fit``.

    Args:
        model: The compiled Keras model.
        given: What ``fit`` was given, by name.
        batches: Some batches, for data that cannot be read again.
        is_weighted: Whether batches are known to hold weights.
        max_rows: Rows that the model is run on; what each layer makes of them is kept.

    Returns:
        The facts; None where the model refuses its inputs, which the exception says.
    """
    x, y = given.get("x"), given.get("y")
    weighted = is_weighted or any(
        given.get(name) is not None for name in ("class_weight", "sample_weight")
    )
    try:
        if y is not None and not hasattr(x, "element_spec"):
            x, y = _counted((x, y), given.get("sample_weight"))
            rows = pick_rows((x, y), max_rows)
            return facts_of(model, *rows, targets=y, is_complete=True, is_weighted=weighted)
        drawn = [batch for batch in batches if isinstance(batch, tuple) and len(batch) > 1]
        if not drawn:
            return None
        x, y = _joined([_counted(batch[:2], batch[2] if len(batch) > 2 else None)
                        for batch in drawn])  # fmt: skip
        return facts_of(model, x, y, is_weighted=weighted)
    except Exception as error:
        _log.debug("no facts of this training: %r", error)
        return None


def _counted(rows: Any, weights: Any) -> Any:
    """Return the rows that weigh anything: what is weighted with 0 says nothing of a model."""
    import tensorflow as tf

    weights = None if weights is None or isinstance(weights, dict) else np.asarray(weights)
    if weights is None or weights.ndim == 0 or (weights != 0.0).all() or not weights.any():
        return rows
    if weights.ndim > 1:
        return rows[0], _filled(rows[1], weights != 0.0)
    kept = np.flatnonzero(weights)
    return tf.nest.map_structure(
        lambda part: part.iloc[kept] if hasattr(part, "iloc") else np.asarray(part)[kept], rows
    )


def _filled(y: Any, is_counted: Any) -> Any:
    """Return targets in which values that count stand where the weight is 0 and there is none.

    What there is there may be a right answer all the same, as of the words that are not masked.
    """
    if not hasattr(y, "shape") or tuple(y.shape)[: is_counted.ndim] != is_counted.shape:
        return y
    filled = np.array(y)
    if filled.ndim != is_counted.ndim or filled.dtype.kind not in "fi":
        return y
    known = filled[is_counted]
    is_none = ~is_counted & ~((filled >= known.min()) & (filled <= known.max()))
    # Drawn from those that count, so that none is commoner than it was.
    filled[is_none] = np.random.default_rng(0).choice(known, int(is_none.sum()))
    return filled


def _joined(batches: list[Any]) -> Any:
    import tensorflow as tf

    def join(*parts: Any) -> Any:
        if parts[0] is None:  # targets that are not known
            return None
        return np.concatenate([np.asarray(part) for part in parts])[:MAX_ROWS]

    return tf.nest.map_structure(join, *batches)

"""What one ``fit`` of a stranger's program shows once it ends: facts, verdict, causes.

Before ``fit`` the checks would take batches from under it and build the model too early;
afterwards nothing of the program's can be disturbed any more. The rules about one cause each stand
in `outputs`, `inputs` and `settings`; here it is judged which of them to tell.
"""

import ast
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.dump.origins import COMPILE_SITE, SITE
from headstart.debug.preflight import inputs as input_rules
from headstart.debug.preflight import settings as setting_rules
from headstart.debug.preflight.facts import MAX_ROWS, Facts, facts_of, pick_rows
from headstart.debug.preflight.held_out import shared_rows
from headstart.debug.preflight.labels import label_format, label_range
from headstart.debug.preflight.layers import (
    lagging_normalization,
    softmax_of_one,
    unmasked_padding,
)
from headstart.debug.preflight.leaks import leaking_column
from headstart.debug.preflight.monitors import wrong_modes
from headstart.debug.preflight.objectives import optimizer_of, single_loss
from headstart.debug.preflight.outputs import check_outputs, one_class_seen
from headstart.debug.preflight.own_losses import wrong_sign
from headstart.debug.preflight.precision import half_precision
from headstart.debug.preflight.samples import Batch, Sample
from headstart.debug.preflight.training import stale_trainable_flags, untouched_normalization
from headstart.debug.preflight.verdict import Level, Verdict, inputs_tell_targets, verdict_of
from headstart.debug.preflight.weighting import weights_with_counts
from headstart.debug.source.syntax import origin_of_argument
from headstart.debug.symptoms.batches import by_outcome
from headstart.debug.symptoms.trace import TrainingTrace

SHAPES = ("missing-flatten", "label-format", "labels-are-fractions", "one-unit-for-classes",
          "text-labels", "label-out-of-range")  # fmt: skip
"""Findings that explain an exception of the step."""
IN_SPITE = ("retrace-storm", "retraces", "input-bound", "memory-growth", "overfitting",
            "missing-gradient", "same-batch")  # fmt: skip
"""What the symptom rules may say of a training that came to something."""
SCALABLE = 0.8
"""Share of the constant's loss that is gone in a training that scaling could not help much."""
NEARLY_ALL = 0.9
STILL_FALLING = 0.03
"""Share of its first value by which the loss falls in the last fifth of a training that was cut
short."""
OF_TARGETS = ("one-class-only", "text-labels", "labels-are-fractions", "labels-out-of-range")
"""Findings to mend where the targets are made."""
UNSURE = 0.45
OVERFLOWING = 1e4
"""Inputs from here on overflow what is sound."""

_log = logging.getLogger("headstart.debug")


@dataclass(frozen=True)
class Judged:
    """What one ``fit`` came to.

    Args:
        found: The findings.
        level: Whether it came to anything, by `Verdict`'s words.
    """

    found: list[Diagnosis]
    level: Level


def judge_fit(
    model: Any,
    given: Mapping[str, Any],
    trace: TrainingTrace | None = None,
    batches: Any = (),
    symptoms: list[Diagnosis] | None = None,
    is_broken: bool = False,
) -> Judged:
    """Judge one call of ``fit``.

    Args:
        model: The fitted model.
        given: What ``fit`` was given, by name.
        trace: The record of the training.
        batches: The last batches it saw, for data that cannot be read again.
        symptoms: What the symptom rules found in the record.
        is_broken: Whether it ended in an exception, or in NaN.

    Returns:
        The findings, causes among them placed at the user's line that can mend them.
    """
    site = calling_site()
    level: Level = "unknown"
    try:
        found, level = _judged(
            model, given, trace or TrainingTrace(), batches, symptoms or [], is_broken
        )
    except Exception as error:  # whatever a stranger's model is, judging it must not end its run
        _log.debug("the fitted model could not be judged: %r", error)
        found = list(symptoms or [])
    return Judged([_located(diagnosis, model, site) for diagnosis in found], level)


def _judged(
    model: Any,
    given: Mapping[str, Any],
    trace: TrainingTrace,
    batches: Any,
    symptoms: list[Diagnosis],
    is_broken: bool,
) -> tuple[list[Diagnosis], Level]:
    if model.built and model.count_params() and not model.trainable_variables:
        return [_nothing_to_train()], "nothing"
    found = [*setting_rules.impossible_settings(model), *_guarded(untouched_normalization, model)]
    found += _data_rules(given)
    facts = _facts(model, given, trace, batches)
    found += _guarded(wrong_modes, model, given.get("callbacks"), facts)
    if facts is None:
        return [*found, *symptoms], "unknown"
    found += _structure(facts)
    found += _guarded(softmax_of_one, facts)
    found += _guarded(wrong_sign, facts, trace)
    found += _guarded(leaking_column, facts)
    found += _guarded(weights_with_counts, facts, given, trace.label_counts, batches)
    if halved := _guarded(half_precision, facts, is_broken):
        found += halved
        symptoms = [one for one in symptoms if one.symptom != halved[0].symptom]  # less of the same
    found += _guarded(one_class_seen, facts, trace)
    found += _guarded(input_rules.too_few_rows, given, trace)
    if not is_broken:
        found += _guarded(input_rules.exchanged, given, trace)
    if is_broken and not trace.losses:  # the first step raised: that says more than a heuristic
        found = [one if one.symptom in SHAPES else
                 replace(one, confidence=min(one.confidence, 0.85)) for one in found]  # fmt: skip
    verdict = (
        Verdict("unknown") if is_broken else verdict_of(facts, trace.last_loss, trace.label_counts)
    )
    found += _guarded(lagging_normalization, facts, trace, verdict)
    symptoms = _in_view_of(verdict, symptoms)
    found = [one for one in (_tempered(one, verdict) for one in found) if one is not None]
    explained = any(
        one.severity == "error" and one.evidence.get("is_certain", True) for one in found
    )
    causes = _causes(facts, verdict, trace, symptoms, is_broken)
    found += causes
    if not explained and not causes and not symptoms:
        found += _no_better_than_constant(facts, verdict, trace)
    return [*found, *symptoms], verdict.level


def _tempered(found: Diagnosis, verdict: Verdict) -> Diagnosis | None:
    """Weigh what need not be a fault by what the training came to."""
    if found.evidence.get("is_certain", True):
        return found
    is_minor = found.symptom in ("accuracy-on-regression", "accuracy-on-logits")
    if verdict.level == "well":
        is_told = is_minor or verdict.best < NEARLY_ALL
        return replace(found, severity="advice") if is_told else None
    if verdict.level == "unknown" or is_minor:
        return replace(found, severity="warning")
    return found


def _structure(facts: Facts) -> list[Diagnosis]:
    found = _guarded(check_outputs, facts)
    batch = Batch(facts.x, facts.y, None)
    iterations = getattr(optimizer_of(facts.model), "iterations", None)
    is_new = iterations is None or int(iterations.numpy()) == 0
    sample = Sample(facts.model, (batch,), facts.y_pred, facts.objective, is_new)
    named = {one.symptom for one in found}
    if not named & {"one-unit-for-classes", "softmax-on-one-unit", "missing-flatten"}:
        found += _guarded(label_format, sample)
        if "labels-are-fractions" not in named:
            found += _guarded(label_range, sample)
    return [*found, *_guarded(stale_trainable_flags, sample)]


def _data_rules(given: Mapping[str, Any]) -> list[Diagnosis]:
    x, y = given.get("x"), given.get("y")
    found = [*_text_data(x, y), *_guarded(shared_rows, given)]
    if y is not None and given.get("validation_split"):
        found += _guarded(input_rules.split_order, y, float(given["validation_split"]))
    held_out = given.get("validation_data")
    if isinstance(held_out, tuple | list) and held_out and y is not None:
        found += _guarded(input_rules.split_scale, x, held_out[0])
    elif held_out is not None and hasattr(held_out, "element_spec") and x is not None:
        found += _guarded(_dataset_scale, x, held_out)
    return found


def _dataset_scale(x: Any, held_out: Any) -> list[Diagnosis]:
    if not hasattr(x, "element_spec") or not isinstance(x.element_spec, tuple):
        return []
    parts = [next(iter(data.take(1)))[0].numpy() for data in (x, held_out)]
    return input_rules.split_scale(*parts)


def _text_data(x: Any, y: Any) -> list[Diagnosis]:
    for name, values in (("labels", y), ("inputs", x)):
        if values is None or isinstance(values, dict) or not hasattr(values, "__len__"):
            continue
        if hasattr(values, "element_spec") or not isinstance(values, list | tuple | np.ndarray):
            continue
        first = np.asarray(values[:1], dtype=object).reshape(-1)[:1]
        if name == "labels" and len(first) and isinstance(first[0], str | bytes):
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
    return []


def _facts(
    model: Any, given: Mapping[str, Any], trace: TrainingTrace, batches: Any
) -> Facts | None:
    x, y = given.get("x"), given.get("y")
    weighted = given.get("class_weight") is not None or given.get("sample_weight") is not None
    weighted = weighted or trace.is_weighted
    try:
        if y is not None and not hasattr(x, "element_spec"):
            rows = pick_rows((x, y), MAX_ROWS)
            return facts_of(model, *rows, targets=y, is_complete=True, is_weighted=weighted)
        drawn = [batch for batch in batches if isinstance(batch, tuple) and len(batch) > 1]
        if not drawn:
            return None
        x, y = _joined([batch[:2] for batch in drawn])
        return facts_of(model, x, y, is_weighted=weighted)
    except Exception as error:  # inputs that the model refuses: the exception says it
        _log.debug("no facts of this training: %r", error)
        return None


def _joined(batches: list[Any]) -> Any:
    import tensorflow as tf

    def join(*parts: Any) -> Any:
        if parts[0] is None:  # targets that are not known
            return None
        return np.concatenate([np.asarray(part) for part in parts])[:MAX_ROWS]

    return tf.nest.map_structure(join, *batches)


def _in_view_of(verdict: Verdict, symptoms: list[Diagnosis]) -> list[Diagnosis]:
    """Leave out what the symptom rules fear of a training that came to something."""
    if verdict.level == "well":
        kept = [
            one
            for one in symptoms
            if one.symptom in IN_SPITE or "pure" in one.evidence
            or one.evidence.get("is_told_anyway")
        ]  # fmt: skip
        return by_outcome(kept, verdict.level)
    return symptoms


def _causes(
    facts: Facts,
    verdict: Verdict,
    trace: TrainingTrace,
    symptoms: list[Diagnosis],
    is_broken: bool,
) -> list[Diagnosis]:
    """Return what explains a training that went badly, as far as it did."""
    went_badly = verdict.level in ("nothing", "little") or is_broken
    if verdict.level == "unknown" and not is_broken:
        went_badly = any(one.severity == "error" for one in symptoms)
    gained = verdict.best if not math.isnan(verdict.best) else (0.0 if went_badly else 1.0)
    if gained >= NEARLY_ALL:
        return []
    rates = [sample.learning_rate for sample in trace.samples]
    found = _guarded(setting_rules.odd_settings, facts, rates)
    if len(trace.losses) < setting_rules.FEW_STEPS:  # too short to have bent any line
        found = [one for one in found if one.symptom != "stacked-linear-layers"]
    if not went_badly:
        found = [one for one in found if _is_told_anyway(one)]
    if went_badly or gained < SCALABLE:
        found += [_weighed(one, is_broken) for one in
                  _guarded(input_rules.unscaled_inputs, facts)]  # fmt: skip
        found += _guarded(input_rules.tiny_inputs, facts)
    if went_badly:
        found += _guarded(unmasked_padding, facts)
        found += _guarded(input_rules.unscaled_targets, facts)
        found += _cut_short(trace, verdict)
    if not went_badly:
        found = [replace(one, severity="warning") for one in found]
    return found


def _is_told_anyway(found: Diagnosis) -> bool:
    is_wasteful = found.symptom in setting_rules.WASTEFUL and found.severity == "error"
    return bool(found.evidence.get("is_far_off")) or is_wasteful


def _weighed(found: Diagnosis, is_broken: bool) -> Diagnosis:
    """Put inputs that are large, but not huge, behind the op of the user's that overflowed."""
    size = max(abs(found.evidence["min"]), abs(found.evidence["max"]))
    if is_broken and size < OVERFLOWING:
        return replace(found, confidence=min(found.confidence, 0.86))
    return found


def _cut_short(trace: TrainingTrace, verdict: Verdict) -> list[Diagnosis]:
    losses = trace.finite_losses
    num = len(losses)
    if not num or num < len(trace.losses):
        return []
    if math.isnan(verdict.best) and num >= setting_rules.FEW_STEPS:
        return []
    fifth = max(1, num // 5)
    fall = (np.mean(losses[-2 * fifth : -fifth]) - np.mean(losses[-fifth:])) if num > 4 else 0.0
    is_falling = fall > STILL_FALLING * abs(trace.first_loss)
    if num >= setting_rules.FEW_STEPS and not is_falling:
        return []
    few = num < setting_rules.FEW_STEPS
    each = num / max(1, len(trace.epochs))
    rows = (
        ": each batch holds all rows (batch_size is too large), so that an epoch is one step"
        if each <= 2.0 and len(trace.epochs) > 2
        else ""
    )
    return [
        Diagnosis(
            symptom="undertrained",
            cause=f"The training was too short: {num} steps in {len(trace.epochs)} epochs"
            + (
                f" are too few to learn much{rows}"
                if few
                else ", and the loss is still falling at the end"
            )
            + f" ({verdict.in_words()})."
            if verdict.level != "unknown"
            else f"The training was too short: only {num} steps.",
            phase="optimizer",
            severity="advice",  # a training that was meant to be short is no fault
            confidence=0.7,
            suggestions=(
                "train longer: more epochs, or smaller batches (more steps an epoch)",
                "or raise the learning rate (it may be too low) by a factor of 3 to 10; use Adam",
            ),
            evidence={"steps": num, "at": "fit"},
        )
    ]


def _no_better_than_constant(
    facts: Facts, verdict: Verdict, trace: TrainingTrace
) -> list[Diagnosis]:
    """Say that nothing was learnt, and what the data have to do with it."""
    if len(trace.losses) < setting_rules.FEW_STEPS and trace.losses:
        return []
    if verdict.level not in ("nothing", "little"):
        return []
    told = inputs_tell_targets(facts)
    if verdict.level == "little" and told is not False:
        return []
    if told is False:
        why = (
            "Neighbouring inputs have unrelated targets too, so that the inputs tell nothing of "
            "the targets: most likely inputs and targets do not belong together (shuffled apart, "
            "sorted differently, an index that is off by one)."
        )
    elif told is True:
        why = (
            "A vote of neighbouring rows does better, so that the data hold what is to be learnt: "
            "look at the learning rate, the last layer and the loss."
        )
    else:
        why = "Nothing of the inputs reaches the answer."
    return [
        Diagnosis(
            symptom="no-better-than-constant",
            cause=f"The model does no better than a constant: {verdict.in_words()}. {why}",
            phase="data" if told is False else "model",
            confidence=0.75 if told is False else UNSURE,
            suggestions=(
                "look at a few rows as they reach the model: are labels and inputs still in the "
                "same order (shuffle both by one permutation)?",
                "try a learning rate 10 times higher and one 10 times lower",
            ),
            evidence={"loss": verdict.loss, "constant_loss": verdict.constant_loss, "at": "fit"},
        )
    ]


def _nothing_to_train() -> Diagnosis:
    return Diagnosis(
        symptom="nothing-trainable",
        cause="Every layer is frozen: fit ran, but no variable is trainable.",
        phase="model",
        confidence=0.98,
        suggestions=("set trainable = True on the layers to train, then compile again",),
    )


def _guarded(rule: Any, *args: Any) -> list[Diagnosis]:
    """A rule that does not understand a model says nothing."""
    try:
        found: list[Diagnosis] = rule(*args)
    except Exception as error:
        _log.debug("%s could not be applied: %r", getattr(rule, "__name__", rule), error)
        return []
    return found


def _located(found: Diagnosis, model: Any, site: CallSite | None) -> Diagnosis:
    """Point at the loss for what the loss causes, at the assignment for a flipped flag."""
    if found.file is not None or (found.layer is not None and found.evidence.get("at") != "fit"):
        return found
    line = site
    optimizer = optimizer_of(model)
    at = found.evidence.get("at")
    compiled = vars(model).get(COMPILE_SITE)
    if at == "optimizer":
        line = getattr(optimizer, "__dict__", {}).get(SITE) or compiled or site
    elif at == "last":  # of a layer that is not known
        line = compiled or site
    elif found.phase == "loss" or found.symptom == "label-format":
        line = getattr(single_loss(model), "__dict__", {}).get(SITE) or compiled or site
    elif at == "weights":
        line = origin_of_argument(site, "fit", 99, found.evidence["argument"]) or site
    elif found.symptom in OF_TARGETS:
        line = origin_of_argument(site, "fit", 1, "y") or site
    elif found.symptom in ("stale-trainable", "nothing-trainable") and site is not None:
        line = _assignment_above(site, "trainable") or site
    if line is None:
        return found
    return replace(found, file=line.file, line=line.line).with_source()


def _assignment_above(site: CallSite, attribute: str) -> CallSite | None:
    """Return where a file last assigns to an attribute above a line."""
    try:
        tree = ast.parse(Path(site.file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    lines = [
        target.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr == attribute
    ]
    above = [line for line in lines if line < site.line]
    return CallSite(site.file, max(above)) if above else None

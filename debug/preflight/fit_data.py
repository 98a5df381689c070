"""What one ``fit`` of a stranger's program shows once it ends: facts, verdict, causes.

Before ``fit`` the checks would take batches from under it and build the model too early;
afterwards nothing of the program's can be disturbed any more. The rules about one cause each stand
in the list of `rules`; here it is judged which of them to tell.
"""

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.debug.callsites import calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight import settings as setting_rules
from headstart.debug.preflight.experiments import one_batch
from headstart.debug.preflight.facts import Facts
from headstart.debug.preflight.placing import located
from headstart.debug.preflight.rules import RULES, Case, apply_rules, facts_for, said_once
from headstart.debug.preflight.samples import restored, same_seeds
from headstart.debug.preflight.verdict import Level, Verdict, inputs_tell_targets, verdict_of
from headstart.debug.symptoms.batches import by_outcome
from headstart.debug.symptoms.trace import TrainingTrace

SHAPES = ("missing-flatten", "label-format", "labels-are-fractions", "one-unit-for-classes",
          "text-labels", "label-out-of-range", "label-columns", "index-out-of-range",
          "softmax-on-one-unit")  # fmt: skip
"""Findings that explain an exception of the step."""
NOTHING_TRAINED = ("nothing-trainable", "variables-not-tracked")
"""Findings that say all there is to say of a model without a variable to train."""
IN_SPITE = ("retracing", "input-bound", "memory-growth", "overfitting",
            "missing-gradient", "same-batch")  # fmt: skip
"""What the symptom rules may say of a training that came to something."""
SCALABLE = 0.8
"""Share of the constant's loss that is gone in a training that scaling could not help much."""
NEARLY_ALL = 0.9
STILL_FALLING = 0.03
"""Share of its first value by which the loss falls in the last fifth of a training that was cut
short."""
SHORT = 2 * setting_rules.FEW_STEPS
"""Steps below which a third of that will do: what falls so soon has not been given its time."""
UNSURE = 0.45
CLEAR = 0.75
"""Confidence of a cause from which on no experiment is made."""
OVERFLOWING = 1e4
"""Inputs from here on overflow what is sound."""

_RULES = {
    told: [rule for rule in RULES if rule.told == told and rule.only != "check"]
    for told in ("always", "improvable", "badly", "settings")
}

_log = logging.getLogger("headstart.debug")


@dataclass(frozen=True)
class Judged:
    """What one ``fit`` came to.

    Args:
        found: Findings about the model and its data.
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
    rows: Collection[int] = (),
) -> Judged:
    """Judge one call of ``fit``.

    Args:
        model: The model, after the fit.
        given: What ``fit`` was given, by name.
        trace: The record of the training.
        batches: The last batches it saw, for data that cannot be read again.
        symptoms: What the symptom rules found in the record.
        is_broken: Whether it ended in an exception, or in NaN.
        rows: What the rows that it was trained on are known by (`overlaps.keys_of`).

    Returns:
        The findings, causes among them placed at the user's line that can mend them.
    """
    site = calling_site()
    level: Level = "unknown"
    try:
        found, level = _judged(
            model, given, trace or TrainingTrace(), batches, symptoms or [], is_broken, rows
        )
    except Exception as error:  # whatever a stranger's model is, judging it must not end its run
        _log.debug("the fitted model could not be judged: %r", error)
        found = list(symptoms or [])
    return Judged([located(diagnosis, model, site) for diagnosis in found], level)


def _judged(
    model: Any,
    given: Mapping[str, Any],
    trace: TrainingTrace,
    batches: Any,
    symptoms: list[Diagnosis],
    is_broken: bool,
    rows: Collection[int],
) -> tuple[list[Diagnosis], Level]:
    with same_seeds():
        facts = facts_for(model, given, batches, trace.is_weighted)
    verdict = Verdict("unknown")
    if facts is not None and not is_broken:
        verdict = verdict_of(facts, trace.last_loss, trace.label_counts)
    case = Case(model, given, facts, trace, batches, rows, is_broken, verdict)
    found = apply_rules(case, _RULES["always"])
    nothing = [one for one in found if one.symptom in NOTHING_TRAINED]
    if nothing and not model.trainable_variables:
        return nothing[:1], "nothing"
    if facts is None:
        return [*found, *symptoms], "unknown"
    if any(one.symptom == "float16-overflow" for one in found):  # the symptom says less of it
        symptoms = [one for one in symptoms if one.symptom != "float16-overflow"]
    if is_broken and not trace.losses:  # the first step raised: that says more than a heuristic
        found = [one if one.symptom in SHAPES else
                 replace(one, confidence=min(one.confidence, 0.85)) for one in found]  # fmt: skip
    symptoms = _in_view_of(verdict, symptoms)
    found = [one for one in (_tempered(one, verdict) for one in found) if one is not None]
    explained = any(
        one.severity == "error" and one.evidence.get("is_certain", True) for one in found
    )
    causes = _causes(case, trace, symptoms)
    found += causes
    is_clear = explained or any(one.confidence >= CLEAR for one in causes)
    if verdict.level in ("nothing", "little") and not is_clear:
        found += _by_experiment(facts, trace, case.rates, verdict.level)
    if not explained and not causes and not symptoms:
        found += _no_better_than_constant(facts, verdict, trace)
    return [*found, *symptoms], verdict.level


def _by_experiment(
    facts: Facts, trace: TrainingTrace, rates: list[float], level: Level
) -> list[Diagnosis]:
    if len(trace.losses) < setting_rules.FEW_STEPS or inputs_tell_targets(facts) is False:
        return []
    try:
        return one_batch(facts, len(trace.losses), rates, level)
    except Exception as error:
        _log.debug("no experiment on one batch: %r", error)
        return []


def _tempered(found: Diagnosis, verdict: Verdict) -> Diagnosis | None:
    """Weigh what need not be a fault by what the training came to."""
    if found.evidence.get("is_certain", True):
        return found
    if found.symptom == "accuracy-on-regression":  # it says nothing, however good the model is
        return replace(found, severity="warning")
    is_minor = found.symptom == "accuracy-on-logits"
    if verdict.level == "well":
        is_told = is_minor or verdict.best < NEARLY_ALL
        return replace(found, severity="advice") if is_told else None
    if verdict.level == "unknown" or is_minor:
        return replace(found, severity="warning")
    return found


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


def _causes(case: Case, trace: TrainingTrace, symptoms: list[Diagnosis]) -> list[Diagnosis]:
    """Return what explains a training that went badly, as far as it did."""
    verdict, is_broken = case.verdict, case.is_broken
    went_badly = verdict.level in ("nothing", "little") or is_broken
    if verdict.level == "unknown" and not is_broken:
        went_badly = any(one.severity == "error" for one in symptoms)
    gained = verdict.best if not math.isnan(verdict.best) else (0.0 if went_badly else 1.0)
    if gained >= NEARLY_ALL:
        return []
    found = apply_rules(case, _RULES["settings"])
    if len(trace.losses) < setting_rules.FEW_STEPS:  # too short to have bent any line
        found = [one for one in found if one.symptom != "stacked-linear-layers"]
    if not went_badly:
        found = [one for one in found if is_told_anyway(one)]
    if went_badly or gained < SCALABLE:
        found += (
            _behind_overflow(one, is_broken) for one in apply_rules(case, _RULES["improvable"])
        )
    if went_badly:
        with restored(case.model):
            found += apply_rules(case, _RULES["badly"])
        found += _cut_short(trace, verdict)
    if not went_badly:
        found = [replace(one, severity="warning") for one in found]
    return said_once(found)


def is_told_anyway(found: Diagnosis) -> bool:
    """Tell whether a setting is so far off that it is told of a training that went well too."""
    is_wasteful = found.symptom in setting_rules.WASTEFUL and found.severity == "error"
    return bool(found.evidence.get("is_far_off")) or is_wasteful


def _behind_overflow(found: Diagnosis, is_broken: bool) -> Diagnosis:
    """Put inputs that are large, but not huge, behind the op of the user's that overflowed."""
    if "min" not in found.evidence:  # inputs that are tiny
        return found
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
    if num >= setting_rules.FEW_STEPS and not _is_falling(trace):
        return []
    few = num < setting_rules.FEW_STEPS
    each = num / max(1, len(trace.epochs))
    rows = (
        ": each batch holds all rows (batch_size is too large), so each epoch is a single training "
        "step"
        if each <= 2.0 and len(trace.epochs) > 2
        else ""
    )
    return [
        Diagnosis(
            symptom="undertrained",
            cause=f"The training was too short: {num} training steps in {len(trace.epochs)} epochs"
            + (
                f" are too few to learn much{rows}"
                if few
                else ", and the loss is still falling at the end"
            )
            + f" ({verdict.in_words()})."
            if verdict.level != "unknown"
            else f"The training was too short: only {num} training steps.",
            phase="optimizer",
            severity="advice",  # a training that was meant to be short is no fault
            confidence=0.7,
            suggestions=(
                "train longer: more epochs, or smaller batches (more training steps per epoch)",
                "or raise the learning rate (it may be too low) by a factor of 3 to 10; use Adam",
            ),
            evidence={"steps": num, "at": "fit"},
        )
    ]


def _is_falling(trace: TrainingTrace) -> bool:
    """Tell whether the loss still falls when the training ends."""
    losses = trace.finite_losses
    fifth = max(1, len(losses) // 5)
    if len(losses) <= 4:
        return False
    fall = float(np.mean(losses[-2 * fifth : -fifth]) - np.mean(losses[-fifth:]))
    share = STILL_FALLING / 3 if len(losses) < SHORT else STILL_FALLING
    return fall > share * abs(trace.first_loss)


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
            "Even neighbouring inputs have unrelated targets, so the inputs say nothing about the "
            "targets. Most likely inputs and targets do not belong together (shuffled apart, "
            "sorted differently, an index that is off by one)."
        )
    elif told is True:
        if len(trace.losses) < SHORT and _is_falling(trace):
            return []  # undertrained, which is said instead
        why = (
            "Voting among neighbouring rows does better, so the data can be learnt from: "
            "look at the learning rate, the last layer and the loss."
        )
    else:
        why = "The predictions do not depend on the inputs."
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

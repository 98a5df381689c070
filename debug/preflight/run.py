"""Preflight: what costs hours of training, found in seconds before it.

    from headstart.debug.preflight.run import preflight
    for diagnosis in preflight(model, (x_train, y_train), validation=(x_val, y_val)):
        print(diagnosis.cause)

The model is left as it was: weights, optimizer, metrics and random states are put back.
"""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis, ranked
from headstart.debug.preflight import data as preflight_data
from headstart.debug.preflight import training as preflight_training
from headstart.debug.preflight.fit_data import is_told_anyway
from headstart.debug.preflight.placing import at_layer, located
from headstart.debug.preflight.rules import (
    RULES,
    STEPPING,
    Case,
    Told,
    apply_rules,
    facts_for,
    said_once,
)
from headstart.debug.preflight.samples import Batch, Sample, restored, take_batches, take_sample
from headstart.debug.symptoms.overlaps import keys_of

NUM_BATCHES = 8
"""Batches of the training data that are looked at."""
NUM_COMPARED_BATCHES = 64
"""Batches of the training data that are compared with the validation data."""
LIMIT_S = 10.0
"""Seconds after which training on one batch stops."""
UNSCALED = 0.75
"""Confidence in what may be no fault, as long as nothing was trained."""

_AT_ONCE = [rule for rule in RULES if rule.only != "run" and rule.finds not in STEPPING]
_STEPPING = [rule for rule in RULES if rule.only != "run" and rule.finds in STEPPING]

_log = logging.getLogger("headstart.debug")


def preflight(
    model: Any,
    data: Any,
    *,
    validation: Any = None,
    validation_split: float = 0.0,
    num_batches: int = NUM_BATCHES,
    limit_s: float = LIMIT_S,
    site: CallSite | None = None,
) -> list[Diagnosis]:
    """Check a compiled model and its data before training.

    Args:
        model: A compiled Keras model.
        data: Training data: ``(x, y)`` or ``(x, y, weights)`` arrays, a batched
            ``tf.data.Dataset`` or another iterable of batches that can be iterated again.
        validation: Validation data in the same forms, compared with the training data.
        validation_split: Share of the arrays that ``fit`` holds out for validation.
        num_batches: Batches to look at.
        limit_s: Seconds after which training on one batch stops.
        site: The user's line that trains; found from the caller where not given.

    Returns:
        The findings, most likely first; empty where nothing is wrong.

    Raises:
        ConfigError: There is no batch in the data.
    """
    names = ("x", "y", "sample_weight")
    arrays = dict(zip(names, data, strict=False)) if isinstance(data, tuple) else {"x": data}
    given = {**arrays, "validation_data": validation, "validation_split": validation_split}
    return check_fit(model, given, site or calling_site(), num_batches, limit_s)


def check_fit(
    model: Any,
    given: Mapping[str, Any],
    site: CallSite | None,
    num_batches: int = NUM_BATCHES,
    limit_s: float = LIMIT_S,
) -> list[Diagnosis]:
    """Check what a ``fit`` is given, before its first step.

    Args:
        model: A compiled Keras model.
        given: What ``fit`` is given, by name.
        site: The user's line that calls it.
        num_batches: Batches to look at.
        limit_s: Seconds after which training on one batch stops.

    Returns:
        As `preflight`.

    Raises:
        ConfigError: There is no batch in the data.
    """
    x, y = given["x"], given.get("y")
    are_arrays = y is not None or hasattr(x, "__array__")
    data = (x, y, given.get("sample_weight")) if are_arrays else x
    sample = take_sample(model, data, num_batches)
    batches = [_as_yielded(batch) for batch in sample.batches]
    rows = _rows(data) if hasattr(given.get("validation_data"), "cardinality") else set()
    case = Case(model, given, facts_for(model, given, batches), batches=batches, rows=rows)
    found = check_case(case, sample, limit_s)
    if not (are_arrays and given.get("shuffle", True)):
        found += preflight_data.order(sample)
    return ranked(placed(diagnosis, model, site) for diagnosis in found)


def check_case(
    case: Case, sample: Sample, limit_s: float = LIMIT_S, total_s: float = math.inf
) -> list[Diagnosis]:
    """Apply the rules to a training that has not begun; its model is left as it was.

    Args:
        case: The training.
        sample: A batch to take steps on. Where the rules find nothing, those that take some
            follow: otherwise these would only show the consequences.
        limit_s: Seconds after which training on one batch stops.
        total_s: Seconds after which no further step is taken. Training on one batch is left
            out where its steps would not fit.

    Returns:
        The findings, not ranked.
    """
    deadline = time.monotonic() + total_s
    with restored(sample.model):
        found = at_once(case)
        if any(one.severity != "advice" for one in found):
            return found
        for rule in _STEPPING:
            if time.monotonic() < deadline:
                found += apply_rules(case, [rule])
        left_s = min(limit_s, deadline - time.monotonic())
        if not found:
            found += _overfit(sample, left_s)
    return found


def at_once(case: Case) -> list[Diagnosis]:
    """Apply the rules that take no step, and weigh what they find as long as nothing was trained.

    Args:
        case: The training.

    Returns:
        The findings: of what need not be a fault only what is far off, as warnings.
    """
    found: list[Diagnosis] = []
    for told in ("always", "improvable", "badly", "settings"):
        some = apply_rules(case, [rule for rule in _AT_ONCE if rule.told == told])
        found += _weighed(some, told)
    return said_once(found)


def _weighed(found: list[Diagnosis], told: Told) -> list[Diagnosis]:
    if told == "always":
        return [one for one in found if one.evidence.get("is_certain", True)]
    if told == "settings":
        return [replace(one, severity="warning") for one in found if is_told_anyway(one)]
    return [
        one
        if one.evidence.get("is_certain")
        else replace(one, severity="warning", confidence=min(UNSCALED, one.confidence))
        for one in found
    ]


def _overfit(sample: Sample, limit_s: float) -> list[Diagnosis]:
    try:
        if preflight_training.has_time_to_overfit(sample, limit_s):
            return preflight_training.overfit_one_batch(sample, limit_s)
    except Exception as error:
        _log.debug("no training on one batch: %r", error)
    return []


def _as_yielded(batch: Batch) -> tuple[Any, ...]:
    weights = () if batch.weights is None else (batch.weights,)
    return (batch.x, batch.y, *weights)


def _rows(data: Any) -> set[int]:
    batches = take_batches(data, NUM_COMPARED_BATCHES)
    return {key for batch in batches for key in keys_of(batch.inputs[0])}


def placed(found: Diagnosis, model: Any, site: CallSite | None) -> Diagnosis:
    """Point a finding at the user's line that can mend it: layer, loss, optimizer or ``fit``.

    Args:
        found: The finding.
        model: The model it is about.
        site: The user's line that trains.
    """
    found = at_layer(located(found, model, site), model)
    return found if found.file is not None else found.at(site)

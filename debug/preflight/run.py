"""Preflight: what costs hours of training, found in seconds before it.

    from headstart.debug.preflight.run import preflight
    for diagnosis in preflight(model, (x_train, y_train), validation=(x_val, y_val)):
        print(diagnosis.cause)

The model is left as it was: weights, optimizer, metrics and random states are put back.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site, find_call
from headstart.debug.diagnosis import Diagnosis, ranked
from headstart.debug.preflight import data as preflight_data
from headstart.debug.preflight import inputs, settings
from headstart.debug.preflight import labels as preflight_labels
from headstart.debug.preflight import training as preflight_training
from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.leaks import leaking_column
from headstart.debug.preflight.outputs import check_outputs
from headstart.debug.preflight.samples import Sample, restored, take_batches, take_sample

NUM_BATCHES = 8
"""Batches of the training data that are looked at."""
NUM_LEAK_BATCHES = 64
"""Batches of either split that are compared for leakage."""
LIMIT_S = 10.0
"""Seconds after which training on one batch stops."""

Check = Callable[[Sample], list[Diagnosis]]


def outputs(sample: Sample) -> list[Diagnosis]:
    """Hold the last layer against loss and targets, by the table that `debug run` uses."""
    batch = sample.batches[0]
    found = check_outputs(facts_of(sample.model, batch.x, batch.y))
    return [one for one in found if one.evidence["is_certain"]]


def leaks(sample: Sample) -> list[Diagnosis]:
    """Find a column of the inputs that gives the target away."""
    inputs_and_labels = [(batch.inputs, batch.y) for batch in sample.batches]
    if any(len(arrays) != 1 or y is None for arrays, y in inputs_and_labels):
        return []
    x = np.concatenate([arrays[0] for arrays, _ in inputs_and_labels])
    y = np.concatenate([np.asarray(y) for _, y in inputs_and_labels])
    return leaking_column(facts_of(sample.model, x, y))


def impossible_settings(sample: Sample) -> list[Diagnosis]:
    """Find settings of the optimizer with which nothing can come of any training."""
    return settings.impossible_settings(sample.model)


CHECKS: tuple[Check, ...] = (
    preflight_data.bad_values,
    preflight_data.constant_rows,
    preflight_labels.label_format,
    preflight_labels.label_range,
    outputs,
    impossible_settings,
    preflight_data.input_scale,
    preflight_labels.first_loss,
    preflight_training.stale_trainable_flags,
)
TRAINING_CHECKS: tuple[Check, ...] = (
    preflight_training.gradients,
    preflight_training.frozen_layers,
    preflight_training.batch_normalization,
)
_AT_COMPILE = {
    "label-format",
    "softmax-with-from-logits",
    "logits-without-from-logits",
    "learning-rate-too-high",
}

_log = logging.getLogger("headstart.debug")


def preflight(
    model: Any,
    data: Any,
    *,
    validation: Any = None,
    validation_split: float = 0.0,
    is_shuffled: bool | None = None,
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
        is_shuffled: Whether ``fit`` shuffles the data itself; None: it does so for arrays.
        num_batches: Batches to look at.
        limit_s: Seconds after which training on one batch stops.
        site: The user's line that trains; found from the caller where not given.

    Returns:
        The findings, most likely first; empty where nothing is wrong.

    Raises:
        ConfigError: There is no batch in the data.
    """
    site = site or calling_site()
    sample = take_sample(model, data, num_batches)
    checks = list(CHECKS)
    if not (isinstance(data, tuple) if is_shuffled is None else is_shuffled):
        checks.append(preflight_data.order)
    found = check_sample(sample, checks, limit_s) + _run(leaks, sample)
    if validation_split and isinstance(data, tuple) and len(data) > 1:
        found += inputs.split_order(data[1], validation_split)
    if validation is not None:
        splits = [take_batches(part, NUM_LEAK_BATCHES) for part in (data, validation)]
        found += preflight_data.leakage(*splits)
    return ranked(located(diagnosis, model, site) for diagnosis in found)


def check_sample(
    sample: Sample,
    checks: Sequence[Check] = CHECKS,
    limit_s: float = LIMIT_S,
    total_s: float = math.inf,
) -> list[Diagnosis]:
    """Make checks on a sample; its model is left as it was.

    Args:
        sample: Model and batches.
        checks: Those that take no training step. Where they find nothing, those that take some
            follow: otherwise these would only show the consequences.
        limit_s: Seconds after which training on one batch stops.
        total_s: Seconds after which no further check is begun. Training on one batch is left
            out where its steps would not fit.

    Returns:
        The findings, not ranked.
    """
    deadline = time.monotonic() + total_s
    found: list[Diagnosis] = []
    with restored(sample.model):
        for check in checks:
            found += _run(check, sample)
        for check in () if found else TRAINING_CHECKS:
            if time.monotonic() < deadline:
                found += _run(check, sample)
        left_s = min(limit_s, deadline - time.monotonic())
        if not found and preflight_training.has_time_to_overfit(sample, left_s):
            found += _run(lambda s: preflight_training.overfit_one_batch(s, left_s), sample)
    return found


def _run(check: Check, sample: Sample) -> list[Diagnosis]:
    """A check that does not understand a model says nothing; the training itself will."""
    try:
        return check(sample)
    except Exception as error:
        _log.debug("a preflight check could not be made: %r", error)
        return []


def located(found: Diagnosis, model: Any, site: CallSite | None) -> Diagnosis:
    """Point a finding at the user's line that can mend it: loss, optimizer or ``fit``."""
    if site is None or found.file is not None:
        return found
    wanted = ["fit"]
    if found.symptom in _AT_COMPILE:
        optimizer, loss = type(model.optimizer).__name__, type(model.loss).__name__
        own = optimizer if found.symptom == "learning-rate-too-high" else loss
        wanted = [own, "compile", "fit"]
    line = find_call(site, *wanted) or site
    return replace(found, file=line.file, line=line.line).with_source()

"""The preflight checks that need no step of their own, made on a stranger's ``fit`` once it ends.

Before ``fit`` they would take batches from under it and build the model too early; afterwards
nothing of the program's can be disturbed any more.
"""

import ast
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.dump.origins import COMPILE_SITE, SITE

_log = logging.getLogger("headstart.debug")


def found_after_fit(model: Any, x: Any, y: Any) -> list[Diagnosis]:
    """Check a model and the data it was just fitted on.

    Args:
        model: The fitted model.
        x: Its ``x``: arrays or a data set.
        y: Its ``y``; None where ``x`` has the labels.

    Returns:
        The findings; empty too where the data can be iterated only once.
    """
    from headstart.debug.preflight.labels import label_format, label_range, softmax_and_logits
    from headstart.debug.preflight.samples import take_sample
    from headstart.debug.preflight.training import (
        stale_trainable_flags,
        untouched_normalization,
    )

    if model.count_params() and not model.trainable_variables:
        return [_nothing_to_train(calling_site())]
    data = _repeatable(x, y)
    found: list[Diagnosis] = []
    try:
        found += untouched_normalization(model)
        if data is None:
            return found
        sample = take_sample(model, data, count=1)
        for check in (label_format, label_range, softmax_and_logits, stale_trainable_flags):
            found += check(sample)
    except Exception as error:  # whatever a stranger's model is, checking it must not end its run
        _log.debug("the fitted model could not be checked: %r", error)
    site = calling_site()
    return [_located(diagnosis, model, site) for diagnosis in found]


def _nothing_to_train(site: CallSite | None) -> Diagnosis:
    line = (_assignment_above(site, "trainable") or site) if site else None
    return Diagnosis(
        symptom="nothing-trainable",
        cause="Every layer is frozen: fit ran, but no variable is trainable.",
        file=line.file if line else None,
        line=line.line if line else None,
        phase="model",
        confidence=0.95,
        suggestions=("set trainable = True on the layers to train, then compile again",),
    ).with_source()


def _repeatable(x: Any, y: Any) -> Any:
    """Return what ``fit`` was given in a form that can be iterated again; None where it cannot."""
    import tensorflow as tf

    if isinstance(x, tf.data.Dataset):
        return x
    return (x, y) if y is not None else None


def _located(found: Diagnosis, model: Any, site: CallSite | None) -> Diagnosis:
    """Point at the loss for what the loss causes, at the assignment for a flipped flag."""
    line = site
    if found.phase == "loss" or found.symptom == "label-format":
        made = getattr(model.loss, "__dict__", {}).get(SITE)
        line = made or vars(model).get(COMPILE_SITE) or site
    elif found.symptom == "stale-trainable" and site is not None:
        line = _assignment_above(site, "trainable") or site
    if line is None or found.file is not None:
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

"""The user's line that can mend what was found of a model, its data or its settings."""

import ast
from dataclasses import replace
from typing import Any

from headstart.debug.callsites import CallSite, find_call, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.dump.origins import COMPILE_SITE, SITE
from headstart.debug.preflight.objectives import optimizer_of, single_loss
from headstart.debug.source.rates import line_that_sets_rate
from headstart.debug.source.syntax import origin_of_argument

OF_TARGETS = (
    "one-class-only",
    "text-labels",
    "labels-are-fractions",
    "labels-out-of-range",
    "label-columns",
)
"""Findings to mend where the targets are made."""
OF_RATE = ("learning-rate-too-high", "learning-rate-too-low")


def located(found: Diagnosis, model: Any, site: CallSite | None) -> Diagnosis:
    """Point a finding at the line that can mend it.

    Args:
        found: The finding; one that has a line, or a layer to be found by, is returned as it is.
        model: The model it is about.
        site: The user's line that trains.

    Returns:
        The finding, at the loss for what the loss causes, at the assignment for a flipped flag.
    """
    if found.file is not None or (found.layer is not None and found.evidence.get("at") != "fit"):
        return found
    line, optimizer, at = site, optimizer_of(model), found.evidence.get("at")
    compiled = vars(model).get(COMPILE_SITE)
    setter = None
    if found.symptom == "learning-rate-decayed" and site is not None:
        setter = line_that_sets_rate(site.file)
    if setter is not None and site is not None:
        line = CallSite(site.file, setter)
    elif at == "optimizer" or found.symptom in OF_RATE:
        line = getattr(optimizer, "__dict__", {}).get(SITE) or compiled
        line = line or _call_above(site, type(optimizer).__name__, "compile")
    elif at == "last":  # of a layer that is not known
        line = compiled or site
    elif found.phase == "loss" or found.symptom == "label-format":
        loss = single_loss(model)
        line = getattr(loss, "__dict__", {}).get(SITE) or compiled
        line = line or _call_above(site, type(loss).__name__, "compile")
    elif at == "weights":
        line = origin_of_argument(site, "fit", 99, found.evidence["argument"]) or site
    elif found.symptom == "nan-in-data" and site is not None:
        place, name = (1, "y") if found.cause.startswith("Labels") else (0, "x")
        line = origin_of_argument(site, "fit", place, name, with_elements=True) or site
        found = replace(found, evidence={**found.evidence, "fed_at": [site.file, site.line]})
    elif found.symptom in OF_TARGETS:
        line = origin_of_argument(site, "fit", 1, "y") or site
    elif found.symptom in ("stale-trainable", "nothing-trainable") and site is not None:
        line = _assignment_above(site, "trainable") or site
    return found.at(line)


def at_layer(found: Diagnosis, model: Any) -> Diagnosis:
    """Point a finding about a layer at the line where the user made the layer.

    Args:
        found: The finding.
        model: The model that has the layer.
    """
    if found.layer is None:
        return found
    for layer in model._flatten_layers(include_self=False):
        path = str(getattr(layer, "path", "") or layer.name)
        if found.layer in (path, layer.name) or found.layer.startswith(f"{path}/"):
            site = vars(layer).get(SITE)
            if site is not None:
                return found.at(site)
    return found


def _call_above(site: CallSite | None, *names: str) -> CallSite | None:
    return site if site is None else find_call(site, *names) or site


def _assignment_above(site: CallSite, attribute: str) -> CallSite | None:
    """Return where a file last assigns to an attribute above a line."""
    tree = tree_of(site.file)
    if tree is None:
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

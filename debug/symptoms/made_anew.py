"""A loop over epochs that makes the model anew in each turn: what was learnt is thrown away."""

import ast
from collections import Counter
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, callee, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.syntax import loops_around, targets_of

MIN_MODELS = 5
"""Models alike that were fitted once each, from which on they are one by intention."""
LOOKED_AT = 8
"""Rows by which it is told whether the data are the same: folds and samples differ."""


class MadeAnew:
    """Counts the new models that one line fits on the same data for one epoch."""

    def __init__(self) -> None:
        self._counts: Counter[Any] = Counter()
        self._sites: dict[Any, CallSite] = {}

    def on_fit(self, model: Any, given: dict[str, Any], site: CallSite | None) -> None:
        """Note a ``fit`` that has ended.

        Args:
            model: The model that was fitted.
            given: What ``fit`` was given, by name.
            site: The user's line that called it.
        """
        x, epochs = given.get("x"), given.get("epochs", 1)
        steps = getattr(model.optimizer, "iterations", None)
        if site is None or epochs != 1 or not isinstance(x, np.ndarray) or steps is None:
            return
        num_taken = -(-len(x) // int(given.get("batch_size") or 32))
        if int(steps.numpy()) > num_taken:
            return  # not the first fit of this optimizer
        shapes = tuple(tuple(weight.shape) for weight in model.weights)
        settings = repr({**model.optimizer.get_config(), "name": ""})  # they are numbered
        alike = (site, shapes, x.shape, x[:LOOKED_AT].tobytes(), settings)
        self._counts[alike] += 1
        self._sites[alike] = site

    def diagnoses(self) -> list[Diagnosis]:
        """Return what was found; call it when the program has ended."""
        return [
            _finding(number, self._sites[alike])
            for alike, number in self._counts.items()
            if number >= MIN_MODELS
        ]


def _finding(number: int, site: CallSite) -> Diagnosis:
    return Diagnosis(
        symptom="model-made-anew",
        cause=f"{number} new models alike were each fitted for one epoch on the same data: the "
        "model is made inside the loop, so every turn starts from new weights and what the "
        "earlier ones learnt is thrown away.",
        phase="model",
        confidence=0.96,
        suggestions=(
            "make and compile the model once, before the loop",
            "or call fit once, with epochs=",
        ),
        evidence={"is_certain": True},
    ).at(_made_at(site) or site)


def _made_at(site: CallSite) -> CallSite | None:
    """Return where a loop assigns the model that it fits."""
    tree = tree_of(site.file)
    if tree is None:
        return None
    names = {
        node.func.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and node.lineno <= site.line <= (node.end_lineno or node.lineno)
        and callee(node) == "fit"
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
    }
    lines = [
        node.lineno
        for loop in loops_around(tree, site.line)
        for node in ast.walk(loop)
        if isinstance(node, ast.Assign) and node.lineno <= site.line
        for target in targets_of(node)
        if isinstance(target, ast.Name) and target.id in names
    ]
    return CallSite(site.file, max(lines)) if lines else None

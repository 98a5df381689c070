"""A loop over epochs that makes the model anew in each turn: what was learnt is thrown away."""

import ast
import re
from collections import Counter
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, callee, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.syntax import loops_around

MIN_MODELS = 5
"""Models alike that were fitted once each, from which on they are one by intention."""
_HARMLESS = {"fit", "compile", "summary", "build"}
"""What a loop may ask of a model and still throw it away."""
_NUMBERED = re.compile(r"_\d+\b")
"""Names of layers and optimizers are numbered."""
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
        made_at = _made_at(site)
        if made_at is None:
            return
        y, weights = given.get("y"), given.get("sample_weight")
        data = [np.asarray(part[:LOOKED_AT]).tobytes() for part in (x, y, weights)
                if part is not None]  # fmt: skip
        settings = (given.get("batch_size"), given.get("class_weight"), model.get_compile_config())
        layers = [layer.get_config() for layer in model.layers]
        alike = (site, x.shape, *data, _NUMBERED.sub("", repr((settings, layers))))
        self._counts[alike] += 1
        self._sites[alike] = made_at

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
    ).at(site)


def _made_at(site: CallSite) -> CallSite | None:
    """Return where a loop assigns the model that it fits, if only the last of them is used.

    A search, or an ensemble, keeps each of its models, or judges it within the loop.
    """
    tree = tree_of(site.file)
    loop = next(iter(loops_around(tree, site.line)[-1:]), None) if tree is not None else None
    if tree is None or loop is None:
        return None
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {
        call.func.value.id
        for call in called
        if call.lineno <= site.line <= (call.end_lineno or call.lineno)
        and isinstance(call.func, ast.Attribute)
        and callee(call) == "fit"
        and isinstance(call.func.value, ast.Name)
    }
    within = set(ast.walk(loop))
    for name in names:
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
        methods = {
            callee(call)
            for call in called
            if call in within
            and isinstance(call.func, ast.Attribute)
            and getattr(call.func.value, "id", "") == name
        }
        num_reads = sum(isinstance(one.ctx, ast.Load) and one in within for one in used)
        num_calls = sum(callee(one) in _HARMLESS and one in within
                        and getattr(getattr(one.func, "value", None), "id", "") == name
                        for one in called)  # fmt: skip
        is_used_after = any(one.lineno > (loop.end_lineno or 0) for one in used)
        made = [one.lineno for one in used if isinstance(one.ctx, ast.Store) and one in within]
        if methods <= _HARMLESS and num_reads == num_calls and is_used_after and made:
            return CallSite(site.file, max(made))
    return None

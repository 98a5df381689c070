"""Rules about how gradients are taken and kept: sums that never start anew, a derivative twice."""

import linecache
import re
import weakref
from collections import deque
from typing import Any

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis

_ADDED = re.compile(r"\.assign_add\(|scatter_nd_add")
_SET = re.compile(r"\.assign\(|\.assign_sub\(|zeros_initializer|\.initializer")
MAX_KEPT = 8
"""Derivatives that are remembered."""


def never_reset(gradients: Any, site: CallSite | None) -> list[Diagnosis]:
    """Find gradients that are read from variables which the program only ever adds to.

    Args:
        gradients: What an optimizer is given.
        site: The user's line that gives it.

    Returns:
        A finding at the line that adds; none where some line may set them back.
    """
    given = [one for one in gradients if one is not None]
    if site is None or not given or not all(map(_is_read, given)):
        return []
    lines = linecache.getlines(site.file)
    added = [number for number, line in enumerate(lines, 1) if _ADDED.search(line)]
    if not added or any(_SET.search(line) for line in lines):
        return []
    return [
        Diagnosis(
            symptom="gradients-never-reset",
            cause="The gradients are added up in variables (assign_add) that are never set back to "
            "0 after a step: each step applies the sum of all gradients so far.",
            phase="optimizer",
            confidence=0.95,
            suggestions=(
                "after apply_gradients, for each of them: slot.assign(tf.zeros_like(slot))",
                "or let Keras do it: Adam(gradient_accumulation_steps=4)",
            ),
        ).at(CallSite(site.file, added[0]))
    ]


def _is_read(gradient: Any) -> bool:
    import tensorflow as tf

    if isinstance(gradient, tf.Variable):
        return True
    try:
        op = gradient.op
    except AttributeError:  # eager: it may be anything
        return False
    while op.type == "Identity":
        op = op.inputs[0].op
    return bool(op.type == "ReadVariableOp")


class Derivatives:
    """The last derivatives by tensors: two tapes that give the same one are one too many."""

    def __init__(self) -> None:
        self.found: list[Diagnosis] = []
        self._last: deque[tuple[int, weakref.ref[Any], weakref.ref[Any]]] = deque(maxlen=MAX_KEPT)

    def on_gradient(self, tape: Any, target: Any, source: Any, site: CallSite | None) -> None:
        """Note a derivative of one tensor by one tensor.

        Args:
            tape: The tape that gives it.
            target: What is differentiated.
            source: By what; variables and lists are a training's, and passed over.
            site: The user's line.
        """
        import tensorflow as tf

        if self.found or not isinstance(source, tf.Tensor) or not isinstance(target, tf.Tensor):
            return
        for other, target_before, source_before in self._last:
            if other != id(tape) and target_before() is target and source_before() is source:
                self.found.append(_twice(site))
                return
        self._last.append((id(tape), weakref.ref(target), weakref.ref(source)))


def _twice(site: CallSite | None) -> Diagnosis:
    return Diagnosis(
        symptom="same-derivative-twice",
        cause="Two tapes differentiate the same tensor by the same tensor: both give the first "
        "derivative. For the second, the outer tape must differentiate the first derivative.",
        phase="backward",
        confidence=0.94,
        suggestions=("u_x = inner.gradient(u, x); u_xx = outer.gradient(u_x, x)",),
    ).at(site)

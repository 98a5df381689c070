"""A rule about nested tapes: the first derivative taken for the second."""

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis

MAX_KEPT = 8
"""Derivatives that are remembered."""


class Derivatives:
    """The last derivatives by tensors: two tapes that give the same one are one too many."""

    def __init__(self) -> None:
        self.found: list[Diagnosis] = []
        self._last: deque[tuple[int, weakref.ref[Any], weakref.ref[Any]]] = deque(maxlen=MAX_KEPT)

    def on_gradient(
        self, tape: Any, target: Any, source: Any, find_site: Callable[[], CallSite | None]
    ) -> None:
        """Note a derivative of one tensor by one tensor.

        Args:
            tape: The tape that gives it.
            target: What is differentiated.
            source: By what; variables and lists are a training's, and passed over.
            find_site: Finds the user's line, where it is needed.
        """
        import tensorflow as tf

        if self.found or not isinstance(source, tf.Tensor) or not isinstance(target, tf.Tensor):
            return
        for other, target_before, source_before in self._last:
            if other != id(tape) and target_before() is target and source_before() is source:
                self.found.append(_twice(find_site()))
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

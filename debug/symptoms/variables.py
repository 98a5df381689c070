"""Rules about the variables of a training loop: which of them get a gradient, which are changed.

The loop tells of each gradient that it takes and of each step of an optimizer; at the end it shows
which variables it meant to train and did not.
"""

import ast
import itertools
import sys
from collections import Counter
from types import FrameType
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, is_users, locals_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless
from headstart.debug.source.syntax import cuts_under_tape, made_outside_tape
from headstart.debug.symptoms.kernels import Kernel, names_in_frames

MAX_VALUES = 1 << 16
"""Values of a variable, evenly spread, by which it is known again."""
MIN_STEPS = 10
"""Gradients taken before weights that never moved mean something."""
MAX_ELEMENTS = 1 << 20
MAX_VARIABLES = 100


class TrainedVariables:
    """What is known of the variables that a program's own loops train."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[Any, np.ndarray[Any, Any]]] = {}
        self._taken: Counter[int] = Counter()
        self._without: dict[int, Any] = {}
        self._applied: dict[int, Any] = {}
        self._order: list[int] = []
        self._names: dict[int, frozenset[str]] = {}
        self._outside: CallSite | None = None
        self._applied_at: CallSite | None = None

    def on_gradient(self, pairs: list[tuple[Any, Any]], site: CallSite | None) -> None:
        """Note the gradients that a tape gave.

        Args:
            pairs: Each variable with its gradient, which may be None.
            site: The user's line that asked for them.
        """
        for variable, gradient in pairs:
            if not hasattr(variable, "assign"):
                continue
            key = id(storage_of(variable))
            if key not in self._first and len(self._order) < MAX_VARIABLES:
                self._remember(variable, key)
            if gradient is not None:
                self._taken[key] += 1
            elif key not in self._without and len(self._without) < MAX_VARIABLES:
                self._without[key] = variable
                self._look_outside(site)
        self._note_names()

    def on_apply(self, variables: Any, site: CallSite | None) -> None:
        """Note which variables an optimizer changes.

        Args:
            variables: Variables that it changes.
            site: The user's line that calls it.
        """
        self._applied_at = self._applied_at or site
        for variable in variables:
            self._applied.setdefault(id(storage_of(variable)), variable)

    @property
    def most_taken(self) -> int:
        """How many gradients were taken by the variable with the most."""
        return max(self._taken.values(), default=0)

    @property
    def is_one_input(self) -> bool:
        """Whether gradients are taken by a single variable, and that is no layer's weight."""
        known = [variable for variable, _ in self._first.values()]
        return len(self._taken) == 1 and all(storage_of(one) is one for one in known)

    @property
    def have_moved(self) -> bool:
        """Whether any value is another than at first, or none is known."""
        values = [(variable, first) for variable, first in self._first.values()]
        return not values or any(_has_moved(variable, first) for variable, first in values)

    @property
    def are_applied(self) -> bool:
        """Whether an optimizer is given variables of which gradients are taken."""
        return not self._first.keys().isdisjoint(self._applied)

    def diagnoses(self, site: CallSite | None) -> list[Diagnosis]:
        """Return what was found, once the program has ended.

        Args:
            site: The user's line that takes the gradients.
        """
        return [*self._partly_cut(site), *self._partly_applied(site)]

    def kernels(self, site: CallSite | None) -> list[Kernel]:
        """Return the matrices of a chain of layers, in the order in which gradients are taken.

        Args:
            site: The user's line that takes the gradients.
        """
        known = [self._first[key][0] for key in self._order if self._taken[key]]
        matrices = [one for one in known if len(one.shape) == 2]
        pairs = list(itertools.pairwise(tuple(one.shape) for one in matrices))
        is_chain = all(one[1] == other[0] for one, other in pairs)
        if not is_chain and not all(one[0] == other[1] for one, other in pairs):
            return []  # who can tell which of their axes are units
        names = [self._names.get(id(storage_of(one)), frozenset()) for one in matrices]
        values = [np.asarray(one.numpy()) for one in matrices]
        return [
            Kernel(name_of(one), value if is_chain else value.T, site, one, known)
            for one, value, known in zip(matrices, values, names, strict=True)
        ]

    def _remember(self, variable: Any, key: int) -> None:
        import tensorflow as tf

        try:
            with tf.init_scope():
                if int(np.prod(variable.shape)) <= MAX_ELEMENTS:
                    self._first[key] = (variable, np.array(variable.numpy()))
                    self._order.append(key)
        except Exception:  # made in a graph that is being traced: it has no value yet
            return

    def _note_names(self) -> None:
        """Note what the variables that are new are called in the functions that run now."""
        import tensorflow as tf

        new = [key for key in self._order if key not in self._names]
        if new:
            look = tf.autograph.experimental.do_not_convert(names_in_frames)
            named = look([self._first[key][0] for key in new])
            self._names |= zip(new, map(frozenset, named), strict=True)

    def _partly_cut(self, site: CallSite | None) -> list[Diagnosis]:
        """Find variables whose gradient is always None, while others learn."""
        cut = {key: one for key, one in self._without.items() if not self._taken[key]}
        cut = {key: one for key, one in cut.items() if not self._was_changed(key)}
        if not cut or not self._taken:
            return []
        names = [name_of(one) for one in cut.values()]
        lines = cuts_under_tape(site) if site is not None else []
        place = self._outside
        where = " They are used before the tape starts recording." if place else ""
        if place is None and site is not None and len(lines) == 1:
            place = CallSite(site.file, lines[0])
            where = " On this line the values leave TensorFlow, and the gradient stops."
        place = place or site
        is_beginning = bool(self._order) and self._order[0] in cut
        return [
            Diagnosis(
                symptom="missing-gradient",
                cause=f"{len(cut)} of {len(cut) + len(self._taken)} trainable variables never get "
                f"a gradient (it is None: {', '.join(names[:3])}), and so never learn: no path "
                f"from them to the loss was recorded by the GradientTape.{where}",
                layer=names[0].rpartition("/")[0] or None,
                phase="backward",
                severity="error" if is_beginning or self._outside or lines else "warning",
                confidence=0.94,
                suggestions=(
                    "call every layer inside `with tf.GradientTape() as tape:`",
                    "use only TensorFlow ops between inputs and loss: no .numpy(), np functions, "
                    "tf.stop_gradient, argmax, round or casts to integers",
                ),
                evidence={"variables": names[:20]},
            ).at(place)
        ]

    def _partly_applied(self, site: CallSite | None) -> list[Diagnosis]:
        """Find variables whose gradients are computed but given to no optimizer."""
        if not self._applied:
            return []
        left = [
            variable
            for key, (variable, first) in self._first.items()
            if self._taken[key] and key not in self._applied and not _has_moved(variable, first)
        ]
        if not left or len(left) == len(self._first):
            return []
        names = [name_of(one) for one in left]
        place = self._applied_at or site
        return [
            Diagnosis(
                symptom="gradients-partly-applied",
                cause=f"Gradients of {len(self._taken)} variables are computed, but the optimizer "
                f"is given only some of them: {len(left)} variables ({', '.join(names[:3])}) are "
                "never updated and keep their initial values.",
                phase="optimizer",
                confidence=0.95,
                suggestions=(
                    "give it all of them: optimizer.apply_gradients(zip(gradients, "
                    "model.trainable_variables))",
                ),
                evidence={"variables": names[:20]},
            ).at(place)
        ]

    def _was_changed(self, key: int) -> bool:
        known = self._first.get(key)
        return known is not None and _has_moved(*known)

    def _look_outside(self, site: CallSite | None) -> None:
        """Find a call, before the tape, of something that holds a variable without gradient."""
        with harmless("the look at what stands before a tape"):
            frame = None if site is None else _frame_at(site)
            if site is None or frame is None or self._outside is not None:
                return
            for line, call in made_outside_tape(site):
                held = getattr(_resolved(call.func, frame), "trainable_variables", ())
                if any(id(storage_of(one)) in self._without for one in held):
                    self._outside = CallSite(site.file, line)


def storage_of(variable: Any) -> Any:
    """Return what holds a variable's values: Keras wraps TensorFlow's."""
    inner = getattr(variable, "_value", None)
    return variable if inner is None else inner


def print_of(variable: Any) -> int:
    """Return a number that is equal for equal values of a variable."""
    values = variable.numpy().reshape(-1)
    return hash(values[:: max(1, values.size // MAX_VALUES)].tobytes())


def name_of(variable: Any) -> str:
    """Return a variable's path, or its name."""
    return str(getattr(variable, "path", None) or getattr(variable, "name", "?"))


def _has_moved(variable: Any, first: np.ndarray[Any, Any]) -> bool:
    try:
        return not np.array_equal(np.asarray(variable.numpy()), first)
    except Exception:  # deleted meanwhile
        return True


def _frame_at(site: CallSite) -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code.co_filename) and frame.f_code.co_filename == site.file:
            return frame
        frame = frame.f_back
    return None


def _resolved(function: Any, frame: FrameType) -> Any:
    """Return the object that a name, or an attribute of one, stands for in a frame."""
    if isinstance(function, ast.Name):
        return locals_of(frame).get(function.id, frame.f_globals.get(function.id))
    if isinstance(function, ast.Attribute):
        return getattr(_resolved(function.value, frame), function.attr, None)
    return None

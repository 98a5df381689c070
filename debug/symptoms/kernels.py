"""What the matrices of a network look like after many steps: units alike, a signal that fades.

A hidden layer all of whose units began alike stays so, for their gradients are alike as well: it is
as good as one unit. Weights that are drawn far too small let next to nothing through, forwards and
backwards, and stay as they are.
"""

import ast
import contextlib
import gc
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.debug.callsites import CallSite, is_users, locals_of, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.syntax import targets_of

MIN_STEPS = 30
"""Steps after which units that are to part have parted."""
ALIKE = 1e-5
"""Difference between units, over their largest weight, that rounding can make."""
FAINT = 0.05
"""Typical factor by which a layer multiplies what it gets below which it lets nearly nothing
through; about 1 is usual."""
FAINT_IN_ALL = 1e-3
"""... and that of all layers together."""
MIN_LOSSES = 40
FALLEN = 0.9
"""Loss of the last fifth of a training over that of the first below which it has learnt."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Kernel:
    """A matrix that is trained.

    Args:
        name: Its variable's name.
        values: What it holds after some steps, ``[inputs, units]``.
        site: The user's line that makes it, or trains it.
        variable: The variable, where the line that makes it is not known.
        names: Some names that it has.
    """

    name: str
    values: Array
    site: CallSite | None = None
    variable: Any = None
    names: frozenset[str] = frozenset()

    @property
    def line(self) -> CallSite | None:
        """The user's line that makes it, or else trains it; it takes a while to find."""
        if self.variable is None or self.site is None:
            return self.site
        return _line_of_variable(self.variable, self.names, self.site)

    @property
    def gain(self) -> float:
        """By what it multiplies the size of its inputs, if these have nothing to do with it."""
        return math.sqrt(float(np.mean(self.values.astype(np.float64) ** 2)) * len(self.values))


def are_alike(values: Array) -> bool:
    """Tell whether all units of a matrix have the same weights.

    Args:
        values: The matrix, ``[inputs, units]``.
    """
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        return False
    return bool(np.ptp(values, axis=1).max() <= ALIKE * np.abs(values).max())


def alike_units(kernels: Sequence[Kernel]) -> list[Diagnosis]:
    """Find a hidden layer whose units are still all alike.

    Args:
        kernels: The matrices of a network in their order, after `MIN_STEPS` steps at least; of the
            last one units may be alike, where targets are.

    Returns:
        A finding, or none.
    """
    for kernel in kernels[:-1]:
        if not are_alike(kernel.values):
            continue
        what = "" if kernel.values.any() else " (all 0)"
        return [
            Diagnosis(
                symptom="constant-initialisation",
                cause=f"After all steps the {kernel.values.shape[1]} units of {kernel.name!r} "
                f"still have the same weights{what}: zero or constant "
                "initialisation makes them alike, their gradients are alike too, and the symmetry "
                "never breaks. The hidden layer is as good as one unit, or none.",
                phase="model",
                confidence=0.97,
                suggestions=(
                    "begin with small random values: "
                    "tf.random.truncated_normal(shape, stddev=1 / sqrt(number of inputs))",
                    "zeros are right for biases",
                ),
            ).at(kernel.line)
        ]
    return []


def faint_signal(kernels: Sequence[Kernel], losses: Sequence[float]) -> list[Diagnosis]:
    """Find weights so small that nothing gets through, in a training that stands still.

    Args:
        kernels: Its matrices in their order, after `MIN_STEPS` steps at least.
        losses: The loss of each step.

    Returns:
        A finding, or none.
    """
    gains = [kernel.gain for kernel in kernels]
    if len(gains) < 2 or not max(gains) < FAINT or not math.prod(gains) < FAINT_IN_ALL:
        return []
    fifth = len(losses) // 5
    if len(losses) < MIN_LOSSES or not np.isfinite(losses).all():
        return []
    if np.mean(losses[-fifth:]) < FALLEN * np.mean(losses[:fifth]):
        return []
    values = kernels[0].values
    typical = float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))
    return [
        Diagnosis(
            symptom="odd-initialisation",
            cause=f"The weights are far too small: those of {kernels[0].name!r} are about "
            f"{typical:.2g}, where {math.sqrt(2.0 / sum(values.shape)):.2g} is usual for its width "
            f"(initializer). Through {len(kernels)} layers the signal shrinks to "
            f"{math.prod(gains):.1g} of itself, and the gradient vanishes the same way: the "
            "weights hardly change, and the loss does not fall.",
            phase="model",
            confidence=0.94,
            suggestions=(
                "draw them by the layer's width: glorot_uniform (the default of get_variable and "
                "of Keras), or he_normal before relu",
                "or tf.random.truncated_normal(shape, stddev=1 / sqrt(number of inputs))",
            ),
            evidence={"gains": gains},
        ).at(kernels[0].line)
    ]


def names_in_frames(variables: Sequence[Any]) -> list[set[str]]:
    """Return the names that variables have in the user's functions that run now.

    Attributes of what these hold by name count too.

    Args:
        variables: Variables; the functions are looked at once for all of them.
    """
    found: dict[int, set[str]] = {id(one): set() for one in variables}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            held = list(locals_of(frame).items())
            inner = [one for _, value in held for one in _attributes(value)]
            for name, value in held + inner:
                if id(value) in found:
                    found[id(value)].add(name)
        frame = frame.f_back
    return [found[id(one)] for one in variables]


def _attributes(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, ModuleType | type):
        return []
    with contextlib.suppress(AttributeError, TypeError):  # asked so that no property of it runs
        return list(object.__getattribute__(value, "__dict__").items())
    return []


def _line_of_variable(variable: Any, known: frozenset[str], site: CallSite) -> CallSite:
    """Return the last line above one that trains a variable that gives its name a value."""
    tree = tree_of(site.file)
    names = known | {
        name
        for holder in gc.get_referrers(variable)
        if isinstance(holder, dict)
        for name, value in list(holder.items())
        if value is variable and isinstance(name, str)
    }
    made = [
        node.lineno
        for node in (ast.walk(tree) if tree is not None else ())
        if isinstance(node, ast.Assign)
        and any(getattr(one, "id", getattr(one, "attr", "")) in names for one in targets_of(node))
    ]
    above = [line for line in made if line < site.line]
    return CallSite(site.file, max(above)) if above else site

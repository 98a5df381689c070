"""A row minus, or times, a column, where it is computed eagerly: no graph shows it."""

import contextlib
import functools
import linecache
from collections.abc import Callable
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site, is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.syntax import is_added_up
from headstart.debug.symptoms.eager_axes import put_in_place
from headstart.debug.symptoms.graph_rules import broadcast_finding, is_row_against_column

_DELIBERATE = ("newaxis", "expand_dims", "None]", "[:, None", "[None")
"""Texts of a line that wants every pair."""


def watch_eager_broadcasts(tell: Callable[[Diagnosis], None]) -> None:
    """Look at every eager subtraction, and product, of tensors from now on.

    Args:
        tell: Is given the first finding of each line.
    """
    import tensorflow as tf

    look = _look(tell)
    for kind in (tf.Tensor, tf.Variable):
        for name in ("__sub__", "__rsub__", "__mul__", "__rmul__"):
            setattr(kind, name, _noted(getattr(kind, name), look, name.endswith("mul__")))
    _watch_functions(tf.math, look)
    for name in ("subtract", "multiply"):
        setattr(tf, name, getattr(tf.math, name))


def watch_keras_broadcasts(tell: Callable[[Diagnosis], None]) -> None:
    """Look at every eager ``keras.ops.subtract`` and ``multiply`` from now on.

    Args:
        tell: Is given the first finding of each line.
    """
    import keras

    _watch_functions(keras.ops, _look(tell))


def _watch_functions(module: Any, look: Callable[..., None]) -> None:
    import tensorflow as tf

    def noted(is_product: bool) -> Callable[[CallSite, Any, Any], None]:
        def note(site: CallSite, args: Any, kwargs: Any) -> None:
            if tf.executing_eagerly() and is_users(site.file):
                look(*[*args, *kwargs.values()][:2], is_product)

        return note

    for name in ("subtract", "squared_difference", "multiply"):
        if hasattr(module, name):
            put_in_place(module, name, "the rule about broadcasts", noted(name == "multiply"))


def _look(tell: Callable[[Diagnosis], None]) -> Callable[..., None]:
    told: set[CallSite | None] = set()

    def look(first: Any, second: Any, is_product: bool) -> None:
        shapes = (tuple(getattr(first, "shape", ())), tuple(getattr(second, "shape", ())))
        if not is_row_against_column(*shapes):
            return
        site = calling_site()
        if site in told or site is None:
            return
        told.add(site)
        if is_product and not is_added_up(site.file, site.line):
            return
        if any(text in linecache.getline(site.file, site.line) for text in _DELIBERATE):
            return
        if not _are_the_same(first, second):
            tell(broadcast_finding(*shapes, site, is_product))

    return look


def _are_the_same(first: Any, second: Any) -> bool:
    """Tell whether values meet themselves: every pair of them is wanted."""
    values = np.ravel(first)
    return len(set(values)) > 1 and np.array_equal(values, np.ravel(second))


def _noted(
    operator: Callable[..., Any], look: Callable[..., None], is_product: bool
) -> Callable[..., Any]:
    @functools.wraps(operator)
    def operate(first: Any, second: Any) -> Any:
        result = operator(first, second)
        if hasattr(result, "numpy"):
            with contextlib.suppress(Exception):  # what is measured must not end the user's step
                look(first, second, is_product)
        return result

    return operate

"""A row minus, or times, a column, where it is computed eagerly: no graph shows it."""

import contextlib
import functools
import linecache
from collections.abc import Callable
from typing import Any

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.syntax import is_added_up
from headstart.debug.symptoms.graph_rules import broadcast_finding, is_row_against_column

_DELIBERATE = ("newaxis", "expand_dims", "None]", "[:, None", "[None")
"""Texts of a line that wants every pair."""


def watch_eager_broadcasts(tell: Callable[[Diagnosis], None]) -> None:
    """Look at every eager subtraction, and product, of tensors from now on.

    Args:
        tell: Is given the first finding of each line.
    """
    import tensorflow as tf

    told: set[CallSite | None] = set()

    def note(first: Any, second: Any, result: Any, is_product: bool) -> None:
        shapes = (tuple(getattr(first, "shape", ())), tuple(getattr(second, "shape", ())))
        if len(result.shape) != 2 or not is_row_against_column(*shapes):
            return
        site = calling_site()
        if site in told or site is None:
            return
        told.add(site)
        if is_product and not is_added_up(site.file, site.line):
            return
        if not any(text in linecache.getline(site.file, site.line) for text in _DELIBERATE):
            tell(broadcast_finding(*shapes, site, is_product))

    for name in ("__sub__", "__rsub__", "__mul__", "__rmul__"):
        setattr(tf.Tensor, name, _noted(getattr(tf.Tensor, name), note, name.endswith("mul__")))


def _noted(
    operator: Callable[..., Any], note: Callable[..., None], is_product: bool
) -> Callable[..., Any]:
    @functools.wraps(operator)
    def operate(first: Any, second: Any) -> Any:
        result = operator(first, second)
        if hasattr(result, "numpy"):
            with contextlib.suppress(Exception):  # what is measured must not end the user's step
                note(first, second, result, is_product)
        return result

    return operate

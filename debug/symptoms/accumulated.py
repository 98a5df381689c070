"""A rule about gradients that are added up over several batches, and never start anew."""

import linecache
import re
from collections.abc import Callable
from typing import Any

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis

_ADDED = re.compile(r"\.assign_add\(|scatter_nd_add")
_SET = re.compile(r"\.assign\(|\.assign_sub\(|zeros_initializer|\.initializer")


def never_reset(gradients: Any, find_site: Callable[[], CallSite | None]) -> list[Diagnosis]:
    """Find gradients that are read from variables which the program only ever adds to.

    Args:
        gradients: What an optimizer is given.
        find_site: Finds the user's line that gives them; asked only where all are read, as it
            takes longer than the rest of a step's look.

    Returns:
        A finding at the line that adds; none where some line may set them back.
    """
    given = [one for one in gradients if one is not None]
    site = find_site() if given and all(map(_is_read, given)) else None
    if site is None:
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

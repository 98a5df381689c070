"""Dropout that a program asks TensorFlow for itself: too high, or a share to keep taken for a rate.

What Keras's layers drop is judged with the other settings of a model.
"""

import ast
from collections.abc import Callable
from typing import Any

from headstart.debug.callsites import CallSite, is_headstarts, is_users, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.internals import private
from headstart.debug.preflight.settings import MAX_DROPOUT
from headstart.debug.symptoms.eager_axes import put_in_place

SURE = 0.9
"""Rate from which on nothing can be learnt; from `MAX_DROPOUT` on it is a warning."""


def watch_dropout(tell: Callable[[Diagnosis], None]) -> None:
    """Look at every dropout that the program asks for by a number.

    Args:
        tell: Is given the first finding of each line.
    """
    for module, note in _notes(tell).items():
        put_in_place(module, "dropout", "the rule about dropout", note)


def _notes(tell: Callable[[Diagnosis], None]) -> dict[Any, Callable[[CallSite, Any, Any], None]]:
    import tensorflow as tf

    told: set[CallSite] = set()

    def note(site: CallSite, rate: Any, kept: Any = None) -> None:
        is_kept_share = isinstance(kept, float | int)
        high = _high(1.0 - kept if is_kept_share else rate)
        if high is not None and site not in told and is_users(site.file):
            told.add(site)
            tell(_finding(high, is_kept_share).at(site))

    def look(site: CallSite, place: int | None) -> None:
        name = _kept_name(site, place)
        if name and site not in told and is_users(site.file):
            told.add(site)
            tell(_exchanged(name).at(site))

    def note_v1(caller: CallSite, args: Any, kwargs: Any) -> None:
        site = _as_written(caller)
        second = args[1] if len(args) > 1 else None
        note(site, kwargs.get("rate"), kwargs.get("keep_prob", second))
        look(site, None)

    def note_v2(caller: CallSite, args: Any, kwargs: Any) -> None:
        site = _as_written(caller)
        note(site, args[1] if len(args) > 1 else kwargs.get("rate"))
        look(site, 1)

    return {tf.compat.v1.nn: note_v1, tf.nn: note_v2}


def _as_written(caller: CallSite) -> CallSite:
    """Return the line that calls a function, also where AutoGraph calls it for that line."""
    if "autograph" not in caller.file:
        return caller
    frames = list(private("extract_stack")())
    while frames and is_headstarts(frames[-1].filename):  # what notes the call
        frames.pop()
    return CallSite(frames[-1].filename, frames[-1].lineno) if frames else caller


def _kept_name(site: CallSite, place: int | None) -> str:
    """Return what a call names as its rate, if that is called a share to keep; else "".

    Args:
        site: The line with the call of dropout.
        place: Where the rate may stand by its place.
    """
    for node in ast.walk(tree_of(site.file) or ast.Module([], [])):
        if not isinstance(node, ast.Call) or node.lineno != site.line:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        rates = [one.value for one in node.keywords if one.arg == "rate"]
        if place is not None:
            rates += node.args[place : place + 1]
        for rate in rates if called == "dropout" else ():
            # What is computed, such as 1 - keep_prob, is another share.
            name = getattr(rate, "id", "") or getattr(rate, "attr", "")
            if "keep" in name.lower():
                return str(name)
    return ""


def _exchanged(name: str) -> Diagnosis:
    return Diagnosis(
        symptom="dropout-too-high",
        cause=f"Dropout is given {name} as its rate: rate is the share that is dropped, not the "
        "share that is kept. With 0.8, 80% of the units are dropped; with 1, everything.",
        phase="model",
        severity="error",
        confidence=0.95,
        suggestions=(f"rate=1 - {name}",),
    )


def _high(rate: Any) -> float | None:
    """Return a rate that is a plain number, and too high."""
    is_high = isinstance(rate, float | int) and MAX_DROPOUT <= rate < 1.0
    return float(rate) if is_high else None


def _finding(rate: float, is_kept_share: bool) -> Diagnosis:
    said = f"keep_prob={1.0 - rate:g} keeps" if is_kept_share else f"rate={rate:g} keeps"
    other = (
        "keep_prob is the share that is kept, rate the share that is dropped"
        if is_kept_share
        else f"rate is the share that is dropped: to keep {rate:.0%}, rate={1.0 - rate:g}"
    )
    return Diagnosis(
        symptom="dropout-too-high",
        cause=f"Dropout with {said} only {1.0 - rate:.0%} of the units: too little is left to "
        "learn from.",
        phase="model",
        severity="error" if rate >= SURE else "warning",
        confidence=0.93 if rate >= SURE else 0.7,
        suggestions=(other, "0.1 to 0.5 is usual"),
    )

"""A rule about preprocessing layers that are adapted once more between the rows of one data set."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless

MIN_ROWS = 20
"""Rows of a call that are no look at an example."""
_KINDS = ("TextVectorization", "StringLookup", "IntegerLookup", "Normalization", "Discretization")


def watch_adapts(tell: Callable[[Diagnosis], None], num_fits: Callable[[], int]) -> None:
    """Look at what layers that are adapted make of rows, before and after.

    Args:
        tell: Is given one finding a layer.
        num_fits: Tells how many trainings there were: a fold may well adapt a layer anew.
    """
    import keras

    made: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
    last_fits: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
    adapted: weakref.WeakKeyDictionary[Any, CallSite] = weakref.WeakKeyDictionary()
    told: weakref.WeakSet[Any] = weakref.WeakSet()

    def on_call(layer: Any, rows: Any) -> None:
        if layer in told or not (layer in adapted or layer in made) or not _has_rows(rows):
            return
        fits, site = num_fits(), adapted.pop(layer, None)
        if site is not None:  # the first call since: a vocabulary is not read at each batch
            state, before = _state_of(layer), made.get(layer)
            if before is not None and before != state and last_fits[layer] == fits:
                told.add(layer)
                tell(_finding(layer, site))
            made[layer] = state
        last_fits[layer] = fits

    for kind in (getattr(keras.layers, name) for name in _KINDS):
        kind.adapt = _noting_adapt(kind.adapt, adapted)
        kind.__call__ = _noting_call(kind.__call__, on_call)


def _noting_adapt(adapt: Callable[..., Any], adapted: Any) -> Callable[..., Any]:
    @functools.wraps(adapt)
    def adapt_and_note(layer: Any, *args: Any, **kwargs: Any) -> Any:
        with harmless("the rule about adapted layers"):
            site = calling_site()
            if site is not None:
                adapted[layer] = site
        return adapt(layer, *args, **kwargs)

    return adapt_and_note


def _noting_call(
    call: Callable[..., Any], on_call: Callable[[Any, Any], None]
) -> Callable[..., Any]:
    @functools.wraps(call)
    def call_and_note(layer: Any, *args: Any, **kwargs: Any) -> Any:
        with harmless("the rule about adapted layers"):
            if args:
                on_call(layer, args[0])
        return call(layer, *args, **kwargs)

    return call_and_note


def _has_rows(rows: Any) -> bool:
    """Tell whether something is many rows that are at hand, not a tensor of a trace."""
    import tensorflow as tf

    is_there = isinstance(rows, np.ndarray | list | tuple) or hasattr(rows, "numpy")
    return is_there and tf.executing_eagerly() and len(rows) >= MIN_ROWS


def _state_of(layer: Any) -> int:
    words = layer.get_vocabulary() if hasattr(layer, "get_vocabulary") else ()
    numbers = [np.asarray(one).tobytes() for one in layer.weights]
    bins = np.asarray(getattr(layer, "bin_boundaries", None) or ()).tobytes()
    return hash((tuple(map(str, words)), *numbers, bins))


def _finding(layer: Any, site: CallSite) -> Diagnosis:
    kind = type(layer).__name__
    return Diagnosis(
        symptom="adapted-again",
        cause=f"{kind} {layer.name!r} is adapted again between two sets of rows that it transforms "
        "(such as the training and the test rows): the same words, or numbers, come out as others "
        "than before.",
        phase="data",
        confidence=0.95,
        suggestions=("adapt it once, to the training rows alone, and call it on all others",),
    ).at(site)

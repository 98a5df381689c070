"""What is noted of how a program builds its `tf.data` pipelines.

Where data sets are shuffled and split, and random numbers of Python's that are drawn once, when a
function is traced.
"""

import functools
import inspect
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless
from headstart.debug.preflight.moving import SITE, moved

_SPLITS = "_headstart_split_at"
_RULE = "the rules about pipelines"


def watch_pipelines(tell: Callable[[Diagnosis], None]) -> None:
    """Look at every `map`, and remember where data sets are shuffled.

    Args:
        tell: Is given what is found.
    """
    import tensorflow as tf

    kind = tf.data.Dataset
    shuffle, transform = kind.shuffle, kind.map

    @functools.wraps(shuffle)
    def shuffle_and_note(dataset: Any, *args: Any, **kwargs: Any) -> Any:
        result = shuffle(dataset, *args, **kwargs)
        with harmless(_RULE):
            vars(result)[SITE] = calling_site()
        return result

    @functools.wraps(transform)
    def map_and_look(dataset: Any, map_func: Any, *args: Any, **kwargs: Any) -> Any:
        before: dict[str, Any] = {}
        with harmless(_RULE):
            before = _random_states(map_func)
        result = transform(dataset, map_func, *args, **kwargs)
        with harmless(_RULE):
            drawn = [name for name, state in _random_states(map_func).items()
                     if name in before and before[name] != state]  # fmt: skip
            if drawn:
                tell(_drawn_once(drawn[0], map_func))
        return result

    kind.shuffle, kind.map = shuffle_and_note, map_and_look
    for name in ("take", "skip"):
        setattr(kind, name, _noting_split(getattr(kind, name), name, tell))


def _noting_split(
    split: Callable[..., Any], name: str, tell: Callable[[Diagnosis], None]
) -> Callable[..., Any]:
    """Have a data set know how it is split: both take(n) and skip(n) of one make two parts."""

    @functools.wraps(split)
    def split_and_note(dataset: Any, count: Any, *args: Any, **kwargs: Any) -> Any:
        with harmless(_RULE):
            places = vars(dataset).setdefault(_SPLITS, {"take": set(), "skip": set()})
            places[name].add(int(count))
            if places["take"] & places["skip"] - {0}:
                for found in moved(dataset):
                    tell(found)
        return split(dataset, count, *args, **kwargs)

    return split_and_note


def _random_states(function: Any) -> dict[str, Any]:
    """Return the states of the generators of random numbers that a function can draw from."""
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    state = legacy["state"]
    states: dict[str, Any] = {"np.random": (state["key"].tobytes(), state["pos"])}
    code = getattr(function, "__code__", None)
    if code is None:
        return states
    known = {name: function.__globals__[name] for name in code.co_names
             if name in function.__globals__}  # fmt: skip
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            known[name] = cell.cell_contents
        except ValueError:  # not yet filled
            continue
    for name, value in known.items():
        if value is random:
            states["random"] = random.getstate()
        elif isinstance(value, np.random.Generator):
            states[name] = repr(value.bit_generator.state)
        elif isinstance(value, np.random.RandomState):
            states[name] = repr(value.get_state())
    return states


def _drawn_once(name: str, function: Any) -> Diagnosis:
    code = getattr(function, "__code__", None)
    site = CallSite(code.co_filename, code.co_firstlineno) if code is not None else calling_site()
    label = getattr(function, "__name__", "its function")
    return Diagnosis(
        symptom="drawn-once",
        cause=f"{label!r} draws from {name} while tf.data traces it: the numbers are drawn once "
        "and become constants, the same for every element and epoch (no random augmentation).",
        phase="data",
        severity="warning",
        confidence=0.95,
        suggestions=(
            "draw with TensorFlow: tf.random.uniform(…), or tf.image.random_flip_left_right(image)",
            "or let Python run at each element: tf.numpy_function(function, [image], tf.float32)",
        ),
    ).at(_line_that_draws(function, name) or site)


def _line_that_draws(function: Any, name: str) -> CallSite | None:
    """Return the first line of a function's own text that names a generator."""
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return None
    wanted = {"np.random": ("np.random", "numpy.random")}.get(name, (f"{name}.",))
    for place, line in enumerate(lines):
        if any(one in line for one in wanted):
            return CallSite(function.__code__.co_filename, first + place)
    return None

"""Rules about how a program builds its `tf.data` pipelines.

A split of a data set that is shuffled anew each time it is gone through, and random numbers of
Python's that are drawn once, when a function is traced.
"""

import functools
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless

_SITE = "_headstart_shuffled_at"
_SPLITS = "_headstart_split_at"
_TOLD = "_headstart_split_told"
_RULE = "the rules about pipelines"
_SPLITTING = ("TakeDataset", "SkipDataset", "ShardDataset")
_FIXED = ("CacheDataset", "SnapshotDataset")


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
            vars(result)[_SITE] = calling_site()
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
                for found in _moved(dataset):
                    tell(found)
        return split(dataset, count, *args, **kwargs)

    return split_and_note


def moving_split(given: Mapping[str, Any]) -> list[Diagnosis]:
    """Find training and validation sets that are drawn anew from the same rows at each epoch.

    Args:
        given: What ``fit`` was given, by name.

    Returns:
        A finding, where both are parts of one data set that is shuffled at each iteration.
    """
    trained, held_out = list(_upwards(given.get("x"))), list(_upwards(given.get("validation_data")))
    shared = next((one for one in held_out if any(one is other for other in trained)), None)
    if shared is None:
        return []
    below = [
        *_until(trained, shared),
        *_until(held_out, shared),
    ]
    if not any(_is_a(one, _SPLITTING) for one in below):
        return []
    return _moved(shared)


def _moved(dataset: Any) -> list[Diagnosis]:
    """Say of a data set that is split that its order is another each time; once."""
    for one in _upwards(dataset):
        if _is_a(one, _FIXED) or _TOLD in vars(one):
            return []
        if _is_a(one, ("ShuffleDataset",)) and getattr(one, "_reshuffle_each_iteration", True):
            vars(one)[_TOLD] = True
            return [_moving(vars(one).get(_SITE))]
    return []


def _upwards(dataset: Any) -> Iterator[Any]:
    """Yield a data set and what it is made of, as far as that is one other."""
    while dataset is not None and hasattr(dataset, "element_spec"):
        yield dataset
        dataset = getattr(dataset, "_input_dataset", None)


def _until(chain: list[Any], end: Any) -> Iterator[Any]:
    for one in chain:
        if one is end:
            return
        yield one


def _is_a(dataset: Any, names: tuple[str, ...]) -> bool:
    return type(dataset).__name__.lstrip("_").endswith(names)


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


def _moving(site: CallSite | None) -> Diagnosis:
    return Diagnosis(
        symptom="split-moves",
        cause="Training and validation set are taken (take, skip, shard) from one data set that "
        "shuffle() puts into another order each time it is gone through: the split is another at "
        "each epoch, and validation rows are trained on in others.",
        phase="data",
        severity="error",
        confidence=0.96,
        suggestions=(
            "split first, then shuffle the training part: train = rows.take(n).shuffle(n)",
            "or shuffle(n, seed=1, reshuffle_each_iteration=False) before the split",
        ),
    ).at(site)

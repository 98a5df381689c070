"""Splits of a data set that is shuffled anew each time it is gone through."""

from collections.abc import Iterator, Mapping
from typing import Any

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis

SITE = "_headstart_shuffled_at"
"""Attribute of a shuffled data set: the line that shuffles it."""
_TOLD = "_headstart_split_told"
_SPLITTING = ("TakeDataset", "SkipDataset", "ShardDataset")
_FIXED = ("CacheDataset", "SnapshotDataset")


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
    below = [*_until(trained, shared), *_until(held_out, shared)]
    if not any(_is_a(one, _SPLITTING) for one in below):
        return []
    return moved(shared)


def moved(dataset: Any) -> list[Diagnosis]:
    """Say of a data set that is split that its order is another each time; once.

    Args:
        dataset: What is split.
    """
    for one in _upwards(dataset):
        if _is_a(one, _FIXED) or _TOLD in vars(one):
            return []
        if _is_a(one, ("ShuffleDataset",)) and getattr(one, "_reshuffle_each_iteration", True):
            vars(one)[_TOLD] = True
            return [_moving(vars(one).get(SITE))]
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

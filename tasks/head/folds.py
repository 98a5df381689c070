"""Folds of a cross-validation: what belongs together is never on both sides of one."""

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.tasks.dataset.units import Units


def stratified_folds(
    labels: npt.NDArray[np.integer[Any]],
    num_folds: int,
    seed: int,
    units: Units = None,
) -> npt.NDArray[np.int64]:
    """Assign each image to a fold so that every class is spread evenly.

    Args:
        labels: int [n]: class of each image.
        num_folds: Number of folds, at least 2.
        seed: Seed of the shuffle within each class.
        units: int64 [n]: images of one number stay together; None where each stands alone. A
            unit of several classes counts as one of its first image's class.

    Returns:
        int64 [n], 0 to num_folds - 1. A class of fewer images than folds is in some only.
    """
    if units is not None:
        _, first, unit = np.unique(units, return_index=True, return_inverse=True)
        return stratified_folds(labels[first], num_folds, seed)[unit]
    generator = np.random.default_rng(seed)
    folds = np.empty(len(labels), np.int64)
    offset = 0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        # Where one class ends the next goes on, so that the folds stay of equal size.
        folds[members] = (offset + np.arange(len(members))) % num_folds
        offset += len(members)
    return folds


def number_folds(
    units: npt.NDArray[np.int64], num_folds: int, seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Divide the rows of a regression.

    Args:
        units: int64 [n]: rows of one number stay together.
        num_folds: Number of folds; fewer where there are fewer units.
        seed: Seed of the shuffle.

    Returns:
        Positions to train on and positions held out, a pair a fold; none of a single unit.
    """
    from sklearn.model_selection import GroupKFold

    num_folds = min(num_folds, len(np.unique(units)))
    if num_folds < 2:
        return []
    folds = GroupKFold(num_folds, shuffle=True, random_state=seed)
    return list(folds.split(units, groups=units))

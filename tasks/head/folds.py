"""Folds of a cross-validation."""

from typing import Any

import numpy as np
import numpy.typing as npt


def stratified_folds(
    labels: npt.NDArray[np.integer[Any]], num_folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Assign each image to a fold so that every class is spread evenly.

    Args:
        labels: int [n]: class of each image.
        num_folds: Number of folds, at least 2.
        seed: Seed of the shuffle within each class.

    Returns:
        int64 [n], 0 to num_folds - 1. A class of fewer images than folds is in some only.
    """
    generator = np.random.default_rng(seed)
    folds = np.empty(len(labels), np.int64)
    offset = 0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        # Where one class ends the next goes on, so that the folds stay of equal size.
        folds[members] = (offset + np.arange(len(members))) % num_folds
        offset += len(members)
    return folds

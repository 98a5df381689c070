"""Features of images as arrays: what a linear head sees of the cached bottlenecks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import Split
from headstart.tasks.bottlenecks.rows import LabelledRows

CHUNK_BYTES = 64 * 2**20
"""Bottlenecks read at a time."""


def pooled_features(rows: LabelledRows, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Read the plain views' bottlenecks, averaged over their positions as a linear head does.

    Args:
        rows: Of one split.
        images: int64 [n], positions in ``rows.labels``.

    Returns:
        float32 [n, C].
    """
    shape = rows.readers[0].shape
    step = max(1, CHUNK_BYTES // (4 * int(np.prod(shape, dtype=np.int64))))
    features = np.empty((len(images), shape[-1]), np.float32)
    for start in range(0, len(images), step):
        chunk = rows.gather(images[start : start + step], 0).astype(np.float32)
        features[start : start + step] = chunk.reshape(len(chunk), -1, shape[-1]).mean(axis=1)
    return features


def all_features(
    rows: Mapping[Split, LabelledRows],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Read all images of several splits, split after split.

    Args:
        rows: The splits.

    Returns:
        float32 [n, C] and labels int32 [n].
    """
    features = [pooled_features(one, np.arange(len(one))) for one in rows.values()]
    return np.concatenate(features), np.concatenate([one.labels for one in rows.values()])


def draw_images(num_images: int, max_images: int, seed: int) -> npt.NDArray[np.int64]:
    """Choose which images to look at: all, or so many at random.

    Args:
        num_images: That there are.
        max_images: That may be looked at.
        seed: Of the draw.

    Returns:
        int64 [min(num_images, max_images)], ascending.
    """
    if num_images <= max_images:
        return np.arange(num_images)
    drawn: npt.NDArray[Any] = np.random.default_rng(seed).choice(
        num_images, max_images, replace=False
    )
    return np.sort(drawn).astype(np.int64)

"""Features of images as arrays: what a linear head sees of the cached bottlenecks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import Split
from headstart.tasks.bottlenecks.pooled import pooled_features
from headstart.tasks.bottlenecks.rows import LabelledRows


def all_features(
    rows: Mapping[Split, LabelledRows],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Read all images of several splits, split after split.

    Returns:
        float32 [n, C] and labels int32 [n].
    """
    features = [pooled_features(one, np.arange(len(one))) for one in rows.values()]
    return np.concatenate(features), np.concatenate([one.labels for one in rows.values()])


def draw_images(num_images: int, max_images: int, seed: int) -> npt.NDArray[np.int64]:
    """Choose which images to look at: all, or so many at random.

    Returns:
        int64 [min(num_images, max_images)], ascending.
    """
    if num_images <= max_images:
        return np.arange(num_images)
    drawn: npt.NDArray[Any] = np.random.default_rng(seed).choice(
        num_images, max_images, replace=False
    )
    return np.sort(drawn).astype(np.int64)

"""What a linear or MLP head sees of bottlenecks: their averages over positions, as arrays."""

import numpy as np
import numpy.typing as npt

from headstart.tasks.bottlenecks.rows import LabelledRows

CHUNK_BYTES = 64 * 2**20
"""Bottlenecks read at a time."""


def pooled_features(
    rows: LabelledRows, images: npt.NDArray[np.int64], view: int = 0
) -> npt.NDArray[np.float32]:
    """Read bottlenecks of one view, averaged over their positions as a linear head does.

    Args:
        rows: Bottlenecks of one split.
        images: int64 [n], positions in ``rows.labels``.
        view: 0, the plain one, to ``rows.num_augmented``.

    Returns:
        float32 [n, C].
    """
    shape = rows.readers[0].shape
    step = max(1, CHUNK_BYTES // (4 * int(np.prod(shape, dtype=np.int64))))
    features = np.empty((len(images), shape[-1]), np.float32)
    for start in range(0, len(images), step):
        chunk = rows.gather(images[start : start + step], view).astype(np.float32)
        features[start : start + step] = chunk.reshape(len(chunk), -1, shape[-1]).mean(axis=1)
    return features

"""The parity gate: what was read back from the cache is what the backbone computes now.

Rows are drawn at random and computed again the long way, from the image file through the uncut
Keras model, so the gate covers decoding, views, freezing, cutting, storing and reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import Precision
from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.bottlenecks.extraction import extractor_of
from headstart.tasks.store.records import RowCollection, RowId

TOLERANCE = {"float16": 2e-3, "float32": 2e-4}
"""Largest difference allowed, as a share of the row's largest activation. Rounding to float16
is off by 2**-11 (5e-4) at most; the rest is for float32 sums in another order."""

BFLOAT16_TOLERANCE = 0.15
"""Largest length (root of the sum of squares) of the difference that bfloat16 may make to a row, as
a share of the row's own. It rounds each layer's activations by 2**-8 (4e-3) of themselves, and
single activations come out far off, up to a fifth of the largest; rows as a whole do not. Of 100
photos in EfficientNet-Lite0, with bfloat16 emulated, it was 0.029 (median) to 0.063; another
photo's row was 0.49 away and more."""

TINY = np.finfo(np.float32).tiny
"""Stands in for the largest activation where all are zero."""


def tolerance_of(dtype: str, precision: Precision) -> float:
    """Return the largest difference allowed, as a share of a row's largest activation."""
    return TOLERANCE[dtype] if precision == "float32" else BFLOAT16_TOLERANCE


def differences(
    found: npt.NDArray[Any],
    live: npt.NDArray[np.float32],
    dtype: np.dtype[Any],
    precision: Precision = "float32",
) -> npt.NDArray[np.float32]:
    """Return each row's largest difference, as a share of its largest activation.

    Args:
        found: [n, ...], to be judged.
        live: float32 [n, ...], what they should be.
        dtype: Storage type of the activations.
        precision: Of the arithmetic; of bfloat16's rows, the length of the difference as a share
            of the row's is returned.

    Returns:
        float32 [n]; NaN where a row holds one.
    """
    axes = tuple(range(1, found.ndim))
    if precision != "float32":
        error = np.sqrt(np.square(found - live, dtype=np.float64).sum(axis=axes))
        length = np.sqrt(np.square(live, dtype=np.float64).sum(axis=axes))
        share: npt.NDArray[np.float32] = (error / np.maximum(length, TINY)).astype(np.float32)
        return share
    difference = np.abs(found.astype(np.float32) - live).max(axis=axes)
    largest = np.abs(live).max(axis=axes)
    # Below its smallest normal number a type's steps, and so its rounding, shrink no further:
    # a faint row among others is let off, a backbone that is faint throughout is not.
    normal = np.float32(np.finfo(dtype).smallest_normal)
    scale = np.maximum(largest, np.clip(np.fmax.reduce(largest), TINY, normal))
    with np.errstate(over="ignore", invalid="ignore"):  # looked for by who asks
        relative: npt.NDArray[np.float32] = difference / scale
    return relative


@dataclass(frozen=True)
class Sample:
    """Rows to compute again.

    Attributes:
        pixels: uint8 [n, image_size, image_size, 3]: their views, made anew from the files.
    """

    row_ids: Sequence[RowId]
    pixels: npt.NDArray[np.uint8]


def check_parity(
    backbone: Backbone,
    sample: Sample,
    collections: dict[str, RowCollection],
    pooled: bool = False,
    precision: Precision = "float32",
) -> float:
    """Compare stored rows with the backbone's activations.

    Args:
        backbone: The network, run as the plain Keras model it is.
        sample: Rows to compute again.
        collections: Where the rows are kept, by cut.
        pooled: They are averages over the activations' positions.
        precision: Of the arithmetic that computed the stored ones.

    Returns:
        The largest difference found, as a share of its row's largest activation; of a faint
        row among others, as a share of the storage type's smallest normal number.

    Raises:
        BackboneError: A row differs by more than `tolerance_of` its storage type and precision.
    """
    extractor = extractor_of(backbone, list(collections), pooled)
    outputs = keras.tree.flatten(extractor(tf.constant(sample.pixels), training=False))
    worst = 0.0
    for (cut, collection), live in zip(collections.items(), outputs, strict=True):
        stored = collection.select(sample.row_ids).gather(range(len(sample.row_ids)))
        relative = differences(stored, live.numpy(), collection.dtype, precision)
        worst = max(worst, float(relative.max()))
        tolerance = tolerance_of(collection.dtype.name, precision)
        measure = "largest activation" if precision == "float32" else "length"
        if not relative.max() <= tolerance:  # also where it is NaN
            row = int(np.argmax(relative))
            exact, right = precision == "float32", live.numpy()[row]
            if exact and _rounds_too_much(right, collection.dtype, tolerance):
                raise BackboneError(
                    f"activations at {cut} cannot be stored as {collection.dtype} within "
                    f"{tolerance:g} of their largest",
                    f"{float(np.abs(live.numpy()[row]).max()):.3g} is the largest of image "
                    f"{sample.row_ids[row].image_digest}, where {collection.dtype} has too few "
                    "steps or no such number",
                    "store them as float32: --set bottlenecks.dtype=float32",
                )
            raise BackboneError(
                f"a stored bottleneck at {cut} differs from what the backbone computes by more "
                f"than {tolerance:g} of its {measure}",
                f"{relative[row]:.3g} for image {sample.row_ids[row].image_digest}, "
                f"view {sample.row_ids[row].view}, rows {collection.digest[:12]}",
                "`headstart cache verify` checks the shards; if they are whole, please report "
                "this with the backbone's name, since its graph and its layers disagree",
            )
    return worst


def _rounds_too_much(row: npt.NDArray[np.float32], dtype: np.dtype[Any], tolerance: float) -> bool:
    """Say whether rounding a right row to the storage type is what makes it differ."""
    if not np.isfinite(row).all():
        return False
    with np.errstate(over="ignore", invalid="ignore"):  # infinite: more than the tolerance
        difference = np.abs(row.astype(dtype).astype(np.float32) - row).max()
    return not difference <= tolerance * np.abs(row).max()

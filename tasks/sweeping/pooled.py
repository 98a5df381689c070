"""The rows of a sweep as arrays in memory, and which of them choose among its heads."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import TargetKind
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.pooled import pooled_features
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.folds import stratified_folds

NUM_PARTS = 5
"""A fifth of the training images is held out to choose by."""
MAX_BYTES = 4 * 2**30
"""Of a sweep's float32 features."""


@dataclass(frozen=True)
class PooledRows:
    """What linear and MLP heads see of some images.

    Attributes:
        views: float32 [n, C] each: the plain view, then the augmented ones.
        labels: int32 [n]; of other kinds of targets what `Target.to_array` says.
        shape: Shape of one bottleneck: [C], or [H, W, C] where positions were averaged.
        kind: What the targets are: classes, labels or numbers.
    """

    views: tuple[npt.NDArray[np.float32], ...]
    labels: npt.NDArray[Any]
    shape: tuple[int, ...]
    kind: TargetKind = "class"

    @property
    def num_augmented(self) -> int:
        """Augmented views an image."""
        return len(self.views) - 1


def some_rows(rows: LabelledRows, chosen: npt.NDArray[Any]) -> LabelledRows:
    """Return the rows of some images, by their positions."""
    units = None if rows.units is None else rows.units[chosen]
    return LabelledRows(rows.readers, rows.positions[chosen], rows.labels[chosen], rows.kind, units)


def hold_out(rows: LabelledRows, seed: int) -> tuple[LabelledRows, LabelledRows]:
    """Divide the training images into those that heads learn from and those that choose.

    Args:
        rows: Bottlenecks of the train split.
        seed: Seed of the draw; which images are drawn depends on it, the labels and the groups.

    Returns:
        Four fifths, with every class among them, and a fifth. Groups are in one of them.

    Raises:
        TrainingError: There is no class with two images, or groups of images.
    """
    if rows.kind != "class":
        return _hold_out_any(rows, seed)
    units = rows.unit_numbers
    chosen = stratified_folds(rows.labels, NUM_PARTS, seed, units) == 0
    lost = np.setdiff1d(rows.labels, rows.labels[~chosen])
    chosen &= ~np.isin(units, units[np.isin(rows.labels, lost)])
    if not chosen.any():
        # Of small classes the first fold may have none: the first image that can be spared, then.
        spared = next(
            (
                unit
                for unit in units
                if not len(np.setdiff1d(rows.labels, rows.labels[units != unit]))
            ),
            None,
        )
        if spared is None:
            raise TrainingError(
                "a sweep has to hold out training images, but every class has only one image"
                + ("" if rows.units is None else ", or one group of images"),
                f"{len(rows)} training images",
                "add images, or train one head with `headstart train`",
            )
        chosen = units == spared
    return some_rows(rows, np.flatnonzero(~chosen)), some_rows(rows, np.flatnonzero(chosen))


def _hold_out_any(rows: LabelledRows, seed: int) -> tuple[LabelledRows, LabelledRows]:
    """Draw a fifth of images that have labels or numbers; groups stay whole."""
    units = np.unique(rows.unit_numbers)
    count = len(units) // NUM_PARTS or 1
    if len(units) <= count:
        raise TrainingError(
            "there are too few training images for a sweep, which has to hold some out",
            f"{len(rows)} training images"
            + ("" if rows.units is None else f" in {len(units)} groups"),
            "add images, or train one head with `headstart train`",
        )
    drawn = np.isin(rows.unit_numbers, np.random.default_rng(seed).permutation(units)[:count])
    return some_rows(rows, np.flatnonzero(~drawn)), some_rows(rows, np.flatnonzero(drawn))


def pool(rows: LabelledRows, *, augmented: bool = True) -> PooledRows:
    """Read rows into memory, averaged over their positions.

    Args:
        rows: Bottlenecks of some images.
        augmented: Whether the augmented views are read too.

    Raises:
        TrainingError: The rows do not fit into memory, or hold NaN or infinity.
    """
    num_views = 1 + (rows.num_augmented if augmented else 0)
    num_bytes = 4 * len(rows) * num_views * rows.shape[-1]
    if num_bytes > MAX_BYTES:
        raise TrainingError(
            f"a sweep needs all features in memory, {MAX_BYTES / 2**30:g} GiB at most",
            f"{len(rows):,} images of {num_views} views: {num_bytes / 2**30:.1f} GiB",
            "take fewer views, or `headstart train` one head at a time",
        )
    every = np.arange(len(rows))
    views = tuple(pooled_features(rows, every, view) for view in range(num_views))
    if not all(np.isfinite(view).all() for view in views):
        raise TrainingError(
            "a bottleneck is not a finite number",
            f"NaN or infinity among the {rows.dtype} bottlenecks",
            "extract with --set bottlenecks.dtype=float32 (float16 ends at 65504)",
        )
    return PooledRows(views, rows.labels, tuple(rows.shape), rows.kind)

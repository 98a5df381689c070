"""Bottlenecks: what the frozen backbone computes for a view, kept for every later run.

A row's recipe is the recipe of its view, the sub-graph and weights of the backbone up to the
cut, the storage type, the precision of the arithmetic, and the versions that did it. Which data
set it was computed for is not in it: two data sets that share an image share its rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from headstart.config import BackboneConfig, BottleneckConfig, Split, TargetKind, ViewsConfig
from headstart.tasks.backbones.foreign_files import saved_model_files
from headstart.tasks.backbones.known import KnownBackbone, decides
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.units import Units, units_among
from headstart.tasks.progress import reporter
from headstart.tasks.running.tensorflow import import_tensorflow
from headstart.tasks.store.artifacts import Store, store_in_use
from headstart.tasks.store.records import RowCollection, RowId, RowReader
from headstart.tasks.store.versions import arithmetic_versions
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import Target
from headstart.tasks.views.addresses import augmented_rows, plain_rows
from headstart.tasks.views.recipes import augmented_recipe, plain_recipe

if TYPE_CHECKING:
    from headstart.tasks.backbones.backbone import Backbone

_Stamp = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CutCollections:
    """The row collections of one cut.

    Attributes:
        plain: Bottlenecks of view 0.
        augmented: Bottlenecks of the augmented views; None where the run has none.
    """

    cut: str
    plain: RowCollection
    augmented: RowCollection | None

    @property
    def collections(self) -> tuple[RowCollection, ...]:
        """Those there are, plain first."""
        return (self.plain,) if self.augmented is None else (self.plain, self.augmented)


class Rows(Protocol):
    """What a network is judged by: rows that it takes, and their labels."""

    @property
    def labels(self) -> npt.NDArray[Any]:
        """One row an image; see `headstart.tasks.targets.target.Target.to_array`."""

    @property
    def units(self) -> Units:
        """Which images belong together."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""

    @property
    def dtype(self) -> Any:
        """Of the rows."""

    def gather(self, images: npt.NDArray[np.int64], view: int) -> npt.NDArray[Any]:
        """Read one view of some images."""


@dataclass(frozen=True)
class LabelledRows:
    """The bottlenecks of one split, with their labels.

    Attributes:
        readers: Of the plain views, and of the augmented ones where there are any.
        positions: int64 [num_images, 1 + num_augmented]: where view v of an image lies in its
            reader (column 0 in the first reader, the others in the second).
        labels: int32 [num_images]: class of each image; of other kinds of targets, what
            `headstart.tasks.targets.target.Target.to_array` says.
        kind: What the targets are: classes, labels or numbers.
        units: Which images belong together.
    """

    readers: tuple[RowReader, ...]
    positions: npt.NDArray[np.int64]
    labels: npt.NDArray[Any]
    kind: TargetKind = "class"
    units: Units = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self.readers[0].shape

    @property
    def dtype(self) -> Any:
        """Storage type."""
        return self.readers[0].dtype

    @property
    def target(self) -> Target:
        """What the labels are."""
        return TARGETS[self.kind]

    @property
    def unit_numbers(self) -> npt.NDArray[np.int64]:
        """int64 [num_images]: `units`, or a number of its own for each image."""
        return np.arange(len(self), dtype=np.int64) if self.units is None else self.units

    @property
    def num_augmented(self) -> int:
        """Augmented views an image."""
        return int(self.positions.shape[1]) - 1

    def gather(self, images: npt.NDArray[np.int64], view: int) -> npt.NDArray[Any]:
        """Read the bottlenecks of one view of some images.

        Args:
            images: int64 [n], positions in `labels`.
            view: Number of the view, 0 (plain) to num_augmented.

        Returns:
            [n, *activation shape] of the storage dtype.
        """
        return self.readers[min(view, 1)].gather(self.positions[images, view])


def open_backbone(config: BackboneConfig, image_size: int | None) -> "Backbone":
    """Load a backbone once a process: every stage of a run uses the same one.

    Files of the user's own that have changed since are loaded anew.
    """
    return _open_backbone(config, image_size, _stamp(config.name), _stamp(config.weights))


@lru_cache(maxsize=2)
def _open_backbone(
    config: BackboneConfig, image_size: int | None, network: _Stamp, weights: _Stamp
) -> "Backbone":
    import_tensorflow()
    from headstart.tasks.backbones.backbone import load_backbone

    backbone = load_backbone(config, image_size)
    _tell(config.name, backbone.notes)
    return backbone


def known_backbone(config: BackboneConfig, image_size: int | None) -> KnownBackbone:
    """Return what keys ask of a backbone, which is built only where the store cannot tell.

    Args:
        config: Name or file of the backbone, and its weights.
        image_size: Side of its input in pixels; its own where None.
    """
    return _known_backbone(
        config, image_size, _stamp(config.name), _stamp(config.weights), store_in_use()
    )


@lru_cache(maxsize=2)
def _known_backbone(
    config: BackboneConfig,
    image_size: int | None,
    network: _Stamp,
    weights: _Stamp,
    store: Store | None,
) -> KnownBackbone:
    about = decides(config, image_size)
    known = KnownBackbone(config.name, about, lambda: open_backbone(config, image_size))
    _tell(config.name, known.notes)
    return known


@lru_cache(maxsize=2)
def _tell(name: str, notes: tuple[str, ...]) -> None:
    """Say once, not each time it is opened, how a backbone's file was read."""
    for note in notes:
        reporter().note(f"     {note}")


def _stamp(name: str) -> _Stamp:
    """Tell one state of a model file or folder from another; () where there is none."""
    path = Path(name)
    files = saved_model_files(path) if path.is_dir() else [path] if path.is_file() else []
    stats = [file.stat() for file in files]
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats)


def bottleneck_collections(
    store: Store,
    backbone: "Backbone | KnownBackbone",
    views: ViewsConfig,
    config: BottleneckConfig,
    pooled: bool = False,
) -> dict[str, CutCollections]:
    """Name the row collections that a run reads or writes.

    Args:
        store: Where they are kept.
        backbone: What computes them; its fingerprint is part of their names.
        views: How images become pixels.
        config: Cuts and storage type.
        pooled: Of the averages over an activation's positions, all that a linear head sees of it.
            At a cut without positions, such as the top, they are the bottlenecks themselves.

    Returns:
        One entry a cut, the one that the head trains on first.
    """
    names = dict.fromkeys(
        backbone.resolve_cut(name).name for name in (config.cut, *config.extra_cuts)
    )
    result = {}
    for name in names:
        cut = backbone.resolve_cut(name)
        own: dict[str, Any] = {
            "backbone": backbone.fingerprint(name),
            **precision_of(config),
            **arithmetic_versions(),
        }
        shape = cut.activation_shape
        if pooled and len(shape) > 1:
            own, shape = {**own, "pooled": "mean"}, shape[-1:]
        recipes = [plain_recipe(views, backbone.image_size)]
        if views.num_augmented:
            recipes.append(augmented_recipe(views, backbone.image_size))
        plain, *augmented = (
            RowCollection(store, "bottlenecks", {"view": recipe, **own}, shape, config.dtype)
            for recipe in recipes
        )
        result[name] = CutCollections(name, plain, augmented[0] if augmented else None)
    return result


def precision_of(config: BottleneckConfig) -> dict[str, str]:
    """Return what a key holds of the arithmetic's precision.

    Nothing of float32: what engines and devices differ by there is noise, which the parity gate
    bounds. Rows of another precision are other rows.
    """
    return {} if config.precision == "float32" else {"precision": config.precision}


def check_names(
    backbone: BackboneConfig, image_size: int | None, bottlenecks: BottleneckConfig
) -> None:
    """Refuse names of backbones and cuts that there are not, before any image is read.

    Raises:
        BackboneError: There is no such backbone or cut; the message has the closest names.
    """
    network = known_backbone(backbone, image_size)
    for name in (bottlenecks.cut, *bottlenecks.extra_cuts):
        network.resolve_cut(name)


def wanted_rows(
    cut: CutCollections, index: DatasetIndex, num_augmented: int
) -> list[tuple[RowCollection, list[RowId]]]:
    """List the rows of a cut that a data set needs, for each of its collections."""
    wanted = [(cut.plain, plain_rows(index.digests))]
    if cut.augmented is not None:
        wanted.append((cut.augmented, augmented_rows(index.digests, num_augmented)))
    return wanted


def labelled_rows(
    cut: CutCollections, index: DatasetIndex, num_augmented: int, splits: Sequence[Split]
) -> Mapping[Split, LabelledRows]:
    """Open the bottlenecks of a data set for training and evaluation.

    Raises:
        DamagedShardError: A shard is damaged; it has been set aside.
    """
    rows = {split: index.rows_of(split) for split in splits}
    digests = sorted({row.digest for of_split in rows.values() for row in of_split})
    number = {digest: position for position, digest in enumerate(digests)}
    readers = [cut.plain.select(plain_rows(digests))]
    if cut.augmented is not None:
        readers.append(cut.augmented.select(augmented_rows(digests, num_augmented)))
    result: dict[Split, LabelledRows] = {}
    for split, of_split in rows.items():
        if not of_split:
            continue
        images = np.array([number[row.digest] for row in of_split], np.int64)
        # View v of image i is row i of the first reader, and i * V + v - 1 of the second.
        views = images[:, None] * num_augmented + np.arange(num_augmented)
        result[split] = LabelledRows(
            tuple(readers),
            np.concatenate([images[:, None], views], axis=1),
            TARGETS[index.kind].to_array(of_split, len(index.class_names)),
            index.kind,
            units_among(of_split),
        )
    return result

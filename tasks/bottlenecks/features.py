"""The rows that a network trains on: where they are, what decides them, how they are opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headstart.config import (
    BackboneConfig,
    BottleneckConfig,
    DatasetConfig,
    Precision,
    Split,
    ViewsConfig,
)
from headstart.tasks.backbones.cuts import PIXELS
from headstart.tasks.backbones.known import KnownBackbone
from headstart.tasks.bottlenecks.rows import (
    CutCollections,
    LabelledRows,
    bottleneck_collections,
    known_backbone,
    labelled_rows,
    open_backbone,
)
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.store.artifacts import current_store
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import Target
from headstart.tasks.views.recipes import augmented_collection, plain_collection

if TYPE_CHECKING:
    from headstart.tasks.backbones.backbone import Backbone

JUDGED: tuple[Split, ...] = ("val", "test")
"""Splits that a trained network is judged by."""


class Told(Protocol):
    """A configuration with all that decides bottlenecks."""

    @property
    def dataset(self) -> DatasetConfig:
        """Which images."""

    @property
    def views(self) -> ViewsConfig:
        """How they become pixels."""

    @property
    def backbone(self) -> BackboneConfig:
        """What computes the bottlenecks."""

    @property
    def bottlenecks(self) -> BottleneckConfig:
        """At which cuts."""


@dataclass(frozen=True)
class Features:
    """The rows of a data set at one place of a frozen network.

    Attributes:
        views: How images become pixels.
        backbone: Name or file of what computes the bottlenecks.
        start: A cut, or `PIXELS`: what a network behind it takes.
        dtype: Storage type of bottlenecks; pixels are uint8.
        pooled: Averages over the activations' positions instead of the activations.
        precision: Type of the arithmetic that computed bottlenecks.
    """

    dataset: DatasetManifest
    source: DatasetConfig
    views: ViewsConfig
    backbone: BackboneConfig
    start: str
    dtype: str
    pooled: bool = False
    precision: Precision = "float32"

    @classmethod
    def of(cls, dataset: DatasetManifest, told: Told) -> "Features":
        """Say where the head of a run takes its rows."""
        cut = told.bottlenecks
        return cls(
            dataset,
            told.dataset,
            told.views,
            told.backbone,
            cut.cut,
            cut.dtype,
            precision=cut.precision,
        )

    def at(self, start: str, *, pooled: bool = False) -> "Features":
        """Move to another place of the same network."""
        return replace(self, start=start, pooled=pooled)

    @property
    def network(self) -> "Backbone":
        """The backbone."""
        return open_backbone(self.backbone, self.views.image_size)

    @property
    def known(self) -> KnownBackbone:
        """What keys ask of the backbone, which need not be built for that."""
        return known_backbone(self.backbone, self.views.image_size)

    @cached_property
    def collections(self) -> CutCollections:
        """Plain and augmented rows."""
        network, views, store = self.known, self.views, current_store()
        if self.start == PIXELS:
            size = network.image_size
            augmented = augmented_collection(views, size, store) if views.num_augmented else None
            return CutCollections(PIXELS, plain_collection(views, size, store), augmented)
        told = {"cut": self.start, "dtype": self.dtype, "precision": self.precision}
        config = BottleneckConfig.model_validate(told)
        (cut,) = bottleneck_collections(store, network, views, config, self.pooled).values()
        return cut

    def recipe(self) -> dict[str, Any]:
        """Return what decides the rows, for a key."""
        cut = self.collections
        return {
            "num_augmented": self.views.num_augmented,
            "plain": cut.plain.recipe,
            "augmented": cut.augmented.recipe if cut.augmented else None,
        }

    def open(self, splits: Sequence[Split]) -> Mapping[Split, LabelledRows]:
        """Open the rows of the splits that have images."""
        index = index_of(self.dataset)
        return labelled_rows(self.collections, index, self.views.num_augmented, splits)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the data set: classes, labels or numbers."""
        return self.dataset.class_names

    @property
    def target(self) -> Target:
        """What is learned."""
        return TARGETS[self.dataset.kind]

    @property
    def work(self) -> str:
        """In the names of task runs."""
        place = self.start if self.start == PIXELS else f"cut {self.start}"
        return f"{Path(self.backbone.name).name}, {place}"

    def judged_key(self) -> dict[str, Any]:
        """Return what decides an evaluation besides the network."""
        # The top losses are shown with their paths, so a renamed file is another evaluation.
        return {"dataset": self.dataset.key}

    def judged_rows(self) -> Mapping[str, Sequence[LabelledRows]]:
        """Open the rows that a network is judged by, split by split."""
        return {split: [rows] for split, rows in self.open(JUDGED).items()}

    def judged_paths(self, split: str) -> Sequence[str]:
        """Name the files of a split's rows."""
        index = index_of(self.dataset)
        return [row.path for one in JUDGED if one == split for row in index.rows_of(one)]


def extractor_to(network: "Backbone", start: str) -> Any:
    """Return what stands before a network that begins at a start, for joining.

    Args:
        network: The backbone that the start lies in.
        start: A cut, or `PIXELS`.

    Returns:
        A model from RGB pixels float32 [N, size, size, 3] to rows at the start.
    """
    if start != PIXELS:
        return network.extractor([start])
    import keras

    size = network.image_size
    images = keras.Input((size, size, 3), name="images")
    return keras.Model(images, keras.layers.Identity(name="pixels")(images))

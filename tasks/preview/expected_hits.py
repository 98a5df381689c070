"""What a run would find in the store and what it would have to make, looked up without making it.

Only the data set is read, and its index kept: everything else depends on it.
"""

from dataclasses import dataclass
from typing import NamedTuple

from headstart.config import TransferConfig
from headstart.tasks.backbones.known import KnownBackbone
from headstart.tasks.bottlenecks.rows import (
    bottleneck_collections,
    check_names,
    known_backbone,
    wanted_rows,
)
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.head.training_warnings import check_classes
from headstart.tasks.running.stage import Outcome, collect_outcomes
from headstart.tasks.store.artifacts import current_store
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.views.stage import wanted_views


class Rows(NamedTuple):
    """The rows that a run needs of one collection."""

    collection: RowCollection
    num_wanted: int
    missing: list[RowId]


@dataclass(frozen=True)
class Outlook:
    """What a run would find and make, up to its bottlenecks.

    Attributes:
        dataset: The data set's manifest.
        reading: How reading it went just now.
        index: Index of its images, targets and splits.
        network: What is known of the backbone, which is not built for that.
        views: Views of the images that have a bottleneck to be computed; of all images where
            there is none, and then none is missing.
        bottlenecks: Rows that each cut has and lacks.
        needed: Digests of the images to send through the backbone, as the flow asks for them:
            None for all of them.
    """

    dataset: DatasetManifest
    reading: Outcome
    index: DatasetIndex
    network: KnownBackbone
    views: list[Rows]
    bottlenecks: list[Rows]
    needed: tuple[str, ...] | None

    @property
    def extracted(self) -> list[RowId]:
        """The views that would go through the backbone, each once."""
        return sorted({row for rows in self.bottlenecks for row in rows.missing})


def look_ahead(config: TransferConfig) -> Outlook:
    """Read the data set, and look up what is there of its views and bottlenecks.

    Raises:
        BackboneError: There is no such backbone or cut.
    """
    store, views = current_store(), config.views
    check_names(config.backbone, views.image_size, config.bottlenecks)
    with collect_outcomes() as outcomes:
        dataset = dataset_stage(config.dataset)
    index = index_of(dataset)
    check_classes(index)  # as the run would
    network = known_backbone(config.backbone, views.image_size)
    cuts = bottleneck_collections(store, network, views, config.bottlenecks)
    bottlenecks = [
        Rows(collection, len(rows), collection.missing(rows))
        for cut in cuts.values()
        for collection, rows in wanted_rows(cut, index, views.num_augmented)
    ]
    images = {row.image_digest for rows in bottlenecks for row in rows.missing}
    pixels = wanted_views(store, index.only(images) if images else index, views, network.image_size)
    return Outlook(
        dataset=dataset,
        reading=outcomes[-1],
        index=index,
        network=network,
        views=[
            Rows(collection, len(rows), collection.missing(rows) if images else [])
            for collection, rows in pixels
        ],
        bottlenecks=bottlenecks,
        needed=None if len(images) == len(index.digests) else tuple(sorted(images)),
    )

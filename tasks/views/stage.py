"""The views stage: its manifest, its key, its function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.config import DatasetConfig, ViewsConfig
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest, Store, current_store
from headstart.tasks.store.records import RowCollection, RowId, shards_of
from headstart.tasks.views.addresses import augmented_rows, plain_rows
from headstart.tasks.views.recipes import (
    augmented_collection,
    augmented_recipe,
    plain_collection,
    plain_recipe,
)


class ViewsManifest(Manifest):
    """Views that lie in the store."""

    num_augmented: int


def views_key(
    dataset: DatasetManifest,
    source: DatasetConfig,
    config: ViewsConfig,
    image_size: int,
    needed: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what the views' key is made of; the bottlenecks' key holds it too."""
    images = dataset.images_digest
    fields: dict[str, Any] = {
        "images": images if needed is None else index_of(dataset).only(needed).images_digest,
        "plain": plain_recipe(config, image_size),
    }
    if config.num_augmented:
        fields["num_augmented"] = config.num_augmented
        fields["augmented"] = augmented_recipe(config, image_size)
    return fields


def _write_views(
    folder: Path,
    dataset: DatasetManifest,
    source: DatasetConfig,
    config: ViewsConfig,
    image_size: int,
    needed: Sequence[str] | None = None,
) -> Made:
    """Make the views of a data set's images, or of those of them whose digests are given."""
    from headstart.tasks.views.writing import write_views

    index, store = index_of(dataset), current_store()
    if needed is not None:
        index = index.only(needed)
    root = dataset_root(source)
    counts = write_views(index, root, config, image_size, store, source.max_pixels)
    return Made(
        num_rows=counts.num_rows,
        num_rows_computed=counts.num_rows_computed,
        shards=shards_of(wanted_views(store, index, config, image_size)),
        fields={"num_augmented": config.num_augmented},
    )


def wanted_views(
    store: Store, index: DatasetIndex, config: ViewsConfig, image_size: int
) -> list[tuple[RowCollection, list[RowId]]]:
    """List the views that a data set needs, for each of their collections."""
    wanted = [(plain_collection(config, image_size, store), plain_rows(index.digests))]
    if config.num_augmented:
        collection = augmented_collection(config, image_size, store)
        wanted.append((collection, augmented_rows(index.digests, config.num_augmented)))
    return wanted


stage = Stage("views", 1, ViewsManifest, _write_views, views_key)

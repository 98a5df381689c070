"""The rows that a network trains on: bottlenecks at a cut, or the pixels of the views."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from headstart.config import BackboneConfig, BottleneckConfig, Split, ViewsConfig
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.bottlenecks.rows import (
    CutCollections,
    LabelledRows,
    bottleneck_collections,
    labelled_rows,
    open_backbone,
)
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.finetuning.network import PIXELS
from headstart.tasks.store.artifacts import Store, current_store
from headstart.tasks.views.writing import augmented_collection, plain_collection


def collections_at(
    store: Store, network: Backbone, views: ViewsConfig, start: str, dtype: str
) -> CutCollections:
    """Name the collections at a start.

    Args:
        store: Where they are kept.
        network: The backbone.
        views: How images become pixels.
        start: A cut, or `PIXELS`.
        dtype: Storage type of bottlenecks; pixels are uint8.

    Returns:
        Plain and augmented rows.
    """
    if start == PIXELS:
        size = network.image_size
        augmented = augmented_collection(views, size, store) if views.num_augmented else None
        return CutCollections(PIXELS, plain_collection(views, size, store), augmented)
    config = BottleneckConfig.model_validate({"cut": start, "dtype": dtype})
    return next(iter(bottleneck_collections(store, network, views, config).values()))


def open_rows_at(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    start: str,
    dtype: str,
    splits: Sequence[Split],
) -> Mapping[Split, LabelledRows]:
    """Open the rows at a start for training and evaluation.

    Args:
        dataset: The indexed data set.
        views: How its images became pixels.
        backbone: That computed the bottlenecks.
        start: A cut, or `PIXELS`.
        dtype: Storage type of bottlenecks.
        splits: Which splits to open.

    Returns:
        The splits that have images.
    """
    network = open_backbone(backbone, views.image_size)
    cut = collections_at(current_store(), network, views, start, dtype)
    return labelled_rows(cut, index_of(dataset), views.num_augmented, splits)


def recipes_at(network: Backbone, views: ViewsConfig, start: str, dtype: str) -> dict[str, Any]:
    """Return what decides the rows at a start, for a key."""
    cut = collections_at(current_store(), network, views, start, dtype)
    return {
        "start": start,
        "num_augmented": views.num_augmented,
        "plain": cut.plain.recipe,
        "augmented": cut.augmented.recipe if cut.augmented else None,
    }


def extractor_to(network: Backbone, start: str) -> Any:
    """Return what stands before a network that begins at a start, for joining.

    Args:
        network: The backbone.
        start: A cut, or `PIXELS`.

    Returns:
        A model from RGB pixels float32 [N, size, size, 3] to rows at the start.
    """
    if start != PIXELS:
        return network.extractor([start])
    size = network.image_size
    images = keras.Input((size, size, 3), name="images")
    return keras.Model(images, keras.layers.Identity(name="pixels")(images))

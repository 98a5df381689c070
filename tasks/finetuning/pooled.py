"""Bottlenecks averaged over their positions: all that a linear head sees of a cut.

They are written in one pass for many cuts, and are small where the bottlenecks themselves are
not: early in a network an activation takes more bytes than the image.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headstart.config import BackboneConfig, Split, ViewsConfig
from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.frozen_graph import fold_variables
from headstart.tasks.bottlenecks.rows import (
    CutCollections,
    LabelledRows,
    labelled_rows,
    open_backbone,
    versions,
    wanted_rows,
)
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.finetuning.network import PIXELS
from headstart.tasks.finetuning.rows import collections_at
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest, Store, current_store
from headstart.tasks.store.records import RowCollection, RowId, shards_of


class PooledManifest(Manifest):
    """Averaged bottlenecks that lie in the store."""

    cuts: tuple[str, ...]


def pooled_collections(
    store: Store, network: Backbone, views: ViewsConfig, name: str, dtype: str
) -> CutCollections:
    """Name the collections of a cut's averages.

    Args:
        store: Where they are kept.
        network: The backbone.
        views: How images become pixels.
        name: Of the cut. At one without positions, such as the top, they are the bottlenecks.
        dtype: Storage type.

    Returns:
        Plain and augmented rows, each [C].
    """
    cut = network.resolve_cut(name)
    spatial = collections_at(store, network, views, cut.name, dtype)
    if len(cut.activation_shape) == 1:
        return spatial
    plain, *augmented = (
        RowCollection(
            store,
            "bottlenecks",
            {**one.recipe["recipe"], "pooled": "mean"},
            cut.activation_shape[-1:],
            dtype,
        )
        for one in spatial.collections
    )
    return CutCollections(cut.name, plain, augmented[0] if augmented else None)


def pooled_recipes(network: Backbone, views: ViewsConfig, name: str, dtype: str) -> dict[str, Any]:
    """Return what decides the averages at a cut, for a key."""
    cut = pooled_collections(current_store(), network, views, name, dtype)
    return {
        "num_augmented": views.num_augmented,
        "plain": cut.plain.recipe,
        "augmented": cut.augmented.recipe if cut.augmented else None,
    }


def pooled_rows(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    name: str,
    dtype: str,
    splits: Sequence[Split],
) -> Mapping[Split, LabelledRows]:
    """Open the averages at a cut for training and evaluation; the splits that have images."""
    network = open_backbone(backbone, views.image_size)
    cut = pooled_collections(current_store(), network, views, name, dtype)
    return labelled_rows(cut, index_of(dataset), views.num_augmented, splits)


def images_to_pool(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    names: Sequence[str],
    dtype: str,
) -> tuple[str, ...]:
    """Find the images whose averages are missing at any of some cuts; their digests, sorted."""
    network, index = open_backbone(backbone, views.image_size), index_of(dataset)
    return tuple(
        sorted(
            {
                row.image_digest
                for name in names
                for collection, rows in wanted_rows(
                    pooled_collections(current_store(), network, views, name, dtype),
                    index,
                    views.num_augmented,
                )
                for row in collection.missing(rows)
            }
        )
    )


def _pooled_key(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    names: tuple[str, ...],
    dtype: str,
    batch_size: int,
) -> dict[str, Any]:
    network = open_backbone(backbone, views.image_size)
    return {
        "images": dataset.images_digest,
        "cuts": {name: pooled_recipes(network, views, name, dtype) for name in names},
        **versions(),
    }


def _pool(
    folder: Path,
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    names: tuple[str, ...],
    dtype: str,
    batch_size: int,
) -> Made:
    network, index = open_backbone(backbone, views.image_size), index_of(dataset)
    store = current_store()
    cuts = [pooled_collections(store, network, views, name, dtype) for name in names]
    pixels = collections_at(store, network, views, PIXELS, dtype)
    wanted = [pair for cut in cuts for pair in wanted_rows(cut, index, views.num_augmented)]
    num_computed = 0
    with ExitStack() as locks:
        # In one order for all runs, so that no two can wait for each other.
        for collection in sorted((pair[0] for pair in wanted), key=lambda one: one.digest):
            locks.enter_context(collection.lock())
        missing = {collection: set(collection.missing(rows)) for collection, rows in wanted}
        for number, source in enumerate(pixels.collections):
            targets = [cut.collections[number] for cut in cuts]
            rows = sorted(set().union(*(missing[target] for target in targets)))
            if rows:
                _pass(network, names, source, rows, targets, missing, batch_size)
        num_computed = sum(len(rows) for rows in missing.values())
    return Made(
        num_rows=sum(len(rows) for _, rows in wanted),
        num_rows_computed=num_computed,
        shards=shards_of(wanted),
        fields={"cuts": names},
    )


def _pass(
    network: Backbone,
    names: Sequence[str],
    source: RowCollection,
    rows: list[RowId],
    targets: Sequence[RowCollection],
    missing: Mapping[RowCollection, set[RowId]],
    batch_size: int,
) -> None:
    """Send views through the backbone once, and write what is missing at each cut."""
    extract, reader = _freeze(network, names), source.select(rows)
    with ExitStack() as stack:
        writers = [stack.enter_context(one.writer(len(missing[one]))) for one in targets]
        advance = stack.enter_context(reporter().track("pooled bottlenecks", len(rows), "images"))
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            pixels = reader.gather(range(start, start + len(batch)))
            outputs = extract(tf.constant(pixels))
            for target, writer, output in zip(targets, writers, outputs, strict=True):
                values = output.numpy().astype(target.dtype)
                if not np.isfinite(values).all():
                    raise BackboneError(
                        f"averaged activations are not finite numbers that fit into {target.dtype}",
                        f"NaN or infinity at one of {', '.join(names)}",
                        "store them as float32: --set bottlenecks.dtype=float32",
                    )
                for row, value in zip(batch, values, strict=True):
                    if row in missing[target]:
                        writer.write(row, value)
            advance(len(batch))


def _freeze(network: Backbone, names: Sequence[str]) -> Any:
    extractor = network.extractor(names)
    signature = tf.TensorSpec([None, network.image_size, network.image_size, 3], tf.uint8)

    def averages(images: Any) -> list[Any]:
        outputs = keras.tree.flatten(extractor(images, training=False))
        return [
            tf.reduce_mean(one, axis=list(range(1, len(one.shape) - 1))) if len(one.shape) > 2
            else one
            for one in outputs
        ]  # fmt: skip

    function = tf.function(averages, autograph=False).get_concrete_function(signature)
    return fold_variables(function)


pooled = Stage(
    "pooled",
    1,
    PooledManifest,
    _pool,
    _pooled_key,
    lambda made: f"{made.num_rows:,} averages at {', '.join(made.cuts)}",
    uses_gpu=True,
)

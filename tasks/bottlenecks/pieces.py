"""The pass, in pieces: each is done by whichever worker takes it, and ends in a shard a cut.

A worker loads the backbone and folds it once; it reads the views of its piece from the store,
which it opens by the location it is told.
"""

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from headstart.config import BackboneConfig, BottleneckConfig, ViewsConfig
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.engines import Extract
from headstart.tasks.bottlenecks.choosing import open_named
from headstart.tasks.bottlenecks.extraction import Target, freeze, piece_rows, run_pass
from headstart.tasks.bottlenecks.rows import CutCollections, bottleneck_collections, open_backbone
from headstart.tasks.running.tensorflow import full_float32
from headstart.tasks.store.artifacts import Store, use_store
from headstart.tasks.store.assigned_rows import ExpectedRows
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.store.remote_store import open_store
from headstart.tasks.views.recipes import augmented_collection, plain_collection

_loading = threading.Lock()


class ViewsToExtract(NamedTuple):
    """Views that must go through the backbone.

    Attributes:
        number: 0 for the plain views, 1 for the augmented ones.
        views: Collection to read them from.
        row_ids: Their addresses, ascending: the order in which they are computed and written.
        targets: Where what becomes of them goes, a cut each.
    """

    number: int
    views: RowCollection
    row_ids: list[RowId]
    targets: list[Target]


class BottlenecksPiece(NamedTuple):
    """Views that one worker sends through the backbone.

    Attributes:
        expected: The bottlenecks to be made, by the collections that they go into, one a cut.
        views: How images became pixels.
        backbone: Name or file of the network.
        config: Its cuts, the storage type, the size of a batch and the engine that was chosen.
        pooled: Whether activations are averaged over their positions.
        number: 0 for plain views, 1 for augmented ones.
        row_ids: Addresses of the views, ascending.
        view_shards: Names of the shards that hold them.
        lacking: The rows that each cut lacks.
        num_wanted: How many rows the data set needs at a cut.
    """

    store: str
    expected: ExpectedRows
    views: ViewsConfig
    backbone: BackboneConfig
    config: BottleneckConfig
    pooled: bool
    number: int
    row_ids: tuple[RowId, ...]
    view_shards: tuple[str, ...]
    lacking: tuple[tuple[RowId, ...], ...]
    num_wanted: int


def find_sources(
    store: Store,
    views: ViewsConfig,
    network: Backbone,
    cuts: Sequence[CutCollections],
    missing: Mapping[RowCollection, Sequence[RowId]],
    num_images: int,
) -> list[ViewsToExtract]:
    """Pair the views that must go through the backbone with the cuts that lack them.

    Args:
        store: Where the views are.
        views: How images become pixels.
        network: The backbone, whose input size the views have.
        cuts: The cuts of the run, in the order of the extractor's outputs.
        missing: The rows that each of their collections lacks.
        num_images: Distinct images of the data set.

    Returns:
        One source for plain and one for augmented views, where any are needed.
    """
    pixels = [plain_collection(views, network.image_size, store)]
    if views.num_augmented:
        pixels.append(augmented_collection(views, network.image_size, store))
    sources = []
    for number, collection in enumerate(pixels):
        num_wanted = num_images * views.num_augmented if number else num_images
        targets = [
            Target(
                output,
                cut.collections[number],
                frozenset(missing[cut.collections[number]]),
                num_wanted,
            )
            for output, cut in enumerate(cuts)
        ]
        rows = sorted(frozenset().union(*(target.rows for target in targets)))
        if rows:
            sources.append(ViewsToExtract(number, collection, rows, targets))
    return sources


def cut_into_pieces(
    sources: Sequence[ViewsToExtract],
    store: Store,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
    pooled: bool = False,
) -> list[BottlenecksPiece]:
    """Cut sources where `run_pass` would end one shard and begin the next."""
    pieces = []
    for source in sources:
        expected = ExpectedRows.of(target.collection for target in source.targets)
        names = source.views.shard_names(source.row_ids)
        size = piece_rows(source.targets)
        for start in range(0, len(source.row_ids), size):
            rows = tuple(source.row_ids[start : start + size])
            lacking = tuple(
                tuple(row for row in rows if row in target.rows) for target in source.targets
            )
            # A view that is in no shard is left for the worker to miss, as `select` would here.
            shards = tuple(sorted(filter(None, set(names[start : start + size]))))
            wanted = source.targets[0].num_wanted
            pieces.append(
                BottlenecksPiece(
                    store.location,
                    expected,
                    views,
                    backbone,
                    config,
                    pooled,
                    source.number,
                    rows,
                    shards,
                    lacking,
                    wanted,
                )
            )
    return pieces


@full_float32()
def extract_piece(piece: BottlenecksPiece) -> int:
    """Send a piece's views through the backbone, unless its shards are there, and write them.

    Raises:
        BackboneError: An activation is NaN or infinite, or too large for the storage type.
        ConfigError: This worker would make other bottlenecks than those asked for.
        DamagedShardError: A shard of views is damaged or gone.
    """
    with use_store(open_store(piece.store)) as store:
        with _loading:  # where workers are threads, only one of them loads
            network = open_backbone(piece.backbone, piece.views.image_size)
        cuts = bottleneck_collections(store, network, piece.views, piece.config, piece.pooled)
        targets = [
            Target(output, cut.collections[piece.number], frozenset(lacking), piece.num_wanted)
            for (output, cut), lacking in zip(enumerate(cuts.values()), piece.lacking, strict=True)
        ]
        piece.expected.check(target.collection for target in targets)
        done = all(
            target.collection.holds(lacking, piece.num_wanted)
            for target, lacking in zip(targets, piece.lacking, strict=True)
        )
        if not done:
            with _loading:
                extract = _opened(network, tuple(cuts), piece.pooled, piece.config)
            open_views = augmented_collection if piece.number else plain_collection
            views = open_views(piece.views, network.image_size, store)
            reader = views.select(piece.row_ids, piece.view_shards)
            run_pass(extract, [(reader, targets)], piece.config.batch_size)
    return len(piece.row_ids)


@lru_cache(maxsize=2)
def _opened(
    network: Backbone, cuts: tuple[str, ...], pooled: bool, config: BottleneckConfig
) -> Extract:
    """Open a backbone once a process."""
    return open_named(freeze(network, cuts, pooled), config.engine, config.precision)

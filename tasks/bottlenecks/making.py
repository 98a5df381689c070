"""Making bottlenecks: the pass over what is missing, and the gate behind it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from headstart.config import BackboneConfig, BottleneckConfig, DatasetConfig, ViewsConfig
from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.bottlenecks.choosing import Choice, Pass, choose_engine
from headstart.tasks.bottlenecks.extraction import freeze, run_pass
from headstart.tasks.bottlenecks.parity import Sample, check_parity
from headstart.tasks.bottlenecks.pieces import (
    ViewsToExtract,
    cut_into_pieces,
    extract_piece,
    find_sources,
)
from headstart.tasks.bottlenecks.rows import (
    CutCollections,
    bottleneck_collections,
    open_backbone,
    wanted_rows,
)
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.progress import reporter
from headstart.tasks.running.spreading import is_spread, map_pieces
from headstart.tasks.running.stage import Made
from headstart.tasks.store.artifacts import current_store
from headstart.tasks.store.records import RowCollection, RowId, shards_of
from headstart.tasks.views.writing import ImageJob, ViewMaker


def make_bottlenecks(
    dataset: DatasetManifest,
    source: DatasetConfig,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
    pooled: bool = False,
) -> Made:
    """Compute the bottlenecks that a data set lacks, and check them.

    Args:
        dataset: The indexed data set.
        source: Where its files are.
        views: How images became pixels.
        backbone: What computes the bottlenecks.
        config: Cuts and storage type.
        pooled: Whether averages over the activations' positions are wanted instead of them.

    Raises:
        BackboneError: A stored row is not what the backbone computes.
    """
    network = open_backbone(backbone, views.image_size)
    index, store = index_of(dataset), current_store()
    cuts = bottleneck_collections(store, network, views, config, pooled)
    wanted = [
        pair for cut in cuts.values() for pair in wanted_rows(cut, index, views.num_augmented)
    ]
    with ExitStack() as locks:
        # In one order for all runs, so that no two can wait for each other.
        for collection in sorted((pair[0] for pair in wanted), key=lambda one: one.digest):
            locks.enter_context(collection.lock())
        missing = [(collection, collection.missing(rows)) for collection, rows in wanted]
        num_images = len(index.digests)
        sources = find_sources(
            store, views, network, list(cuts.values()), dict(missing), num_images
        )
        choice = _choose(network, list(cuts), pooled, sources, config) if sources else None
        if choice and is_spread():
            total = sum(len(source.row_ids) for source in sources)
            chosen = config.model_copy(update={"engine": choice.name})
            pieces = cut_into_pieces(sources, store, views, backbone, chosen, pooled)
            with reporter().track("bottlenecks", total, "images") as advance:
                for count in map_pieces(extract_piece, pieces):
                    advance(count)
            store.look_again()
        elif choice:
            opened = [(one.views.select(one.row_ids), one.targets) for one in sources]
            run_pass(choice.extract, opened, config.batch_size)
        make_views = ViewMaker(views, network.image_size, source.max_pixels)
        files = {row.digest: dataset_root(source) / row.path for row in index.rows}
        parity = _check(files, make_views, network, config, wanted, dict(missing), cuts, pooled)
    return Made(
        num_rows=sum(len(rows) for _, rows in wanted),
        num_rows_computed=sum(len(rows) for _, rows in missing),
        shards=shards_of(wanted),
        fields={
            "cuts": {name: cut.plain.shape for name, cut in cuts.items()},
            "parity": parity,
            "engine": choice.words if choice else "",
        },
    )


def _choose(
    network: Backbone,
    cuts: Sequence[str],
    pooled: bool,
    sources: Sequence[ViewsToExtract],
    config: BottleneckConfig,
) -> Choice:
    first, num_rows = sources[0], sum(len(source.row_ids) for source in sources)
    rows = first.row_ids[: config.batch_size]
    work = Pass(
        network, cuts, pooled, num_rows, lambda: first.views.select(rows).gather(range(len(rows)))
    )
    return choose_engine(freeze(network, cuts, pooled), work, config)


def _check(
    files: Mapping[str, Path],
    make_views: ViewMaker,
    network: Backbone,
    config: BottleneckConfig,
    wanted: Sequence[tuple[RowCollection, Sequence[RowId]]],
    computed: Mapping[RowCollection, Sequence[RowId]],
    cuts: Mapping[str, CutCollections],
    pooled: bool,
) -> float:
    """Run the parity gate; if it fails, look into every shard and discard those that are wrong."""
    worst = 0.0
    rows_of = {collection.digest: rows for collection, rows in wanted}

    def gate(chosen: Sequence[RowId], collections: dict[str, RowCollection]) -> float:
        jobs = [ImageJob(files[row.image_digest], row.image_digest, (row.view,)) for row in chosen]
        sample = Sample(chosen, np.stack([make_views(job)[0] for job in jobs]))
        return check_parity(network, sample, collections, pooled, config.precision)

    for number in range(len(next(iter(cuts.values())).collections)):
        collections = {name: cut.collections[number] for name, cut in cuts.items()}
        rows = rows_of[next(iter(collections.values())).digest]
        fresh = {row for collection in collections.values() for row in computed[collection]}
        chosen = _draw(rows, fresh, config.num_parity_rows)
        try:
            worst = max(worst, gate(chosen, collections))
        except BackboneError:
            for name, collection in collections.items():
                _discard_wrong(name, collection, rows, chosen, gate)
            raise
    return worst


def _discard_wrong(
    cut: str,
    collection: RowCollection,
    rows: Sequence[RowId],
    chosen: Sequence[RowId],
    gate: Callable[[Sequence[RowId], dict[str, RowCollection]], float],
) -> None:
    """Discard the shards that hold a wrong row, among the chosen ones or as many drawn anew."""
    known = set(rows)
    for shard in collection.shards():
        held = [row for row in shard.row_ids if row in known]
        drawn = _draw(held, held, len(chosen)) if held else []
        suspects = [*drawn, *(row for row in chosen if row in held and row not in drawn)]
        if not suspects:
            continue
        try:
            gate(suspects, {cut: collection})
        except BackboneError:
            collection.discard(suspects)


def _draw(rows: Sequence[RowId], fresh: Collection[RowId], count: int) -> list[RowId]:
    """Draw rows at random from those just computed, and as many from those that were there.

    From the former, or a few new rows among many would hardly ever be looked at; from the
    latter, because an earlier run may have been killed between its pass and its gate.
    """
    generator = np.random.default_rng(int(rows[0].image_digest[:16], 16))
    chosen: list[RowId] = []
    for is_fresh in (True, False):
        group = [row for row in rows if (row in fresh) is is_fresh]
        places = generator.choice(len(group), min(count, len(group)), replace=False)
        chosen += [group[place] for place in places]
    return chosen

"""The bottlenecks stage: its manifest, its key, its function."""

from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from headstart.config import (
    BackboneConfig,
    BottleneckConfig,
    DatasetConfig,
    Split,
    ViewsConfig,
)
from headstart.errors import BackboneError
from headstart.tasks.artifacts import Manifest, Store, current_store
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.bottlenecks.extraction import Target, freeze, run_pass
from headstart.tasks.bottlenecks.parity import Sample, check_parity
from headstart.tasks.bottlenecks.rows import (
    CutCollections,
    LabelledRows,
    bottleneck_collections,
    labelled_rows,
    open_backbone,
    versions,
    wanted_rows,
)
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.records import RowCollection, RowId, RowReader, shards_of
from headstart.tasks.stage import Made, Stage
from headstart.tasks.views.stage import views_key
from headstart.tasks.views.writing import (
    ImageJob,
    ViewMaker,
    augmented_collection,
    plain_collection,
)


class BottlenecksManifest(Manifest):
    """Bottlenecks that lie in the store."""

    cuts: dict[str, tuple[int, ...]]
    """Activation shape of each cut, the head's own first."""
    parity: float
    """Largest difference that the parity gate found, as a share of a row's largest value."""


def _bottlenecks_key(
    dataset: DatasetManifest,
    source: DatasetConfig,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
) -> dict[str, Any]:
    network = open_backbone(backbone, views.image_size)
    names = [network.resolve_cut(name).name for name in (config.cut, *config.extra_cuts)]
    return {
        **views_key(dataset, source, views, network.image_size),
        "cuts": {name: network.fingerprint(name) for name in names},
        "dtype": config.dtype,
        **versions(),
    }


def images_to_extract(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
) -> tuple[str, ...] | None:
    """Find the images whose views must go through the backbone.

    Returns:
        Their digests, sorted; () where all bottlenecks are there, and None where all images are
        meant, which spares handing a long list around.
    """
    network = open_backbone(backbone, views.image_size)
    index = index_of(dataset)
    cuts = bottleneck_collections(current_store(), network, views, config)
    missing = {
        row_id.image_digest
        for cut in cuts.values()
        for collection, rows in wanted_rows(cut, index, views.num_augmented)
        for row_id in collection.missing(rows)
    }
    return None if len(missing) == len(index.digests) else tuple(sorted(missing))


def _extract_bottlenecks(
    folder: Path,
    dataset: DatasetManifest,
    source: DatasetConfig,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
) -> Made:
    network = open_backbone(backbone, views.image_size)
    index, store = index_of(dataset), current_store()
    cuts = bottleneck_collections(store, network, views, config)
    wanted = [
        pair for cut in cuts.values() for pair in wanted_rows(cut, index, views.num_augmented)
    ]
    with ExitStack() as locks:
        # In one order for all runs, so that no two can wait for each other.
        for collection in sorted((pair[0] for pair in wanted), key=lambda one: one.digest):
            locks.enter_context(collection.lock())
        missing = [(collection, collection.missing(rows)) for collection, rows in wanted]
        if any(rows for _, rows in missing):
            sources = _sources(store, views, network, list(cuts.values()), dict(missing))
            run_pass(freeze(network, list(cuts)), sources, config.batch_size)
        make_views = ViewMaker(views, network.image_size, source.max_pixels)
        files = {row.digest: dataset_root(source) / row.path for row in index.rows}
        parity = _check(files, make_views, network, config, wanted, dict(missing), cuts)
    return Made(
        num_rows=sum(len(rows) for _, rows in wanted),
        num_rows_computed=sum(len(rows) for _, rows in missing),
        shards=shards_of(wanted),
        fields={"cuts": {name: cut.plain.shape for name, cut in cuts.items()}, "parity": parity},
    )


def _sources(
    store: Store,
    views: ViewsConfig,
    network: Backbone,
    cuts: Sequence[CutCollections],
    missing: Mapping[RowCollection, Sequence[RowId]],
) -> list[tuple[RowReader, list[Target]]]:
    """Pair the views that must go through the backbone with the cuts that lack them."""
    pixels = [plain_collection(views, network.image_size, store)]
    if views.num_augmented:
        pixels.append(augmented_collection(views, network.image_size, store))
    sources = []
    for number, collection in enumerate(pixels):
        targets = [
            Target(output, cut.collections[number], frozenset(missing[cut.collections[number]]))
            for output, cut in enumerate(cuts)
        ]
        rows = sorted(frozenset().union(*(target.rows for target in targets)))
        if rows:
            sources.append((collection.select(rows), targets))
    return sources


def _check(
    files: Mapping[str, Path],
    make_views: ViewMaker,
    network: Backbone,
    config: BottleneckConfig,
    wanted: Sequence[tuple[RowCollection, Sequence[RowId]]],
    computed: Mapping[RowCollection, Sequence[RowId]],
    cuts: Mapping[str, CutCollections],
) -> float:
    """Run the parity gate, and discard the rows if it fails."""
    worst = 0.0
    rows_of = {collection.digest: rows for collection, rows in wanted}
    for number in range(len(next(iter(cuts.values())).collections)):
        collections = {name: cut.collections[number] for name, cut in cuts.items()}
        rows = rows_of[next(iter(collections.values())).digest]
        fresh = {row for collection in collections.values() for row in computed[collection]}
        chosen = _draw(rows, fresh, config.num_parity_rows)
        jobs = [ImageJob(files[row.image_digest], row.image_digest, (row.view,)) for row in chosen]
        pixels = np.stack([make_views(job)[0] for job in jobs])
        try:
            worst = max(worst, check_parity(network, Sample(chosen, pixels), collections))
        except BackboneError:
            for collection in collections.values():
                collection.discard(rows)
            raise
    return worst


def _draw(rows: Sequence[RowId], fresh: Set[RowId], count: int) -> list[RowId]:
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


def open_rows(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
    splits: Sequence[Split],
) -> Mapping[Split, LabelledRows]:
    """Open the bottlenecks that a head trains on or is judged by.

    Args:
        dataset: The indexed data set.
        views: How its images became pixels.
        backbone: That computed the bottlenecks.
        config: At which cut.
        splits: Which splits to open.

    Returns:
        The splits that have images.
    """
    network = open_backbone(backbone, views.image_size)
    cuts = bottleneck_collections(current_store(), network, views, config)
    return labelled_rows(next(iter(cuts.values())), index_of(dataset), views.num_augmented, splits)


def _describe_bottlenecks(bottlenecks: BottlenecksManifest) -> str:
    cuts = ", ".join(
        f"{name} {'x'.join(map(str, shape))}" for name, shape in bottlenecks.cuts.items()
    )
    return f"{bottlenecks.num_rows:,} rows at {cuts}"


stage = Stage(
    "bottlenecks",
    1,
    BottlenecksManifest,
    _extract_bottlenecks,
    _bottlenecks_key,
    _describe_bottlenecks,
    uses_gpu=True,
)

"""The bottlenecks stage: its manifest, its key, its function."""

from pathlib import Path
from typing import Any

from headstart.config import BackboneConfig, BottleneckConfig, DatasetConfig, ViewsConfig
from headstart.tasks.bottlenecks.rows import (
    bottleneck_collections,
    known_backbone,
    precision_of,
    wanted_rows,
)
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.tensorflow import full_float32
from headstart.tasks.store.artifacts import Manifest, current_store
from headstart.tasks.store.versions import arithmetic_versions
from headstart.tasks.views.stage import views_key


class BottlenecksManifest(Manifest):
    """Bottlenecks that lie in the store."""

    cuts: dict[str, tuple[int, ...]]
    """Activation shape of each cut, by name."""
    parity: float
    """Largest difference that the parity gate found, as a share of a row's largest value."""
    engine: str = ""
    """What computed the rows of this run, and why it did; empty where all were there."""


def _bottlenecks_key(
    dataset: DatasetManifest,
    source: DatasetConfig,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
    pooled: bool = False,
) -> dict[str, Any]:
    network = known_backbone(backbone, views.image_size)
    names = [network.resolve_cut(name).name for name in (config.cut, *config.extra_cuts)]
    return {
        **views_key(dataset, source, views, network.image_size),
        "cuts": {name: network.fingerprint(name) for name in names},
        "dtype": config.dtype,
        **({"pooled": "mean"} if pooled else {}),
        **precision_of(config),
        **arithmetic_versions(),
    }


def images_to_extract(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
    pooled: bool = False,
) -> tuple[str, ...] | None:
    """Find the images whose views must go through the backbone.

    Returns:
        Their digests, sorted; () where all bottlenecks are there, and None where all images are
        meant, which spares handing a long list around.
    """
    network = known_backbone(backbone, views.image_size)
    index = index_of(dataset)
    cuts = bottleneck_collections(current_store(), network, views, config, pooled)
    missing = {
        row_id.image_digest
        for cut in cuts.values()
        for collection, rows in wanted_rows(cut, index, views.num_augmented)
        for row_id in collection.missing(rows)
    }
    return None if len(missing) == len(index.digests) else tuple(sorted(missing))


@full_float32()
def _extract_bottlenecks(folder: Path, *arguments: Any) -> Made:
    from headstart.tasks.bottlenecks.making import make_bottlenecks

    return make_bottlenecks(*arguments)


def _describe_bottlenecks(bottlenecks: BottlenecksManifest) -> str:
    cuts = ", ".join(
        f"{'x'.join(map(str, shape))} values (cut: {name})"
        for name, shape in sorted(bottlenecks.cuts.items())
    )
    by = f", by {bottlenecks.engine}" if bottlenecks.engine else ""
    return f"{bottlenecks.num_rows:,} rows of {cuts}{by}"


stage = Stage(
    "bottlenecks",
    1,
    BottlenecksManifest,
    _extract_bottlenecks,
    _bottlenecks_key,
    _describe_bottlenecks,
    uses_gpu=True,
)

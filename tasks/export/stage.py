"""The export stage: its manifest, its key, its function."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from headstart.config import (
    BackboneConfig,
    BottleneckConfig,
    DatasetConfig,
    ExportConfig,
    ViewsConfig,
)
from headstart.tasks.bottlenecks.rows import (
    bottleneck_collections,
    open_backbone,
)
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.export.joining import join
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.proof import prove
from headstart.tasks.export.writing import export_model, formats_of
from headstart.tasks.head.stage import HeadManifest, open_head
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest, current_store
from headstart.tasks.views.addresses import plain_rows


class ExportManifest(Manifest):
    """A joined model in the formats asked for."""

    formats: tuple[str, ...]
    largest_difference: float
    """Between the probabilities of the exported files and the pipeline's own."""


def _export_key(
    dataset: DatasetManifest,
    source: DatasetConfig,
    head: HeadManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: ExportConfig,
) -> dict[str, Any]:
    return {
        "head": head.key,
        "class_names": dataset.class_names,
        "resize": views.resize,
        "backbone": Path(backbone.name).name,  # written into the model's card
        "formats": sorted({"keras", *config.formats}),
        "num_proof_images": config.num_proof_images,
    }


def _export_model(
    folder: Path,
    dataset: DatasetManifest,
    source: DatasetConfig,
    head: HeadManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: ExportConfig,
) -> Made:
    network = open_backbone(backbone, views.image_size)
    model = open_head(head)
    extractor = network.extractor([bottlenecks.cut])
    size, dtype = network.image_size, bottlenecks.dtype
    card = ModelCard(
        class_names=dataset.class_names,
        image_size=size,
        resize=views.resize,
        backbone=Path(network.name).name,  # not where on this machine a file lies
        cut=bottlenecks.cut,
        preprocessing=network.preprocessing.mode,
        storage_dtype=dtype,
    )
    joined = join(extractor, model, size, views.resize, dtype)
    formats = formats_of(joined, config.formats)
    export_model(joined, formats, folder, card)
    images, logits = _proof_images(dataset, source, model, views, backbone, bottlenecks, config)
    difference = prove(folder, card, images, logits, source.max_pixels)
    return Made(
        num_rows=len(images),
        num_rows_computed=len(images),
        fields={
            "formats": formats,
            "largest_difference": difference,
        },
    )


def _proof_images(
    dataset: DatasetManifest,
    source: DatasetConfig,
    model: keras.Model,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: ExportConfig,
) -> tuple[list[bytes], npt.NDArray[np.float32]]:
    """Pick images spread over the data set, and what the pipeline says of them."""
    index, root = index_of(dataset), dataset_root(source)
    count = min(config.num_proof_images, len(index.digests))
    picked = [index.digests[i] for i in np.linspace(0, len(index.digests) - 1, count, dtype=int)]
    files = {row.digest: root / row.path for row in index.rows}
    network = open_backbone(backbone, views.image_size)
    cut = next(iter(bottleneck_collections(current_store(), network, views, bottlenecks).values()))
    stored = cut.plain.select(plain_rows(picked)).gather(range(count))
    logits = np.asarray(model(stored.astype(np.float32), training=False))
    return [files[digest].read_bytes() for digest in picked], logits


stage = Stage(
    "export",
    3,
    ExportManifest,
    _export_model,
    _export_key,
    lambda made: (
        f"{', '.join(made.formats)}, whose predictions are within {made.largest_difference:.1g} "
        "of the pipeline's"
    ),
)

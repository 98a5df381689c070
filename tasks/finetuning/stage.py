"""The stages of a ladder: a rung, and what is made of the one that is kept.

A rung's key holds the key of the rung below, whose weights it goes on from, so that a ladder that
was killed goes on at the rung it was killed in, and one that is run again is all hits.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import (
    BackboneConfig,
    DatasetConfig,
    EvaluationConfig,
    ExportConfig,
    HeadConfig,
    TuningConfig,
    ViewsConfig,
)
from headstart.tasks.bottlenecks.rows import LabelledRows, open_backbone, versions
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.evaluation.stage import JUDGED, EvaluationManifest, judge
from headstart.tasks.evaluation.stage import stage as evaluation_of_head
from headstart.tasks.export.joining import join
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.proof import prove
from headstart.tasks.export.stage import ExportManifest
from headstart.tasks.export.stage import stage as export_of_head
from headstart.tasks.export.writing import export_model, formats_of
from headstart.tasks.finetuning.network import Network, extend, falling, group_layers
from headstart.tasks.finetuning.rows import (
    collections_at,
    extractor_to,
    open_rows_at,
    recipes_at,
)
from headstart.tasks.finetuning.training import require_validation, train_network
from headstart.tasks.head.optimizer import settings_in_effect
from headstart.tasks.head.stage import TRAINED_ON, HeadManifest, open_head
from headstart.tasks.head.training import predict_logits
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.training_callbacks import watchers
from headstart.tasks.store.artifacts import current_store
from headstart.tasks.views.addresses import plain_rows


class RungManifest(HeadManifest):
    """A trained rung; its head.keras takes rows at its start."""

    start: str
    groups: tuple[tuple[str, ...], ...]
    """Names of the layers trained, from the head down."""
    num_trained: int
    """Numbers that were trained."""
    num_fixed: int
    """Validation images that it has right and the rung below has not."""
    num_broken: int
    """The other way round."""


def start_of(kept: HeadManifest, head_cut: str) -> str:
    """Return where the network of a rung, or of the head that all began with, takes its rows."""
    return kept.start if isinstance(kept, RungManifest) else head_cut


def _rung_key(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    dtype: str,
    start: str,
    head_cut: str,
    below: HeadManifest,
    tuning: TuningConfig,
    head: HeadConfig,
    log_dir: Path,
) -> dict[str, Any]:
    network = open_backbone(backbone, views.image_size)
    return {
        "labels": index_of(dataset).labels_digest_of(TRAINED_ON),
        "rows": recipes_at(network, views, start, dtype),
        "backbone": network.training_fingerprint(),
        "below": below.key,
        "tuning": settings_in_effect(tuning),
        "head": head.model_dump(include={"seed", "label_smoothing", "class_weights"}),
        **versions(),
    }


def _train_rung(
    folder: Path,
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    dtype: str,
    start: str,
    head_cut: str,
    below: HeadManifest,
    tuning: TuningConfig,
    head: HeadConfig,
    log_dir: Path,
) -> Made:
    rows = open_rows_at(dataset, views, backbone, start, dtype, ("train", "val"))
    require_validation(rows)
    end = start_of(below, head_cut)
    rows_below = open_rows_at(dataset, views, backbone, end, dtype, ("val",))["val"]
    was_right = _right(open_head(below), rows_below)
    network = extend_below(below, head_cut, start, backbone, views)
    trained = train_network(
        network,
        falling(len(network.groups), tuning.rate_decay),
        rows["train"],
        rows["val"],
        tuning,
        head,
        below.num_classes,
        log_dir,
        watchers(),
    )
    is_right = _right(trained.model, rows["val"])
    trained.model.save(folder / "head.keras")
    shutil.copytree(log_dir, folder / "tensorboard")
    return Made(
        num_rows=len(rows["train"]),
        num_rows_computed=len(rows["train"]),
        fields={
            "num_classes": below.num_classes,
            "history": trained.history,
            "best_epoch": trained.best_epoch,
            "stopped_early": trained.stopped_early,
            "has_val": True,
            "start": start,
            "groups": network.groups,
            "num_trained": network.num_trained,
            "num_fixed": int((is_right & ~was_right).sum()),
            "num_broken": int((was_right & ~is_right).sum()),
        },
    )


def extend_below(
    below: HeadManifest, head_cut: str, start: str, backbone: BackboneConfig, views: ViewsConfig
) -> Network:
    """Build the network of a rung from what was kept before it.

    Args:
        below: The rung or head kept so far.
        head_cut: Cut of the head that all began with.
        start: Where the new rung begins.
        backbone: Whose layers are unfrozen.
        views: Their size is the backbone's.

    Returns:
        The network, with the weights that it is trained from.
    """
    network = open_backbone(backbone, views.image_size)
    model = open_head(below)
    groups = below.groups if isinstance(below, RungManifest) else group_layers(model, network)
    return extend(model, groups, network, start, start_of(below, head_cut))


def _right(model: Any, rows: LabelledRows) -> npt.NDArray[np.bool_]:
    right: npt.NDArray[np.bool_] = predict_logits(model, rows).argmax(axis=1) == rows.labels
    return right


def _describe_rung(rung: RungManifest) -> str:
    best = rung.history[rung.best_epoch - 1]
    return (
        f"from {rung.start}: epoch {rung.best_epoch} of {len(rung.history)}, "
        f"val accuracy {best.val_accuracy:.4f}"
    )


rung = Stage("rung", 2, RungManifest, _train_rung, _rung_key, _describe_rung, uses_gpu=True)


def _evaluation_key(
    dataset: DatasetManifest,
    head: HeadManifest,
    head_cut: str,
    views: ViewsConfig,
    backbone: BackboneConfig,
    dtype: str,
    config: EvaluationConfig,
) -> dict[str, Any]:
    return {"dataset": dataset.key, "head": head.key, "evaluation": config}


def _evaluate(
    folder: Path,
    dataset: DatasetManifest,
    head: HeadManifest,
    head_cut: str,
    views: ViewsConfig,
    backbone: BackboneConfig,
    dtype: str,
    config: EvaluationConfig,
) -> Made:
    start = start_of(head, head_cut)
    rows = open_rows_at(dataset, views, backbone, start, dtype, JUDGED)
    return judge(folder, dataset, open_head(head), rows, config)


evaluation = Stage(
    evaluation_of_head.name,
    evaluation_of_head.version,
    EvaluationManifest,
    _evaluate,
    _evaluation_key,
    lambda made: ", ".join(
        f"{split} accuracy {metrics['accuracy']:.4f}" for split, metrics in made.metrics.items()
    ),
)
"""The transfer run's stage, by its key as well, for a model that takes rows at any start."""


def _export_key(
    dataset: DatasetManifest,
    source: DatasetConfig,
    head: HeadManifest,
    head_cut: str,
    views: ViewsConfig,
    backbone: BackboneConfig,
    dtype: str,
    config: ExportConfig,
) -> dict[str, Any]:
    return {
        "head": head.key,
        "class_names": dataset.class_names,
        "resize": views.resize,
        "backbone": Path(backbone.name).name,
        "formats": sorted({"keras", *config.formats}),
        "num_proof_images": config.num_proof_images,
    }


def _export(
    folder: Path,
    dataset: DatasetManifest,
    source: DatasetConfig,
    head: HeadManifest,
    head_cut: str,
    views: ViewsConfig,
    backbone: BackboneConfig,
    dtype: str,
    config: ExportConfig,
) -> Made:
    network = open_backbone(backbone, views.image_size)
    start, model = start_of(head, head_cut), open_head(head)
    collection = collections_at(current_store(), network, views, start, dtype).plain
    # Pixels are whole numbers from 0 to 255, which both storage types hold as they are.
    card = ModelCard(
        class_names=dataset.class_names,
        image_size=network.image_size,
        resize=views.resize,
        backbone=Path(network.name).name,  # not where on this machine a file lies
        cut=start,
        preprocessing=network.preprocessing.mode,
        storage_dtype=dtype,
    )
    joined = join(extractor_to(network, start), model, network.image_size, views.resize, dtype)
    formats = formats_of(joined, config.formats)
    export_model(joined, formats, folder, card)
    index, root = index_of(dataset), dataset_root(source)
    count = min(config.num_proof_images, len(index.digests))
    picked = [index.digests[i] for i in np.linspace(0, len(index.digests) - 1, count, dtype=int)]
    files = {row.digest: root / row.path for row in index.rows}
    rows = collection.select(plain_rows(picked)).gather(range(count))
    logits = np.asarray(model(rows.astype(np.float32), training=False))
    encoded = [files[image].read_bytes() for image in picked]
    difference = prove(folder, card, encoded, logits, source.max_pixels)
    return Made(count, count, fields={"formats": formats, "largest_difference": difference})


export = Stage(
    export_of_head.name,
    export_of_head.version,
    ExportManifest,
    _export,
    _export_key,
    lambda made: (
        f"{', '.join(made.formats)}, whose predictions are within {made.largest_difference:.1g} "
        "of the pipeline's"
    ),
)
"""The transfer run's stage likewise."""

"""The head stage: its manifest, its key, its function."""

import shutil
from pathlib import Path
from typing import Any

import keras

from headstart.config import (
    BackboneConfig,
    BottleneckConfig,
    HeadConfig,
    Split,
    ViewsConfig,
)
from headstart.tasks.bottlenecks.rows import (
    bottleneck_collections,
    open_backbone,
    versions,
)
from headstart.tasks.bottlenecks.stage import open_rows
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.head.epochs import EpochFigures
from headstart.tasks.head.optimizer import settings_in_effect
from headstart.tasks.head.training import train_head
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.training_callbacks import watchers
from headstart.tasks.store.artifacts import Manifest, artefact, current_store

TRAINED_ON: tuple[Split, ...] = ("train", "val")
"""Splits that a training reads: the second says which epoch is kept."""


class HeadManifest(Manifest):
    """A trained head."""

    num_classes: int
    history: tuple[EpochFigures, ...]
    best_epoch: int
    stopped_early: bool
    has_val: bool


def _head_key(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: HeadConfig,
    log_dir: Path,
) -> dict[str, Any]:
    network = open_backbone(backbone, views.image_size)
    cuts = bottleneck_collections(current_store(), network, views, bottlenecks)
    cut = next(iter(cuts.values()))
    fields: dict[str, Any] = {
        "labels": index_of(dataset).labels_digest_of(TRAINED_ON),
        "num_augmented": views.num_augmented,
        "bottlenecks": cut.plain.recipe,
        "augmented": cut.augmented.recipe if cut.augmented else None,
        "head": settings_in_effect(config, *(() if config.kind == "mlp" else ("hidden_units",))),
        **versions(),
    }
    if config.kind == "tail":
        fields["tail"] = network.training_fingerprint()
    return fields


def _train_head(
    folder: Path,
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: HeadConfig,
    log_dir: Path,
) -> Made:
    rows = open_rows(dataset, views, backbone, bottlenecks, TRAINED_ON)
    network = open_backbone(backbone, views.image_size)
    tail = network.tail(bottlenecks.cut) if config.kind == "tail" else None
    num_classes = len(dataset.class_names)
    trained = train_head(
        rows["train"], rows.get("val"), config, num_classes, tail, log_dir, watchers()
    )
    trained.model.save(folder / "head.keras")
    shutil.copytree(log_dir, folder / "tensorboard")
    return Made(
        num_rows=len(rows["train"]),
        num_rows_computed=len(rows["train"]),
        fields={
            "num_classes": num_classes,
            "history": trained.history,
            "best_epoch": trained.best_epoch,
            "stopped_early": trained.stopped_early,
            "has_val": "val" in rows,
        },
    )


def open_head(head: HeadManifest) -> keras.Model:
    """Load a trained head: float32 [n, *activation shape] -> logits [n, num_classes]."""
    return keras.models.load_model(artefact(head, "head.keras"), compile=False)


def _describe_head(head: HeadManifest) -> str:
    best = head.history[head.best_epoch - 1]
    judged = f", val accuracy {best.val_accuracy:.4f}" if best.val_accuracy is not None else ""
    return f"epoch {head.best_epoch} of {len(head.history)}{judged}"


stage = Stage("head", 2, HeadManifest, _train_head, _head_key, _describe_head)

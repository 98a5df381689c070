"""The stage of a ladder: a rung.

A rung's key holds the key of the rung below, whose weights it goes on from, so that a ladder that
was killed goes on at the rung it was killed in, and one that is run again is all hits.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import HeadConfig, TuningConfig
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.finetuning.network import extend, falling, group_layers
from headstart.tasks.finetuning.training import train_network
from headstart.tasks.head.settings import settings_in_effect
from headstart.tasks.head.stage import (
    TRAINED_ON,
    HeadManifest,
    keep_training,
    open_head,
    told_figure,
)
from headstart.tasks.head.training import predict_logits
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.training_callbacks import watchers
from headstart.tasks.store.versions import arithmetic_versions
from headstart.tasks.targets.target import Fit


class RungManifest(HeadManifest):
    """A trained rung; its head.keras takes rows at its start."""

    start: str
    groups: tuple[tuple[str, ...], ...]
    """Names of the layers trained, from the head down."""
    num_trained: int
    """Numbers that were trained."""
    num_fixed: int
    """Validation images that it has right and the rung below has not; of labels and numbers,
    those on which it errs less."""
    num_broken: int
    """The other way round."""


def _rung_key(
    features: Features,
    below: HeadManifest,
    below_start: str,
    tuning: TuningConfig,
    head: HeadConfig,
    log_dir: Path,
) -> dict[str, Any]:
    return {
        "labels": index_of(features.dataset).labels_digest_of(TRAINED_ON),
        "rows": {"start": features.start, **features.recipe()},
        "backbone": features.network.training_fingerprint(),
        "below": below.key,
        "tuning": settings_in_effect(tuning),
        "head": head.model_dump(
            include={"seed", "label_smoothing", "class_weights", *features.target.own_settings}
        ),
        **arithmetic_versions(),
    }


def _train_rung(
    folder: Path,
    features: Features,
    below: HeadManifest,
    below_start: str,
    tuning: TuningConfig,
    head: HeadConfig,
    log_dir: Path,
) -> Made:
    rows = features.open(TRAINED_ON)
    val = rows.get("val")
    model, backbone = open_head(below), features.network
    fit = below.fit
    before = _errors(model, features.at(below_start).open(("val",)).get("val"), fit)
    groups = below.groups if isinstance(below, RungManifest) else group_layers(model, backbone)
    network = extend(model, groups, backbone, features.start, below_start)
    trained = train_network(
        network,
        falling(len(network.groups), tuning.rate_decay),
        rows["train"],
        val,
        tuning,
        head,
        below.num_classes,
        log_dir,
        watchers(),
    )
    after = _errors(trained.model, val, fit)
    return keep_training(
        folder,
        trained,
        below.num_classes,
        len(rows["train"]),
        log_dir,
        has_val=val is not None,
        start=features.start,
        groups=network.groups,
        num_trained=network.num_trained,
        num_fixed=int((after < before).sum()),
        num_broken=int((after > before).sum()),
    )


def _errors(model: Any, rows: LabelledRows | None, fit: Fit) -> npt.NDArray[np.float64]:
    if rows is None:
        return np.zeros(0)
    return rows.target.errors(predict_logits(model, rows), rows.labels, fit)


def _describe_rung(rung: RungManifest) -> str:
    best = rung.history[rung.best_epoch - 1]
    place = f"from {rung.start}: epoch {rung.best_epoch} of {len(rung.history)}"
    return f"{place}{told_figure(best)}"


rung = Stage("rung", 2, RungManifest, _train_rung, _rung_key, _describe_rung, uses_gpu=True)

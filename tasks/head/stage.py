"""The head stage: its manifest, its key, its function."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.config import HeadConfig, Split
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.head.epochs import EpochFigures, written
from headstart.tasks.head.settings import settings_in_effect
from headstart.tasks.head.solvers import LABELS_VERSION
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.training_callbacks import watchers
from headstart.tasks.store.artifacts import Manifest, artefact
from headstart.tasks.store.versions import arithmetic_versions, solver_versions
from headstart.tasks.targets.target import NO_FIT, Fit

if TYPE_CHECKING:
    from headstart.tasks.head.training import TrainedHead

TRAINED_ON: tuple[Split, ...] = ("train", "val")
"""Splits that a training reads: the second says which epoch is kept."""


class HeadManifest(Manifest):
    """A trained head."""

    num_classes: int
    history: tuple[EpochFigures, ...]
    best_epoch: int
    stopped_early: bool
    has_val: bool
    """Whether validation images chose the epoch that is kept, or thresholds of a solved head."""
    kind: str = ""
    """Of a head that was not trained."""
    penalty: float | None = None
    """Of the squared weights, where a solver chose it by cross-validation; of labels the median."""
    fit: Fit = NO_FIT


def _head_key(features: Features, config: HeadConfig, log_dir: Path) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "labels": index_of(features.dataset).labels_digest_of(TRAINED_ON),
        "rows": features.recipe(),
        "head": settings_in_effect(
            config,
            *features.target.unread,
            *(() if config.kind == "mlp" else ("hidden_units",)),
        ),
        **arithmetic_versions(),
    }
    if config.is_trained and config.solver != "minibatch":
        fields |= index_of(features.dataset).unit_fields("train")  # of its cross-validation
        fields |= solver_versions()
    if config.solver == "lbfgs" and features.target.kind == "labels":
        fields["solver_version"] = LABELS_VERSION
    if config.kind == "tail":
        fields["tail"] = features.known.training_fingerprint()
    return fields


def _train_head(folder: Path, features: Features, config: HeadConfig, log_dir: Path) -> Made:
    from headstart.tasks.head.training import train_head

    _check_kind(features, config)
    rows = features.open(TRAINED_ON)
    if not config.is_trained:
        from headstart.tasks.head.few_shot import fit_head

        num_classes = len(features.class_names)
        made = fit_head(rows["train"], rows.get("val"), config, num_classes, log_dir)
        num_rows = len(rows["train"])
        has_val = "val" in rows
        return keep_training(
            folder, made, num_classes, num_rows, log_dir, has_val, kind=config.kind
        )
    if config.solver != "minibatch":
        return _solve_head(folder, rows, config, len(features.class_names), log_dir)
    tail = features.network.tail(features.start) if config.kind == "tail" else None
    num_classes = len(features.class_names)
    trained = train_head(
        rows["train"], rows.get("val"), config, num_classes, tail, log_dir, watchers=watchers()
    )
    return keep_training(folder, trained, num_classes, len(rows["train"]), log_dir, "val" in rows)


def _check_kind(features: Features, config: HeadConfig) -> None:
    """Refuse heads that do not know this kind of target."""
    kind = features.target.kind
    fitting = "ridge" if kind == "number" else "lbfgs"
    if config.solver not in ("minibatch", fitting):
        raise TrainingError(
            f"head.solver={config.solver} is not for such targets",
            f"dataset.target is {kind}",
            f"choose --set head.solver={fitting}",
        )


def _solve_head(
    folder: Path,
    rows: Mapping[Split, LabelledRows],
    config: HeadConfig,
    num_classes: int,
    log_dir: Path,
) -> Made:
    from headstart.tasks.head.lbfgs import solve_head

    solved = solve_head(rows["train"], rows.get("val"), config, num_classes, log_dir)
    num_rows = len(rows["train"])
    chosen_by_val = rows["train"].kind == "labels" and "val" in rows  # the labels' thresholds
    return keep_training(
        folder, solved, num_classes, num_rows, log_dir, chosen_by_val, penalty=solved.penalty
    )


def keep_training(
    folder: Path,
    trained: "TrainedHead",
    num_classes: int,
    num_rows: int,
    log_dir: Path,
    has_val: bool = True,
    saves_network: bool = True,
    **fields: Any,
) -> Made:
    """Keep a trained network and the log of its training, as a `HeadManifest` tells of them.

    Args:
        folder: Folder of the artefact, not yet published.
        trained: The network, and how it came about.
        num_classes: Number of classes, labels or numbers.
        num_rows: Number of rows it was trained on.
        log_dir: Folder with TensorBoard's event files.
        has_val: Whether validation images chose the epoch that is kept.
        saves_network: Whether the network is kept too, for later stages.
        **fields: Further fields of the manifest.
    """
    if saves_network:
        trained.model.save(folder / "head.keras")
    shutil.copytree(log_dir, folder / "tensorboard")
    told = {
        "num_classes": num_classes,
        "history": trained.history,
        "best_epoch": trained.best_epoch,
        "stopped_early": trained.stopped_early,
        "has_val": has_val,
        "fit": trained.fit,
    }
    return Made(num_rows, num_rows, fields={**told, **fields})


def open_head(head: HeadManifest) -> Any:
    """Load a trained head: float32 [n, *activation shape] -> logits [n, num_classes]."""
    import keras

    return keras.models.load_model(artefact(head, "head.keras"), compile=False)


def _describe_head(head: HeadManifest) -> str:
    best = head.history[head.best_epoch - 1]
    place = f"epoch {head.best_epoch} of {len(head.history)}"
    if head.penalty is not None:
        place = f"{'ridge' if head.fit.scale else 'L-BFGS'}, penalty {head.penalty:.3g}"
    if head.kind:
        place = f"{head.kind}, nothing to train"
    return f"{place}{told_figure(best)}"


def told_figure(best: EpochFigures) -> str:
    """Say what the validation images gave an epoch, after a comma; "" without any."""
    if best.val_figure is None:
        return ""
    return f", val {best.metric} {written(best.metric, best.val_figure)}"


stage = Stage("head", 2, HeadManifest, _train_head, _head_key, _describe_head)

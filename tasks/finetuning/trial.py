"""The stage of a study: one network, trained one way from one seed, and what came of it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from headstart.config import EvaluationConfig, HeadConfig, Split, TuningConfig
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import PIXELS, TOP
from headstart.tasks.bottlenecks.features import JUDGED, Features
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.finetuning.kernels import KernelChange, first_convolutions, kernel_of
from headstart.tasks.finetuning.memory import start_measuring
from headstart.tasks.finetuning.network import Network, extend
from headstart.tasks.finetuning.training import require_validation, train_network
from headstart.tasks.head.settings import settings_in_effect
from headstart.tasks.head.stage import HeadManifest, keep_training, told_figure
from headstart.tasks.head.training import TrainedHead, build_head, predict_logits
from headstart.tasks.running.devices import machine_fingerprint
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.training_callbacks import watchers
from headstart.tasks.store.artifacts import artefact
from headstart.tasks.store.versions import arithmetic_versions


class Trial(BaseModel, frozen=True, extra="forbid"):
    """How one network of a study is trained."""

    name: str
    """Names its line; trials of several seeds share it. Not in the key."""
    end: str = TOP
    """The head sits on the backbone's activation here, averaged over its positions."""
    starts: tuple[str, ...] = ()
    """Groups of the backbone's layers that train, each from its start to the one above it; the
    last is a cut or pixels, and where the rows come from. None: the head alone trains."""
    factors: tuple[float, ...] = (1.0,)
    """Of the learning rate: the head's, then each group's."""
    fresh: bool = False
    """Draw the backbone's weights anew instead of taking the pretrained ones."""

    @property
    def work(self) -> str:
        """In the name of the training's task run."""
        return self.name


class TrialManifest(HeadManifest):
    """What a trial came to."""

    num_trained: int
    """Numbers trained."""
    flops: int
    """Of all its epochs, forward and backward; 1 multiply-add is 2."""
    train_s: float
    """Seconds of its epochs."""
    peak_bytes: int | None
    """Most memory of the process (of the GPU where there is one) while it was trained."""
    metrics: dict[str, Any]
    """By split: accuracy, accuracy_interval, loss, num_images; of labels mean_average_precision and
    of numbers mae in place of the accuracy."""
    largest_changes: dict[str, float]
    """Of any weight of the first convolutions, by layer."""


_HEAD_FIELDS = ("seed", "dropout", "label_smoothing", "class_weights")


def rows_of(trial: Trial, features: Features) -> Features:
    """Say what a trial trains on: rows at its start, or averages where the head alone trains."""
    return features.at(trial.starts[-1]) if trial.starts else features.at(trial.end, pooled=True)


def _trial_key(
    features: Features,
    trial: Trial,
    tuning: TuningConfig,
    head: HeadConfig,
    evaluation: EvaluationConfig,
    log_dir: Path,
) -> dict[str, Any]:
    return {
        "labels": features.dataset.labels_digest,
        "rows": rows_of(trial, features).recipe(),
        "backbone": features.network.training_fingerprint(),
        "trial": trial.model_dump(mode="json", exclude={"name"}),
        "tuning": settings_in_effect(tuning, "rate_decay"),
        "head": head.model_dump(include={*_HEAD_FIELDS, *features.target.own_settings}),
        "evaluation": evaluation,
        "machine": machine_fingerprint(),  # seconds and memory are among the results
        **arithmetic_versions(),
    }


def _run_trial(
    folder: Path,
    features: Features,
    trial: Trial,
    tuning: TuningConfig,
    head: HeadConfig,
    evaluation: EvaluationConfig,
    log_dir: Path,
) -> Made:
    rows = rows_of(trial, features).open(("train", *JUDGED))
    require_validation(rows)
    backbone = features.network
    num_classes = len(features.class_names)
    network = build_network(backbone, trial, head, num_classes)
    layers = first_convolutions(backbone)
    before = [kernel_of(layer, network.model, backbone) for layer in layers]
    peak = start_measuring()
    trained = train_network(
        network,
        trial.factors,
        rows["train"],
        rows["val"],
        tuning,
        head,
        num_classes,
        log_dir,
        watchers(),
    )
    peak_bytes = peak()
    changes = [
        KernelChange(layer, start, kernel_of(layer, trained.model, backbone))
        for layer, start in zip(layers, before, strict=True)
    ]
    _save_kernels(folder / "kernels.npz", changes)
    num_images = len(rows["train"])
    return keep_training(
        folder,
        trained,
        num_classes,
        num_images,
        log_dir,
        saves_network=False,
        num_trained=network.num_trained,
        flops=len(trained.history) * num_images * step_flops(backbone, trial, num_classes),
        train_s=sum(epoch.duration_s for epoch in trained.history),
        peak_bytes=peak_bytes,
        metrics=_judge(trained, rows, features.class_names, evaluation),
        largest_changes={change.layer: change.largest_change for change in changes},
    )


def _judge(
    trained: TrainedHead,
    rows: Mapping[Split, LabelledRows],
    class_names: Sequence[str],
    config: EvaluationConfig,
) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for split in JUDGED:
        if split in rows:
            logits, judge = predict_logits(trained.model, rows[split]), JUDGES[rows[split].kind]
            labels = rows[split].labels
            judged = judge.evaluate(logits, labels, class_names, trained.fit, config)
            names = {judge.main, f"{judge.main}_interval", "loss", "num_images"}
            metrics[split] = judged.model_dump(mode="json", include=names)
    return metrics


def build_network(backbone: Backbone, trial: Trial, head: HeadConfig, num_classes: int) -> Network:
    """Build what a trial trains, with its initial weights.

    Args:
        backbone: Whose layers it has.
        trial: How much of it.
        head: Gives the seed and the dropout.
        num_classes: Width of the logits.

    Returns:
        The network: a dense layer, and the layers before it that train.
    """
    shape = backbone.resolve_cut(trial.end).activation_shape
    if not trial.starts:
        shape = shape[-1:]  # the rows are averaged already
    dense = build_head(head.model_copy(update={"kind": "linear"}), shape, num_classes)
    network = Network(dense, (("logits",),))
    end = trial.end
    for start in trial.starts:
        seed = head.seed if trial.fresh else None
        network = extend(network.model, network.groups, backbone, start, end, seed)
        end = start
    return network


def step_flops(backbone: Backbone, trial: Trial, num_classes: int) -> int:
    """Count the FLOPs of one training step for one image, 1 multiply-add as 2.

    Returns:
        Forward and backward. Backward counts the gradient of each trained layer's weights and
        that of its input as one forward pass each; the first trained layer has no input gradient,
        which is left out at cuts and, being small, not at pixels.
    """
    end = backbone.resolve_cut(trial.end)
    dense = 2 * end.activation_shape[-1] * num_classes
    if not trial.starts:
        return 2 * dense
    start = trial.starts[-1]
    if start == PIXELS:
        return 3 * (end.flops_before + dense)
    cut = backbone.resolve_cut(start)
    skipped = end.flops_after + end.flops_backward_after
    return cut.flops_after + cut.flops_backward_after - skipped + 3 * dense


def open_kernels(trial: TrialManifest) -> list[KernelChange]:
    """Read the kernels of the first convolutions before and after a trial."""
    with np.load(artefact(trial, "kernels.npz"), allow_pickle=False) as arrays:
        layers = [str(name) for name in arrays["layers"]]
        return [
            KernelChange(layer, arrays[f"start_{number}"], arrays[f"end_{number}"])
            for number, layer in enumerate(layers)
        ]


def _save_kernels(path: Path, changes: list[KernelChange]) -> None:
    arrays: dict[str, Any] = {"layers": np.array([change.layer for change in changes])}
    for number, change in enumerate(changes):
        arrays |= {f"start_{number}": change.start, f"end_{number}": change.end}
    np.savez_compressed(path, **arrays)


def _describe_trial(trial: TrialManifest) -> str:
    best = trial.history[trial.best_epoch - 1]
    return (
        f"{trial.num_trained:,} weights trained, epoch {trial.best_epoch} of "
        f"{len(trial.history)}{told_figure(best)}"
    )


trial = Stage("trial", 3, TrialManifest, _run_trial, _trial_key, _describe_trial, uses_gpu=True)


def intervals_of_means(
    values: Mapping[str, Sequence[float]],
    num_images: int,
    confidence: float,
    halves: Mapping[str, Sequence[float]] | None = None,
    most: float = 1.0,
) -> dict[str, tuple[float, float] | None]:
    """Return the intervals of mean figures over seeds, each judged on the same images.

    Two causes of spread are added up: other seeds, by Student's t on a variance that all names
    share, since two or three seeds of one name alone say next to nothing of it; and other images,
    by the normal approximation of the binomial distribution or, where figures are no
    accuracies, as wide as the interval that each has by bootstrap.

    Args:
        values: By name, a figure a seed; each name has as many.
        num_images: Number of images behind each accuracy.
        confidence: Coverage of the intervals, such as 0.95.
        halves: By name, half the width of each figure's interval over images; accuracies need none.
        most: Largest value of the figure.

    Returns:
        By name, at least 0; None for fewer than two seeds.

    Source:
        Student, "The Probable Error of a Mean", Biometrika 6, 1908; the shared variance is that
        of a one-way analysis of variance, Fisher, 1925.
    """
    from scipy.stats import norm, t

    num_seeds = len(next(iter(values.values())))
    if num_seeds < 2:
        return dict.fromkeys(values)
    shared = float(np.mean([np.var(own, ddof=1) for own in values.values()]))
    quantile = 0.5 + confidence / 2
    of_seeds = float(t.ppf(quantile, len(values) * (num_seeds - 1))) ** 2 * shared / num_seeds
    found: dict[str, tuple[float, float] | None] = {}
    for name, own in values.items():
        mean = float(np.mean(own))
        # Agresti and Coull's two imagined images of each kind keep it from 0 at the ends.
        middle = (mean * num_images + 2) / (num_images + 4)
        of_images = float(norm.ppf(quantile)) ** 2 * middle * (1 - middle) / (num_images + 4)
        if halves is not None:
            of_images = float(np.mean(np.square(halves[name])))
        half = math.sqrt(of_seeds + of_images)
        found[name] = (max(0.0, mean - half), min(most, mean + half))
    return found

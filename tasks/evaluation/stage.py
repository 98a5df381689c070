"""The evaluation stage: its manifest, its key, its function."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headstart.config import EvaluationConfig
from headstart.tasks.bottlenecks.rows import Rows
from headstart.tasks.evaluation.metrics import SplitMetrics, evaluate, top_losses
from headstart.tasks.head.stage import HeadManifest, open_head
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest
from headstart.tasks.store.files import write_json


class EvaluationManifest(Manifest):
    """Figures of a trained network."""

    metrics: dict[str, Any]
    """By split; what `headstart.tasks.evaluation.metrics.SplitMetrics` holds."""
    top_losses: tuple[dict[str, Any], ...]


class Judged(Protocol):
    """A data set as a trained network takes it; it is judged by every kind of them alike."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""

    def judged_key(self) -> dict[str, Any]:
        """Return what decides an evaluation besides the network."""

    def judged_rows(self) -> Mapping[str, Sequence[Rows]]:
        """Open what the network is judged by; where several rows stand for an image, by all."""

    def judged_paths(self, split: str) -> Sequence[str]:
        """Name the images of a split, in the order of the rows."""


def _evaluation_key(
    judged: Judged, trained: HeadManifest, config: EvaluationConfig
) -> dict[str, Any]:
    return {**judged.judged_key(), "head": trained.key, "evaluation": config}


def _evaluate(
    folder: Path, judged: Judged, trained: HeadManifest, config: EvaluationConfig
) -> Made:
    from headstart.tasks.head.training import predict_logits

    model, names = open_head(trained), judged.class_names
    metrics: dict[str, SplitMetrics] = {}
    losses: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    known: dict[int, Any] = {}
    for split, kinds in judged.judged_rows().items():
        for rows in kinds:
            if id(rows) not in known:
                known[id(rows)] = predict_logits(model, rows)
        logits = sum(known[id(rows)] for rows in kinds) / np.float32(len(kinds))
        labels = kinds[0].labels
        metrics[split] = evaluate(logits, labels, names, config)
        arrays |= {f"{split}_logits": logits, f"{split}_labels": labels}
        if len(kinds) == 1:  # else its images are told by another split
            paths = judged.judged_paths(split)
            losses += [
                {"path": paths[loss.position], "split": split, **loss.model_dump(mode="json")}
                for loss in top_losses(logits, labels, config)
            ]
    plain = {split: of_split.model_dump(mode="json") for split, of_split in metrics.items()}
    write_json(folder / "metrics.json", plain)
    np.savez(folder / "predictions.npz", **arrays)
    num_rows = sum(len(logits) for logits in known.values())
    worst = sorted(losses, key=lambda loss: -float(loss["loss"]))[: config.num_top_losses]
    return Made(num_rows, num_rows, fields={"metrics": plain, "top_losses": tuple(worst)})


def _describe_evaluation(evaluation: EvaluationManifest) -> str:
    if not evaluation.metrics:
        return "nothing is held out to judge by (dataset.val_fraction, dataset.test_fraction)"
    return ", ".join(
        f"{split} accuracy {metrics['accuracy']:.4f}"
        for split, metrics in evaluation.metrics.items()
    )


stage = Stage(
    "evaluation",
    3,
    EvaluationManifest,
    _evaluate,
    _evaluation_key,
    _describe_evaluation,
)

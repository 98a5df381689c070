"""The evaluation stage: its manifest, its key, its function."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headstart.config import EvaluationConfig
from headstart.tasks.bottlenecks.rows import Rows
from headstart.tasks.evaluation.judges import JUDGES, judge_of
from headstart.tasks.evaluation.number_metrics import NUMBERS_VERSION
from headstart.tasks.head.stage import HeadManifest, open_head
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.tensorflow import full_float32
from headstart.tasks.store.artifacts import Manifest
from headstart.tasks.store.files import write_json
from headstart.tasks.targets.target import Target


class EvaluationManifest(Manifest):
    """Figures of a trained network."""

    metrics: dict[str, Any]
    """By split; what the `model` of `headstart.tasks.evaluation.judges` for the target holds."""
    top_losses: tuple[dict[str, Any], ...]


class Judged(Protocol):
    """A data set as a trained network takes it; it is judged by every kind of them alike."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits: classes, labels or numbers."""

    @property
    def target(self) -> Target:
        """What is learned."""

    def judged_key(self) -> dict[str, Any]:
        """Return what decides an evaluation besides the network."""

    def judged_rows(self) -> Mapping[str, Sequence[Rows]]:
        """Open what the network is judged by; where several rows stand for an image, by all."""

    def judged_paths(self, split: str) -> Sequence[str]:
        """Name the images of a split, in the order of the rows."""


def _evaluation_key(
    judged: Judged, trained: HeadManifest, config: EvaluationConfig
) -> dict[str, Any]:
    version = {"numbers_version": NUMBERS_VERSION} if judged.target.kind == "number" else {}
    return {**judged.judged_key(), "head": trained.key, "evaluation": config, **version}


@full_float32()
def _evaluate(
    folder: Path, judged: Judged, trained: HeadManifest, config: EvaluationConfig
) -> Made:
    from headstart.tasks.head.training import predict_logits

    model, names = open_head(trained), judged.class_names
    judge, fit = JUDGES[judged.target.kind], trained.fit
    metrics: dict[str, Any] = {}
    losses: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    known: dict[int, Any] = {}
    for split, kinds in judged.judged_rows().items():
        for rows in kinds:
            if id(rows) not in known:
                known[id(rows)] = predict_logits(model, rows)
        logits = sum(known[id(rows)] for rows in kinds) / np.float32(len(kinds))
        labels = kinds[0].labels
        metrics[split] = judge.evaluate(logits, labels, names, fit, config, kinds[0].units)
        arrays |= {f"{split}_logits": logits, f"{split}_labels": labels}
        if len(kinds) == 1:  # else its images are told by another split
            paths = judged.judged_paths(split)
            losses += [
                {"path": paths[loss["position"]], "split": split, **loss}
                for loss in judge.worst(logits, labels, fit, config)
            ]
    plain = {split: of_split.model_dump(mode="json") for split, of_split in metrics.items()}
    write_json(folder / "metrics.json", plain)
    np.savez(folder / "predictions.npz", **arrays)
    num_rows = sum(len(logits) for logits in known.values())
    worst = sorted(losses, key=lambda loss: -float(loss["loss"]))[: config.num_top_losses]
    return Made(num_rows, num_rows, fields={"metrics": plain, "top_losses": tuple(worst)})


def _describe_evaluation(evaluation: EvaluationManifest) -> str:
    if not evaluation.metrics:
        return "no images are held out for evaluation (dataset.val_fraction, dataset.test_fraction)"
    return ", ".join(
        f"{split} {judge_of(metrics).line(metrics)}"
        for split, metrics in evaluation.metrics.items()
    )


stage = Stage(
    "evaluation",
    4,
    EvaluationManifest,
    _evaluate,
    _evaluation_key,
    _describe_evaluation,
)

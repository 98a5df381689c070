"""The evaluation stage: its manifest, its key, its function."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.config import (
    BackboneConfig,
    BottleneckConfig,
    EvaluationConfig,
    Split,
    ViewsConfig,
)
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.bottlenecks.stage import open_rows
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.evaluation.metrics import SplitMetrics, evaluate, top_losses
from headstart.tasks.head.stage import HeadManifest, open_head
from headstart.tasks.head.training import predict_logits
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest

JUDGED: tuple[Split, ...] = ("val", "test")
"""Splits that an evaluation reports on."""


class EvaluationManifest(Manifest):
    """Figures of a trained head."""

    metrics: dict[str, Any]
    """By split; what `headstart.tasks.evaluation.metrics.SplitMetrics` holds."""
    top_losses: tuple[dict[str, Any], ...]


def _evaluation_key(
    dataset: DatasetManifest,
    head: HeadManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: EvaluationConfig,
) -> dict[str, Any]:
    # The top losses are shown with their paths, so a renamed file is another evaluation.
    return {"dataset": dataset.key, "head": head.key, "evaluation": config}


def _evaluate_head(
    folder: Path,
    dataset: DatasetManifest,
    head: HeadManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: EvaluationConfig,
) -> Made:
    rows = open_rows(dataset, views, backbone, bottlenecks, JUDGED)
    return judge(folder, dataset, open_head(head), rows, config)


def judge(
    folder: Path,
    dataset: DatasetManifest,
    model: Any,
    rows: Mapping[Split, LabelledRows],
    config: EvaluationConfig,
) -> Made:
    """Judge a model by the rows it takes, and write the figures.

    Args:
        folder: Where metrics.json and predictions.npz go.
        dataset: The indexed data set.
        model: Rows float32 [n, *shape] -> logits [n, num_classes].
        rows: The splits to judge it by.
        config: How.

    Returns:
        The figures, as an `EvaluationManifest` holds them.
    """
    index = index_of(dataset)
    metrics: dict[str, SplitMetrics] = {}
    losses: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for split, of_split in rows.items():
        logits = predict_logits(model, of_split)
        metrics[split] = evaluate(logits, of_split.labels, dataset.class_names, config)
        paths = [row.path for row in index.rows_of(split)]
        losses += [
            {"path": paths[loss.position], "split": split, **loss.model_dump(mode="json")}
            for loss in top_losses(logits, of_split.labels, config)
        ]
        arrays |= {f"{split}_logits": logits, f"{split}_labels": of_split.labels}
    plain = {split: of_split.model_dump(mode="json") for split, of_split in metrics.items()}
    (folder / "metrics.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    np.savez(folder / "predictions.npz", **arrays)
    num_rows = sum(len(of_split) for of_split in rows.values())
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
    _evaluate_head,
    _evaluation_key,
    _describe_evaluation,
)

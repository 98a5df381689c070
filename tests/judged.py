"""Figures of a run with three classes, for tests of what is said of them."""

from datetime import datetime

import numpy as np

from headstart.config import EvaluationConfig
from headstart.tasks.evaluation.metrics import SplitMetrics, evaluate
from headstart.tasks.evaluation.report_content import DatasetSummary, Report

NAMES = ("cat", "dog", "owl")


def judge(labels: list[int], predicted: list[int]) -> SplitMetrics:
    """Return the figures of a split, by the class of each image and the one predicted."""
    logits = 20 * np.eye(len(NAMES), dtype=np.float32)[np.array(predicted, int)]
    return evaluate(logits, np.array(labels, np.int32), NAMES, EvaluationConfig())


EMPTY = judge([], [])
FLAWED = judge([0, 0, 0, 1, 1, 1, 2, 2, 2, 2], [0, 0, 1, 0, 0, 1, 2, 2, 2, 2])


def report_of(**metrics: SplitMetrics) -> Report:
    """Return a report on splits, by their names."""
    return Report(
        title="a run",
        created=datetime(2024, 5, 6, 7, 8),
        class_names=NAMES,
        metrics=metrics,
        dataset=DatasetSummary("images", {}),
    )

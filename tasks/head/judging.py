"""The figures of a head that has no epochs: its one line of history."""

import time
from typing import Any

import numpy as np
import tensorflow as tf

from headstart.config import HeadConfig
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.epochs import EpochFigures
from headstart.tasks.head.training import predict_logits
from headstart.tasks.targets.target import NO_FIT, Fit


def one_epoch(
    head: Any,
    train: LabelledRows,
    val: LabelledRows | None,
    started_s: float,
    fit: Fit = NO_FIT,
) -> EpochFigures:
    """Make the one line of history of a head that had no epochs.

    Args:
        head: float32 [n, *activation shape] -> outputs [n, num_outputs].
        train: Rows that it was made of.
        val: Rows whose plain views are evaluated.
        started_s: When it was begun, by `time.perf_counter`.
        fit: What was found out about the targets.
    """
    metric = train.target.metric
    train_loss, train_figure = judge_head(head, train, fit)
    val_loss, val_figure = (
        judge_head(head, val, fit) if val is not None and len(val) else (None,) * 2
    )
    is_share = metric == "accuracy"
    duration_s = time.perf_counter() - started_s
    return EpochFigures(
        epoch=1,
        train_loss=train_loss,
        train_accuracy=train_figure if is_share else None,
        val_loss=val_loss,
        val_accuracy=val_figure if is_share else None,
        learning_rate=0.0,
        duration_s=duration_s,
        images_per_s=len(train) / duration_s,
        metric=metric,
        train_metric=None if is_share else train_figure,
        val_metric=None if is_share else val_figure,
    )


def judge_head(head: Any, rows: LabelledRows, fit: Fit = NO_FIT) -> tuple[float, float]:
    """Judge a head on the plain views of rows.

    Args:
        head: float32 [n, *activation shape] -> outputs [n, num_outputs].
        rows: Only their plain views are read.
        fit: What was found out about their targets.

    Returns:
        The loss, neither smoothed nor weighted, and the figure that `Target.metric` names.
    """
    outputs = predict_logits(head, rows)
    if rows.kind != "class":
        target = rows.target
        wanted = target.to_match(tf.constant(rows.labels), outputs.shape[1], 0.0, fit)
        metric = target.make_metric(fit)
        metric.update_state(wanted, outputs)
        return float(target.loss(HeadConfig())(wanted, outputs)), float(metric.result())
    logits = outputs.astype(np.float64)
    right = float((logits.argmax(axis=1) == rows.labels).mean())
    logits -= logits.max(axis=1, keepdims=True)
    sums = np.log(np.exp(logits).sum(axis=1))
    return float((sums - logits[np.arange(len(logits)), rows.labels]).mean()), right

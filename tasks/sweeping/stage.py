"""The sweep stage: many heads trained at once, the best of which is trained on all images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from headstart.config import HeadConfig, Split
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.head.epochs import written
from headstart.tasks.head.settings import settings_in_effect
from headstart.tasks.head.stage import TRAINED_ON, HeadManifest, keep_training
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.versions import arithmetic_versions

if TYPE_CHECKING:
    from headstart.tasks.sweeping.together import HeadCurve

CHOSEN_BY: tuple[Split, ...] = ("train",)
"""The splits that a sweep reads: what it says of val and test is honest."""
REFIT_FOLDER = "best"
"""Of the best head's training on all images, beside those of the sweep, for TensorBoard."""


class SweptHead(BaseModel, frozen=True):
    """A line of the sweep's table."""

    number: int
    """1 for the first of the grid."""
    settings: dict[str, Any]
    """The fields of `head` that vary, and its values of them."""
    loss: float | None
    """Cross-entropy of the held-out images at the best epoch; None where none was a number."""
    accuracy: float | None
    """Share of them that were right then; None where targets are no classes."""
    best_epoch: int
    num_epochs: int
    metric: str = "accuracy"
    """The figure beside the loss: accuracy, f1_micro of labels or mae of numbers."""
    value: float | None = None
    """Of that then, where it is no accuracy."""

    @property
    def figure_text(self) -> str:
        """What `metric` names, written; "" where no loss was a number."""
        value = self.accuracy if self.metric == "accuracy" else self.value
        return "" if value is None else written(self.metric, value)


class SweepManifest(HeadManifest):
    """The best head of a sweep, and what the others came to."""

    swept: tuple[SweptHead, ...]
    """In the order of the grid."""
    chosen: int
    """Number of the best."""
    num_held_out: int
    """Training images that it was chosen by."""


def _sweep_key(
    features: Features,
    heads: Sequence[HeadConfig],
    fields: Sequence[str],
    seed: int,
    log_dir: Path,
) -> dict[str, Any]:
    return {
        "labels": index_of(features.dataset).labels_digest_of(
            CHOSEN_BY if features.target.kind == "class" else TRAINED_ON
        ),
        **index_of(features.dataset).unit_fields("train"),
        "rows": features.recipe(),
        "heads": [_settings(features, head) for head in heads],
        "fields": list(fields),
        "seed": seed,
        **arithmetic_versions(),
    }


def _best(curves: Sequence["HeadCurve"], heads: Sequence[HeadConfig]) -> int:
    """Return the number of the best head: of the lowest loss, where all have one loss.

    Huber's loss is less than the squared error of the same answers; the mean absolute error is no
    more one's than the other's.
    """
    if len({head.number_loss for head in heads}) == 1:
        return min(range(len(curves)), key=lambda number: curves[number].loss)
    trained = [number for number, curve in enumerate(curves) if curve.best_epoch]
    return min(trained, key=lambda number: curves[number].accuracy, default=0)


def _settings(features: Features, head: HeadConfig) -> dict[str, Any]:
    unread = features.target.unread
    return settings_in_effect(head, *unread, *(() if head.kind == "mlp" else ("hidden_units",)))


def _sweep(
    folder: Path,
    features: Features,
    heads: Sequence[HeadConfig],
    fields: Sequence[str],
    seed: int,
    log_dir: Path,
) -> Made:
    from headstart.tasks.head.training import decide, train_head
    from headstart.tasks.sweeping.pooled import hold_out, pool
    from headstart.tasks.sweeping.together import train_heads

    is_class = features.target.kind == "class"
    opened = features.open(CHOSEN_BY if is_class else TRAINED_ON)
    rows, num_classes = opened["train"], len(features.class_names)
    rows.target.check(rows.labels, None, num_classes)
    fit, held_out = hold_out(rows, seed)
    curves = train_heads(pool(fit), pool(held_out, augmented=False), heads, num_classes)
    best = _best(curves, heads)
    if not curves[best].best_epoch:
        raise TrainingError(
            "every head of the sweep diverged: no loss is a finite number",
            f"{len(curves)} heads, the first at a learning rate of {heads[0].learning_rate:g}",
            "try lower learning rates, for instance --grid head.learning_rate=1e-4..1e-2",
        )
    metric = rows.target.metric
    lines = tuple(_line(number, curve, fields, metric) for number, curve in enumerate(curves, 1))
    reporter().note(f"     head {best + 1} of {len(heads)} is the best: {_said(lines[best])}")
    reporter().note(f"     it is trained on all {len(rows):,} images, to the same epoch")
    refit = train_head(
        rows, None, heads[best], num_classes, None, log_dir / REFIT_FOLDER,
        last_epoch=curves[best].best_epoch,
    )  # fmt: skip
    if not is_class:  # thresholds and intervals are found by the val images, nothing else is
        told = decide(refit.model, opened.get("val"), refit.fit, heads[best])
        refit = replace(refit, fit=told)
    _write_hparams(log_dir, lines, curves)
    return keep_training(
        folder, refit, num_classes, len(rows), log_dir, has_val=False,
        swept=lines, chosen=best + 1, num_held_out=len(held_out),
    )  # fmt: skip


def _line(number: int, curve: "HeadCurve", fields: Sequence[str], metric: str) -> SweptHead:
    told = curve.config.model_dump(mode="json")
    trained, is_share = curve.best_epoch > 0, metric == "accuracy"
    return SweptHead(
        number=number,
        settings={name: told[name] for name in fields},
        loss=curve.loss if trained else None,
        accuracy=curve.accuracy if trained and is_share else None,
        best_epoch=curve.best_epoch,
        num_epochs=len(curve.losses),
        metric=metric,
        value=curve.accuracy if trained and not is_share else None,
    )


def _said(line: SweptHead) -> str:
    values = ", ".join(f"{name} {value}" for name, value in line.settings.items())
    return f"{values}; held-out loss {line.loss:.4f}, {line.metric} {line.figure_text}"


def _write_hparams(
    log_dir: Path, lines: Sequence[SweptHead], curves: Sequence["HeadCurve"]
) -> None:
    """Write each head as a run of TensorBoard's, with its settings for the HParams page."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    for line, curve in zip(lines, curves, strict=True):
        writer = tf.summary.create_file_writer(str(log_dir / f"head-{line.number:04}"))
        with writer.as_default():
            api.hparams(
                {
                    name: value if isinstance(value, int | float | str) else str(value)
                    for name, value in line.settings.items()
                }
            )
            for epoch, figures in enumerate(
                zip(curve.train_losses, curve.losses, curve.accuracies, strict=True), 1
            ):
                names = ("train_loss", "loss", line.metric)
                for name, value in zip(names, figures, strict=True):
                    tf.summary.scalar(f"held_out/{name}" if name != "train_loss" else name,
                                      value, epoch)  # fmt: skip
        writer.close()


def _describe(sweep: SweepManifest) -> str:
    best = sweep.swept[sweep.chosen - 1]
    return (
        f"{len(sweep.swept)} heads, number {sweep.chosen} the best: "
        f"{best.metric} {best.figure_text} on {sweep.num_held_out:,} held-out training images"
    )


stage = Stage("sweep", 1, SweepManifest, _sweep, _sweep_key, _describe)

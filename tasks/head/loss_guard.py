"""The guard that ends a training whose loss is no number any more, and says why."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.batches import evaluation_batch_size


@dataclass(frozen=True)
class BrokenLoss:
    """Where a loss stopped being a number."""

    split: str
    value: float
    epoch: int
    batch: int | None
    learning_rate: float

    def place(self) -> str:
        """Return the place in words."""
        batch = "" if self.batch is None else f", batch {self.batch + 1}"
        return f"epoch {self.epoch + 1}{batch}"


class LossGuard(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops the training at the first loss that is NaN or infinite.

    It asks Keras to stop, rather than raise, so that all other callbacks (a debugger's, say) see
    the batch and the end of the training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.broken: BrokenLoss | None = None
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the running mean of the loss; NaN and infinity never leave it."""
        self._look("training", (logs or {}).get("loss"), batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the validation loss."""
        self._look("validation", (logs or {}).get("val_loss"), None)

    def on_epoch_trained(self, batch: int, loss: float, learning_rate: float) -> None:
        """Take note of an epoch that was trained without a call for each batch.

        Args:
            batch: The first with a running mean that is no number, or the last.
            loss: Running mean of the loss at that batch.
            learning_rate: Rate at that batch.
        """
        self._look("training", loss, batch, learning_rate)

    def _look(
        self, split: str, value: float | None, batch: int | None, rate: float | None = None
    ) -> None:
        if self.broken is None and value is not None and not math.isfinite(value):
            rate = float(self.model.optimizer.learning_rate) if rate is None else rate
            self.broken = BrokenLoss(split, value, self._epoch, batch, rate)
        if self.broken is not None:
            self.model.stop_training = True


def explain_broken_loss(
    broken: BrokenLoss, config: HeadConfig, train: LabelledRows, val: LabelledRows | None
) -> TrainingError:
    """Return the error for a broken loss, after a look at the bottlenecks themselves.

    Args:
        broken: What the guard saw.
        config: Gives the learning rate, of which the message suggests a tenth.
        train: Searched for NaN and infinity.
        val: Searched likewise; None without validation images.
    """
    for rows in (train, val):
        if rows is not None and (image := _first_broken_image(rows)) is not None:
            return TrainingError(
                "a bottleneck is not a finite number",
                f"NaN or infinity in the {rows.readers[0].dtype} bottlenecks of image {image}",
                "extract with --set bottlenecks.dtype=float32 (float16 ends at 65504), or see "
                "which layer made them with `headstart debug`",
            )
    return TrainingError(
        f"the {broken.split} loss is not a finite number",
        f"{broken.value} in {broken.place()}, at a learning rate of {broken.learning_rate:.3g}",
        f"try a lower learning rate, for instance --set head.learning_rate="
        f"{config.learning_rate / 10:.3g}, or see which op made it with `headstart debug`",
    )


def _first_broken_image(rows: LabelledRows) -> str | None:
    """Return the digest of the first image with a bottleneck that is not finite."""
    size = evaluation_batch_size(rows)
    for view in range(1 + rows.num_augmented):
        for start in range(0, len(rows), size):
            images = np.arange(start, min(start + size, len(rows)))
            values = rows.gather(images, view).reshape(len(images), -1)
            broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(broken):
                position = int(rows.positions[images[broken[0]], view])
                return rows.readers[min(view, 1)].row_ids[position].image_digest
    return None

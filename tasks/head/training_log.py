"""What a training says of itself: figures an epoch, a live table, TensorBoard."""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import keras
import tensorflow as tf

from headstart.tasks.head.epochs import EpochFigures, fitted, header
from headstart.tasks.progress import Advance, reporter, watched_progress

FOLDERS = ("train", "validation")


class EpochLog(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the figures of each epoch, shows them, and writes them for TensorBoard.

    Not Keras's own TensorBoard callback: its event files are flushed every two minutes, not every
    epoch, it counts epochs from 0, and it leaves them open when a training is interrupted.

    Args:
        log_dir: Scalars go under train/ and validation/ in it, which are emptied first, tagged as
            Keras tags them; the step is the epoch, 1 for the first.
        num_images: Training images an epoch.
        has_val: Whether there are validation images.
        metric: Name of the figure beside the loss, as the model was compiled with it.
    """

    def __init__(
        self, log_dir: Path, num_images: int, *, has_val: bool, metric: str = "accuracy"
    ) -> None:
        super().__init__()
        self.history: list[EpochFigures] = []
        self._num_images = num_images
        self._reporter = reporter()
        for name in FOLDERS:  # what a training that failed left there is none of this one's
            shutil.rmtree(log_dir / name, ignore_errors=True)
        self._writers = {
            name: tf.summary.create_file_writer(str(log_dir / name))
            for name in FOLDERS[: 1 + has_val]
        }
        self._stack = ExitStack()
        self._advance: Advance = lambda count: None
        self._started_s = 0.0
        self._learning_rate = 0.0
        self._metric = metric

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Show the table's header."""
        self._reporter.note(fitted(header(self._metric), self._reporter.console.width))
        watched = watched_progress("training", self.params["epochs"], "epochs")
        self._advance = self._stack.enter_context(watched)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._learning_rate = float(self.model.optimizer.learning_rate)
        self._started_s = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Show and write the epoch's figures."""
        logs = logs or {}
        duration_s = time.perf_counter() - self._started_s
        figures = EpochFigures(
            epoch=epoch + 1,
            train_loss=logs["loss"],
            train_accuracy=logs.get("accuracy"),
            val_loss=logs.get("val_loss"),
            val_accuracy=logs.get("val_accuracy"),
            learning_rate=self._learning_rate,
            duration_s=duration_s,
            images_per_s=self._num_images / duration_s,
            metric=self._metric,
            **self._other_figures(logs),
        )
        self.history.append(figures)
        self._reporter.note(fitted(figures.line(), self._reporter.console.width))
        self._advance(1)
        self._write("train", figures.epoch, figures.train_loss, figures.train_figure)
        self._write("validation", figures.epoch, figures.val_loss, figures.val_figure)

    def _other_figures(self, logs: dict[str, float]) -> dict[str, float | None]:
        if self._metric == "accuracy":
            return {}
        return {
            "train_metric": logs[self._metric],
            "val_metric": logs.get(f"val_{self._metric}"),
        }

    def close(self) -> None:
        """Close the event files."""
        self._stack.close()
        for writer in self._writers.values():
            writer.close()

    def _write(self, folder: str, epoch: int, loss: float | None, figure: float | None) -> None:
        if folder not in self._writers:
            return
        with self._writers[folder].as_default(step=epoch):
            tf.summary.scalar("epoch_loss", loss)
            tf.summary.scalar(f"epoch_{self._metric}", figure)
            if folder == "train":
                tf.summary.scalar("epoch_learning_rate", self._learning_rate)
        self._writers[folder].flush()

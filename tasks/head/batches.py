"""Batches of bottlenecks for Keras: which view and which order an epoch sees, and how it is fed.

The order of the images depends on the seed and the epoch alone. Rows in memory and rows read
from files therefore train the same model.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import HeadConfig
from headstart.tasks.bottlenecks.rows import LabelledRows, Rows
from headstart.tasks.targets.target import NO_FIT, Fit

Finish = Callable[[Any, Any], tuple[Any, ...]]
"""Makes of rows and their labels, tensors, what a step takes."""
MAP_CHANNELS = 16
"""Of a network's largest maps, at a side as long as the image's; most have more at a quarter."""
MAX_EVALUATION_ROWS = 256
MAX_EVALUATION_BYTES = 64 * 2**20
"""An evaluation batch has at most this many rows, and bytes of float32 bottlenecks."""


def epoch_view(epoch_index: int, num_augmented: int) -> int:
    """Return the view that an epoch trains on.

    Returns:
        1 + epoch_index mod num_augmented; the plain view 0 where there are no augmented ones.
    """
    return 1 + epoch_index % num_augmented if num_augmented else 0


def epoch_order(num_images: int, seed: int, epoch_index: int) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch sees the images.

    Args:
        num_images: Number of training images.
        seed: Seed of the head's configuration.
        epoch_index: 0 for the first epoch.

    Returns:
        int64 [num_images], a permutation.
    """
    order: npt.NDArray[np.int64] = np.random.default_rng((seed, epoch_index)).permutation(
        num_images
    )
    return order


class TrainingBatches(keras.callbacks.Callback):  # type: ignore[misc]
    """The batches of the epoch that is running; a callback of `fit`, which says which that is.

    Not one dataset over all epochs, with steps_per_epoch: with several steps an execution Keras
    would then take the first batches of the next epoch for the last of this one.

    Args:
        rows: Bottlenecks and targets to train on.
        config: Batch size, seed, label smoothing and class weights.
        num_classes: Number of classes, labels or numbers.
        fit: What is known of the targets.

    Attributes:
        dataset: (bottlenecks float32 [b, *shape], targets float32 [b, num_classes]) and, with
            balanced class weights, weights float32 [b], or [b, num_classes] of labels: one epoch,
            whose last batch is the smaller one that is left over.
        rows: Bottlenecks and targets to train on.
        order: int64 [num_images], the order in which this epoch sees the images.
        view: The view that it sees.
    """

    def __init__(
        self, rows: LabelledRows, config: HeadConfig, num_classes: int, fit: Fit = NO_FIT
    ) -> None:
        super().__init__()
        self.rows = rows
        self.batch_size = config.batch_size
        self._seed = config.seed
        self._num_classes = num_classes
        self._label_smoothing = config.label_smoothing
        self.fit = fit
        self._weigh = None
        if config.class_weights == "balanced":
            self._weigh = rows.target.balance(rows.labels, num_classes)
        self.on_epoch_begin(0)
        self.dataset = _batches(
            rows, lambda: (self.order, self.view), config.batch_size, self.finish
        )

    def finish(self, bottlenecks: Any, labels: Any) -> tuple[Any, ...]:
        """Make of rows and their labels what a training step takes.

        Args:
            bottlenecks: float32 [b, *shape].
            labels: Their targets, as `LabelledRows.labels` has them.

        Returns:
            See `dataset`.
        """
        targets = self.rows.target.to_match(
            labels, self._num_classes, self._label_smoothing, self.fit
        )
        if self._weigh is None:
            return bottlenecks, targets
        return bottlenecks, targets, self._weigh(labels)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Turn to the epoch's view and order; Keras opens the dataset after this."""
        self.order = epoch_order(len(self.rows), self._seed, epoch)
        self.view = epoch_view(epoch, self.rows.num_augmented)

    def endless(self) -> Iterator[tuple[Any, ...]]:
        """Yield the batches of one epoch after another."""
        for epoch in itertools.count():
            self.on_epoch_begin(epoch)
            yield from self.dataset


def evaluation_batches(rows: LabelledRows, num_classes: int, fit: Fit = NO_FIT) -> tf.data.Dataset:
    """Return the plain views in order, once, with targets that are not smoothed.

    Returns:
        A dataset of (bottlenecks float32 [b, *shape], targets float32 [b, num_classes]).
    """
    order, finish = np.arange(len(rows)), finish_judged(rows, num_classes, fit)
    return _batches(rows, lambda: (order, 0), evaluation_batch_size(rows), finish)


def finish_judged(rows: LabelledRows, num_classes: int, fit: Fit) -> Finish:
    """Return what makes of rows and their labels what an evaluation step takes."""
    target = rows.target
    return lambda bottlenecks, labels: (
        bottlenecks,
        target.to_match(labels, num_classes, 0.0, fit),
    )


def evaluation_batch_size(rows: Rows) -> int:
    """Return how many rows are evaluated at once; bounds memory, changes no result."""
    shape = rows.shape
    if rows.dtype == np.uint8:  # pixels: what counts are the first maps that are made of them
        shape = (*shape[:-1], MAP_CHANNELS)
    row_bytes = 4 * int(np.prod(shape, dtype=np.int64))
    return max(1, min(MAX_EVALUATION_ROWS, MAX_EVALUATION_BYTES // row_bytes))


def _batches(
    rows: LabelledRows,
    epoch: Callable[[], tuple[npt.NDArray[np.int64], int]],
    batch_size: int,
    finish: Finish,
) -> tf.data.Dataset:
    """Read the batches of an epoch, whose order and view are asked for batch by batch.

    One map over the batches' starts, and the cast to float32 in TensorFlow: opening the dataset
    costs a fixed time for each function in it, twice an epoch in Keras; from_generator with a
    flat_map took three times as long to open and twice to run; and NumPy casts float16 ten times
    slower.
    """
    reader = rows.readers[0]

    def read(start: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        order, view = epoch()
        images = order[start : start + batch_size]
        return rows.gather(images, view), rows.labels[images]

    # Autograph would take half a second to find nothing to convert.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def load(start: Any) -> tuple[Any, ...]:
        dtypes = [tf.dtypes.as_dtype(array.dtype) for array in (reader, rows.labels)]
        bottlenecks, labels = tf.numpy_function(read, (start,), dtypes)
        bottlenecks.set_shape((None, *reader.shape))
        labels.set_shape((None, *rows.labels.shape[1:]))
        return finish(tf.cast(bottlenecks, tf.float32), labels)

    return tf.data.Dataset.range(0, len(rows), batch_size).map(load).prefetch(2)

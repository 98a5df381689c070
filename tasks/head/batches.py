"""Batches of bottlenecks for Keras: which view and which order an epoch sees, and how it is fed.

The order of the images depends on the seed and the epoch alone. Rows in memory and rows read
from files therefore train the same model.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.rows import LabelledRows, Rows

MAP_CHANNELS = 16
"""Of a network's largest maps, at a side as long as the image's; most have more at a quarter."""
MAX_EVALUATION_ROWS = 256
MAX_EVALUATION_BYTES = 64 * 2**20
"""An evaluation batch has at most this many rows, and bytes of float32 bottlenecks."""


def epoch_view(epoch_index: int, num_augmented: int) -> int:
    """Return the view that an epoch trains on.

    Args:
        epoch_index: 0 for the first epoch.
        num_augmented: Augmented views an image has.

    Returns:
        1 + epoch_index mod num_augmented; the plain view 0 where there are no augmented ones.
    """
    return 1 + epoch_index % num_augmented if num_augmented else 0


def epoch_order(num_images: int, seed: int, epoch_index: int) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch sees the images.

    Args:
        num_images: Number of training images.
        seed: The head's seed.
        epoch_index: 0 for the first epoch.

    Returns:
        int64 [num_images], a permutation.
    """
    order: npt.NDArray[np.int64] = np.random.default_rng((seed, epoch_index)).permutation(
        num_images
    )
    return order


def class_weights(labels: npt.NDArray[np.int32], num_classes: int) -> npt.NDArray[np.float32]:
    """Return balanced class weights: their mean over the images is 1.

    Args:
        labels: int32 [n], 0 to num_classes - 1; each class at least once.
        num_classes: Number of classes.

    Returns:
        float32 [num_classes]: n / (num_classes * images of the class).

    Source:
        King and Zeng, "Logistic Regression in Rare Events Data", 2001, as scikit-learn's
        class_weight="balanced".
    """
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (num_classes * counts)).astype(np.float32)


def check_labels(train: LabelledRows, val: LabelledRows | None, num_classes: int) -> None:
    """Refuse labels that no classifier can be trained on.

    Args:
        train: The training rows.
        val: The validation rows, if there are any.
        num_classes: Number of classes.

    Raises:
        TrainingError: There are no training images, fewer than two classes, a class without
            training images, or a label beyond the classes.
    """
    if num_classes < 2 or len(train) == 0:
        raise TrainingError(
            "a classifier needs training images of at least two classes",
            f"{len(train)} training images, {num_classes} classes",
            "add images of another class, one folder a class",
        )
    for rows in (train, val):
        if (
            rows is not None
            and len(rows)
            and not 0 <= rows.labels.min() <= rows.labels.max() < (num_classes)
        ):
            raise TrainingError(
                f"labels must be 0 to {num_classes - 1}",
                f"labels from {rows.labels.min()} to {rows.labels.max()}",
            )
    counts = np.bincount(train.labels, minlength=num_classes)
    if empty := np.flatnonzero(counts == 0).tolist():
        raise TrainingError(
            "a class has no training image",
            f"none of class {', '.join(map(str, empty[:10]))} (counted from 0)",
            "add images of these classes, hold out fewer for validation and test "
            "(--set dataset.val_fraction=0.1), or remove the classes",
        )


def smooth_targets(labels: Any, num_classes: int, label_smoothing: float) -> Any:
    """Return the distribution that the logits are to match.

    Args:
        labels: Integer tensor [n].
        num_classes: Number of classes K.
        label_smoothing: Share s of the weight that is spread over all classes.

    Returns:
        float32 [n, K]: 1 - s + s/K at the label, s/K elsewhere.

    Source:
        Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7,
        https://arxiv.org/abs/1512.00567
    """
    off = label_smoothing / num_classes
    return tf.one_hot(labels, num_classes, on_value=1.0 - label_smoothing + off, off_value=off)


class TrainingBatches(keras.callbacks.Callback):  # type: ignore[misc]
    """The batches of the epoch that is running; a callback of `fit`, which says which that is.

    Not one dataset over all epochs, with steps_per_epoch: with several steps an execution Keras
    would then take the first batches of the next epoch for the last of this one.

    Args:
        rows: The training rows.
        config: Batch size, seed, label smoothing and class weights.
        num_classes: Number of classes.

    Attributes:
        dataset: (bottlenecks float32 [b, *shape], targets float32 [b, num_classes]) and, with
            balanced class weights, the images' weights float32 [b]: one epoch, whose last batch
            is the smaller one that is left over.
        rows: The training rows.
        batch_size: Rows of a batch but the last.
        order: int64 [num_images], the order in which this epoch sees the images.
        view: The view that it sees.
    """

    def __init__(self, rows: LabelledRows, config: HeadConfig, num_classes: int) -> None:
        super().__init__()
        self.rows = rows
        self.batch_size = config.batch_size
        self._seed = config.seed
        self._num_classes = num_classes
        self._label_smoothing = config.label_smoothing
        self._weights = None
        if config.class_weights == "balanced":
            self._weights = tf.constant(class_weights(rows.labels, num_classes))
        self.on_epoch_begin(0)
        self.dataset = _batches(
            rows, lambda: (self.order, self.view), config.batch_size, self.finish
        )

    def finish(self, bottlenecks: Any, labels: Any) -> tuple[Any, ...]:
        """Make of rows and their labels what a training step takes.

        Args:
            bottlenecks: float32 [b, *shape].
            labels: Integer tensor [b].

        Returns:
            See `dataset`.
        """
        targets = smooth_targets(labels, self._num_classes, self._label_smoothing)
        if self._weights is None:
            return bottlenecks, targets
        return bottlenecks, targets, tf.gather(self._weights, labels)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Turn to the epoch's view and order; Keras opens the dataset after this."""
        self.order = epoch_order(len(self.rows), self._seed, epoch)
        self.view = epoch_view(epoch, self.rows.num_augmented)


def evaluation_batches(rows: LabelledRows, num_classes: int) -> tf.data.Dataset:
    """Return the plain views in order, once, with targets that are not smoothed.

    Args:
        rows: The rows to evaluate.
        num_classes: Number of classes.

    Returns:
        A dataset of (bottlenecks float32 [b, *shape], targets float32 [b, num_classes]).
    """
    batch_size = evaluation_batch_size(rows)

    def finish(bottlenecks: Any, labels: Any) -> tuple[Any, ...]:
        return bottlenecks, smooth_targets(labels, num_classes, 0.0)

    order = np.arange(len(rows))
    return _batches(rows, lambda: (order, 0), batch_size, finish)


def evaluation_batch_size(rows: Rows) -> int:
    """Return how many rows are evaluated at once; bounds memory, changes no result.

    Args:
        rows: The rows to evaluate.

    Returns:
        1 to `MAX_EVALUATION_ROWS`.
    """
    shape = rows.shape
    if rows.dtype == np.uint8:  # pixels: what counts are the first maps that are made of them
        shape = (*shape[:-1], MAP_CHANNELS)
    row_bytes = 4 * int(np.prod(shape, dtype=np.int64))
    return max(1, min(MAX_EVALUATION_ROWS, MAX_EVALUATION_BYTES // row_bytes))


def _batches(
    rows: LabelledRows,
    epoch: Callable[[], tuple[npt.NDArray[np.int64], int]],
    batch_size: int,
    finish: Callable[[Any, Any], tuple[Any, ...]],
) -> tf.data.Dataset:
    """Read the batches of an epoch, whose order and view are asked for batch by batch.

    One map over the batches' starts, and the cast to float32 in TensorFlow: opening the dataset
    costs a fixed time for each function in it, twice an epoch in Keras; from_generator with a
    flat_map took three times as long to open and twice to run; and NumPy casts float16 ten times
    slower.
    """
    reader = rows.readers[0]

    def read(start: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
        order, view = epoch()
        images = order[start : start + batch_size]
        return rows.gather(images, view), rows.labels[images]

    # Autograph would take half a second to find nothing to convert.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def load(start: Any) -> tuple[Any, ...]:
        dtypes = (tf.dtypes.as_dtype(reader.dtype), tf.int32)
        bottlenecks, labels = tf.numpy_function(read, (start,), dtypes)
        bottlenecks.set_shape((None, *reader.shape))
        labels.set_shape((None,))
        return finish(tf.cast(bottlenecks, tf.float32), labels)

    return tf.data.Dataset.range(0, len(rows), batch_size).map(load).prefetch(2)

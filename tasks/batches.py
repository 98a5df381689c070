"""Batches of bottlenecks for Keras: which view and which order an epoch sees, and how it is fed.

The order of the images depends on the seed and the epoch alone. Rows in memory and rows read
from files therefore train the same model.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks import LabelledRows

CHUNK_BYTES = 32 * 2**20
"""Rows are handed from Python to TensorFlow in chunks of whole batches of about this size: one
crossing a batch makes an epoch of a linear head 1.6 times as long (2,500 rows of 1,280)."""
MAX_EVALUATION_ROWS = 256
MAX_EVALUATION_BYTES = 64 * 2**20
"""An evaluation batch has at most this many rows, and bytes of float32 bottlenecks."""

Chunks = Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.int32]]]
"""Whole batches of rows, and their labels."""


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
            "A classifier needs training images of at least two classes.",
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
                f"Labels are 0 to {num_classes - 1}.",
                f"labels from {rows.labels.min()} to {rows.labels.max()}",
            )
    counts = np.bincount(train.labels, minlength=num_classes)
    if empty := np.flatnonzero(counts == 0).tolist():
        raise TrainingError(
            "Every class has at least one training image.",
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
        epoch_index: 0 for the first epoch.
    """

    def __init__(self, rows: LabelledRows, config: HeadConfig, num_classes: int) -> None:
        super().__init__()
        self.epoch_index = 0
        weights = None
        if config.class_weights == "balanced":
            weights = tf.constant(class_weights(rows.labels, num_classes))

        def finish(bottlenecks: Any, labels: Any) -> tuple[Any, ...]:
            targets = smooth_targets(labels, num_classes, config.label_smoothing)
            if weights is None:
                return tf.cast(bottlenecks, tf.float32), targets
            return tf.cast(bottlenecks, tf.float32), targets, tf.gather(weights, labels)

        def chunks() -> Chunks:
            order = epoch_order(len(rows), config.seed, self.epoch_index)
            view = epoch_view(self.epoch_index, rows.num_augmented)
            return _chunks(rows, order, view, config.batch_size)

        self.dataset = _batches(rows, chunks, config.batch_size, finish)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Turn to the epoch's view and order; Keras opens the dataset after this."""
        self.epoch_index = epoch


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
        return tf.cast(bottlenecks, tf.float32), smooth_targets(labels, num_classes, 0.0)

    return _batches(
        rows, lambda: _chunks(rows, np.arange(len(rows)), 0, batch_size), batch_size, finish
    )


def evaluation_batch_size(rows: LabelledRows) -> int:
    """Return how many rows are evaluated at once; bounds memory, changes no result.

    Args:
        rows: The rows to evaluate.

    Returns:
        1 to `MAX_EVALUATION_ROWS`.
    """
    row_bytes = 4 * int(np.prod(rows.readers[0].shape, dtype=np.int64))
    return max(1, min(MAX_EVALUATION_ROWS, MAX_EVALUATION_BYTES // row_bytes))


def _chunks(rows: LabelledRows, order: npt.NDArray[np.int64], view: int, batch_size: int) -> Chunks:
    reader = rows.readers[0]
    batch_bytes = batch_size * int(np.prod(reader.shape, dtype=np.int64)) * reader.dtype.itemsize
    chunk_rows = max(1, CHUNK_BYTES // batch_bytes) * batch_size
    for start in range(0, len(order), chunk_rows):
        images = order[start : start + chunk_rows]
        yield rows.gather(images, view), rows.labels[images]


def _batches(
    rows: LabelledRows,
    chunks: Callable[[], Chunks],
    batch_size: int,
    finish: Callable[[Any, Any], tuple[Any, ...]],
) -> tf.data.Dataset:
    reader = rows.readers[0]
    signature = (
        tf.TensorSpec((None, *reader.shape), tf.dtypes.as_dtype(reader.dtype)),
        tf.TensorSpec((None,), tf.int32),
    )

    def split(bottlenecks: Any, labels: Any) -> tf.data.Dataset:
        starts = tf.data.Dataset.range(0, tf.size(labels, out_type=tf.int64), batch_size)
        return starts.map(
            lambda start: finish(
                bottlenecks[start : start + batch_size], labels[start : start + batch_size]
            )
        )

    whole = tf.data.Dataset.from_generator(chunks, output_signature=signature)
    batches = whole.prefetch(1).flat_map(split).prefetch(2)
    # Without the number Keras warns that the data ran out, at the end of the first epoch.
    return batches.apply(tf.data.experimental.assert_cardinality(-(-len(rows) // batch_size)))

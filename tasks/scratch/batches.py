"""Batches of an epoch: its view, read from shards, shuffled, without the set in memory."""

import os
from typing import Any

import tensorflow as tf

from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import NO_FIT, Array, Fit, Target
from headstart.tasks.views.epoch_shards import Layout, read_blocks
from headstart.tasks.views.epoch_stage import EpochViewsManifest, shard_paths

SHUFFLE_BLOCKS = 32
"""Blocks (of up to 128 images) among which the next one is drawn. The images' order was drawn over
the whole set when the view was written; this makes another order of a view that is read again."""
PREFETCH_BATCHES = 4
GRAPH_SEED = 87654321
"""TensorFlow's own default, where nobody has set a seed."""


def batch_size_of(batch_size: int, num_images: int) -> int:
    """Return the batch size in effect: no larger than the data set."""
    return min(batch_size, num_images)


def steps_an_epoch(batch_size: int, num_images: int) -> int:
    """Return the whole batches of an epoch. The images left over differ from epoch to epoch."""
    return num_images // batch_size_of(batch_size, num_images)


def training_batches(
    views: EpochViewsManifest,
    layout: Layout,
    labels: Array,
    num_classes: int,
    batch_size: int,
    label_smoothing: float,
    seed: int,
    target: Target = TARGETS["class"],
    fit: Fit = NO_FIT,
) -> tf.data.Dataset:
    """Read epoch after epoch, without end: epoch e reads view 1 + e mod num_views.

    Each epoch has `steps_an_epoch` batches, all of the same size; each image is in at most one of
    them. The images that are left out, fewer than a batch, are the last of an order drawn anew
    for each view, so over the epochs none is preferred.

    Args:
        views: Manifest of the views, each an epoch's.
        layout: How a view is divided into shards.
        labels: Of the training images by position; see `Target.to_array`.
        num_classes: Width of the targets.
        batch_size: Images in each step.
        label_smoothing: Share of a label's weight that is spread over all classes.
        seed: Seed of the order of blocks.
        target: Kind of target, which turns labels into what the loss takes.
        fit: What is known of the targets.

    Returns:
        An endless dataset of (pixels float32 [b, h, w, c] in [0, 255], targets float32
        [b, num_classes]).
    """
    table = tf.constant([[os.fspath(p) for p in paths] for paths in shard_paths(views, layout)])
    all_labels = tf.constant(labels)
    size = batch_size_of(batch_size, layout.num_rows)

    def epoch(number: Any) -> tf.data.Dataset:
        # Of this function's own graph. The seed that the process was given would mix into the
        # order, and with a seed of 0 TensorFlow cannot take another one that is a tensor.
        tf.random.set_seed(GRAPH_SEED)
        files = tf.gather(table, number % views.num_views)
        blocks = read_blocks(files, layout.image_shape)
        shuffled = blocks.shuffle(SHUFFLE_BLOCKS, seed=seed + number)
        return shuffled.rebatch(size, drop_remainder=True)

    # Autograph would take half a second to find nothing to convert.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def finish(pixels: Any, positions: Any) -> tuple[Any, Any]:
        own = tf.gather(all_labels, positions)
        targets = target.to_match(own, num_classes, label_smoothing, fit)
        return tf.cast(tf.ensure_shape(pixels, [size, *layout.image_shape]), tf.float32), targets

    epochs = tf.data.Dataset.range(2**62).flat_map(epoch)
    return epochs.map(finish, num_parallel_calls=1).prefetch(PREFETCH_BATCHES)

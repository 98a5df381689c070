import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.tasks.head.batches import epoch_order, epoch_view
from headstart.tasks.targets.classes import class_weights, smooth_targets


def test_views_rotate_by_epoch() -> None:
    assert [epoch_view(epoch, 3) for epoch in range(5)] == [1, 2, 3, 1, 2]


def test_the_plain_view_is_trained_on_where_there_are_no_others() -> None:
    assert [epoch_view(epoch, 0) for epoch in range(3)] == [0, 0, 0]


def test_orders_differ_by_epoch_and_by_seed() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    targets = smooth_targets(tf.constant([2, 0]), 4, 0.2)
    np.testing.assert_allclose(
        targets, [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]], rtol=1e-6
    )


def test_smoothed_targets_give_the_loss_that_keras_smooths() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    labels = tf.constant([0, 1, 2, 3, 1])
    plain = keras.losses.CategoricalCrossentropy(from_logits=True)
    smoothing = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    ours = plain(smooth_targets(labels, 4, 0.1), logits)
    theirs = smoothing(tf.one_hot(labels, 4), logits)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_class_weights_are_inverse_to_the_counts_and_one_on_average() -> None:
    labels = np.array([0, 0, 0, 1], np.int32)
    np.testing.assert_allclose(class_weights(labels, 2), [4 / 6, 2.0], rtol=1e-6)
    assert class_weights(labels, 2)[labels].mean() == pytest.approx(1.0)

"""Preprocessing layers that are adapted again between training and test rows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.symptoms.adapted import _KINDS, watch_adapts

TRAIN = np.array([f"one two {word}" for word in "abcdefgh" * 4])
TEST = np.array([f"two x {word}" for word in "stuvwxyz" * 4])
NUMBERS = np.arange(40.0, dtype="float32")[:, None]


@pytest.fixture
def program(monkeypatch):
    for name in _KINDS:
        kind = getattr(keras.layers, name)
        for method in ("adapt", "__call__"):
            monkeypatch.setattr(kind, method, getattr(kind, method))
    said, fits = [], [0]
    watch_adapts(said.append, lambda: fits[0])
    return said, fits


def prepare(layer, rows):
    layer.adapt(rows)
    return layer(tf.constant(rows))


@pytest.mark.parametrize(
    ("make", "train", "test"),
    [
        (lambda: keras.layers.TextVectorization(20, output_sequence_length=3), TRAIN, TEST),
        (keras.layers.Normalization, NUMBERS, NUMBERS * 3),
        (lambda: keras.layers.Discretization(num_bins=4), NUMBERS, NUMBERS * 3),
    ],
)
def test_a_layer_that_is_adapted_to_the_test_rows_is_found(program, make, train, test):
    said, _ = program
    layer = make()
    prepare(layer, train)
    assert said == []
    prepare(layer, test)
    prepare(layer, train)
    assert [(one.symptom, one.file) for one in said] == [("adapted-again", __file__)]


def test_layers_that_are_adapted_as_they_should_be_are_passed_over(program):
    said, fits = program
    layer = keras.layers.Normalization()
    prepare(layer, NUMBERS)
    layer(NUMBERS * 3)  # the test rows
    prepare(layer, NUMBERS)  # the same again
    fits[0] += 1
    prepare(layer, NUMBERS * 5)  # another fold
    looked_at = keras.layers.Normalization()
    looked_at.adapt(NUMBERS[:10])
    looked_at(NUMBERS[:2])  # a look at an example
    prepare(looked_at, NUMBERS)
    inside = keras.layers.TextVectorization(20, output_sequence_length=3)
    inside.adapt(TRAIN)
    rows = tf.data.Dataset.from_tensor_slices(TRAIN).batch(32).map(inside)
    inside.adapt(TEST)
    assert len(list(rows)) == 1
    assert said == []

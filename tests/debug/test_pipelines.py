"""Splits that move and random numbers that are drawn once, in pipelines of `tf.data`."""

import random

import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.preflight.moving import moving_split
from headstart.debug.symptoms.pipelines import watch_pipelines

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
RNG = np.random.default_rng(1)
LEGACY = np.random.RandomState(1)


@pytest.fixture
def found(monkeypatch):
    for name in ("shuffle", "map", "take", "skip"):
        monkeypatch.setattr(tf.data.Dataset, name, getattr(tf.data.Dataset, name))
    said = []
    watch_pipelines(said.append)
    return said


def rows():
    return tf.data.Dataset.from_tensor_slices(X)


def given(train, held_out):
    return {"x": train, "validation_data": held_out}


def test_a_split_behind_a_shuffle_is_found_at_the_shuffle(found):
    data = rows().shuffle(40).batch(4)
    data.take(8).prefetch(1), data.skip(8)
    (one,) = found
    assert (one.symptom, one.file) == ("split-moves", __file__)
    assert any(line.startswith(">") and "shuffle(40)" in line for line in one.source_context)


@pytest.mark.parametrize(
    "split",
    [
        lambda data: (data.take(8), data.skip(2)),
        lambda data: (data.shard(2, 0).batch(2), data.shard(2, 1)),
        lambda data: (data.map(lambda x: x).take(8), data.skip(6).batch(3)),
    ],
)
def test_a_fit_with_parts_of_one_shuffled_set_is_found(found, split):
    train, held_out = split(rows().shuffle(40, seed=3))
    (one,) = moving_split(given(train, held_out))
    assert one.symptom == "split-moves"


@pytest.mark.parametrize(
    "split",
    [
        lambda data: (data.take(30).shuffle(30), data.skip(30)),
        lambda data: (
            data.shuffle(40, reshuffle_each_iteration=False).take(30),
            data.shuffle(40, reshuffle_each_iteration=False).skip(30),
        ),
        lambda data: (data.shuffle(40).batch(4), data.batch(4)),
    ],
)
def test_splits_that_stay_are_passed_over(found, split):
    assert moving_split(given(*split(rows()))) == []
    assert found == []


def test_one_order_for_both_parts_is_passed_over(found):
    for data in (rows().shuffle(40, reshuffle_each_iteration=False), rows().shuffle(40).cache()):
        assert moving_split(given(data.take(30), data.skip(30))) == []
    whole = rows().shuffle(40)
    assert moving_split(given(whole.batch(4), whole.batch(8))) == []
    whole.take(1), whole.skip(5)
    assert moving_split({"x": X, "validation_data": (X, X)}) == []
    assert moving_split({"x": X}) == []
    assert found == []


def from_module(x):
    return x + np.random.normal()  # noqa: NPY002


def from_generator(x):
    return x * RNG.uniform(0.5, 1.5)


def from_legacy(x):
    return tf.roll(x, LEGACY.randint(3), 0)


def from_python(x):
    return x if random.random() < 0.5 else -x


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (from_module, "np.random"),
        (from_generator, "RNG"),
        (from_legacy, "LEGACY"),
        (from_python, "random"),
    ],
)
def test_numbers_that_are_drawn_when_a_map_is_traced_are_found(found, function, name):
    rows().map(function)
    (one,) = found
    assert one.symptom == "drawn-once"
    assert f"draws from {name} " in one.cause
    assert one.file == __file__
    assert one.line == function.__code__.co_firstlineno + 1


def test_a_generator_of_an_outer_function_is_known(found):
    rng = np.random.default_rng(2)
    rows().map(lambda x: x + rng.normal())
    assert [one.symptom for one in found] == ["drawn-once"]


def test_numbers_that_are_drawn_at_each_element_are_passed_over(found):
    def noise(x):
        return (x + np.random.normal(size=x.shape)).astype("float32")  # noqa: NPY002

    rows().map(lambda x: x + tf.random.normal(tf.shape(x)))
    rows().map(lambda x: tf.numpy_function(noise, [x], tf.float32))
    shift = np.random.normal()  # noqa: NPY002
    rows().map(lambda x: x + shift)
    for _ in rows().batch(4).map(lambda x: x * 2):
        np.random.normal()  # noqa: NPY002
    assert found == []

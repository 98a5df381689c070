"""Pictures that are flipped while their labels, masks or boxes are not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.callsites import calling_site
from headstart.debug.preflight import augmentation
from headstart.debug.preflight.augmentation import unmoved_targets, watch_flips, watch_layer_flips
from headstart.debug.preflight.facts import facts_of
from headstart.debug.symptoms.own_loops import tracing_site

ROWS, SIZE = 80, 8
RNG = np.random.default_rng(0)
SIDES = RNG.integers(0, 2, ROWS)
ARROWS = RNG.normal(0.0, 0.1, (ROWS, SIZE, SIZE, 1)).astype("float32")
for row, side in enumerate(SIDES):
    ARROWS[row, :, 4 * side : 4 * side + 4] += 1.0
LEVELS = RNG.integers(0, 2, ROWS)
BANDS = RNG.normal(0.0, 0.1, (ROWS, SIZE, SIZE, 1)).astype("float32")
for row, level in enumerate(LEVELS):
    BANDS[row, 4 * level : 4 * level + 4] += 1.0
MASKS = (ARROWS[..., 0] > 0.5).astype("float32")
FLIPPED = np.where((np.arange(ROWS) % 2 == 0)[:, None, None], MASKS, MASKS[:, :, ::-1])


def model_of(loss, units=1, flip=None, is_map=False):
    keras.utils.set_random_seed(0)
    head = [keras.layers.Conv2D(1, 1, activation="sigmoid")] if is_map else [
        keras.layers.Flatten(), keras.layers.Dense(units, "sigmoid" if loss != "mse" else None)
    ]  # fmt: skip
    flips = [keras.layers.RandomFlip(flip)] if flip else []
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), *flips, *head])
    model.compile(loss=loss)
    return model


def found_of(x, y, loss="binary_crossentropy", **made):
    return [one.symptom for one in unmoved_targets(facts_of(model_of(loss, **made), x, y))]


WRONG = ["augmentation-changes-label"]


@pytest.mark.parametrize(
    ("x", "y", "flip", "expected"),
    [
        (ARROWS, SIDES, "horizontal", WRONG),
        (ARROWS, SIDES, "vertical", []),
        (BANDS, LEVELS, "horizontal", []),
        (BANDS, LEVELS, "horizontal_and_vertical", WRONG),
        (ARROWS, SIDES, None, []),
    ],
)
def test_a_flip_is_wrong_where_it_makes_one_class_of_another(x, y, flip, expected):
    assert found_of(x, y, flip=flip) == expected


def test_boxes_and_masks_that_stay_where_they_were_are_found():
    boxes = RNG.random((ROWS, 4)).astype("float32")
    assert found_of(ARROWS, boxes, "mse", units=4, flip="horizontal") == WRONG
    assert found_of(ARROWS, boxes, "mse", units=4) == []
    assert found_of(ARROWS, MASKS[..., None], is_map=True, flip="horizontal") == WRONG


@pytest.fixture
def a_flip_in_a_data_set(monkeypatch):
    monkeypatch.setattr(augmentation, "noted", [])
    for name in augmentation._FUNCTIONS:
        monkeypatch.setattr(tf.image, name, getattr(tf.image, name))
    watch_flips(calling_site)
    tf.image.random_flip_left_right(ARROWS[0])
    with tf.Graph().as_default():  # what decode_image gives has no rank that is known
        tf.image.random_flip_left_right(tf.compat.v1.placeholder(tf.float32))


@pytest.mark.usefixtures("a_flip_in_a_data_set")
def test_masks_are_held_against_pictures_that_a_data_set_flips():
    assert found_of(ARROWS, FLIPPED[..., None], is_map=True) == WRONG
    assert found_of(ARROWS, MASKS[..., None], is_map=True) == []  # flipped together
    (found,) = unmoved_targets(facts_of(model_of("mse", 4), ARROWS, RNG.random((ROWS, 4))))
    assert found.file == __file__
    assert found_of(BANDS, LEVELS) == []


@pytest.fixture
def layers_that_tell(monkeypatch):
    monkeypatch.setattr(augmentation, "noted", [])
    for kind in (keras.layers.RandomFlip, keras.layers.RandomRotation):
        monkeypatch.setattr(kind, "__call__", kind.__call__)
    watch_layer_flips(tracing_site, lambda: False)


@pytest.mark.usefixtures("layers_that_tell")
@pytest.mark.parametrize(
    ("mode", "training", "expected"),
    [("horizontal", True, WRONG), ("vertical", True, []), ("horizontal", False, [])],
)
def test_a_flip_that_a_map_asks_a_layer_for_is_held_against_the_classes(mode, training, expected):
    flip = keras.Sequential([keras.layers.RandomFlip(mode)])
    rows = tf.data.Dataset.from_tensor_slices((ARROWS, SIDES)).batch(8)
    next(iter(rows.map(lambda x, y: (flip(x, training=training), y))))
    found = unmoved_targets(facts_of(model_of("binary_crossentropy"), ARROWS, SIDES))
    assert [one.symptom for one in found] == expected
    assert all(one.file == __file__ for one in found)


@pytest.mark.usefixtures("layers_that_tell")
def test_a_flip_of_the_model_itself_is_not_told_as_a_map_s():
    model = model_of("binary_crossentropy", flip="vertical")
    model(ARROWS, training=True)
    assert [one.made_by for one, _ in augmentation.noted] == [model.layers[0].name]
    assert augmentation._asked_for(facts_of(model, ARROWS, SIDES), ARROWS.shape[1:]) == []

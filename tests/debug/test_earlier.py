"""Folds that begin with weights which were trained on the rows that they hold out."""

import keras
import numpy as np
import pytest

from headstart.debug.symptoms.earlier import EarlierRows
from headstart.debug.symptoms.overlaps import keys_of

X = np.random.default_rng(0).normal(size=(90, 4)).astype("float32")
FOLDS = np.split(np.arange(90), 3)


def model_of(layers=None):
    model = keras.Sequential([keras.Input((4,)), *(layers or [keras.layers.Dense(1)])])
    model.compile("sgd", "mse")
    return model


def found_of(make, by_evaluate=True, tests_on_training=False):
    earlier = EarlierRows()
    for place in range(3):
        model = make()
        test = FOLDS[place]
        train = np.setdiff1d(np.arange(90), test)
        given = {} if by_evaluate else {"x": X[train], "validation_data": (X[test], test)}
        earlier.on_fit(model, given, set(keys_of(X[train])), None)
        if by_evaluate:
            earlier.on_evaluate(model, X[train] if tests_on_training else X[test])
    return [one.symptom for one in earlier.found]


@pytest.mark.parametrize("by_evaluate", [True, False])
def test_folds_that_share_weights_are_found(by_evaluate):
    layers, model = [keras.layers.Dense(1)], model_of()
    assert found_of(lambda: model_of(layers), by_evaluate) == ["tested-on-earlier-rows"]
    assert found_of(lambda: model, by_evaluate) == ["tested-on-earlier-rows"]
    assert found_of(model_of, by_evaluate) == []


def test_an_evaluation_of_what_was_just_trained_on_is_passed_over():
    model = model_of()
    assert found_of(lambda: model, tests_on_training=True) == []


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_pretrained_encoder_that_is_built_anew_and_frozen_is_found(is_kept):
    def encoder_of():
        return keras.Sequential([keras.Input((4,)), *map(keras.layers.Dense, (5, 3))])

    earlier, encoder = EarlierRows(), encoder_of()
    for layer in encoder.layers:
        layer.bias.assign(layer.bias + 1.0)  # trained
    earlier.on_fit(model_of([encoder, keras.layers.Dense(4)]), {}, set(), None)
    frozen = encoder if is_kept else encoder_of()
    frozen.trainable = False
    earlier.on_fit(model_of([frozen, keras.layers.Dense(1)]), {}, set(), None)
    assert [one.symptom for one in earlier.found] == ["frozen-untrained-layers"] * (not is_kept)

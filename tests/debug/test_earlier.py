"""Folds that begin with weights which were trained on the rows that they hold out."""

import gc

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
        earlier.on_begin(model)
        given = {} if by_evaluate else {"x": X[train], "validation_data": (X[test], test)}
        earlier.on_fit(model, given, set(keys_of(X[train])), None)
        if by_evaluate:
            earlier.on_evaluate(model, X[train] if tests_on_training else X[test])
    assert all(one.severity == "warning" for one in earlier.found)
    return [one.symptom for one in earlier.found]


@pytest.mark.parametrize("by_evaluate", [True, False])
def test_folds_that_share_weights_are_found(by_evaluate):
    layers, model = [keras.layers.Dense(1)], model_of()
    assert found_of(lambda: model_of(layers), by_evaluate) == ["tested-on-earlier-rows"]
    assert found_of(lambda: model, by_evaluate) == ["tested-on-earlier-rows"]
    assert found_of(model_of, by_evaluate) == []


def test_folds_whose_weights_are_set_back_are_passed_over():
    model = model_of()
    initial = model.get_weights()

    def set_back():
        model.set_weights(initial)
        return model

    def trained():  # what a fit leaves behind is what the next one finds
        return model

    earlier = EarlierRows()
    for make in (set_back, trained):
        for place in range(3):
            earlier.on_call("fit", make(), X)
            model.layers[0].kernel.assign_add(np.ones((4, 1)))
            earlier.on_fit(
                model, {}, set(keys_of(X[np.setdiff1d(np.arange(90), FOLDS[place])])), None
            )
            earlier.on_call("evaluate", model, X[FOLDS[place]])
        assert bool(earlier.found) == (make is trained)


def test_of_many_fits_one_set_of_rows_is_kept_and_no_model(monkeypatch):
    monkeypatch.setattr("headstart.debug.symptoms.earlier.MAX_ROWS", 50)
    earlier, model = EarlierRows(), model_of()
    for number in range(30):
        earlier.on_fit(model, {}, {10 * number + place for place in range(10)}, None)
    (known,) = earlier._known.values()
    assert known.before == set(range(50))
    del model
    gc.collect()
    assert known.variable() is None


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
    found = [(one.symptom, one.severity) for one in earlier.found]
    assert found == [("frozen-untrained-layers", "warning")] * (not is_kept)


def test_rows_that_a_pretraining_saw_without_their_labels_are_passed_over():
    shared, earlier = keras.layers.Dense(4), EarlierRows()
    encoder, classifier = model_of([shared]), model_of([shared, keras.layers.Dense(1)])
    train, test = FOLDS[0], FOLDS[1]
    earlier.on_begin(encoder)
    earlier.on_fit(encoder, {"x": X, "y": X}, set(keys_of(X)), None)
    earlier.on_begin(classifier)
    given = {"x": X[train], "y": train.astype("float32")}
    earlier.on_fit(classifier, given, set(keys_of(X[train])), None)
    earlier.on_evaluate(classifier, X[test])
    assert earlier.found == []

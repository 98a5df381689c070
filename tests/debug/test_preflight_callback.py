"""The preflight inside fit: it tells, it stops what is hopeless, and it changes nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.preflight.beforehand import Beforehand
from headstart.debug.preflight.callback import Preflight
from headstart.errors import TrainingError
from tests.documented import documented

SPARSE = "sparse_categorical_crossentropy"
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 256)
X = (0.3 * RNG.normal(size=(256, 12)) + 0.3 * Y[:, None]).astype(np.float32)
pytestmark = pytest.mark.filterwarnings("ignore:.*logits.*softmax:UserWarning")


def _fit(*callbacks, x=X, y=Y, loss=SPARSE, **compiled):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input([12]), keras.layers.Dense(8, activation="relu"),
        keras.layers.Dropout(0.5, seed=1), keras.layers.BatchNormalization(),
        keras.layers.Dense(3, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False, **compiled)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    history = model.fit(data, epochs=2, verbose=0, shuffle=False, callbacks=list(callbacks))
    return history.history, model


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_healthy_training_is_silent_and_the_same_to_the_bit(steps_per_execution):
    preflight = Preflight()
    checked, model = _fit(preflight, steps_per_execution=steps_per_execution)
    assert preflight.diagnoses == []
    assert type(model.train_function).__name__ != "StepTap"
    plain, _ = _fit(steps_per_execution=steps_per_execution)
    assert checked == plain


def test_labels_out_of_range_end_the_training_before_its_first_step():
    preflight = Preflight()
    with pytest.raises(TrainingError, match="0 to 2 are allowed"):
        _fit(preflight, y=Y + 1)
    assert preflight.diagnoses[0].symptom == "label-out-of-range"


def test_a_doubtful_finding_is_told_and_training_goes_on():
    preflight = Preflight()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    history, _ = _fit(preflight, loss=loss)
    (found,) = preflight.diagnoses
    assert (found.symptom, found.file) == ("softmax-with-from-logits", __file__)
    assert len(history["loss"]) == 2


def test_what_cannot_come_to_anything_is_said_before_the_training(capsys):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    _fit(Beforehand({}), loss=loss)
    said = capsys.readouterr().err
    assert "before the training: The model ends in a softmax" in said
    plain, _ = _fit()
    looked_at, model = _fit(Beforehand({}))
    assert looked_at == plain
    assert capsys.readouterr().err == ""
    assert type(model.train_function).__name__ != "StepTap"


def test_a_model_that_is_not_built_is_left_to_its_own_first_batch():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[Beforehand({"x": X, "y": Y})])
    assert type(model.train_function).__name__ != "StepTap"
    plain = keras.Sequential([keras.layers.Dense(3)])
    plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    plain.fit(X, Y, batch_size=8, verbose=0)
    assert model.input_shape == plain.input_shape


def test_sorted_labels_are_seen_in_the_first_steps():
    preflight = Preflight()
    order = np.argsort(Y)
    _fit(preflight, x=X[order], y=Y[order])
    assert [found.symptom for found in preflight.diagnoses] == ["not-shuffled"]


def test_the_callbacks_of_the_documentation_find_what_is_wrong(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(documented("debugging.md", 1), names)
    assert "softmax" in capsys.readouterr().out
    assert names["profiler"].summary.num_steps == 3
    assert names["recorder"].bundle is None  # nothing failed

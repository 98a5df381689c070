"""The preflight finds what costs hours, and leaves model and healthy data alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.preflight.run import preflight
from headstart.debug.running.first_fit import FirstFitSpec, at_first_fit
from headstart.errors import ConfigError, HeadstartError

SPARSE = "sparse_categorical_crossentropy"
# The checks make losses and layers do what Keras itself warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*(logits|softmax over axis):UserWarning")


def _data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 256)
    x = 0.3 * rng.normal(size=(256, 6, 6, 1)) + 0.3 * y[:, None, None, None]
    return x.astype(np.float32), y


def _model(*layers, loss=SPARSE, optimizer="adam", last="softmax", units=3):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.layers.Flatten(), keras.layers.Dense(8, activation="relu"), *layers,
        keras.layers.Dense(units, activation=last),
    ])  # fmt: skip
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    return model


def _symptoms(model, data, **more):
    return [found.symptom for found in preflight(model, data, **more)]


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = _data()
SORTED = np.argsort(Y)


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        ({}, (X, Y), []),
        ({"last": None, "loss": LOGITS}, (X, Y), []),
        ({"layers": [keras.layers.BatchNormalization()]}, (X, Y), []),
        ({"loss": "categorical_crossentropy"}, (X, np.eye(3)[Y]), []),
        ({}, (X, Y + 1), ["label-out-of-range"]),
        ({}, (X, np.eye(3)[Y]), ["label-format"]),
        ({"loss": "categorical_crossentropy"}, (X, Y), ["label-format"]),
        ({"loss": "categorical_crossentropy"}, (X, np.eye(4)[Y + 1]), ["label-columns"]),
        ({"loss": LOGITS}, (X, Y), ["softmax-with-from-logits"]),
        ({"last": None}, (X, Y), ["logits-without-from-logits"]),
        ({"units": 1, "loss": "binary_crossentropy"}, (X, Y > 0), ["softmax-on-one-unit"]),
        ({}, (np.abs(X) * 100 + 50, Y), ["unscaled-input"]),
        ({}, (np.where(X > 1.2, np.nan, X), Y), ["nan-in-data"]),
        ({"optimizer": keras.optimizers.SGD(1e5)}, (X, Y), ["learning-rate-too-high"]),
    ],
)
def test_fault_is_found_and_healthy_model_passes(model, data, expected):
    layers = model.pop("layers", [])
    found = _symptoms(_model(*layers, **model), data)
    assert found[: max(1, len(expected))] == expected


def test_sorted_dataset_is_found_and_shuffled_one_passes():
    data = tf.data.Dataset.from_tensor_slices((X[SORTED], Y[SORTED]))
    assert _symptoms(_model(), data.batch(32)) == ["not-shuffled"]
    assert _symptoms(_model(), data.shuffle(256, seed=0).batch(32)) == []
    assert _symptoms(_model(), (X[SORTED], Y[SORTED])) == []  # fit shuffles arrays itself


def test_leaked_rows_are_counted():
    model = _model()
    (found,) = preflight(model, (X[:200], Y[:200]), validation=(X[190:], Y[190:]))
    assert found.symptom == "validation-on-training-rows"
    assert found.evidence["share"] == pytest.approx(10 / 66)
    assert _symptoms(model, (X[:200], Y[:200]), validation=(X[200:], Y[200:])) == []


def test_cut_gradient_is_named():
    class Cut(keras.layers.Layer):
        def call(self, x):
            return tf.stop_gradient(x)

    found = preflight(_model(Cut()), (X, Y))[0]
    assert found.symptom == "missing-gradient"
    assert "dense" in found.layer


def test_model_of_dead_units_cannot_overfit():
    model = keras.Sequential([
        keras.Input([6, 6, 1]), keras.layers.Flatten(), keras.layers.Dense(8, "relu"),
        keras.layers.Dense(3, "softmax", use_bias=False),
    ])  # fmt: skip
    model.layers[1].bias.assign(np.full(8, -100.0))
    model.compile("adam", SPARSE, jit_compile=False)
    assert _symptoms(model, (X, Y)) == ["cannot-overfit"]


def test_batch_normalization_in_the_wrong_mode_is_named():
    class AlwaysTraining(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def call(self, x):
            return self.norm(x, training=True)

    found = preflight(_model(AlwaysTraining()), (X, Y))[0]
    assert found.symptom == "batchnorm-mode"


def test_input_range_of_a_known_backbone_is_held_against_it():
    backbone = keras.applications.MobileNetV2(
        [32, 32, 3], weights=None, include_top=False, pooling="avg", alpha=0.35
    )
    backbone.trainable = False
    model = keras.Sequential(
        [keras.Input([32, 32, 3]), backbone, keras.layers.Dense(3, activation="softmax")]
    )
    model.compile("adam", SPARSE, jit_compile=False)
    pixels = np.random.default_rng(0).random((32, 32, 32, 3), np.float32)
    assert "input-scale" not in _symptoms(model, (pixels * 2 - 1, Y[:32]))
    assert _symptoms(model, (pixels * 255, Y[:32]))[0] == "input-scale"
    assert _symptoms(model, (pixels, Y[:32]))[0] == "input-scale"


def test_training_after_the_preflight_is_what_it_was_without():
    model = _model(keras.layers.Dropout(0.5, seed=1))
    model.build([None, 6, 6, 1])
    weights = [w.copy() for w in model.get_weights()]
    assert preflight(model, (X, Y)) == []
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    checked = model.fit(X, Y, epochs=1, verbose=0, shuffle=False).history["loss"]
    other = _model(keras.layers.Dropout(0.5, seed=1))
    other.build([None, 6, 6, 1])
    assert other.fit(X, Y, epochs=1, verbose=0, shuffle=False).history["loss"] == checked


def test_data_without_a_batch_is_an_error():
    with pytest.raises(ConfigError, match="no training data"):
        preflight(_model(), [])


def test_script_is_checked_at_its_first_fit(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nimport keras\nimport numpy as np\n"
        "x, y = np.random.default_rng(0).random((64, 4)), np.full(64, int(sys.argv[1]))\n"
        "model = keras.Sequential([keras.layers.Dense(2, activation='softmax')])\n"
        f"model.compile('adam', '{SPARSE}')\n"
        "model.fit(x, y, verbose=0)\n"
        "raise SystemExit('never reached')\n"
    )
    found = at_first_fit(FirstFitSpec(str(script), ("5",), "check", ""))["diagnoses"][0]
    assert (found["symptom"], found["line"]) == ("label-out-of-range", 7)
    assert found["file"] == str(script)


def test_script_that_never_fits_is_an_error(tmp_path):
    script = tmp_path / "nothing.py"
    script.write_text("print('nothing to do')\n")
    with pytest.raises(HeadstartError, match="did not call fit"):
        at_first_fit(FirstFitSpec(str(script), (), "check", ""))


def test_a_column_that_gives_the_target_away_is_found():
    x = np.random.default_rng(1).normal(size=(256, 4)).astype(np.float32)
    assert "target-leakage" not in _symptoms(_model(), (x, Y))
    x[:, 2] = 5 * Y
    assert "target-leakage" in _symptoms(_model(), (x, Y))

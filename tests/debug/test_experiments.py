"""What a model does with a few rows tells why it learnt nothing from all of them."""

import keras
import numpy as np
import pytest

from headstart.debug.preflight.experiments import one_batch
from headstart.debug.preflight.facts import facts_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("float32")


def found_of(optimizer="adam", x=X, **made):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, "relu", **made), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(optimizer, "binary_crossentropy", jit_compile=False)
    before = model.get_weights()
    found = one_batch(facts_of(model, x, Y), num_steps=100)
    for value, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)
    return [one.symptom for one in found]


@pytest.mark.parametrize(
    ("made", "symptoms"),
    [
        ({}, []),
        ({"optimizer": keras.optimizers.Adam(3e-5)}, ["learning-rate-too-low"]),
        ({"kernel_initializer": "zeros"}, ["odd-initialisation"]),
        ({"x": X * 1e-5}, ["unscaled-input"]),
        ({"x": X * 0.0}, ["cannot-overfit"]),
    ],
)
def test_what_helps_tells_the_cause(made, symptoms):
    assert found_of(**made) == symptoms

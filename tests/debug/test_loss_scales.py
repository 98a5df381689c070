"""Steps of a LossScaleOptimizer whose loss was not scaled."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.symptoms.loss_scales import watch_loss_scales

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Kind = keras.optimizers.LossScaleOptimizer


@pytest.fixture
def found(monkeypatch):
    for name in ("scale_loss", "apply"):
        monkeypatch.setattr(Kind, name, getattr(Kind, name))
    said = []
    watch_loss_scales(said.append)
    return said


def model_of():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


@pytest.mark.parametrize("is_traced", [True, False])
@pytest.mark.parametrize("is_scaled", [True, False])
def test_an_own_loop_must_scale_its_loss(found, is_traced, is_scaled):
    model, optimizer = model_of(), Kind(keras.optimizers.Adam())

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x) ** 2)
            if is_scaled:
                loss = optimizer.scale_loss(loss)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    step = tf.function(step) if is_traced else step
    for _ in range(3):
        step(X)
    assert [one.symptom for one in found] == ([] if is_scaled else ["loss-not-scaled"])
    assert all(one.file == __file__ for one in found)


def test_a_fit_scales_its_loss_itself(found):
    model = model_of()
    model.compile(Kind(keras.optimizers.SGD()), "mse")
    model.fit(X, X[:, :1], verbose=0)
    assert found == []


def test_a_step_of_ones_own_inside_fit_must_scale_too(found):
    class Own(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x))
            weights = self.trainable_variables
            gradients = tape.gradient(loss, weights)
            self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
            return {"loss": loss}

    model = Own([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(Kind(keras.optimizers.SGD()), "mse")
    model.fit(X, X[:, :1], verbose=0)
    assert [one.symptom for one in found] == ["loss-not-scaled"]

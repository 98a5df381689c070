"""What counts as the sign of a numerical fault, and what is meant."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.running.signs import _never_updated, bad_variables, sign_callback
from headstart.debug.running.watch import Watch

X = np.ones((8, 2), "float32")


class Noted:
    """Keeps signs, where the watch would end the program."""

    def __init__(self):
        self.signs = []

    def note(self, sign, model=None):
        self.signs.append(sign)


@pytest.mark.parametrize(("value", "is_sign"), [(np.nan, True), (-np.inf, False), (1.0, False)])
def test_a_prediction_of_nan_is_a_sign_and_a_mask_of_inf_is_none(value, is_sign):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * value)])
    noted = Noted()
    model.predict(X, verbose=0, callbacks=[sign_callback(noted)])
    assert [sign.where for sign in noted.signs] == ["result"] * is_sign


def test_a_variable_of_nan_is_bad_and_one_of_inf_is_meant():
    living = [
        tf.Variable(np.triu(np.full((3, 3), -np.inf), 1), name="inf_as_a_mask", trainable=False),
        tf.Variable(np.inf, name="inf_as_the_best"),
        tf.Variable([np.nan], name="nan_by_mistake"),
    ]
    found = {name.split(":")[0] for name in bad_variables()}  # of other tests as well
    assert {one for one in found if one.startswith(("inf_as", "nan_by"))} == {"nan_by_mistake"}
    del living


def test_an_optimizer_that_a_step_of_ones_own_never_asks_was_not_skipped():
    class Own(keras.Sequential):
        def train_step(self, data):
            return {"loss": tf.reduce_mean(self(data[0]))}

    for kind, is_skipped in ((Own, False), (keras.Sequential, True)):
        model = kind([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
        assert _never_updated(model, 10) is is_skipped  # not one of ten steps was applied
        assert _never_updated(model, 2) is False


def test_steps_that_are_added_up_are_not_skipped():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    inner = keras.optimizers.SGD(gradient_accumulation_steps=8)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    model.fit(X, X[:, :1], batch_size=2, verbose=0)
    assert _never_updated(model, 4) is False


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("trains", [True, False])
def test_inf_of_what_is_no_training_step_is_meant(value, trains):
    watch, noted = Watch(with_rules=False), Noted()
    watch.note = noted.note
    weight = tf.Variable(1.0)

    @tf.function
    def measure(x):
        with tf.GradientTape() as tape:
            loss = x * weight
        if trains:
            watch._loops.on_gradient(weight, tape.gradient(loss, weight))
        return loss

    result = measure(tf.constant(value, tf.float32))
    watch._loops.on_call(measure)
    watch._check_result(measure, result)
    assert len(noted.signs) == (trains or np.isnan(value))


@pytest.mark.parametrize(("name", "is_sign"), [("loss:0", True), ("best:0", False)])
def test_inf_that_a_session_fetches_is_a_sign_of_the_loss_alone(name, is_sign):
    watch, noted = Watch(with_rules=False), Noted()
    watch.note, watch._sessions.loss_name = noted.note, "loss:0"
    watch._check_fetched([name], [np.float32(np.inf)])
    assert len(noted.signs) == is_sign
    watch._check_fetched([name], [np.float32(np.nan)])
    assert len(noted.signs) == is_sign + 1

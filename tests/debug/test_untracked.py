"""A tf.Variable that is an attribute of a Keras model is known to TensorFlow, and not to Keras."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.fit_data import judge_fit
from headstart.debug.preflight.training import nothing_to_train
from headstart.debug.preflight.untracked import partly_tracked
from headstart.debug.running.ladder import linked
from headstart.debug.running.own_training import OwnTraining
from headstart.debug.running.watch import Watch

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
TABLE = np.random.default_rng(1).normal(size=(4, 4)).astype("float32")
LINES = Path(__file__).read_text().splitlines()


class Line(keras.Model):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(5.0)  # of Line

    def call(self, x):
        return self.w * x


class InAList(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = [tf.Variable(tf.random.normal((4, 4)))]  # of InAList

    def call(self, x):
        return x @ self.parts[0]


class Module(tf.Module):
    def __init__(self):
        self.kernel = tf.Variable(tf.random.normal((4, 4)))  # of Module
        self.parent = self


class WithModule(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = Module()

    def call(self, x):
        return x @ self.inner.kernel


class Mine(keras.layers.Layer):
    def build(self, shape):
        self.kernel = tf.Variable(tf.random.normal((shape[-1], 4)))  # of Mine

    def call(self, x):
        return x @ self.kernel


class Tutorial(Mine):
    def build(self, shape):
        self.dense = keras.layers.Dense(4)
        draw = tf.random_normal_initializer()
        self.w = tf.Variable(initial_value=draw((shape[-1], 4)))  # of Tutorial
        self.b = tf.Variable(tf.zeros(4))

    def call(self, x):
        return self.dense(x @ self.w + self.b)


class Asked(Mine):
    def build(self, shape):
        self.dense = keras.layers.Dense(4)
        self.table = tf.Variable(TABLE, trainable=True)  # of Asked

    def call(self, x):
        return self.dense(x @ self.table)


class Mel(Mine):
    def build(self, shape):
        self.weight_matrix = tf.Variable(
            tf.signal.linear_to_mel_weight_matrix(4, 4, 8000, 9.0, 3800.0)
        )

    def call(self, x):
        return x @ self.weight_matrix


class Glove(Mine):
    def build(self, shape):
        table = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
        table[2] = TABLE[1]
        self.embeddings = tf.Variable(table)

    def call(self, x):
        return x @ self.embeddings


class Given(Mine):
    def build(self, shape):
        self.kernel = tf.Variable(TABLE)


class Waves(Mine):
    def call(self, x):
        return tf.cos(x @ self.kernel)

    def build(self, shape):
        self.kernel = tf.Variable(tf.random.normal((shape[-1], 4)))


class RandomProjection(Mine):
    def build(self, shape):
        self.kernel = tf.Variable(tf.random.normal((shape[-1], 4)))


class Projected(Mine):
    def build(self, shape):
        self.dense = keras.layers.Dense(4)
        self.basis = tf.Variable(tf.random.normal((shape[-1], 4)))

    def call(self, x):
        return self.dense(x @ self.basis)


class Averaged(Mine):
    def build(self, shape):
        self.book = tf.Variable(tf.random.normal((shape[-1], 4)))

    def call(self, x):
        self.book.assign(0.9 * self.book)
        return x @ self.book


class Fixed(Mine):
    def build(self, shape):
        self.features = tf.Variable(tf.random.normal((shape[-1], 4)), trainable=False)
        self.scale = tf.Variable(2.0)
        self.unused = tf.Variable(tf.random.normal((4, 4)))
        self.counts = tf.Variable([[1.0, 2.0]])
        self.own = self.add_weight(shape=(4, 4))

    def call(self, x):
        return self.scale * x @ self.features @ self.own * tf.reduce_sum(self.counts)


def line_of(name):
    return next(n for n, line in enumerate(LINES, start=1) if line.endswith(f"# of {name}"))


@pytest.mark.parametrize(
    ("kind", "name"), [(Line, "Line"), (InAList, "InAList"), (WithModule, "Module")]
)
def test_a_model_that_keras_knows_no_variable_of_is_told_at_the_variable(kind, name):
    model = kind()
    model.compile(loss="mse", optimizer="sgd")
    model(X)
    (found,) = judge_fit(model, {"x": X, "y": X}).found
    assert (found.symptom, found.line) == ("variables-not-tracked", line_of(name))
    own = OwnTraining()
    own.on_call(model, X, None)
    assert [one.line for one in own.nothing_tracked()] == [line_of(name)]


def model_with(layer):
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
    model.compile(loss="mse", optimizer="sgd")
    return model


@pytest.mark.parametrize(("kind", "is_drawn"), [(Mine, True), (Tutorial, True), (Asked, False)])
def test_weights_that_are_left_out_beside_others_are_told(kind, is_drawn):
    (found,) = partly_tracked(facts_of(model_with(kind()), X, X[:, :1]))
    assert (found.symptom, found.line) == ("variables-not-tracked", line_of(kind.__name__))
    assert ("random initial values" in found.cause) == is_drawn


@pytest.mark.parametrize("kind", [Mel, Glove, Given, Waves, RandomProjection, Projected])
def test_tables_and_random_features_that_are_meant_to_stay_are_passed_over(kind):
    assert partly_tracked(facts_of(model_with(kind()), X, X[:, :1])) == []


@pytest.mark.parametrize("layer", [Averaged(), Fixed(), keras.layers.Dense(4)])
def test_variables_that_the_program_sets_or_that_are_no_weights_are_passed_over(layer):
    model = model_with(layer)
    assert partly_tracked(facts_of(model, X, X[:, :1])) == []
    assert nothing_to_train(model) == []


def test_a_loop_over_no_variables_is_told_why():
    watch, model = Watch(with_rules=True), Line()
    output = model(X)
    watch._own.on_call(model, X, output)
    watch._look_for_none(output, model.trainable_variables, [])
    assert [one.symptom for one in watch._found] == ["variables-not-tracked"]
    ended = Diagnosis(
        symptom="exception",
        cause="ValueError: not enough values to unpack (expected 2, got 0)",
        severity="ended",
    )
    assert linked([ended, *watch._found])[0].caused_by == "variables-not-tracked"
    plain = Watch(with_rules=True)
    plain._look_for_none(output, [], [None])
    assert [one.symptom for one in plain._found] == ["no-gradient"]

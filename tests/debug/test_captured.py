"""What a tf.function keeps of the time when it was traced, and losses out of proportion."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.symptoms.captured import Captured
from headstart.debug.symptoms.graph_rules import check_graph

X = tf.constant(np.random.default_rng(0).normal(size=(8, 4)).astype("float32"))


def network():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def found_of(is_passed=False, is_made_anew=False, is_replaced=True):
    captured, model = Captured(), network()

    def make():
        @tf.function
        def step(x):
            return tf.reduce_mean(model(x))

        @tf.function
        def step_of(model, x):
            return tf.reduce_mean(model(x))

        return step_of if is_passed else step

    step = make()
    for turn in range(2):
        for _ in range(2):
            step(*([model] if is_passed else []), X)
            captured.on_call(step)
        if turn == 0 and is_replaced:
            model = network()
            step = make() if is_made_anew else step
    return [one.symptom for one in captured.found.values()]


def test_a_function_that_keeps_the_first_network_is_found():
    assert found_of() == ["network-captured"]


@pytest.mark.parametrize("healthy", ["is_passed", "is_made_anew"])
def test_a_function_for_each_network_is_passed_over(healthy):
    assert found_of(**{healthy: True}) == []


def test_one_network_that_stays_is_passed_over():
    assert found_of(is_replaced=False) == []


size = 64


class Agent(tf.Module):
    """Has a network called target, as agents of Q-learning do, and a number its step reads."""

    def __init__(self):
        super().__init__()
        self.target, self.rate = tf.Variable(1.0), 0.5

    def step(self, x):
        return self.rate * tf.reduce_mean(x) + tf.cast(tf.size(x), tf.float32)

    @property
    def variables(self):
        raise AssertionError("a stranger's property is read")


Agent.__module__ = "__main__"


def test_an_attribute_is_not_taken_for_the_global_of_its_name(monkeypatch):
    captured = Captured()

    @tf.function
    def step(x):
        return tf.size(x)

    for now in (64, 96):
        monkeypatch.setitem(globals(), "size", now)
        step(X)
        captured.on_call(step)
    assert captured.found == {}


def test_an_object_with_a_target_is_the_owner_of_its_step_itself():
    captured, agent = Captured(), Agent()
    step = tf.function(agent.step)
    for rate in (0.5, 0.25):
        agent.rate = rate
        step(X)
        captured.on_call(step)
    assert [one.symptom for one in captured.found.values()] == ["python-value-captured"]


def test_a_function_that_nobody_needs_is_let_go_of():
    captured, model = Captured(), network()
    step = tf.function(lambda x: model(x))
    step(X)
    captured.on_call(step)
    kept = weakref.ref(step)
    del step
    gc.collect()
    assert kept() is None


PIXELS, LATENT = tf.TensorSpec([None, 28, 28, 1]), tf.TensorSpec([None, 2])
bce = keras.losses.binary_crossentropy


def divergence(mean, log_var):
    return -0.5 * (1 + log_var - tf.square(mean) - tf.exp(log_var))


def summed(mean, log_var):
    return tf.reduce_mean(tf.reduce_sum(divergence(mean, log_var), axis=1))


def mean_and_sum(x, y, mean, log_var):
    return tf.reduce_mean(tf.square(x - y)) + summed(mean, log_var)


def mean_of_keras(x, y, mean, log_var):
    return keras.losses.MeanSquaredError()(x, y) + summed(mean, log_var)


def entropies(x, y, mean, log_var):
    return tf.reduce_mean(bce(x, y)) + tf.reduce_sum(divergence(mean, log_var))


def both_summed(x, y, mean, log_var):
    return tf.reduce_mean(tf.reduce_sum(bce(x, y), axis=(1, 2))) + summed(mean, log_var)


def both_mean(x, y, mean, log_var):
    return tf.reduce_mean(tf.square(x - y)) + tf.reduce_mean(divergence(mean, log_var))


def scaled_up(x, y, mean, log_var):
    return 784.0 * tf.reduce_mean(tf.square(x - y)) + summed(mean, log_var)


def weighted(x, y, mean, log_var):
    return tf.reduce_mean(tf.square(x - y)) + 1e-3 * summed(mean, log_var)


def penalised(x, y, mean, log_var):
    return tf.reduce_mean(tf.square(x - y)) + 0.5 * tf.reduce_sum(tf.square(mean))


@pytest.mark.parametrize(
    ("loss", "is_wrong"),
    [(mean_and_sum, True), (mean_of_keras, True), (entropies, True), (both_summed, False),
     (both_mean, False), (scaled_up, False), (weighted, False), (penalised, False)],
)  # fmt: skip
def test_a_mean_against_a_sum_is_found(loss, is_wrong):
    graph = tf.function(loss).get_concrete_function(PIXELS, PIXELS, LATENT, LATENT).graph
    found = [one.symptom for one in check_graph(graph)]
    assert found == ["mean-against-sum"] * is_wrong

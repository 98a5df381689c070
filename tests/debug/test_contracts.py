"""Contracts hold eagerly, inside tf.function and in Keras layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.contracts import (
    check_dtype,
    check_finite,
    check_labels,
    check_logits,
    check_probabilities,
    check_range,
    check_shape,
    contract,
)
from tests.documented import documented

# TensorFlow's variables do not know NumPy 2's copy keyword yet; Keras copies them when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

REJECTED = (ValueError, tf.errors.InvalidArgumentError)


def _call(check, value, is_graph):
    if not is_graph:
        return check(tf.constant(value))
    value = np.asarray(value)
    spec = tf.TensorSpec([None] * value.ndim, value.dtype)
    return tf.function(check, input_signature=[spec], autograph=False)(value)


@pytest.mark.parametrize("is_graph", [False, True])
@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (lambda t: check_shape(t, "n n"), np.ones((3, 3)), np.ones((3, 4))),
        (lambda t: check_shape(t, (2, None)), np.ones((2, 9)), np.ones((3, 9))),
        (lambda t: check_shape(t, "... c", {"c": 3}), np.ones((5, 4, 3)), np.ones((5, 4, 2))),
        (lambda t: check_shape(t, "batch 3"), np.ones((2, 3)), np.ones((2, 3, 1))),
        (lambda t: check_range(t, 0.0, 1.0), np.array([0.0, 1.0]), np.array([0.0, 1.01])),
        (lambda t: check_range(t, 0.0, 1.0), np.array([0.5]), np.array([np.nan])),
        (check_finite, np.array([1.0, -1.0]), np.array([1.0, np.inf])),
        (check_finite, np.array([1, 2]), None),
        (lambda t: check_labels(t, 3), np.array([0, 2]), np.array([0, 3])),
        (lambda t: check_labels(t, 3), np.array([0.0, 2.0]), np.array([0.5])),
        (lambda t: check_labels(t, 3), np.array([1]), np.array([-1])),
        (check_probabilities, np.array([[0.25, 0.75]]), np.array([[0.25, 0.7]])),
        (check_probabilities, np.array([[1.0, 0.0]]), np.array([[2.0, -1.0]])),
        (check_logits, np.array([[2.0, -1.0]]), np.array([[0.25, 0.75]])),
    ],
)
def test_check_passes_good_values_on_and_rejects_bad_ones(check, good, bad, is_graph):
    np.testing.assert_array_equal(_call(check, good, is_graph), good)
    if bad is not None:
        with pytest.raises(REJECTED):
            _call(check, bad, is_graph)


def test_dtype_is_checked_while_tracing():
    assert check_dtype(tf.constant(1), tf.int32).dtype == tf.int32
    with pytest.raises(TypeError, match=r"must have dtype float32.*Received: int32"):
        tf.function(lambda t: check_dtype(t, "float32", "pixels"))(tf.constant(1))


def test_message_says_what_was_expected_and_received():
    with pytest.raises(ValueError, match=r"images must have shape \[batch 8 8 3\]") as error:
        check_shape(tf.ones([2, 8, 9, 3]), "batch 8 8 3", name="images")
    assert "(2, 8, 9, 3)" in str(error.value)


def test_contract_ties_names_between_inputs_and_output():
    @contract(inputs={"x": "batch features", "w": "features units"}, output="batch units")
    def project(x, w):
        return tf.matmul(x, w)

    assert project(tf.ones([2, 3]), tf.ones([3, 4])).shape == (2, 4)
    with pytest.raises(ValueError, match="w of project"):
        project(tf.ones([2, 3]), tf.ones([5, 4]))


def test_contract_checks_sizes_known_only_when_the_graph_runs():
    @contract(inputs="batch 3", output="batch 3")
    def halve(x):
        return x[: tf.shape(x)[0] // 2]

    graph = tf.function(halve, input_signature=[tf.TensorSpec([None, 3])], autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="result of halve"):
        graph(tf.ones([4, 3]))


def test_contract_on_a_layer_class_holds_in_fit():
    @contract(inputs="batch 4", output="batch 4", output_range=(0.0, 10.0))
    class Logarithm(keras.layers.Layer):
        def call(self, x):
            return tf.math.log(x)

    model = keras.Sequential([Logarithm(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    good = np.full((4, 4), 2.0, np.float32)
    model.fit(good, np.ones((4, 1)), verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="result of Logarithm"):
        model.fit(good * 0.0, np.ones((4, 1)), verbose=0)


def test_contract_on_a_layer_instance_keeps_the_model_savable(tmp_path):
    layer = contract(output="batch 2")(keras.layers.Dense(2))
    model = keras.Sequential([keras.Input([3]), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))


def test_the_examples_of_the_page_do_what_they_say(capsys):
    namespace = {}
    for block in (
        documented("contracts.md", 0),
        documented("contracts.md", 1),
        documented("contracts.md", 2),
    ):
        exec(block, namespace)
    assert "keys of scores must have shape [batch m width]" in capsys.readouterr().out

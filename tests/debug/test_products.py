"""A row times a column that is added up, and gradients that are 0."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.running.ladder import linked
from headstart.debug.running.watch import Watch
from headstart.debug.source.syntax import is_added_up
from headstart.debug.symptoms.broadcasts import watch_eager_broadcasts, watch_keras_broadcasts
from headstart.debug.symptoms.eager_axes import watch_argmax
from headstart.debug.symptoms.graph_rules import check_graph
from headstart.debug.symptoms.own_loops import OwnLoops

ROW, COLUMN = tf.TensorSpec([None]), tf.TensorSpec([None, 1])


def policy_loss(row, column):
    return -tf.reduce_mean(row * column)


def scaled(row, column):
    product = -0.5 * (column * row)
    return tf.reduce_sum(product) / 3.0


def bilinear(row, column):
    return tf.reduce_sum(row * column * tf.ones((3, 3)))


def outer(row, column):
    return row * column


def softly(row, column):
    return tf.reduce_mean(tf.nn.softmax(row * column))


def by_row(row, column):
    return tf.reduce_mean(tf.reduce_sum(row * column, axis=1))


def of_pairs(row, column):
    return tf.reduce_mean(row * tf.expand_dims(row, 1))


def compared(row, column):
    product = row * column
    return tf.reduce_mean(product) + tf.reduce_max(product)


@pytest.mark.parametrize(
    ("loss", "is_wrong"),
    [(policy_loss, True), (scaled, True), (bilinear, False), (outer, False), (softly, False),
     (by_row, False), (of_pairs, False), (compared, False)],
)  # fmt: skip
def test_a_product_of_all_pairs_that_is_added_up_is_found(loss, is_wrong):
    @tf.function
    def step(row, column):
        with tf.GradientTape() as tape:
            tape.watch([row, column])
            value = loss(row, column)
        return tape.gradient(value, [row, column])

    found = check_graph(step.get_concrete_function(ROW, COLUMN).graph)
    assert [one.symptom for one in found] == ["silent-broadcast"] * is_wrong
    if is_wrong:
        assert check_graph(step.get_concrete_function(ROW, ROW).graph) == []
    code = loss.__code__
    lines = range(code.co_firstlineno, code.co_firstlineno + 3)
    assert any(is_added_up(__file__, line) for line in lines) == (is_wrong or loss is of_pairs)


@pytest.fixture
def told(monkeypatch):
    """Findings of eager broadcasts; the functions are put back afterwards."""
    for kind in (tf.Tensor, tf.Variable):
        for name in ("__sub__", "__rsub__", "__mul__", "__rmul__"):
            monkeypatch.setattr(kind, name, getattr(kind, name))
    for module in (tf, tf.math, keras.ops):
        for name in ("subtract", "squared_difference", "multiply"):
            if hasattr(module, name):
                original = getattr(module, name)
                monkeypatch.setattr(module, name, original)
                home = sys.modules[original.__module__]
                if hasattr(home, original.__qualname__):
                    monkeypatch.setattr(home, original.__qualname__, original)
    found = []
    watch_eager_broadcasts(found.append)
    watch_keras_broadcasts(found.append)
    return found


def test_an_eager_product_of_all_pairs_is_found(told):
    row, column = tf.ones(4), tf.ones((4, 1))
    for loss in (outer, by_row, of_pairs):
        loss(row, column)
    policy_loss(row, row)
    assert told == []
    for _ in range(2):
        policy_loss(row, column)
    assert [one.line for one in told] == [policy_loss.__code__.co_firstlineno + 1]
    assert "multiplied" in told[0].cause


def steps_of(rate, loss_of, traced=False):
    loops, weight = OwnLoops(), tf.Variable([1.0, 2.0])
    optimizer = keras.optimizers.SGD(rate)

    def step():
        with tf.GradientTape() as tape:
            loss = loss_of(weight)
        gradients = tape.gradient(loss, [weight])
        loops.on_gradient([weight], gradients)
        loops.on_apply(optimizer, gradients, [weight])
        return loss

    step = tf.function(step) if traced else step
    for _ in range(12):
        step()
        loops.on_call(step)
    (found,) = loops.diagnoses()
    return found


@pytest.mark.parametrize("traced", [False, True])
def test_gradients_that_are_zero_are_told_from_steps_that_change_nothing(traced):
    zero = steps_of(0.1, lambda weight: tf.reduce_sum(weight * 0.0), traced)
    assert "gradients are 0" in zero.cause
    still = steps_of(0.0, tf.reduce_sum, traced)
    assert (still.symptom, zero.symptom) == ("weights-never-change",) * 2
    assert "apply is called" in still.cause


def test_weights_that_never_change_follow_from_a_broadcast():
    never = Diagnosis(symptom="weights-never-change", cause="", confidence=0.95)
    product = Diagnosis(symptom="silent-broadcast", cause="", confidence=0.9)
    assert linked([never, product])[0].caused_by == "silent-broadcast"


@pytest.mark.parametrize(
    ("axis", "width", "is_wrong"), [(1, 1, True), (-1, 1, True), (1, 3, False), (0, 1, False)]
)
def test_an_argmax_over_one_column_is_found(monkeypatch, axis, width, is_wrong):
    for home, name in ((np, "argmax"), (tf, "argmax"), (tf.math, "argmax")):
        monkeypatch.setattr(home, name, getattr(home, name))
    findings = watch_argmax()
    values = np.ones((5, width), "float32")
    for argmax in (np.argmax, tf.argmax):
        assert np.asarray(argmax(values, axis=axis)).shape == (width if axis == 0 else 5,)
    assert [one.symptom for one in findings()] == ["argmax-of-one-column"] * is_wrong


def test_a_line_that_also_sees_several_columns_is_no_argmax_of_one(monkeypatch):
    for home, name in ((np, "argmax"), (tf, "argmax"), (tf.math, "argmax")):
        monkeypatch.setattr(home, name, getattr(home, name))
    findings = watch_argmax()
    for width in range(1, 4):
        np.argmax(np.ones((5, width)), axis=1)
    assert findings() == []


def test_a_sigmoid_below_the_loss_that_applies_one_is_found():
    def loss(x, y):
        score = tf.matmul(x, tf.ones((4, 1)))
        entropy = tf.nn.sigmoid_cross_entropy_with_logits
        below = tf.nn.sigmoid(score)
        return tf.reduce_mean(entropy(y, below)), tf.reduce_mean(entropy(y, score))

    specs = [tf.TensorSpec([None, 4]), tf.TensorSpec([None, 1])]
    (found,) = check_graph(tf.function(loss).get_concrete_function(*specs).graph)
    assert found.symptom == "activation-on-logits"


@pytest.mark.parametrize(
    "difference",
    [
        lambda y, p: tf.subtract(y, p),
        lambda y, p: tf.math.squared_difference(x=y, y=p),
        lambda y, p: keras.ops.subtract(y, p),
        lambda y, p: tf.Variable(y) - p,
    ],
)
def test_every_way_to_subtract_a_column_from_a_row_is_found(told, difference):
    row, column = tf.range(4.0), tf.ones((4, 1))
    difference(row, row)
    assert told == []
    difference(row, column)
    assert [(one.symptom, one.file) for one in told] == [("silent-broadcast", __file__)]


def test_the_pairs_of_values_with_themselves_are_meant(told):
    x = tf.range(4.0)
    column = tf.reshape(x, (-1, 1))
    assert (column - x).shape == (4, 4)
    assert told == []
    assert (column - x * 2.0).shape == (4, 4)
    assert len(told) == 1

    @tf.function
    def distances(x, y):
        return tf.reshape(x, (-1, 1)) - y

    same = tf.function(lambda x: distances.python_function(x, x))
    assert check_graph(same.get_concrete_function(ROW).graph) == []
    graph = distances.get_concrete_function(ROW, ROW).graph
    assert [one.symptom for one in check_graph(graph)] == ["silent-broadcast"]


def test_a_softmax_over_the_rows_of_a_graph_counts_only_where_the_training_went_badly():
    @tf.function
    def pooled(bag, kernel):
        return tf.transpose(tf.nn.softmax(bag @ kernel, axis=0)) @ bag

    specs = tf.TensorSpec([None, 8]), tf.TensorSpec([8, 4])
    watch = Watch(with_rules=True)
    watch._look_through(pooled.get_concrete_function(*specs).graph)
    assert [one.symptom for one in watch._unless_well] == ["softmax-over-rows"]
    assert watch._found == []

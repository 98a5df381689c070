"""Losses that take rows of the batch for outputs or columns."""

from functools import partial
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.preflight import row_losses
from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.row_losses import few_rows
from headstart.debug.preflight.rules import RULES, Case, apply_rules
from headstart.debug.preflight.samples import same_seeds
from headstart.debug.preflight.stateful_losses import may_be_asked

ROWS = 40
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
Y = np.random.default_rng(1).normal(size=(ROWS, 2)).astype("float32")


def two_outputs_in_one(y_true, y_pred):
    first = y_pred[0]  # WRONG
    return tf.reduce_mean((y_true[0] - first) ** 2) + tf.reduce_mean(abs(y_true[1] - y_pred[1]))


class LastRow(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return (y_true[-1] - y_pred[-1]) ** 2  # WRONG


def mean_of_a_slice(y_true, y_pred):
    return tf.reduce_mean((y_true[:3] - y_pred[:3]) ** 2)  # WRONG


def one_target_for_all(y_true, y_pred):
    return tf.reduce_mean((y_true[0] - y_pred) ** 2)  # WRONG


def gathered(y_true, y_pred):
    return tf.reduce_mean((tf.gather(y_true, [0]) - tf.gather(y_pred, [0])) ** 2)  # WRONG


def line_in(loss):
    code = (loss.call if isinstance(loss, keras.losses.Loss) else loss).__code__
    lines = Path(__file__).read_text().splitlines()
    return next(i for i in range(code.co_firstlineno, len(lines)) if "# WRONG" in lines[i - 1])


def facts_with(loss, y=Y, num_outputs=1):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(2, name=f"out{i}")(inputs) for i in range(num_outputs)]
    model = keras.Model(inputs, outputs if num_outputs > 1 else outputs[0])
    model.compile(loss=loss, optimizer="sgd")
    return facts_of(model, X, y)


@pytest.mark.parametrize(
    ("loss", "num_rows"),
    [
        (two_outputs_in_one, 2),
        (LastRow(), 1),
        (mean_of_a_slice, 3),
        (one_target_for_all, 1),
        (gathered, 1),
    ],
)
def test_a_loss_that_counts_places_of_the_batch_is_told_at_its_index(loss, num_rows):
    (found,) = few_rows(facts_with(loss))
    assert (found.symptom, found.line) == ("loss-of-few-rows", line_in(loss))
    assert f"only {num_rows} of 32 rows" in found.cause


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        ([two_outputs_in_one, two_outputs_in_one], [Y, Y]),
        ({"out1": two_outputs_in_one, "out0": "mse"}, {"out0": Y, "out1": Y}),
    ],
)
def test_of_several_outputs_each_loss_is_told_once(loss, y):
    facts = facts_with(loss, y, num_outputs=2)
    (rule,) = (one for one in RULES if one.finds is few_rows)
    (found,) = apply_rules(Case(facts.model, {}, facts), [rule])
    assert found.line == line_in(two_outputs_in_one)


def masked(y_true, y_pred):
    return tf.reduce_sum(tf.where(y_true > 1.5, (y_true - y_pred) ** 2, 0.0))


def hardest(y_true, y_pred):
    return tf.reduce_mean(tf.math.top_k(tf.reduce_sum((y_true - y_pred) ** 2, axis=1), 3)[0])


def margin(y_true, y_pred):
    return tf.nn.relu(tf.reduce_sum((y_true - y_pred) ** 2, axis=-1) - 9.0)


def first_column(y_true, y_pred):
    return (y_true[:, 0] - y_pred[:, 0]) ** 2


def half_of_it(y_true, y_pred):
    half = tf.shape(y_pred)[0] // 2
    return (y_true[:half] - y_pred[:half]) ** 2


def number_of_the_batch(y_true, y_pred):
    return y_true[0, 1] * tf.reduce_mean(y_pred**2)


def of_answers_alone(y_true, y_pred):
    return tf.reduce_mean(y_pred**2)


def first_are_labelled(y_true, y_pred):
    return tf.reduce_mean((y_true[:8] - y_pred[:8]) ** 2) + tf.reduce_mean(tf.sin(y_pred) ** 2)


def first_is_the_boundary(y_true, y_pred):
    return tf.reduce_mean((y_true[:1] - y_pred[:1]) ** 2) + tf.reduce_mean(tf.sin(y_pred) ** 2)


WITH_NUMBER = np.stack([Y[:, 0], np.full(ROWS, 0.3)], axis=1)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        *((one, Y) for one in (masked, hardest, margin, first_column, half_of_it)),
        (first_are_labelled, Y),
        (first_is_the_boundary, Y),
        (number_of_the_batch, WITH_NUMBER),
        (of_answers_alone, np.zeros((ROWS, 1))),
        ("mse", Y),
        (lambda y_true, y_pred: undefined, Y),  # noqa: F821
    ],
)
def test_what_counts_by_its_values_or_for_all_rows_is_passed_over(loss, y):
    (rule,) = (one for one in RULES if one.finds is few_rows)
    facts = facts_with(loss, y)
    assert apply_rules(Case(facts.model, {}, facts), [rule]) == []


def test_a_loss_is_asked_but_once_and_only_where_that_changes_nothing():
    def counted(y_true, y_pred):
        calls.append(1)
        return (y_true[0] - y_pred[0]) ** 2

    calls, facts = [], facts_with(counted)
    assert few_rows(facts) == []
    assert not calls
    facts = facts_with(LastRow())
    (found,) = few_rows(facts)
    with mock.patch.object(row_losses, "_places", side_effect=AssertionError):
        assert few_rows(facts) == [found]


WEIGHT, COUNTS, LAYER = tf.Variable(1.0), {"calls": 0}, keras.layers.Dense(1)
LAYER.build((None, 2))
SCALE, RNG = {"first": [0.5]}, np.random.default_rng(0)


class Average:
    value = 0.0

    def of(self, values):
        self.value = 0.9 * self.value + 0.1 * float(tf.reduce_mean(values))
        return self.value


AVERAGE = Average()


def with_variable(y_true, y_pred):
    return WEIGHT * y_pred[0]


def with_count(y_true, y_pred):
    COUNTS["calls"] += 1
    return y_pred[0]


def with_global(y_true, y_pred):
    global LAST
    LAST = y_pred
    return y_pred[0]


def with_noise(y_true, y_pred):
    return y_pred[0] + tf.random.normal((2,))


def with_numpys_noise(y_true, y_pred):
    return y_pred[0] + RNG.standard_normal()


def with_print(y_true, y_pred):
    tf.print(y_pred)
    return y_pred[0]


def with_layer(y_true, y_pred):
    return LAYER(y_pred)[0]


def with_object(y_true, y_pred):
    return AVERAGE.of(y_pred)


def with_helper(y_true, y_pred):
    return tf.add_n([with_print(y_true, one) for one in (y_pred, y_pred)])


class Remembering(keras.losses.Loss):
    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(1.0)

    def call(self, y_true, y_pred):
        return self.weight * y_pred[0]


class Counting(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return self._first(y_pred)

    def _first(self, y_pred):
        self.calls = getattr(self, "calls", 0) + 1
        return y_pred[0]


def closed_over(counter):
    def loss(y_true, y_pred):
        nonlocal counter
        counter += 1
        return y_pred[0]

    return loss


@pytest.mark.parametrize(
    "loss",
    [with_variable, with_count, with_global, with_noise, with_numpys_noise, with_print, with_layer,
     with_object, with_helper, Remembering(), Counting(), closed_over(0), partial(with_print),
     partial(masked, rows=RNG)],
)  # fmt: skip
def test_a_loss_that_reads_or_changes_a_state_is_not_asked(loss):
    assert not may_be_asked(loss)


def scaled(y_true, y_pred):
    return SCALE["first"][0] * keras.losses.mse(y_true, first_column(y_true, y_pred))


@pytest.mark.parametrize("loss", [two_outputs_in_one, LastRow(), gathered, hardest, scaled])
def test_a_loss_that_only_returns_may_be_asked(loss):
    assert may_be_asked(loss)


def test_seeds_of_eager_ops_are_as_they_were():
    tf.random.set_seed(3)
    expected = tf.random.normal((4,)).numpy()
    tf.random.set_seed(3)
    with same_seeds():
        tf.random.uniform((4,))
    assert (tf.random.normal((4,)).numpy() == expected).all()

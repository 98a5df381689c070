"""Losses that take rows of the batch for outputs or columns."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.row_losses import few_rows
from headstart.debug.preflight.rules import RULES, Case, apply_rules

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


WITH_NUMBER = np.stack([Y[:, 0], np.full(ROWS, 0.3)], axis=1)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        *((one, Y) for one in (masked, hardest, margin, first_column, half_of_it)),
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

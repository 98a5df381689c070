"""Dropout that a program asks TensorFlow for itself."""

import sys

import pytest
import tensorflow as tf

from headstart.debug.symptoms.dropouts import watch_dropout

ONES = tf.ones([8, 4])


@pytest.mark.parametrize(
    ("version", "arguments", "severity"),
    [
        (2, {"rate": 0.95}, "error"),
        (2, {"rate": 0.8}, "warning"),
        (2, {"rate": 0.5}, None),
        (2, {"rate": tf.constant(0.95)}, None),  # nobody's number: it may be fed, or change
        (1, {"keep_prob": 0.05}, "error"),
        (1, {"keep_prob": 0.95}, None),
        (1, {"rate": 0.95}, "error"),
    ],
)
def test_a_dropout_that_leaves_too_little_is_told_once(monkeypatch, version, arguments, severity):
    for home in (tf.nn, tf.compat.v1.nn):  # put back afterwards
        original = home.dropout
        monkeypatch.setattr(home, "dropout", original)
        monkeypatch.setattr(sys.modules[original.__module__], original.__qualname__, original)
    found = []
    watch_dropout(found.append)
    nn = tf.nn if version == 2 else tf.compat.v1.nn
    for _ in range(2):
        assert nn.dropout(ONES, **arguments).shape == ONES.shape
    assert [one.severity for one in found] == ([severity] if severity else [])
    assert all(one.file == __file__ for one in found)


@pytest.mark.parametrize("home", [tf.nn, tf.compat.v1.nn])
def test_a_share_to_keep_that_is_given_as_the_rate_is_told_by_its_name(monkeypatch, home):
    for module in (tf.nn, tf.compat.v1.nn):
        monkeypatch.setattr(module, "dropout", module.dropout)
    found, keep_prob, rate = [], tf.constant(0.5), tf.constant(0.5)
    watch_dropout(found.append)
    home.dropout(ONES, rate=rate)
    home.dropout(ONES, rate=1 - keep_prob)
    tf.compat.v1.nn.dropout(ONES, keep_prob)
    tf.compat.v1.nn.dropout(ONES, keep_prob=keep_prob)
    assert found == []
    home.dropout(ONES, rate=keep_prob)
    (one,) = found
    assert "keep_prob as its rate" in one.cause
    tf.nn.dropout(ONES, keep_prob)
    assert len(found) == 2


def test_a_dropout_of_a_traced_function_is_told_at_its_line(monkeypatch):
    for home in (tf.nn, tf.compat.v1.nn):
        monkeypatch.setattr(home, "dropout", home.dropout)
    found = []
    watch_dropout(found.append)

    @tf.function
    def step(x):
        if tf.reduce_sum(x) > 0.0:
            x = tf.nn.dropout(x, 0.95)
        return x

    step(ONES)
    line = step.python_function.__code__.co_firstlineno + 3
    assert [(one.severity, one.file, one.line) for one in found] == [("error", __file__, line)]

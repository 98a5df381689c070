"""The retrace counter says which argument made a function be traced again."""

import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.symptoms.retraces import RetraceCounter, explain_retraces


def test_changed_shape_dtype_and_value_are_told_apart():
    @tf.function(autograph=False)
    def scaled(x, factor):
        return x * tf.cast(factor, x.dtype)

    with RetraceCounter() as counter:
        scaled(tf.ones([2]), 1)
        scaled(tf.ones([3]), 1)
        scaled(tf.ones([3], tf.float64), 1)
        scaled(tf.ones([3]), 2)
    reasons = explain_retraces(counter.of("scaled"))
    assert len(reasons) == 3
    assert any("'x' was float32 [2] and is float32 [3]" in reason for reason in reasons)
    assert any("'x' was float32 [3] and is float64 [3]" in reason for reason in reasons)
    assert any("'factor' was int 1 and is int 2" in reason for reason in reasons)


def test_storm_is_diagnosed_at_the_calling_line_and_a_quiet_function_is_not():
    @tf.function(autograph=False)
    def stormy(x):
        return x + 1

    @tf.function(autograph=False)
    def quiet(x):
        return x + 1

    with RetraceCounter() as counter:
        for size in range(1, 7):
            stormy(tf.ones([size]))
            quiet(tf.ones([4]))
    (found,) = counter.diagnoses()
    assert (found.symptom, found.graph, found.file) == ("retracing", "stormy", __file__)
    assert "stormy(tf.ones([size]))" in "".join(found.source_context)
    assert found.evidence["num_traces"] == 6


def test_function_made_anew_each_time_is_found():
    with RetraceCounter() as counter:
        for _ in range(6):
            tf.function(lambda x: x * 2, autograph=False)(tf.ones([2]))
    (found,) = counter.diagnoses()
    assert "a new function with the same arguments is made each time" in found.cause


def step_of(variable):
    return tf.function(lambda x: variable * x, autograph=False)


def test_a_step_that_is_made_once_for_each_of_many_models_is_passed_over():
    with RetraceCounter() as counter:
        for _ in range(6):
            step_of(tf.Variable(1.0))(tf.ones([2]))
    assert counter.diagnoses() == []
    shared = tf.Variable(1.0)
    with RetraceCounter() as counter:
        for _ in range(6):
            step_of(shared)(tf.ones([2]))
    assert [one.symptom for one in counter.diagnoses()] == ["retracing"]


def test_a_trainer_object_for_each_of_many_models_is_passed_over():
    class Trainer:
        def __init__(self):
            self.variable = tf.Variable(1.0)

        @tf.function(autograph=False)
        def step(self, x):
            return self.variable * x

    trainers = [Trainer() for _ in range(6)]
    with RetraceCounter() as counter:
        for trainer in trainers:
            trainer.step(tf.ones([2]))
    assert len(counter.traces) == 6
    assert counter.diagnoses() == []


@pytest.mark.parametrize(("num_calls", "num_found"), [(2, 1), (20, 0)])
def test_a_few_lengths_that_are_called_often_are_passed_over(num_calls, num_found):
    @tf.function(autograph=False)
    def step(x):
        return x + 1

    with RetraceCounter() as counter:
        for size in range(2, 9):
            for _ in range(num_calls):
                counter.on_call(step)
                step(tf.ones([size]))
    assert len(counter.diagnoses()) == num_found


def test_a_step_that_is_made_for_two_models_is_passed_over():
    with RetraceCounter() as counter:
        for _ in range(2):
            step = tf.function(lambda x: x * 2, autograph=False)
            for size in (2, 3, 4):
                step(tf.ones([size]))
    assert len(counter.traces) == 6
    assert counter.diagnoses() == []


def test_nothing_is_counted_once_the_counter_is_closed():
    with RetraceCounter() as counter:
        pass
    tf.function(lambda x: x, autograph=False)(tf.ones([2]))
    assert counter.traces == []


def test_a_step_that_keras_makes_for_another_model_is_no_storm():
    def one_step_on_data(x):
        return x * 2

    with RetraceCounter() as counter:
        for _ in range(6):
            tf.function(one_step_on_data, autograph=False)(tf.ones([2]))
    assert len(counter.traces) == 6
    assert counter.diagnoses() == []


class Size:
    """Has a shape and a dtype, and is no tensor."""

    shape, dtype = (224, 224, 3), "float32"

    def __repr__(self):
        raise RuntimeError("no words for it")


def test_what_looks_like_a_tensor_or_cannot_be_shown_does_not_end_the_program():
    @tf.function
    def convert(x, kind):
        return tf.cast(x, kind if isinstance(kind, type) else "float32")

    with RetraceCounter() as counter:
        convert(tf.constant([1]), np.float32)
        convert(tf.constant([1]), np.float64)
        convert(tf.constant([1]), Size())
    told = [dict(trace.arguments)["kind"] for trace in counter.traces]
    assert len(told) >= 2
    assert all(one.startswith("UnknownArgument") for one in told)

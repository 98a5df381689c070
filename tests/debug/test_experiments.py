"""What a model does with a few rows tells why it learnt nothing from all of them."""

import keras
import numpy as np
import pytest

from headstart.debug.preflight import experiments
from headstart.debug.preflight.experiments import Budget, one_batch
from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.samples import Batch, Sample
from headstart.debug.preflight.training import steps_on
from headstart.debug.symptoms.retraces import RetraceCounter

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("float32")


def found_of(optimizer="adam", x=X, **made):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, "relu", **made), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(optimizer, "binary_crossentropy", jit_compile=False)
    before = model.get_weights()
    found = one_batch(facts_of(model, x, Y), num_steps=100)
    for value, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)
    return [one.symptom for one in found]


@pytest.mark.parametrize(
    ("made", "symptoms"),
    [
        ({}, []),
        ({"optimizer": keras.optimizers.Adam(3e-5)}, ["learning-rate-too-low"]),
        ({"kernel_initializer": "zeros"}, ["odd-initialisation"]),
        ({"x": X * 1e-5}, ["unscaled-input"]),
        ({"x": X * 0.0}, ["cannot-overfit"]),
    ],
)
def test_what_helps_tells_the_cause(made, symptoms):
    assert found_of(**made) == symptoms


def model_of(optimizer):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(optimizer, "binary_crossentropy", jit_compile=False)
    return model


def outcomes(monkeypatch, skills, **more):
    """Judge experiments that come to given skills; returns findings and the rates tried."""
    left, tried = iter(skills), []

    def skill(bench, optimizer, *args, **kwargs):
        tried.append(float(np.asarray(optimizer.learning_rate)))
        return next(left)

    monkeypatch.setattr(experiments.Bench, "skill", skill)
    facts = facts_of(model_of(keras.optimizers.Adam(1e-6)), X, Y)
    found = one_batch(facts, **{"num_steps": 100, **more})
    return [(one.symptom, one.severity) for one in found], tried


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("skills", "expected"),
    [
        ([0.9, NAN], []),  # its own optimizer was not tried to the end
        ([0.9, 0.0, 0.1, NAN], []),
        ([0.9, -INF, 0.1, 0.9], [("learning-rate-too-high", "error")]),
        ([0.9, 0.0, 0.1, 0.1], [("odd-optimizer", "error")]),
        ([0.0, NAN, NAN], []),
        ([-INF, 0.1, 0.1], []),  # nothing was learnt either way
        ([0.0, 0.0, -0.1], [("cannot-overfit", "error")]),
    ],
)
def test_what_was_not_tried_to_the_end_is_no_failure(monkeypatch, skills, expected):
    assert outcomes(monkeypatch, skills)[0] == expected


def test_the_rate_of_a_program_is_the_highest_that_its_schedule_gave(monkeypatch):
    found, tried = outcomes(monkeypatch, [0.9, 0.0, 0.9], rates=[1e-3, 1e-2, 0.0], level="little")
    assert tried[1] == pytest.approx(1e-2)
    assert found == [("learning-rate-too-low", "warning")]
    found, tried = outcomes(monkeypatch, [0.9, 0.0, 0.9], num_steps=301)
    assert tried[1] == pytest.approx(1e-6)
    assert found == [("learning-rate-too-low", "warning")]


def test_the_trainings_of_a_program_share_one_budget():
    budget = Budget(0.001)
    facts = facts_of(model_of("adam"), X * 0.0, Y)
    for _ in range(2):
        assert one_batch(facts, 100, budget=budget) == []
    assert budget.left_s < 0.0


def test_experiments_are_no_storm_of_the_programs_traces():
    facts = facts_of(model_of("adam"), X, Y)
    sample = Sample(facts.model, (Batch(X, Y, None),), None, facts.objective, True)
    with RetraceCounter() as counter:
        steps_on(sample, keras.optimizers.SGD(0.1), 1, 60.0)
    assert counter.traces == []

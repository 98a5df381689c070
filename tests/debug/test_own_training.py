"""Loops of one's own, and TF1 sessions, are judged by the rules that judge a fit."""

import contextlib
import copy
import gc
import pickle
import signal
import sys
import threading
import time
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow.compat.v1 as old_style

from headstart.debug.callsites import CallSite
from headstart.debug.dump.origins import SITE, _noting_construction
from headstart.debug.guard import failures
from headstart.debug.internals import private
from headstart.debug.preflight.samples import same_seeds
from headstart.debug.running.histories import NUM_LATEST, Histories, History
from headstart.debug.running.own_sessions import OwnSessions, watch_minimizers
from headstart.debug.running.own_training import (
    MAX_HELD,
    MAX_MODELS,
    OwnTraining,
    losses_of,
    watch_models,
)
from headstart.debug.running.signs import FaultSeen, Sign
from headstart.debug.running.watch import Watch
from headstart.debug.symptoms.batches import MAX_STEPS
from headstart.debug.symptoms.loss import own_divergence
from headstart.debug.symptoms.own_loops import OwnLoops
from headstart.debug.symptoms.rising_rate import rising_rate

ROWS = 32
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
BITS = (X[:, :1] > 0).astype("float32")
STUCK = {"loss": [0.7] * 60}


def trained(x, activation, rate=0.01, traced=False, loss=None):
    """Take one step of a loop, told of as the watch tells, and return what is known of it."""
    keras.utils.set_random_seed(1)
    loss = loss or keras.losses.BinaryCrossentropy()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation=activation)])
    optimizer, own = keras.optimizers.SGD(rate), OwnTraining()

    def step(inputs, targets):
        with tf.GradientTape() as tape:
            output = model(inputs, training=True)
            own.on_call(model, inputs, output)
            value = loss(targets, output)
            own.on_loss(loss, targets, output)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        own.on_apply(optimizer, model.trainable_variables)

    function = tf.function(step) if traced else step
    arguments = (tf.constant(x), tf.constant(BITS))
    function(*arguments)
    if traced:
        own.on_function(function, (arguments, {}))
    return own


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    ("x", "activation", "rate", "symptom"),
    [
        (X, None, 0.01, "logits-without-from-logits"),
        (X * 9000, "sigmoid", 0.01, "unscaled-input"),
        (X, "sigmoid", 1e-8, "learning-rate-too-low"),
    ],
)
def test_a_loop_that_comes_to_nothing_is_explained(traced, x, activation, rate, symptom):
    own = trained(x, activation, rate, traced)
    found = own.diagnoses(STUCK, set(), is_broken=False)
    assert symptom in [one.symptom for one in found if one.severity == "error"]


def test_a_loop_that_came_to_something_is_left_alone():
    own = trained(X, "sigmoid", 0.01)
    seen = next(iter(own._seen.values()))
    seen.model.layers[-1].set_weights([np.float32([[20], [0], [0], [0]]), np.float32([0])])
    assert own.diagnoses(STUCK, set(), is_broken=False) == []


def test_short_loops_and_models_that_fit_has_trained_are_not_judged_here():
    own = trained(X, None)
    assert own.diagnoses({"loss": [0.7] * 5}, set(), is_broken=False) == []
    assert own.diagnoses(STUCK, set(own._seen), is_broken=False) == []


def small():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


GROWN = [1.0 + step / 10 for step in range(60)]


@pytest.mark.parametrize(
    ("with_copy", "num_answers", "factor", "losses", "expected"),
    [
        (False, 0, 1.0, GROWN, "error"),
        (True, 0, 1.0, GROWN, "advice"),
        (False, 60, 1.0, GROWN, "advice"),
        (False, 0, 0.2, GROWN, "advice"),
        (True, 60, 0.2, [*GROWN, *[1e9] * 20], "error"),
    ],
)
def test_a_loss_may_grow_with_targets_that_a_network_makes(
    with_copy, num_answers, factor, losses, expected
):
    own, model = OwnTraining(), small()
    if with_copy:
        own.on_predict(small())
    for step in range(60):
        own.on_batch(model, X, X[:, :1] * (1.0 + factor * step * (factor < 1)))
        if step < num_answers:
            own.on_predict(model)
    found = own.diagnoses({"loss": losses}, set(), is_broken=False)
    (severity,) = (one.severity for one in found if one.symptom == "divergence")
    assert severity == expected


def test_two_models_against_each_other_are_not_judged_by_a_curve():
    own, other = trained(X, None), trained(X, None)
    own._seen |= other._seen
    assert own.diagnoses(STUCK, set(), is_broken=False) == []


def test_of_many_models_only_the_latest_are_held():
    own = OwnTraining()
    for _ in range(MAX_MODELS + 3):
        own.on_batch(keras.Sequential([keras.layers.Dense(1)]), X, BITS)
    assert len(own._seen) == MAX_MODELS


def test_a_short_last_batch_does_not_stand_for_the_others():
    own, model = OwnTraining(), keras.Sequential([keras.layers.Dense(1)])
    own.on_batch(model, X, BITS)
    own.on_batch(model, X[:3], BITS[:3])
    assert len(next(iter(own._seen.values())).x) == ROWS


def test_thelosses_of_a_loop_are_those_it_differentiates_else_the_first_result_of_its_step():
    assert losses_of({"step": [1.0] * 9, "loss": [2.0]}) == [2.0]
    assert losses_of({"step[0]": [1.0] * 9, "step[1]": [3.0] * 9, "test": [2.0]}) == [1.0] * 9


def session_of(initial, optimizer, fed):
    sessions = OwnSessions()
    with tf.Graph().as_default():
        v1 = tf.compat.v1
        x = v1.placeholder(tf.float32, [None, 4])
        first = v1.get_variable("first", initializer=initial([4, 3]))
        second = v1.get_variable("second", initializer=initial([3, 2]))
        loss = tf.reduce_mean((x @ first @ second) ** 2)
        sessions.on_minimize(optimizer(v1.train), loss)
        sessions.on_run(loss.graph, loss, {x: fed})
    return sessions, {sessions.loss_name: [1.0] * 60}


@pytest.mark.parametrize(
    ("rows", "beside", "expected"),
    [(32, "", ["same-batch"]), (32, "ids", []), (32, "sparse", []), (400, "", [])],
)
def test_a_session_that_is_fed_a_large_slice_or_a_table_beside_its_ids_is_passed_over(
    rows, beside, expected
):
    sessions, v1 = OwnSessions(), tf.compat.v1
    with tf.Graph().as_default() as graph:
        table, ids = v1.placeholder(tf.float32, [None, 4]), v1.placeholder(tf.int32, [None])
        loss = tf.reduce_mean((tf.matmul(table, v1.get_variable("w", [4, 1])) - 1.0) ** 2)
        optimizer = v1.train.GradientDescentOptimizer(0.01)
        step = optimizer.minimize(loss)
        sessions.on_minimize(optimizer, loss)
        many = np.random.default_rng(0).normal(size=(1000, 4))
        for turn in range(40):
            fed = {table: many[:rows], ids: [turn * (beside == "ids"), 1]}
            if beside == "sparse":
                fed["rows"] = v1.SparseTensorValue(np.eye(3, 2), [turn, 1, 1], [3, 4])
            sessions.on_run(graph, step, fed)
    assert [one.symptom for one in sessions.diagnoses({}, is_broken=False)] == expected


class Counted(list):
    """Rows that count how often they are made an array."""

    num_read = 0

    def __array__(self, *args, **kwargs):
        Counted.num_read += 1
        return np.zeros((2, 4))


def test_what_a_session_is_fed_is_read_only_while_it_is_judged():
    sessions, v1 = OwnSessions(), tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4])
        loss = tf.reduce_mean(tf.matmul(x, v1.get_variable("w", [4, 1])) ** 2)
        optimizer = v1.train.GradientDescentOptimizer(0.01)
        step = optimizer.minimize(loss)
        sessions.on_minimize(optimizer, loss)
        for _ in range(MAX_STEPS):
            sessions.on_run(graph, step, {x: Counted()})
        assert Counted.num_read >= MAX_STEPS
        Counted.num_read = 0
        for _ in range(10):
            sessions.on_run(graph, step, {x: Counted()})
    assert Counted.num_read == 0


def test_a_session_that_is_fed_a_sparse_tensor_is_watched_for_nan(monkeypatch):
    watch, v1, kind = Watch(with_rules=True), tf.compat.v1, private("BaseSession")
    monkeypatch.setattr(kind, "run", kind.run)
    watch._watch_sessions()
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.sparse_placeholder(tf.float32, [None, 4])
        w = v1.get_variable("w", [4, 1])
        loss = tf.reduce_mean(tf.math.log(tf.sparse.sparse_dense_matmul(x, w) * 0.0 - 1.0))
        optimizer = v1.train.GradientDescentOptimizer(0.01)
        step = optimizer.minimize(loss)
        watch._sessions.on_minimize(optimizer, loss)
        failures.clear()
        session.run(v1.global_variables_initializer())
        sparse = v1.SparseTensorValue(np.array([[0, 1], [1, 2], [2, 0]]), [1.0, 1.0, 1.0], [3, 4])
        with pytest.raises(FaultSeen):
            session.run([step, loss], {x: sparse})
    assert watch.sign.value == "nan"
    assert watch._sessions._num_trained == 1
    assert failures == {}


@pytest.mark.parametrize("is_stuck", [True, False])
def test_a_session_that_is_fed_the_same_slice_at_each_step_is_told(is_stuck):
    sessions, v1, many = OwnSessions(), tf.compat.v1, np.repeat(X, 4, axis=0) + np.arange(4)
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4])
        loss = tf.reduce_mean((tf.matmul(x, v1.get_variable("w", [4, 1])) - 1.0) ** 2)
        optimizer = v1.train.GradientDescentOptimizer(0.01)
        step = optimizer.minimize(loss)
        sessions.on_minimize(optimizer, loss)
        for turn in range(40):
            start = 0 if is_stuck else turn % 4 * ROWS
            sessions.on_run(graph, step, {x: many[start : start + ROWS]})
    found = [one.symptom for one in sessions.diagnoses({}, is_broken=False)]
    assert found == ["same-batch"] * is_stuck


@pytest.mark.parametrize(
    ("initial", "rate", "fed", "expected"),
    [
        (tf.zeros, 0.01, X, ["constant-initialisation"]),
        (tf.random.normal, 0.01, X * 1000, ["unscaled-input"]),
        (tf.random.normal, 5.0, X, ["learning-rate-too-high"]),
        (tf.random.normal, 0.01, X, []),
    ],
)
def test_a_session_that_comes_to_nothing_is_explained(initial, rate, fed, expected):
    sessions, losses = session_of(initial, lambda train: train.AdamOptimizer(rate), fed)
    assert [one.symptom for one in sessions.diagnoses(losses, is_broken=False)] == expected


def test_a_session_whose_loss_falls_is_left_alone():
    sessions, losses = session_of(tf.zeros, lambda train: train.AdamOptimizer(0.5), X * 1000)
    name = next(iter(losses))
    falling = [0.95**step for step in range(100)]
    assert sessions.diagnoses({name: falling}, is_broken=False) == []


def test_the_line_of_the_optimizer_is_known():
    own = OwnTraining()
    optimizer = keras.optimizers.SGD()
    vars(optimizer)[SITE] = CallSite("train.py", 7)
    own.on_apply(optimizer, [])
    assert own.optimizer_site == CallSite("train.py", 7)


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [(lambda optimizer: optimizer, ["float16-underflow"]),
     (keras.optimizers.LossScaleOptimizer, [])],
)  # fmt: skip
def test_a_loop_in_float16_that_does_not_scale_its_loss_is_told(wrap, expected):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, dtype="mixed_float16")])
    own, optimizer = OwnTraining(), keras.optimizers.SGD()
    outer = wrap(optimizer)
    own.on_call(model, X, None)
    own.on_apply(optimizer, model.trainable_variables)  # what the outer one calls
    found = own.diagnoses(STUCK, set(), is_broken=False)
    assert [one.symptom for one in found if one.phase == "optimizer"] == expected, outer


@pytest.mark.parametrize("is_thawed", [False, True])
def test_a_model_that_is_frozen_whenever_it_is_trained_is_found(is_thawed):
    own, model = OwnTraining(), keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    for _ in range(12):
        model.trainable = is_thawed
        own.on_batch(model, X, X[:, 0])
        model.trainable = False
        own.on_batch(other, X, X[:, 0])
    found = [one.symptom for one in own.diagnoses({}, set(), is_broken=False)]
    assert found == ["nothing-trainable"] * (not is_thawed)


@pytest.mark.parametrize(
    ("fetches", "expected"),
    [
        (lambda loss, step, grouped: loss, ["weights-never-change"]),
        (lambda loss, step, grouped: [loss, step], []),
        (lambda loss, step, grouped: {"group": grouped, "loss": loss}, []),
        (lambda loss, step, grouped: [loss.name, step.name], []),
        (lambda loss, step, grouped: loss.name, ["weights-never-change"]),
    ],
)
def test_a_training_op_that_no_run_fetches_is_found(fetches, expected):
    sessions, v1 = OwnSessions(), tf.compat.v1
    with tf.Graph().as_default() as graph:
        weights = v1.get_variable("w", [4, 1])
        loss = tf.reduce_mean((v1.placeholder(tf.float32, [None, 4]) @ weights) ** 2)
        optimizer = v1.train.AdamOptimizer(0.01)
        sessions.on_minimize(optimizer, loss)
        step = optimizer.minimize(loss)
        grouped = tf.group(step, name="all")
        sessions.on_run(graph, v1.global_variables_initializer(), None)
        for _ in range(40):
            sessions.on_run(graph, fetches(loss, step, grouped), None)
        assert [one.symptom for one in sessions.diagnoses({}, is_broken=False)] == expected


def test_a_script_that_restores_and_evaluates_needs_no_training():
    sessions, v1 = OwnSessions(), tf.compat.v1
    with tf.Graph().as_default() as graph:
        loss = tf.reduce_mean(v1.get_variable("w", [4, 1]) ** 2)
        optimizer = v1.train.AdamOptimizer(0.01)
        sessions.on_minimize(optimizer, loss)
        optimizer.minimize(loss)
        restore = v1.train.Saver().saver_def.restore_op_name
        for _ in range(4):  # checkpoints
            sessions.on_run(graph, v1.global_variables_initializer(), None)
            sessions.on_run(graph, restore, None)
            for _ in range(10):
                sessions.on_run(graph, loss, None)
    assert sessions.diagnoses({}, is_broken=False) == []


@pytest.mark.parametrize("waits", [True, False])
def test_moving_averages_that_no_run_updates_are_found(waits):
    sessions, v1 = OwnSessions(), tf.compat.v1
    with tf.Graph().as_default() as graph:
        weights, mean = v1.get_variable("w", [4, 1]), v1.get_variable("mean", [], trainable=False)
        loss = tf.reduce_mean((v1.placeholder(tf.float32, [None, 4]) @ weights) ** 2)
        v1.add_to_collection("update_ops", v1.assign(mean, 0.9 * mean + 0.1 * loss))
        optimizer = v1.train.AdamOptimizer(0.01)
        with tf.control_dependencies(v1.get_collection("update_ops") if waits else []):
            sessions.on_minimize(optimizer, loss)
            step = optimizer.minimize(loss)
        for _ in range(40):
            sessions.on_run(graph, [step, loss], None)
        found = [one.symptom for one in sessions.diagnoses({}, is_broken=False)]
    assert found == ([] if waits else ["batchnorm-mode"])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.69] * 60, True),
        ([0.0] * 60, True),
        ([0.69] * 59 + [0.7], False),
        ([0.69] * 30 + [np.nan] * 30, False),
    ],
)
def test_a_session_that_trains_and_changes_nothing_is_found(losses, expected):
    sessions, v1 = OwnSessions(), tf.compat.v1
    with tf.Graph().as_default() as graph:
        loss = tf.reduce_sum(v1.get_variable("w", [4]) ** 2)
        optimizer = v1.train.GradientDescentOptimizer(v1.placeholder(tf.float32, []))
        sessions.on_minimize(optimizer, loss)
        step = optimizer.minimize(loss)
        for _ in range(40):
            sessions.on_run(graph, step, None)
    found = sessions.diagnoses({loss.name: losses}, is_broken=False)
    assert [one.symptom for one in found] == ["weights-never-change"] * expected


def run_with_rates(rates, losses, is_set_beforehand):
    """Train in a session whose rate is fed, each a hundred runs, and say what is found."""
    sessions, v1 = OwnSessions(), tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        loss = tf.reduce_sum(v1.get_variable("w", [4]) ** 2)
        fed, rate = v1.placeholder(tf.float32, []), v1.get_variable("rate", [], trainable=False)
        change = v1.assign(rate, fed)
        optimizer = v1.train.AdamOptimizer(rate if is_set_beforehand else fed)
        sessions.on_minimize(optimizer, loss)
        step = optimizer.minimize(loss)
        session.run(v1.global_variables_initializer())
        for value in rates:
            if is_set_beforehand:
                session.run(change, {fed: value})
                sessions.on_run(graph, change, {fed: value}, session.run)
            feed = None if is_set_beforehand else {fed: value}
            for _ in range(100):
                sessions.on_run(graph, [loss, step], feed, session.run)
    return sessions.diagnoses({loss.name: losses}, is_broken=False)


GETS_WORSE = [*np.linspace(3.0, 1.0, 150), *np.linspace(1.0, 2.0, 150)]


@pytest.mark.parametrize("is_set_beforehand", [True, False])
@pytest.mark.parametrize(
    ("rates", "losses", "expected"),
    [
        ((0.01, 0.05, 0.25), GETS_WORSE, ["learning-rate-too-high"]),
        ((0.001, 0.01, 0.1), list(np.linspace(3.0, 1.0, 300)), []),  # a long warm-up
        ((0.001, 0.01, 0.1), [9 * 0.97**step - 10 for step in range(300)], []),  # a likelihood
        ((0.1, 0.01, 0.001), GETS_WORSE, []),
    ],
)
def test_a_rate_that_rises_in_a_session_is_found(rates, losses, expected, is_set_beforehand):
    found = run_with_rates(rates, losses, is_set_beforehand)
    assert [one.symptom for one in found] == expected
    if found:
        assert "sessions.on_run(graph, " in found[0].source_context[2]
        assert ("change" in found[0].source_context[2]) is is_set_beforehand


@pytest.mark.parametrize(("factor", "is_found"), [(1.5, True), (0.9, False)])
def test_a_rate_that_rises_in_a_loop_is_found_where_it_is_set(tmp_path, factor, is_found):
    file = tmp_path / "train.py"
    file.write_text("for x, y in data:\n    step(x, y)\n    optimizer.learning_rate = rate\n")
    own, model = OwnTraining(), keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.01)
    for step in range(300):
        optimizer.learning_rate = 0.01 * factor ** (step // 20)
        own.on_call(model, X, model(X) if not step else None)
        own.on_apply(optimizer, model.trainable_variables, CallSite(str(file), 2))
    found = own.diagnoses({"loss": GETS_WORSE}, set(), is_broken=False)
    rates = [one for one in found if one.symptom == "learning-rate-too-high"]
    assert [one.line for one in rates] == [3] * is_found


@pytest.mark.parametrize(
    ("kind", "is_swapped", "expected"),
    [("BinaryCrossentropy", True, 1), ("BinaryCrossentropy", False, 0),
     ("MeanSquaredError", True, 0)],
)  # fmt: skip
def test_labels_in_the_place_of_predictions_are_found_in_an_eager_loop(kind, is_swapped, expected):
    own, model = OwnTraining(), keras.Sequential([keras.layers.Dense(1)])
    output = model(X)
    own.on_call(model, X, output)
    own.on_loss(getattr(keras.losses, kind)(), *((output, BITS) if is_swapped else (BITS, output)))
    found = own.diagnoses({}, set(), is_broken=False)
    swapped = [one for one in found if one.symptom == "labels-and-predictions-swapped"]
    assert [one.file for one in swapped] == [__file__] * expected


def test_an_optimizer_that_is_given_gradients_is_known_by_what_was_differentiated(monkeypatch):
    v1, sessions = tf.compat.v1, OwnSessions()
    kind = v1.train.Optimizer
    home = sys.modules[private("gradients_helper").__module__]
    for owner, name in (
        (kind, "compute_gradients"),
        (kind, "apply_gradients"),
        (home, private("gradients_helper").__name__),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back afterwards
    watch_minimizers(sessions)
    with tf.Graph().as_default():
        weights = v1.get_variable("w", [4])
        loss = tf.reduce_sum(weights**2, name="cost")
        (gradient,) = old_style.gradients(loss, [weights])
        v1.train.AdamOptimizer().apply_gradients([(gradient, weights)])
        assert sessions.loss_name == "cost:0"
        v1.train.AdamOptimizer().minimize(tf.reduce_sum(weights, name="other"))
        assert sessions.loss_name == "other:0"


def test_a_schedule_that_rises_is_found_and_what_asking_would_change_is_not_asked():
    sessions, v1 = OwnSessions(), tf.compat.v1
    asked = []
    with tf.Graph().as_default() as graph, v1.Session() as session:
        loss, count = tf.reduce_sum(v1.get_variable("w", [4]) ** 2), v1.train.create_global_step()
        rate = v1.train.exponential_decay(0.01, count, 20, 2.0)
        sessions.on_minimize(v1.train.GradientDescentOptimizer(rate), loss)
        step = sessions._optimizer.minimize(loss, global_step=count)
        session.run(v1.global_variables_initializer())
        for _ in range(200):
            session.run(step)
            sessions.on_run(graph, step, None, session.run)
        (found,) = sessions.diagnoses({loss.name: GETS_WORSE}, is_broken=False)
        assert (found.symptom, found.line) == (
            "learning-rate-too-high",
            sessions.optimizer_site.line,
        )
        noisy = v1.train.GradientDescentOptimizer(0.01 * tf.random.uniform([]))
        noisy.minimize(loss)
        sessions._rates.on_run(noisy, None, lambda *one: asked.append(one))
    assert not asked


@pytest.mark.parametrize(
    ("last", "yes", "expected"),
    [(0.693, 16, True), (0.693, 31, False), (0.4, 16, False)],
)
def test_a_session_that_ends_at_chance_is_found(last, yes, expected):
    sessions, v1 = OwnSessions(), tf.compat.v1
    labels = np.float32([1] * yes + [0] * (ROWS - yes))
    with tf.Graph().as_default() as graph:
        y, logit = v1.placeholder(tf.float32, [None]), v1.get_variable("w", [1])
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, logit + 0.0 * y))
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        sessions.on_minimize(optimizer, loss)
        step = optimizer.minimize(loss)
        for _ in range(2):
            sessions.on_run(graph, [step, loss], {y: labels})
    losses = [*np.linspace(0.9, last, 50), *([last] * 150)]
    found = sessions.diagnoses({loss.name: losses}, is_broken=False)
    assert [one.symptom for one in found] == ["no-better-than-constant"] * expected


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("def step_decay(epoch):\n    return 1\n", True),
        ("def lr_finder(model):\n    return 1\n", False),
    ],
)
def test_a_search_for_the_rate_raises_it_on_purpose(tmp_path, text, is_found):
    file = tmp_path / "program.py"
    file.write_text(text)
    rates, losses = [1e-4 * 2**step for step in range(12)], [*np.linspace(2, 1, 80), *[9.0] * 40]
    found = rising_rate(rates, losses, CallSite(str(file), 1))
    assert [(one.symptom, one.line) for one in found] == [("learning-rate-too-high", 1)] * is_found


def test_of_a_long_training_every_part_is_kept_and_all_of_its_end():
    losses = Histories()
    for step in range(60_000):
        num_seen = losses.note("loss", float(step))
    kept = losses.values["loss"]
    assert (num_seen, kept[0], kept[-1]) == (60_000, 0.0, 59_999.0)
    assert len(kept) <= 10_100
    assert kept == sorted(set(kept))
    assert set(np.diff(kept[:-NUM_LATEST])) == {8.0}
    assert set(np.diff(kept[-NUM_LATEST:])) == {1.0}
    short = History()
    for step in range(150):
        short.append(float(step))
    assert short.values == [float(step) for step in range(150)]


def test_a_loss_that_explodes_late_in_a_long_training_is_told_with_its_number_of_steps():
    losses = Histories()
    for value in [*[1.0] * 15_000, *np.geomspace(1.0, 1e6, 50), np.nan]:
        losses.note("loss", float(value))
    (found,) = own_divergence(losses.values, None, "", losses.counts)
    assert "within 15050 training steps" in found.cause


def test_losses_of_tests_between_the_steps_are_not_those_of_the_training(monkeypatch):
    watch, model = Watch(with_rules=True), small()
    train = watch._with_checked_result(type(model).train_on_batch)
    test = watch._with_checked_result(type(model).test_on_batch)
    for _ in range(3):
        train(model, X, X[:, :1])
        test(model, X, X[:, :1])
    assert [len(history) for history in watch.losses.values.values()] == [3]
    with pytest.raises(FaultSeen):
        test(model, X * np.nan, X[:, :1])
    assert watch.sign.value == "nan"


def test_models_and_losses_that_are_called_by_keyword_are_seen(monkeypatch):
    for kind in (keras.Model, keras.losses.Loss):
        monkeypatch.setattr(kind, "__call__", kind.__call__)
    own, model, loss = OwnTraining(), small(), keras.losses.MeanSquaredError()
    watch_models(own, lambda: False)
    x = tf.constant(X)
    loss(y_true=BITS, y_pred=model(inputs=x, training=True))
    (seen,) = own._seen.values()
    assert (seen.x is x, seen.y is BITS) == (True, True)
    loss(BITS * 0, y_pred=model(x))
    assert not seen.y.any()


def test_a_sign_in_another_thread_also_ends_the_main_one():
    watch, started = Watch(with_rules=True), threading.Event()

    def work():
        started.wait()
        time.sleep(0.5)  # a signal just before the wait would be seen only behind it
        with contextlib.suppress(FaultSeen):
            watch.note(Sign("result", "loss", "nan"))

    threading.Thread(target=work).start()
    # Ignored where the tests run in the background of a shell's script.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            started.set()
            threading.Event().wait(60.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert watch.sign.value == "nan"


def test_pickles_of_watched_objects_are_read_without_headstart():
    site = CallSite("train.py", 7)
    pickled = pickle.dumps({SITE: site})
    assert b"headstart.debug" not in pickled
    assert pickle.loads(pickled) == {SITE: None}
    assert copy.deepcopy(site) is copy.copy(site) is site


def test_a_mixin_may_make_its_objects_with_arguments():
    class Kind(keras.callbacks.Callback):
        pass

    class Named:
        def __new__(cls, name):
            made = super().__new__(cls)
            made.name = name
            return made

    class Log(Kind, Named):
        def __init__(self, name):
            super().__init__()

    Kind.__new__ = _noting_construction(Kind)
    log = Log("training")
    assert log.name == "training"
    assert vars(log)[SITE].file == __file__
    assert vars(Kind())[SITE].file == __file__


@pytest.mark.parametrize(
    ("kind", "num_found"), [(keras.optimizers.Adam, 1), (keras.optimizers.SGD, 0)]
)
def test_a_real_optimizer_that_is_made_in_each_step_is_found(kind, num_found):
    loops, weight = OwnLoops(), keras.Variable([1.0, 2.0])
    for _ in range(40):
        optimizer = kind(0.01)
        loops.on_apply(optimizer, [tf.ones(2)], [weight])  # told before it is built
        optimizer.apply([tf.ones(2)], [weight])
    found = [one for one in loops.diagnoses() if one.symptom == "optimizer-made-anew"]
    assert len(found) == num_found


def test_numbers_that_a_look_at_the_model_draws_are_put_back():
    def drawn(looks):
        keras.utils.set_random_seed(1)
        first = keras.random.normal((2,))
        if looks:
            with same_seeds():
                keras.random.normal((3,))
        return [*first.numpy(), *keras.random.normal((2,)).numpy()]

    assert drawn(looks=True) == drawn(looks=False)


def test_an_evaluation_behind_the_last_step_leaves_the_training_batch_and_its_targets():
    own = trained(X, "sigmoid")
    (seen,) = own._seen.values()
    test_rows = tf.constant(X + 1.0)
    own.on_call(seen.model, test_rows, seen.model(test_rows))
    assert seen.x is not test_rows
    np.testing.assert_array_equal(seen.y, BITS)


def test_outputs_and_earlier_inputs_go_when_the_program_lets_go_of_them():
    own, model = OwnTraining(), small()
    outputs, inputs = [], []
    for _ in range(MAX_HELD + 3):
        x = tf.constant(X) + 0.0
        output = model(x)
        own.on_call(model, x, output)
        outputs.append(weakref.ref(output))
        inputs.append(weakref.ref(x))
    own.on_loss(keras.losses.MeanSquaredError(), BITS, output)
    assert next(iter(own._seen.values())).y is BITS  # the loss of the last output is known
    del x, output
    gc.collect()
    assert [one() is None for one in outputs] == [True] * len(outputs)
    assert [one() is None for one in inputs] == [True] * 3 + [False] * MAX_HELD
    own.on_call(model, [X, X], {"a": X})  # what cannot be held weakly is passed over

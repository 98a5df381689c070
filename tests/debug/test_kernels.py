"""Units that stay alike, and weights so small that no signal gets through."""

import functools
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.callsites import locals_of
from headstart.debug.preflight.wrapping import wrapped_integers
from headstart.debug.running.own_sessions import OwnSessions
from headstart.debug.symptoms.kernels import Kernel, alike_units, faint_signal, names_in_frames
from headstart.debug.symptoms.own_loops import OwnLoops

v1 = tf.compat.v1
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype("float32")
Y = np.eye(3, dtype="float32")[RNG.integers(0, 3, 32)]
FLAT = [0.5] * 60
LINES = Path(__file__).read_text().splitlines()
LINE, LOOP_LINE = (
    next(n for n, line in enumerate(LINES, start=1) if line.endswith(end))
    for end in ("# FIRST", "# FIRST OF LOOP")
)


def zeros(*shape):
    return np.zeros(shape, np.float32)


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def tiny(*shape):
    return 1e-3 * random(*shape)


def found_in_session(first, second, is_turned=False, is_resource=True, losses=FLAT):
    """Take steps in a session, told of as the watch tells."""
    sessions = OwnSessions()
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x, y = v1.placeholder(tf.float32, [None, 4]), v1.placeholder(tf.float32, [None, 3])
        named = functools.partial(v1.get_variable, use_resource=is_resource)
        a = named("a", initializer=first(5, 4) if is_turned else first(4, 5))  # FIRST
        b = named("b", initializer=second(3, 5) if is_turned else second(5, 3))
        if is_turned:
            logits = tf.transpose(tf.matmul(b, tf.tanh(tf.matmul(a, x, transpose_b=True))))
        else:
            logits = tf.matmul(tf.tanh(tf.matmul(x, a)), b)
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y, logits))
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        step = optimizer.minimize(loss)
        sessions.on_minimize(optimizer, loss)
        session.run(v1.global_variables_initializer())
        num_ops = len(graph.get_operations())
        for _ in range(40):
            session.run(step, {x: X, y: Y})
            sessions.on_run(graph, step, {x: X, y: Y}, session.run)
        assert len(graph.get_operations()) == num_ops
        return sessions.diagnoses({sessions.loss_name: losses}, is_broken=False)


@pytest.mark.parametrize("is_resource", [True, False])
@pytest.mark.parametrize("is_turned", [True, False])
def test_hidden_units_of_a_session_that_stay_alike_are_told(is_turned, is_resource):
    falling = np.linspace(1.0, 0.8, 5)  # the loss is fetched now and then
    (found,) = found_in_session(zeros, zeros, is_turned, is_resource, falling.tolist())
    assert (found.symptom, found.line) == ("constant-initialisation", LINE)


def test_weights_of_a_session_that_let_no_signal_through_are_told():
    (found,) = found_in_session(tiny, tiny)
    assert (found.symptom, found.line) == ("odd-initialisation", LINE)
    assert "far too small" in found.cause


@pytest.mark.parametrize(
    ("first", "second", "losses"),
    [
        (random, zeros, np.linspace(1.0, 0.5, 60).tolist()),
        (random, random, np.linspace(1.0, 0.5, 60).tolist()),
        (tiny, tiny, np.linspace(1.0, 0.5, 60).tolist()),
        (tiny, random, FLAT),
    ],
)
def test_a_last_layer_of_zeros_and_small_weights_that_learn_are_passed_over(first, second, losses):
    found = [one.symptom for one in found_in_session(first, second, losses=losses)]
    assert not {"constant-initialisation", "odd-initialisation"}.intersection(found)


def loop_of(first, second, is_traced):
    loops = OwnLoops()
    net = SimpleNamespace()
    net.first = tf.Variable(first(4, 5))  # FIRST OF LOOP
    b = tf.Variable(second(5, 3))
    bias = tf.Variable(tf.zeros(3))

    def step(x):
        with tf.GradientTape() as tape:
            logits = tf.matmul(tf.tanh(tf.matmul(x, net.first)), b) + bias
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(Y, logits))
        gradients = tape.gradient(loss, [net.first, b, bias])
        loops.on_gradient([net.first, b, bias], gradients)
        for variable, gradient in zip([net.first, b, bias], gradients, strict=True):
            variable.assign_sub(0.1 * gradient)

    function = tf.function(step) if is_traced else step
    for _ in range(40):
        function(tf.constant(X))
        if is_traced:
            loops.on_call(function)
    return loops  # the step is gone, as one that a program's main() makes


@pytest.mark.parametrize("is_traced", [True, False])
def test_hidden_units_of_a_loop_that_stay_alike_are_told(is_traced):
    loops = loop_of(zeros, zeros, is_traced)
    (found,) = loops.diagnoses()
    assert (found.symptom, found.line) == ("constant-initialisation", LOOP_LINE)
    loops = loop_of(random, zeros, is_traced)
    assert loops.diagnoses() == []


def test_weights_of_a_loop_that_let_no_signal_through_are_told():
    loops = loop_of(tiny, tiny, is_traced=True)
    (found,) = faint_signal(loops.kernels, FLAT)
    assert (found.symptom, found.line) == ("odd-initialisation", LOOP_LINE)
    assert faint_signal(loops.kernels, [*FLAT, *[0.1] * 40]) == []
    loops = loop_of(random, random, is_traced=False)
    assert faint_signal(loops.kernels, FLAT) == []


class Large:
    """Something of which a test can tell whether it is still there."""


LOOKS = {
    "names_in_frames": lambda: names_in_frames([object()]),
    "wrapped_integers": wrapped_integers,
    "locals_of": lambda: locals_of(sys._getframe(1)),
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_a_function_deletes_is_freed_though_its_names_were_read(look):
    large, in_cell = Large(), Large()
    refs = [weakref.ref(large), weakref.ref(in_cell)]

    def delete():
        nonlocal in_cell
        LOOKS[look]()
        in_cell = None

    delete()
    LOOKS[look]()
    del large
    assert [one() for one in refs] == [None, None]


def test_names_are_read_and_what_the_program_keeps_in_its_locals_stays():
    variable, other = tf.Variable(1.0), tf.Variable(2.0)
    holder = SimpleNamespace(inner=other)
    exec("added = 7")
    assert names_in_frames([variable, other]) == [{"variable"}, {"other", "inner"}]
    assert locals().get("added") == (7 if sys.version_info < (3, 13) else None)
    kept = locals()
    names_in_frames([variable])
    assert kept["holder"] is holder
    assert kept["variable"] is variable


def test_biases_kept_as_matrices_and_broken_weights_are_not_alike():
    last = Kernel("last", random(4, 2))
    for values in (np.zeros((1, 8)), np.full((4, 4), np.nan), np.zeros((8, 1))):
        assert alike_units([Kernel("hidden", values), last]) == []
    assert alike_units([Kernel("hidden", np.ones((4, 4))), last])
    assert alike_units([last, Kernel("hidden", np.ones((4, 4)))]) == []

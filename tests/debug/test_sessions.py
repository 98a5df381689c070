import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.traces.sessions import DebugSession, has_inf_or_nan, interactive_session
from headstart.errors import ConfigError

v1 = tf.compat.v1


@pytest.fixture
def session():
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        logs = tf.math.log(x, name="logs")
        tf.reduce_sum(logs, name="total")
        tf.gradients(tf.sqrt(x, name="root"), x, name="back")
    wrapped = DebugSession(v1.Session(graph=graph))
    yield wrapped
    wrapped.close()


def test_a_run_returns_what_the_session_would(session):
    assert session.run("total:0", {"x:0": [1.0, 1.0]}) == 0.0
    assert session.matching() == []
    assert session.diagnoses() == []


def test_tensors_with_inf_or_nan_are_found_first_one_first(session):
    session.run("total:0", {"x:0": [0.0, 1.0]})
    assert [found.name for found in session.matching()] == ["logs:0", "total:0"]


def test_a_tensor_is_read_by_name(session):
    session.run("total:0", {"x:0": [1.0, 4.0]})
    np.testing.assert_allclose(session.tensor("logs"), [0.0, np.log(4.0)], rtol=1e-6)
    with pytest.raises(ConfigError, match="absent"):
        session.tensor("absent:0")


def test_a_node_shows_what_it_took_and_made(session):
    session.run("total:0", {"x:0": [0.0, 1.0]})
    node = session.node("logs")
    assert (node.op_type, node.site.file) == ("Log", __file__)
    assert [health.name for health in node.inputs] == ["x:0"]
    assert node.outputs[0].num_inf == 1
    with pytest.raises(ConfigError, match="no node of this name"):
        session.node("absent")


def test_filters_of_ones_own_are_used(session):
    session.add_filter("large", lambda name, value: value.dtype.kind == "f" and value.max() > 2)
    session.run("total:0", {"x:0": [1.0, 1e6]})
    assert [found.name for found in session.matching("large")][-2:] == ["logs:0", "total:0"]
    with pytest.raises(ConfigError, match="unknown filter"):
        session.matching("absent")


def test_the_first_bad_node_is_diagnosed_with_its_line(session):
    session.run("total:0", {"x:0": [0.0, 1.0]})
    (found,) = session.diagnoses()
    assert (found.op, found.symptom, found.file) == ("logs", "inf", __file__)
    assert 'name="logs"' in found.source_context[2]


def test_a_gradient_is_diagnosed_at_the_forward_line(session):
    session.run("back/root_grad/SqrtGrad:0", {"x:0": [0.0, 1.0]})
    (found,) = session.diagnoses()
    assert (found.op_type, found.phase) == ("SqrtGrad", "backward")
    assert 'name="root"' in found.source_context[2]


def test_dumping_stops_at_the_first_bad_run():
    with tf.Graph().as_default() as graph:
        tf.math.log(v1.placeholder(tf.float32, [], name="x"), name="log")
    wrapped = DebugSession(v1.Session(graph=graph), keeps_first_bad=True)
    wrapped.run("log:0", {"x:0": 0.0})
    assert wrapped.run("log:0", {"x:0": 1.0}) == 0.0
    assert np.isneginf(wrapped.tensor("log"))
    wrapped.close()


def test_a_session_that_has_not_run_cannot_be_asked(session):
    with pytest.raises(ConfigError, match="has not run yet"):
        session.tensors()


def test_the_prompt_needs_a_terminal(session, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(ConfigError, match="needs a terminal"):
        interactive_session(session)


def test_only_floats_hold_inf_or_nan():
    assert has_inf_or_nan("x", np.array([1.0, np.nan]))
    assert not has_inf_or_nan("x", np.array([1.0]))
    assert not has_inf_or_nan("x", np.array([1], "int32"))
    assert not has_inf_or_nan("x", np.array([b"nan"]))

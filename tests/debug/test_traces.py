"""Profiles, graphs and TensorBoard show the run."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.traces.graphs import export_graph, export_part
from headstart.debug.traces.profile import StepProfiler, render_profile, summarize
from headstart.debug.traces.tensorboard import start_tensorboard
from headstart.errors import ConfigError, RecordError, ServiceError
from tests.browser import Browser, needs_browser

pytestmark = [
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
    # xprof's protobuf modules.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def _model():
    layers = keras.layers
    return keras.Sequential([
        keras.Input([8]), layers.Dense(16, name="first"), layers.Dense(4, name="middle"),
        layers.Dense(1, name="last"),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    """A log directory with a profile of 6 steps, a graph, scalars and a debugger dump."""
    folder = tmp_path_factory.mktemp("logs")
    model = _model()
    model.compile("sgd", "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((np.ones((64, 8)), np.ones((64, 1)))).batch(4)
    profiler = StepProfiler(folder, first_step=3, num_steps=6, stops_after=True)
    with contextlib.closing(tf.summary.create_file_writer(str(folder / "train"))) as writer:
        model.fit(data, verbose=0, callbacks=[profiler])
        with writer.as_default():
            tf.summary.scalar("loss_of_the_test", 0.5, step=1)
    export_graph(model, folder / "graph")
    folder.joinpath("rendered.txt").write_text(render_profile(profiler.summary))
    return folder


def test_profile_tells_steps_waiting_and_ops(log_dir):
    summary = summarize(log_dir)
    assert 4 <= summary.num_steps <= 6
    assert summary.step_ms > 0.0
    assert summary.input_share + summary.compute_share == pytest.approx(1.0)
    assert any("MatMul" in op.op_type for op in summary.top_ops)
    assert sum(op.share for op in summary.top_ops) <= 1.0 + 1e-9
    text = (log_dir / "rendered.txt").read_text()
    assert "waiting for input" in text
    assert "not recorded" not in text


def test_folder_without_a_profile_is_an_error(tmp_path):
    with pytest.raises(RecordError, match=r"xplane\.pb"):
        summarize(tmp_path)


def test_graph_of_a_part_holds_only_what_lies_between(tmp_path):
    model = _model()
    whole = export_graph(model, tmp_path / "whole")
    part = export_part(model, "first", "middle", tmp_path / "part")
    assert 0 < part < whole
    with pytest.raises(ConfigError, match="choose among first, middle, last"):
        export_part(model, "first", "no_such_layer", tmp_path)


def test_function_that_was_traced_before_exports_its_graph(tmp_path):
    function = tf.function(lambda x: tf.square(x) + 1.0, autograph=False)
    function(tf.ones([3]))
    assert export_graph(function, tmp_path, tf.TensorSpec([3])) >= 3
    with pytest.raises(ConfigError, match="no example inputs"):
        export_graph(function, tmp_path)


@pytest.fixture(scope="module")
def board(log_dir):
    """A running TensorBoard on the log directory."""
    with start_tensorboard(log_dir) as running:
        yield running
    assert running.process.poll() is not None


def _get(board, path):
    with urllib.request.urlopen(board.url + path, timeout=60) as answer:
        body = answer.read()
    if body[:2] == b"\x1f\x8b":
        import gzip

        body = gzip.decompress(body)
    return json.loads(body)


def test_tensorboard_serves_graph_scalars_and_profile(board):
    assert board.url.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError, match="404"):  # below a path that nobody guesses
        urllib.request.urlopen(board.url.rpartition("/")[0], timeout=60)
    assert {"overview", "profile", "scalars", "graph"} == set(board.pages())
    assert "graph" in _get(board, "/data/plugin/graphs/info")
    assert "loss_of_the_test" in _get(board, "/data/plugin/scalars/tags")["train"]
    assert len(_get(board, "/data/plugin/profile/runs")) == 1
    plugins = _get(board, "/data/plugins_listing")
    assert {"graphs", "debugger-v2", "profile"} <= set(plugins)


@pytest.fixture(scope="module")
def browser():
    """A browser for the pages of this module."""
    with Browser() as running:
        yield running


@needs_browser
def test_browser_shows_the_scalars_of_the_run(board, browser):
    browser.open(board.pages()["scalars"])
    # The value comes with its run, in the table below the chart.
    browser.wait_for("loss_of_the_test", "Smoothed", "train 0.5 0.5 1")


@needs_browser
def test_browser_shows_the_graph_of_the_model(board, browser):
    browser.open(board.pages()["graph"])
    browser.wait_for("Main Graph", "sequential", "keras_ten")


@needs_browser
def test_browser_shows_the_profile_of_the_run(board, browser):
    browser.open(board.pages()["profile"])
    (session,) = [path.name for path in (board.log_dir / "plugins" / "profile").iterdir()]
    browser.wait_for("Sessions (1)", session, "Overview Page", "Host Compute Time")


DUMPING = """
import sys
import tensorflow as tf
writer = tf.debugging.experimental.enable_dump_debug_info(sys.argv[1], "FULL_HEALTH", -1)
@tf.function
def logarithm_of_nothing():
    return tf.math.log(tf.zeros([3]))
logarithm_of_nothing()
writer.FlushNonExecutionFiles()
writer.FlushExecutionFiles()
"""


@needs_browser
def test_browser_shows_the_alert_of_a_dump(tmp_path, browser):
    script = tmp_path / "dumping.py"
    script.write_text(DUMPING)
    dump = tmp_path / "run" / "dump"
    subprocess.run([sys.executable, str(script), str(dump)], check=True, capture_output=True)
    with start_tensorboard(tmp_path / "run") as board:
        pages = board.pages()
        run = "__default_debugger_run__"
        assert list(_get(board, "/data/plugin/debugger-v2/runs")) == [run]
        query = f"/data/plugin/debugger-v2/alerts?run={run}&begin=0&end=-1"
        for _ in range(100):  # the server reads the dump in the background
            alerts = _get(board, query)["alerts"]
            if alerts:
                break
            time.sleep(0.1)
        assert alerts[0]["op_type"] == "Log"
        browser.open(pages["debugger"])
        browser.wait_for("NaN/∞", "logarithm_of_nothing", "Log")


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ServiceError, match="no such folder of logs"):
        start_tensorboard(tmp_path / "nowhere")

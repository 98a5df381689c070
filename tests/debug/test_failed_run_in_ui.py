"""A person opens the page of a failed flow run and reads which layer and which line broke it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.browser import Browser, needs_browser

pytestmark = [pytest.mark.server, needs_browser]

START_LIMIT_S = 240.0
PAINTING_S = 1.0
"""Before a picture is taken for a person: the text is there before it is painted."""
SCRIPT = """
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from prefect import flow

from headstart.flows.diagnosis import diagnose_failure, watching


@keras.saving.register_keras_serializable("tests")
class Fragile(keras.layers.Layer):
    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1.0)
        room = 37.5 - self.calls
        return x * tf.sqrt(room) / tf.sqrt(tf.abs(room))


@flow(name="users", on_failure=[diagnose_failure])
def train_mine():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8), Fragile(name="fragile"), layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(256, 4)).astype(np.float32)
    with watching(Path(sys.argv[1])) as watch:
        model.fit(x, (x[:, 0] > 0).astype(np.int32), batch_size=16, epochs=5, verbose=0,
                  shuffle=False, callbacks=watch.callbacks)


state = train_mine(return_state=True)
print(state.name, state.state_details.flow_run_id)
"""
LINE = 1 + SCRIPT.splitlines().index("        return x * tf.sqrt(room) / tf.sqrt(tf.abs(room))")


@pytest.fixture
def server(tmp_path):
    """Start a Prefect server that serves its pages; yield its address and environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
    }
    command = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--no-services"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_up(f"{url}/api/health", process)
        yield url, environment
    finally:
        process.terminate()
        process.wait()


def _wait_until_up(address, process):
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the Prefect server did not start")


def _diagnosis(url, run_id):
    query = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": ["users-diagnosis"]}}}
    request = urllib.request.Request(
        f"{url}/api/artifacts/filter",
        json.dumps(query).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        (artifact,) = json.load(answer)
    return artifact["id"]


def test_the_page_of_a_failed_run_leads_to_layer_and_line(server, tmp_path):
    url, environment = server
    script = tmp_path / "train_mine.py"
    script.write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    name, run_id = ended.stdout.split()[-2:]
    assert name == "Failed"
    with Browser() as browser:
        browser.open(f"{url}/v2/runs/flow-run/{run_id}?tab=Artifacts")
        browser.wait_for("Failed", "users", "users-diagnosis")
        browser.screenshot(tmp_path / "run.png")
        browser.open(f"{url}/v2/artifacts/artifact/{_diagnosis(url, run_id)}")
        # "when: training step 37" is in the rendered text alone; the raw one has Markdown marks.
        browser.wait_for(
            "when: training step 37", "layer: fragile", f"train_mine.py:{LINE}",
            "argument is negative", "headstart debug replay",
        )  # fmt: skip
        time.sleep(PAINTING_S)
        browser.screenshot(tmp_path / "diagnosis.png")

"""The checking and tracing commands: exit codes and what they print."""

import json

import keras
import pytest
from typer.testing import CliRunner

from headstart.debug.cli import app

# TensorFlow's variables do not know NumPy 2's copy keyword yet; Keras copies them when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCRIPT = """
import keras, numpy as np
x, y = np.random.default_rng(0).random((64, 4)), np.arange(64) % {num_labels}
model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y, epochs=20, batch_size=8, verbose=0)
"""


def _run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_check_reports_json_and_leaves_with_1(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(num_labels=3))
    result = _run("check", "--json", script)
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)["diagnoses"]
    assert (found["symptom"], found["line"]) == ("label-out-of-range", 6)


def test_profile_prints_the_answer_and_keeps_the_profile(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(num_labels=2))
    result = _run("profile", "--log-dir", tmp_path / "logs", "--num-steps", 5, script)
    assert result.exit_code == 0, result.output
    assert "waiting for input" in result.stdout
    assert any((tmp_path / "logs").rglob("*.xplane.pb"))
    assert _run("profile", tmp_path / "logs").exit_code == 0


def test_graph_of_a_saved_model_is_exported(tmp_path):
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, name="only")])
    model.save(tmp_path / "model.keras")
    result = _run("graph", tmp_path / "model.keras", "--log-dir", tmp_path / "logs")
    assert result.exit_code == 0, result.output
    assert any((tmp_path / "logs").glob("*tfevents*"))


@pytest.mark.parametrize("command", ["check", "replay", "profile", "graph"])
def test_missing_target_leaves_with_2(command, tmp_path):
    assert _run(command, tmp_path / "nowhere").exit_code == 2

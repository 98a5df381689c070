"""A failed step is recorded, bundled and taken again to the bit."""

import json
import logging
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.replay.bundle import SCHEMA, find_bundle, read_bundle, without_paths
from headstart.debug.replay.child import defining_statements
from headstart.debug.replay.recorder import FlightRecorder, LastSteps, NonFiniteLossError
from headstart.debug.replay.replay import explain_failure, replay
from headstart.errors import RecordError

# TensorFlow's variables do not know NumPy 2's copy keyword yet; Keras copies them when it saves.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
]

SCRIPT = """
import sys
from pathlib import Path
import keras, numpy as np, tensorflow as tf
from headstart.debug.replay.recorder import FlightRecorder

class Logarithm(keras.layers.Layer):
    def call(self, x):
        return tf.math.log(tf.math.abs(x))

keras.utils.set_random_seed(3)
x = np.random.default_rng(0).normal(size=(45 * 4, 3)).astype("float32")
x[37 * 4 + 1] = 0.0
data = tf.data.Dataset.from_tensor_slices((x, np.full((len(x), 1), 0.3, "float32"))).batch(4)
model = keras.Sequential([
    Logarithm(), keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
model.compile("adam", "mse", metrics=["mae"])
recorder = FlightRecorder(Path(sys.argv[1]), stops_on_nan=True)
model.fit(data, verbose=0, callbacks=[recorder])
"""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """Folder with the bundle of a script whose own layer made Inf at step 37."""
    home = tmp_path_factory.mktemp("crash")
    script = home / "train.py"
    script.write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, str(script), "run"], cwd=home, capture_output=True, text=True, check=False
    )
    assert "NonFiniteLossError: The loss of step 37 is nan" in ended.stderr
    script.unlink()  # the bundle alone must do
    return home / "run"


def test_bundle_holds_the_steps_since_the_snapshot_and_no_paths(crashed):
    bundle = read_bundle(crashed)
    assert (bundle.step, bundle.first_step) == (37, 32)
    assert len(bundle.batches) == 6
    assert not bundle.batches[-1][0][1].any()
    text = (bundle.folder / "bundle.json").read_text()
    assert str(crashed.parent) not in text
    assert (bundle.folder / "sources" / "__main__.py").read_text() == SCRIPT
    assert set(json.loads(text)["versions"]) == {"python", "tensorflow", "keras", "numpy"}


def test_replay_names_the_layer_and_line_and_is_exact(crashed):
    done = replay(crashed)
    assert done.is_exact
    assert (
        done.message == "The replay of training steps 32 to 37 reproduced the failure, bit for bit."
    )
    first = done.diagnoses[0]
    assert (first.symptom, first.op_type, first.line, first.step) == ("inf", "Log", 9, 37)
    assert first.layer.startswith("logarithm")


def test_failure_without_a_bundle_is_explained_and_does_not_raise(tmp_path):
    report = explain_failure(tmp_path)
    assert "could not be replayed" in report
    assert "FlightRecorder" in report
    with pytest.raises(RecordError, match=r"bundle\.json"):
        find_bundle(tmp_path)


@pytest.mark.parametrize("head", [b"{'descr': '<f4'", b"{" * 300, b"\xff", b"{'shape': (10**15,)}"])
def test_an_array_with_a_damaged_head_is_a_damaged_bundle(tmp_path, head):
    # NumPy reads the head as Python, and says of a bracket too many what Python's tokenizer says.
    facts = {"schema": SCHEMA, "sources": [], "state": [{"dtype": "float32"}], "batches": []}
    (tmp_path / "bundle.json").write_text(json.dumps(facts))
    np.savez(tmp_path / "batches.npz", a=np.ones(1))
    with zipfile.ZipFile(tmp_path / "state.npz", "w") as archive:
        start = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little")
        archive.writestr("v0.npy", start + head)
    with pytest.raises(RecordError, match="crash bundle is incomplete or damaged"):
        read_bundle(tmp_path)


def _fit(recorder, x, **compiled):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False, **compiled)
    data = tf.data.Dataset.from_tensor_slices((x, np.ones((len(x), 1), np.float32))).batch(2)
    return model.fit(data, verbose=0, callbacks=[recorder]).history["loss"], model


def test_recorder_changes_nothing_and_lets_go(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    recorder = FlightRecorder(tmp_path, every=4)
    watched, model = _fit(recorder, x)
    bare, _ = _fit(keras.callbacks.Callback(), x)
    assert watched == bare
    assert recorder.bundle is None
    assert recorder.held_bytes == 0
    assert type(model.train_function).__name__ != "StepTap"
    assert list(tmp_path.iterdir()) == []


def test_batches_held_stay_within_the_limit(tmp_path):
    held = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            held.append(sum(b[0].numpy().nbytes for _, b in recorder.flight.batches))

    x = np.ones((200, 2), np.float32)
    recorder = FlightRecorder(tmp_path, every=1000, max_bytes=400)
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((x, np.ones((200, 1), np.float32))).batch(2)
    model.fit(data, verbose=0, callbacks=[recorder, Look()])
    assert max(held) <= 400
    assert len(held) == 100


@pytest.mark.parametrize(
    ("width", "max_bytes", "expected"),
    [(64, 20_000, "no flight"), (64, 60_000, ""), (2, 100, "no flight")],  # weights, batches
)
def test_what_has_no_room_is_let_go_of_though_it_is_built_in_the_first_step(
    width, max_bytes, expected, caplog
):
    held = []
    recorder = LastSteps(every=1000, max_bytes=max_bytes)
    recorder.loudness = logging.WARNING
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: held.append(recorder.held_bytes)
    )
    model = keras.Sequential([keras.layers.Dense(width)])
    model.compile("sgd", "mse", jit_compile=False)
    x = np.ones((20, width), np.float32)
    with caplog.at_level(logging.WARNING, "headstart.debug"):
        model.fit(x, x, batch_size=4, verbose=0, callbacks=[recorder, look])
    assert max(held) <= max_bytes
    assert (held[-1] == 0) is bool(expected)
    assert expected in caplog.text


def test_nan_is_bundled_once_where_training_goes_on(tmp_path):
    x = np.ones((40, 2), np.float32)
    x[20] = np.nan
    recorder = FlightRecorder(tmp_path, every=4)
    _fit(recorder, x)
    assert [path.name for path in tmp_path.iterdir()] == ["crash-000010"]
    assert read_bundle(tmp_path).facts["error_type"] == NonFiniteLossError.__name__


def test_a_deterministic_program_is_recorded_without_a_generator(tmp_path, monkeypatch):
    def refuse():
        raise RuntimeError('"get_global_generator" cannot be called if determinism is enabled')

    monkeypatch.setattr(tf.random, "get_global_generator", refuse)
    x = np.ones((8, 2), np.float32)
    x[5] = np.nan
    _fit(FlightRecorder(tmp_path), x)
    assert read_bundle(tmp_path).facts["random"]["tensorflow"] is None


def test_exception_in_a_step_is_bundled_and_raised_on(tmp_path):
    recorder = FlightRecorder(tmp_path)
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    x = np.ones((8, 2), np.float32)
    data = tf.data.Dataset.from_tensor_slices((x, np.ones((8, 3, 5), np.float32))).batch(2)
    with pytest.raises(Exception, match=r".") as raised:
        model.fit(data, verbose=0, callbacks=[recorder])
    bundle = read_bundle(tmp_path)
    assert (bundle.step, bundle.facts["error_type"]) == (0, raised.type.__name__)
    assert recorder.held_bytes == 0
    assert type(model.train_function).__name__ != "StepTap"


def test_exception_text_loses_its_absolute_paths():
    text = 'File "/home/ann/project/train.py", line 3: a/b is fine'
    assert without_paths(text) == 'File "train.py", line 3: a/b is fine'


LAYER = """
import keras
import tensorflow as tf

class Root(keras.layers.Layer):
    def call(self, x):
        return tf.sqrt(x)
"""


def test_replay_finds_the_step_within_a_call_of_several(tmp_path, monkeypatch):
    (tmp_path / "my_root.py").write_text(LAYER)
    monkeypatch.syspath_prepend(tmp_path)
    from my_root import Root

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).uniform(0.5, 1.0, (100, 2)).astype(np.float32)
    x[2 * 21] = -1.0  # in step 21, the second of the call that ends with step 24
    model = keras.Sequential([keras.Input([2]), Root(), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False, steps_per_execution=5)
    data = tf.data.Dataset.from_tensor_slices((x, np.ones((100, 1), np.float32))).batch(2)
    recorder = FlightRecorder(tmp_path / "run", every=16, stops_on_nan=True)
    with pytest.raises(NonFiniteLossError, match="step 24 is nan"):
        model.fit(data, verbose=0, callbacks=[recorder])
    assert read_bundle(tmp_path / "run").first_step == 16
    done = replay(tmp_path / "run")
    first = done.diagnoses[0]
    assert done.is_exact, done.message
    assert (first.symptom, first.op_type, first.line, first.step) == ("nan", "Sqrt", 7, 21)
    assert first.file == str(tmp_path / "my_root.py")  # the user's own, and not the copy


TRAINING_SCRIPT = """
import sys
from pathlib import Path
WIDTH = 3 * 2
ACTIVATION = make_activation = lambda x: x
class Layer:
    width = WIDTH
def data():
    return read(WIDTH)
def train():
    return model.fit(ACTIVATION)
@flow(name="mine")
def run():
    return ROWS
def main():
    return train()
ROWS = data()
history = train()
LOSS = main()
state = run()
print(history)
if __name__ == "__main__":
    main()
"""


def test_replaying_a_script_runs_its_definitions_and_not_its_training():
    import ast

    kept = [ast.unparse(node).splitlines()[0] for node in
            defining_statements(ast.parse(TRAINING_SCRIPT))]  # fmt: skip
    assert kept == [
        "import sys", "from pathlib import Path", "WIDTH = 3 * 2",
        "ACTIVATION = make_activation = lambda x: x", "class Layer:", "def data():",
        "def train():", "@flow(name='mine')", "def main():", "ROWS = data()",
    ]  # fmt: skip

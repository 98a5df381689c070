"""A bundle from elsewhere, a damaged one, and one that reaches out of its folder."""

import json
import os

import keras
import numpy as np
import pytest

from headstart.debug.dump.dump import read_dump
from headstart.debug.replay.bundle import read_bundle
from headstart.debug.replay.recorder import FlightRecorder
from headstart.debug.replay.replay import replay
from headstart.debug.replay.trust import is_sealed_here, seal
from headstart.errors import RecordError


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "crash-000001"
    (folder / "sources").mkdir(parents=True)
    (folder / "sources" / "own.py").write_text("x = 1\n")
    facts = {"schema": 1, "sources": [{"name": "own.py"}], "state": [], "batches": []}
    (folder / "bundle.json").write_text(json.dumps(facts))
    for name in ("state.npz", "batches.npz"):
        np.savez(folder / name)
    return folder


def test_a_seal_is_this_users_and_breaks_with_any_change(bundle, tmp_path, monkeypatch):
    assert not is_sealed_here(bundle)
    seal(bundle)
    assert is_sealed_here(bundle)
    assert is_sealed_here(bundle.rename(tmp_path / "moved"))
    moved = tmp_path / "moved"
    (moved / "sources" / "own.py").write_text("x = 2\n")
    assert not is_sealed_here(moved)
    seal(moved)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    assert not is_sealed_here(moved)


def test_a_bundle_from_elsewhere_is_not_run_unless_it_is_trusted(bundle):
    with pytest.raises(RecordError, match="--trust"):
        replay(bundle)


def test_sources_outside_of_the_bundle_are_refused(bundle):
    facts = json.loads((bundle / "bundle.json").read_text())
    facts["sources"][0]["name"] = "../../elsewhere.py"
    (bundle / "bundle.json").write_text(json.dumps(facts))
    with pytest.raises(RecordError, match="outside its folder"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["bundle.json", "state.npz", "batches.npz"])
def test_a_damaged_bundle_is_an_error_that_names_it(bundle, name):
    (bundle / name).write_bytes((bundle / name).read_bytes()[:7])
    with pytest.raises(RecordError, match="crash bundle is incomplete or damaged") as caught:
        read_bundle(bundle)
    assert str(bundle) in str(caught.value)


def test_a_damaged_dump_is_an_error_that_names_it(tmp_path):
    for part in ("metadata", "source_files", "stack_frames", "graphs", "execution",
                 "graph_execution_traces"):  # fmt: skip
        (tmp_path / f"tfdbg_events.0.x.{part}").write_bytes(b"\x99" * 40)
    with pytest.raises(RecordError, match="damaged"):
        read_dump(tmp_path)


def test_weights_over_the_bound_are_not_held(tmp_path):
    model = keras.Sequential([keras.Input([64]), keras.layers.Dense(64)])
    model.compile("sgd", "mse", jit_compile=False)
    held = []
    recorder = FlightRecorder(tmp_path, max_bytes=20_000)
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: held.append(recorder.held_bytes)
    )
    x = np.ones((8, 64), "float32")
    model.fit(x, x, batch_size=4, verbose=0, callbacks=[recorder, look])
    assert max(held) <= 20_000


def test_a_bundle_is_read_within_bounds_before_it_is_trusted(bundle):
    np.savez_compressed(bundle / "state.npz", v0=np.zeros(2**25, np.float32))
    with pytest.raises(RecordError, match="unpacks to 134,217"):
        read_bundle(bundle)
    (bundle / "state.npz").unlink()
    os.mkfifo(bundle / "state.npz")
    with pytest.raises(RecordError, match="not a regular file"):
        read_bundle(bundle)

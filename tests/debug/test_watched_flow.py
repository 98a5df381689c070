"""The pipeline's own trainings are watched, and what is found goes with the run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from headstart.flows import diagnosis


def test_a_rate_that_moves_nothing_is_told_with_the_run(finished):
    summary = finished.run("head.learning_rate=1e-12")
    found = summary.diagnoses[0]
    assert found["symptom"] == "learning-rate-too-low"
    written = json.loads((Path(summary.run_dir) / "run.json").read_text())
    assert written["diagnoses"][0]["cause"] == found["cause"]


def test_a_healthy_run_and_one_that_trains_nothing_say_nothing(finished):
    assert finished.run("head.seed=3").diagnoses == ()
    assert finished.run("head.seed=3").diagnoses == ()


@pytest.fixture
def run(monkeypatch):
    """A flow run in progress."""
    run = SimpleNamespace(id="run")
    context = SimpleNamespace(flow_run=run, flow=None)
    monkeypatch.setattr(diagnosis, "FlowRunContext", SimpleNamespace(get=lambda: context))
    return run


def test_recorders_are_kept_only_for_a_run_that_may_fail(run, tmp_path, monkeypatch):
    for _ in range(3):  # a sweep
        with diagnosis.watching(tmp_path):
            assert len(diagnosis._recorders["run"]) == 1
        assert diagnosis._recorders == {}
    diagnosis.flight_recorder(tmp_path)
    diagnosis.forget(None, run, None)
    assert diagnosis._recorders == {}
    monkeypatch.setattr(diagnosis, "FlowRunContext", SimpleNamespace(get=lambda: None))
    diagnosis.flight_recorder(tmp_path)
    assert diagnosis._recorders == {}

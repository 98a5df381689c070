"""The pipeline's own trainings are watched, and what is found goes with the run."""

import inspect
import json
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from headstart.config import Config, FinetuneConfig, ScratchConfig, TransferConfig
from headstart.debug.callsites import is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.flows import diagnosis
from headstart.flows.diagnosis import SETTING_OF, Watch
from headstart.tasks.head.training import train_head


def test_a_rate_that_moves_nothing_is_told_with_the_run(finished):
    summary = finished.run("head.learning_rate=1e-10")
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
    monkeypatch.setattr(diagnosis, "flow_run_context", lambda: context)
    return run


def test_recorders_are_kept_only_for_a_run_that_may_fail(run, tmp_path, monkeypatch):
    for _ in range(3):  # a sweep
        with diagnosis.watching(tmp_path):
            assert len(diagnosis._recorders["run"]) == 1
        assert diagnosis._recorders == {}
    diagnosis.flight_recorder(tmp_path)
    diagnosis.forget(None, run, None)
    assert diagnosis._recorders == {}
    monkeypatch.setattr(diagnosis, "flow_run_context", lambda: None)
    diagnosis.flight_recorder(tmp_path)
    assert diagnosis._recorders == {}


def test_a_stages_finding_names_its_setting_and_no_line_of_headstarts() -> None:
    seen = Diagnosis(symptom="learning-rate-too-high", cause="it leaps", suggestions=("lower it",))
    nothing, rules = SimpleNamespace(diagnoses=[]), SimpleNamespace(diagnoses=[seen])
    (found,) = Watch(nothing, nothing, rules, "tuning").diagnoses
    assert found.suggestions[-1] == "in this run that is --set tuning.learning_rate=…"
    assert not is_users(inspect.getfile(train_head))
    assert is_users(__file__)
    assert not is_users(str(Path(sysconfig.get_path("scripts")) / "headstart"))


def test_nobody_is_told_to_scale_what_a_stage_trains_on() -> None:
    seen = Diagnosis(symptom="unscaled-input", cause="They are not scaled.", phase="data")
    preflight, nothing = SimpleNamespace(diagnoses=[seen]), SimpleNamespace(diagnoses=[])
    assert Watch(nothing, preflight, nothing, "head").diagnoses == []
    assert Watch(nothing, preflight, nothing).diagnoses == [seen]


@pytest.mark.parametrize(
    ("section", "model"),
    [("head", TransferConfig), ("tuning", FinetuneConfig), ("training", ScratchConfig)],
)
def test_settings_that_findings_name_exist(section: str, model: type[Config]) -> None:
    fields = model.model_fields[section].annotation.model_fields
    assert set(SETTING_OF.values()) <= set(fields)


def test_keys_of_artifacts_are_ones_that_prefect_takes():
    assert diagnosis.artifact_key("Train mine, again!", "findings") == "train-mine-again-findings"
    assert diagnosis.artifact_key("Ünïcode_Flow", "diagnosis") == "n-code-flow-diagnosis"
    assert diagnosis.artifact_key("!!", "findings") == "flow-findings"

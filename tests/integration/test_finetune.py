"""The ladder on a tiny network: rungs, resuming, undoing, exporting."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import FinetuneConfig, build_config
from headstart.flows.finetune import FinetuneSummary, finetune
from headstart.tasks.export.predict import Predictor
from headstart.tasks.finetuning import stage as rung_stage
from tests.pipeline import LADDER, QUICK, Pipeline


def climb(pipeline: Pipeline, *settings: str, out: Path | None = None) -> FinetuneSummary:
    """Run the flow, without Prefect."""
    name = f"backbone.name={pipeline.backbone}"
    config = build_config(
        FinetuneConfig, pipeline.images, settings=(*QUICK, *LADDER, name, *settings)
    )
    summary = finetune.fn(config, pipeline.store.root, out)
    assert isinstance(summary, FinetuneSummary)
    return summary


def test_one_pass_serves_all_rungs_and_a_killed_ladder_goes_on_where_it_was(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    starts: list[str] = []
    train = rung_stage.train_network

    def die_in_the_second(network: Any, *arguments: Any) -> Any:
        starts.append(network.groups[-1][0])
        if len(starts) == 2:
            raise KeyboardInterrupt
        return train(network, *arguments)

    monkeypatch.setattr(rung_stage, "train_network", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        climb(pipeline)
    assert pipeline.num_passed() == 36
    first = climb(pipeline, out=tmp_path / "run")
    assert pipeline.num_passed() == 0
    statuses = [(stage.name, stage.status) for stage in first.stages]
    assert statuses[2:6] == [
        ("bottlenecks", "hit"),
        ("head", "hit"),
        ("rung", "hit"),
        ("rung", "miss"),
    ]
    assert [rung.start for rung in first.rungs] == ["top", "second", "first", "pixels"]
    assert first.rungs[-1].status == "not tried"
    assert "there is no GPU" in first.rungs[-1].verdict
    assert "an epoch would take about" in first.rungs[-1].verdict
    again = climb(pipeline, out=tmp_path / "run")  # over the finished run
    assert {stage.status for stage in again.stages} == {"hit"}
    assert again.rungs == first.rungs
    assert json.loads((tmp_path / "run" / "run.json").read_text())["rungs"]
    assert "not tried" in Path(again.ladder).read_text()


def test_a_rung_that_does_not_help_is_undone_and_the_head_exported(finished: Pipeline) -> None:
    summary = climb(finished, "ladder.cuts=[second]", "tuning.learning_rate=3", "tuning.epochs=1")
    # What is kept is the head of the finished run, evaluated and exported there already.
    computed = [stage.name for stage in summary.stages if stage.status == "miss"]
    assert computed == ["bottlenecks", "rung"]
    head, rung, _ = summary.rungs
    assert (head.status, rung.status) == ("kept", "undone")
    assert rung.gain is not None
    assert rung.gain < 0
    # Half of six images is a great deal, and yet no proof.
    assert rung.verdict.startswith("undone, no clear difference")
    assert "within noise" in Path(summary.ladder).read_text()
    assert summary.metrics["val"]["accuracy"] == pytest.approx(head.val_accuracy)


def test_what_was_trained_end_to_end_is_exported_and_predicts(pipeline: Pipeline) -> None:
    settings = ("ladder.cuts=[]", "ladder.end_to_end=always", "tuning.learning_rate=0.001")
    # A head that has hardly learned, so that the rung helps.
    summary = climb(pipeline, *settings, "head.epochs=1", "head.learning_rate=0.0001")
    assert [(rung.start, rung.status) for rung in summary.rungs] == [
        ("top", "kept"),
        ("pixels", "kept"),
    ]
    export = summary.stages[-1]
    assert export.name == "export"  # and proven there against the pipeline's predictions
    predictor = Predictor.load(Path(summary.run_dir))
    assert predictor.card.cut == "pixels"
    path = next(pipeline.images.rglob("*.png"))
    pixels = np.asarray(Image.open(path))
    assert predictor.predict([path])[0].label == predictor.predict([pixels])[0].label


def test_the_command_goes_on_from_a_run(finished: Pipeline) -> None:
    run = finished.run()
    arguments = ["finetune", run.run_dir, "--rungs", "0", "--no-end-to-end", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--store", str(finished.store.root)])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert {stage["status"] for stage in printed["stages"]} == {"hit"}
    assert [rung["status"] for rung in printed["rungs"]] == ["kept", "not tried"]
    assert printed["metrics"] == json.loads(json.dumps(run.metrics))

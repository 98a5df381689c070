"""`headstart rank` and `headstart sources` on tiny networks, from end to end."""

import csv
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from headstart.cli import app
from headstart.commands.rank import shown_names
from headstart.config import FinetuneConfig, RankConfig, build_config
from headstart.errors import BackboneError, TrainingError
from headstart.tasks.ranking.sources import IMAGENET, NUM_IMAGENET_IMAGES, list_sources
from headstart.tasks.store.sealing import sealed_text
from tests.pipeline import QUICK, Pipeline, add_images, save_backbone

SMALL = (
    "candidates.cuts=[second, top]",
    "baseline.max_seconds=0.5",
    "baseline.image_size=16",
    "scoring.num_neighbours=3",
    "bottlenecks.batch_size=4",
    "bottlenecks.num_parity_rows=2",
    *(setting for setting in QUICK if setting.startswith(("head.", "evaluation."))),
)


def rank(pipeline: Pipeline, *settings: str, **overrides: Any) -> Any:
    from headstart.flows.rank import rank as flow

    # Of the same name: `headstart train` calls every model of its own model.keras.
    other = pipeline.backbone.parent / "other" / pipeline.backbone.name
    if not other.exists():
        other.parent.mkdir()
        save_backbone(other, seed=1)
    config = build_config(
        RankConfig,
        pipeline.images,
        settings=(*SMALL, *settings),
        overrides={"candidates.backbones": [str(pipeline.backbone), str(other)], **overrides},
    )
    return flow.fn(config, pipeline.store.root)


def test_a_ranking_shows_every_score_beside_a_measured_accuracy_and_repeats_nothing(
    pipeline: Pipeline,
) -> None:
    summary = rank(pipeline)
    assert pipeline.num_passed() == 2 * 36  # one pass a backbone, for both of its cuts
    verdict = summary.metrics
    assert len(verdict["candidates"]) == 4
    for one in verdict["candidates"]:
        assert one["scores"]["leep"] is None
        assert all(one["scores"][name] is not None for name in ("logme", "h_score", "knn", "probe"))
        assert 0.0 <= one["accuracy"] <= 1.0
        assert one["uncached_s"] > 0
    assert set(verdict["agreement"]) == set(verdict["candidates"][0]["scores"])
    assert verdict["baseline_accuracy"] is not None
    page = Path(summary.report).read_text()
    assert verdict["pick"].split(":")[-1] in page
    assert "Weighted Kendall" in page
    rows = list(csv.DictReader(Path(summary.table).read_text().splitlines()))
    assert [float(row["accuracy"]) for row in rows] == [
        one["accuracy"] for one in verdict["candidates"]
    ]
    assert json.loads((Path(summary.run_dir) / "run.json").read_text())["metrics"] == verdict
    # The budget of the baseline is that of the best transfer, which is known from the store.
    again = rank(pipeline)
    assert pipeline.num_passed() == 0
    assert {one.status for one in again.stages if one.name != "views"} == {"hit"}
    told = (
        "backbone", "cut", "scores", "accuracy", "epochs", "cached_s", "transfer_s", "uncached_s",
    )  # fmt: skip
    first, second = (
        [[one[name] for name in told] for one in made.metrics["candidates"]]
        for made in (summary, again)
    )
    assert first == second
    assert again.metrics["ranking_s"] == summary.metrics["ranking_s"]
    # Each training has a folder of its own: nothing of another is in what was stored.
    assert len(list((Path(summary.run_dir) / "tensorboard").iterdir())) == 4
    for head in (pipeline.store.root / "artefacts" / "head").iterdir():
        assert len(list((head / "tensorboard").rglob("train/events*"))) == 1
    bare = rank(pipeline, "baseline.enabled=false")
    assert bare.metrics["baseline_accuracy"] is None
    assert "baseline" not in [one.name for one in bare.stages]


def test_the_baseline_finds_its_budget_again_where_the_transfer_decides_it(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[float] = []

    def train(*arguments: Any) -> Any:
        budgets.append(arguments[4])
        return SimpleNamespace(accuracy=0.5, metric="accuracy", budget_s=arguments[4])

    one = {"candidates.backbones": [str(pipeline.backbone)], "candidates.cuts": ["top"]}
    rank(pipeline, "baseline.enabled=false", **one)
    for path in (pipeline.store.root / "manifests" / "views").rglob("*.json"):
        manifest = json.loads(path.read_text())
        path.write_text(sealed_text({**manifest, "duration_s": 70.25}))
    monkeypatch.setattr("headstart.flows.rank.baseline_stage", train)
    found = rank(pipeline, "baseline.max_seconds=1000", **one)
    best_s = found.metrics["candidates"][0]["transfer_s"]
    assert budgets == [round(best_s)]
    assert best_s > 70.25
    rank(pipeline, "baseline.max_seconds=0.4", **one)
    assert budgets[1:] == [0.4]  # less than a second, but not none


def test_a_class_without_training_images_is_refused_before_the_first_pass(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    for number, place in enumerate(("train/red", "train/green", "val/red", "val/blue")):
        part, label = place.split("/")
        add_images(tmp_path / "gaps" / part, label, range(10 * number, 10 * number + 3))
    pipeline.images = tmp_path / "gaps"
    with pytest.raises(TrainingError, match="none of blue"):
        rank(pipeline)
    assert pipeline.num_passed() == 0


@pytest.mark.parametrize(
    "settings", [("candidates.backbones=[BACKBONE, nowhere.keras]",), ("candidates.cuts=[nocut]",)]
)
def test_what_cannot_be_opened_or_cut_is_refused_before_the_first_pass(
    pipeline: Pipeline, settings: tuple[str, ...]
) -> None:
    from headstart.flows.rank import rank as flow

    told = [one.replace("BACKBONE", str(pipeline.backbone)) for one in settings]
    named = [f"candidates.backbones=[{pipeline.backbone}]", *SMALL, *told]
    config = build_config(RankConfig, pipeline.images, settings=named)
    with pytest.raises(BackboneError):
        flow.fn(config, pipeline.store.root)
    assert pipeline.num_passed() == 0


def test_backbones_of_one_name_are_printed_by_their_paths() -> None:
    shown = shown_names(["runs/a/model.keras", "runs/b/model.keras", "nets/mine.keras", "vgg16"])
    assert list(shown.values()) == [
        "runs/a/model.keras", "runs/b/model.keras", "mine.keras", "vgg16",
    ]  # fmt: skip


def test_tensorflow_does_not_warn_of_the_many_heads(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    logger = logging.getLogger("tensorflow")
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: told.append(record.getMessage()))
    monkeypatch.setattr(logger, "handlers", [handler])

    def train_many(*arguments: Any) -> None:
        logger.warning("5 out of the last 9 calls to f triggered tf.function retracing.")
        logger.warning("something else")

    monkeypatch.setattr("headstart.flows.rank._run", train_many)
    rank(pipeline)
    assert told == ["something else"]


def test_the_command_ranks_and_repeats_from_its_config(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(pipeline.store.root))
    out = tmp_path / "out"
    arguments = ["rank", str(pipeline.images), "--backbones", str(pipeline.backbone)]
    arguments += ["--cuts", "third,top", "--out", str(out), "--json"]
    for setting in (*SMALL, "baseline.enabled=false"):
        arguments += ["--set", setting]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert {one["cut"] for one in printed["metrics"]["candidates"]} == {"third", "top"}
    again = CliRunner().invoke(app, ["rank", "--config", str(out / "config.yaml")])
    assert again.exit_code == 0, again.output
    assert "pick" in again.stdout
    assert "weighted" in again.stdout


def test_a_trained_model_becomes_a_source(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(finished.store.root))
    summary = finished.run()
    result = CliRunner().invoke(app, ["sources", "add", summary.run_dir, "--name", "colours"])
    assert result.exit_code == 0, result.output
    first, second = list_sources(finished.store)
    assert (first.name, first.num_images) == (IMAGENET, NUM_IMAGENET_IMAGES)
    assert second.name == "colours"
    assert len(first.mean_features) == len(second.mean_features) == 1280
    listed = CliRunner().invoke(app, ["sources", "ls", "--json"])
    assert [one["name"] for one in json.loads(listed.stdout)["sources"]] == [IMAGENET, "colours"]


def test_a_folder_without_a_model_is_no_source(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["sources", "add", str(tmp_path)])
    assert "has no model.keras" in str(result.exception)


def test_a_ladder_becomes_a_source_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_config(FinetuneConfig, "birds", settings=("ladder.num_rungs=1",))
    (tmp_path / "config.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    (tmp_path / "model.keras").touch()
    asked: list[Any] = []
    summary = SimpleNamespace(metrics={"num_images": 3})
    monkeypatch.setattr(
        "headstart.commands.options.run_recorded_or_plain",
        lambda flow, config, *_: asked.append((flow, config)) or summary,
    )
    result = CliRunner().invoke(app, ["sources", "add", str(tmp_path), "--name", "ladder"])
    assert result.exit_code == 0, result.output
    ((flow, source),) = asked
    assert (flow, source.name, source.dataset.images) == ("sources", "ladder", Path("birds"))

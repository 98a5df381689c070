"""Each command on each kind of target: it works, or one line says why not."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from rich.console import Console

from headstart.cli import app
from headstart.config import (
    AuditConfig,
    CompareConfig,
    FinetuneConfig,
    RankConfig,
    RetrainConfig,
    SweepConfig,
    TransferabilityConfig,
    build_config,
)
from headstart.errors import ConfigError
from headstart.tasks.export.model_files import read_card
from headstart.tasks.runs.comparing import compare_runs
from headstart.tasks.runs.overview import find_run
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.support import WHY_NOT, refuse_unsupported
from tests.pipeline import COLOURS, LADDER, QUICK, SIDE, Pipeline, statuses

NUMBERS = ("dataset.target_columns=[redness, size]",)
NUM_IMAGES = 60


def write_manifest(folder: Path) -> Path:
    """Write images with patches of colours, and how red they are."""
    rng = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "labels", "redness", "size"])
        for number in range(NUM_IMAGES):
            pixels = np.full((SIDE, SIDE, 3), 60.0)
            has = rng.integers(0, 2, len(COLOURS)).astype(bool)
            for place, colour in enumerate(COLOURS.values()):
                if has[place]:
                    row, column = divmod(place, 2)
                    pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = colour
            pixels = np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255)
            name = f"{number:02}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            names = [name for name, one in zip(COLOURS, has, strict=True) if one]
            red = 1e4 * pixels[..., 0].mean()
            writer.writerow([name, ";".join(names), f"{red:.1f}", int(has.sum())])
    return folder / "manifest.csv"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "patches"
    folder.mkdir()
    return write_manifest(folder)


def test_every_command_says_which_targets_it_takes() -> None:
    group: Any = typer.main.get_command(app)
    assert set(group.commands) == {name.partition(" ")[0] for name in WHY_NOT}
    for reasons in WHY_NOT.values():
        assert set(reasons) <= set(TARGETS) - {"class"}


@pytest.mark.parametrize(
    ("command", "kind"), [(name, kind) for name, kinds in WHY_NOT.items() for kind in kinds]
)
def test_what_is_not_taken_is_refused_in_one_line(command: str, kind: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unsupported(command, kind)
    assert f"`headstart {command}`" in caught.value.problem
    assert "\n" not in str(caught.value.received)


@pytest.mark.parametrize("settings", [(), NUMBERS], ids=["labels", "number"])
def test_flows_that_are_of_classes_alone_refuse_before_they_compute(
    manifest: Path, pipeline: Pipeline, settings: tuple[str, ...]
) -> None:
    from headstart.flows.compare import compare
    from headstart.flows.transferability import transferability

    flows = (
        (compare, CompareConfig),
        (transferability, TransferabilityConfig),
    )  # fmt: skip
    for flow, model in flows:
        with pytest.raises(ConfigError, match="does not take targets"):
            flow.fn(build_config(model, manifest, settings=settings), pipeline.store.root)
    assert pipeline.num_passed() == 0


def check_runs_are_told(pipeline: Pipeline, labels: Any, numbers: Any) -> None:
    """Look at what a list of runs, a notebook and a bench would show of both."""
    from headstart.results import Run
    from headstart.tasks.benching.bench import open_held_out

    for summary, name, figure in (
        (labels, "mAP", "mean_average_precision"),
        (numbers, "MAE", "mae"),
    ):
        folder, test = Path(summary.run_dir), summary.metrics["test"]
        line = find_run(pipeline.store.root, summary.run_dir)
        assert line.accuracy is None
        assert (line.metric, line.value) == (name, test[figure])
        assert line.accuracy_text.startswith(f"test {name} {test[figure]:.4g} (")
        assert f"test {name} " in Run.load(folder)._repr_html_()
        held_out = open_held_out(folder, read_card(folder / "model.keras"), 1000)
        with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
            assert held_out.labels is not None
            np.testing.assert_allclose(held_out.labels, arrays["test_labels"], rtol=1e-6)


def test_labels_and_numbers_go_all_the_way_and_share_what_is_computed(
    manifest: Path, pipeline: Pipeline
) -> None:
    from headstart.results import Run
    from headstart.tasks.explanation.explain import explain_images
    from headstart.tasks.explanation.subject import load_subject
    from headstart.tasks.export.judging import judge
    from headstart.tasks.preview.plan import plan
    from headstart.tasks.preview.why import explain_misses
    from headstart.tasks.store.artifacts import use_store

    more = ("head.epochs=20", "dataset.val_fraction=0.4", "head.learning_rate=0.3")
    labels = pipeline.run(*more, images=manifest)
    numbers = pipeline.run(*more, *NUMBERS, images=manifest)
    assert statuses(numbers) | {"head": "", "evaluation": "", "export": "", "dataset": ""} == {
        "dataset": "", "views": "hit", "bottlenecks": "hit", "head": "", "evaluation": "",
        "export": "",
    }  # fmt: skip
    assert labels.metrics["test"]["mean_average_precision"] > 0.5
    assert {"f1_micro", "f1_macro", "hamming_loss", "subset_accuracy"} <= set(labels.metrics["val"])
    assert {"mae", "rmse", "r2", "median_absolute_error"} <= set(numbers.metrics["test"])
    assert numbers.metrics["val"]["mae"] < numbers.metrics["val"]["constant_mae"]

    for summary in (labels, numbers):
        folder = Path(summary.run_dir)
        page = (folder / "report.html").read_text()
        assert "nan" not in page.replace("data:image", "").split("base64")[0].casefold()
        told = json.loads((folder / "metrics.json").read_text())
        assert told.keys() - {"checksum"} == summary.metrics.keys()
        judged = judge(folder, manifest)  # reads the columns that the model was trained on
        figure = "mean_average_precision" if summary is labels else "mae"
        assert getattr(judged.groups["test"], figure) == pytest.approx(
            summary.metrics["test"][figure], rel=1e-3
        )

    check_runs_are_told(pipeline, labels, numbers)
    again = pipeline.run(*more, *NUMBERS, "head.solver=ridge", images=manifest)
    made = compare_runs(*(find_run(pipeline.store.root, one.run_dir) for one in (numbers, again)))
    assert made.nearer is not None
    assert 0 < sum(made.nearer) <= made.num_common
    assert "nearer to the truth" in made.verdict
    assert {"mae", "r2"} <= {figure for _, figure, *_ in made.figures}

    picture = manifest.parent / "00.png"
    said = Run.load(labels.run_dir).predict(picture)
    assert set(said.labels) <= set(COLOURS)
    number = Run.load(numbers.run_dir).predict(picture)
    assert set(number.values) == {"redness", "size"}
    assert 1e4 < number.value < 3e6  # in the unit of the manifest
    low, high = number.interval
    assert low < number.value < high

    assert load_subject(Path(labels.run_dir)).class_names == tuple(sorted(COLOURS))
    seen = explain_images(load_subject(Path(numbers.run_dir)), [picture], manifest.parent / "seen",
                          class_name="size")  # fmt: skip
    assert (seen[0].label, seen[0].probability) == ("size", None)
    assert seen[0].value == pytest.approx(number.values["size"], rel=1e-4)
    assert seen[0].said == f"size {seen[0].value:.4g}"
    assert Path(seen[0].overlay).is_file()
    with use_store(pipeline.store):
        config = pipeline.config(*more, *NUMBERS, images=manifest)
        assert {line.status for line in plan(config).stages} == {"hit"}
        assert {reason.status for reason in explain_misses(config)} == {"hit"}


@pytest.mark.parametrize(
    ("settings", "metric"),
    [((), "mean_average_precision"), ((*NUMBERS, "promotion.metric=rmse"), "rmse")],
    ids=["labels", "number"],
)
def test_what_is_better_is_promoted_by_the_figure_that_decides(
    manifest: Path, pipeline: Pipeline, settings: tuple[str, ...], metric: str
) -> None:
    from headstart.flows.retrain import retrain
    from headstart.tasks.models.registry import Registry

    def run(*more: str) -> Any:
        told = (*QUICK, "dataset.val_fraction=0.4", f"backbone.name={pipeline.backbone}")
        config = build_config(RetrainConfig, manifest, settings=(*told, *settings, *more))
        return retrain.fn(config, pipeline.store.root)

    poor = ("head.epochs=1", "head.learning_rate=1e-6")
    good = ("head.solver=ridge",) if metric == "rmse" else ("head.learning_rate=0.3",)
    assert run(*poor).decision == "promoted"
    better = run(*good)
    assert better.decision == "promoted", better.reason
    assert f"{metric} " in better.reason
    worse = run(*poor)
    assert (worse.decision, worse.in_use) == ("kept", better.in_use)
    in_use = Registry(pipeline.store).entry("manifest").in_use
    assert in_use is not None
    assert (in_use.metric, in_use.accuracy) == (metric, None)
    assert in_use.value == pytest.approx(better.run.metrics["test"][metric], rel=1e-3)
    assert in_use.value_before is not None
    with pytest.raises(ConfigError, match="no such figure") as caught:
        run("promotion.metric=accuracy")
    assert metric in (caught.value.next_step or "")


@pytest.mark.parametrize("kind", ["labels", "number"])
def test_an_audit_finds_labels_and_numbers_that_were_changed(
    manifest: Path, pipeline: Pipeline, kind: str
) -> None:
    from headstart.flows.audit import audit
    from headstart.tasks.dataset.exclusion import read_exclusions

    lines = manifest.read_text().splitlines()
    name, labels, redness, size = lines[8].split(",")
    changed = set(labels.split(";")) - {""} ^ {"red"}  # has the red patch and does not say so
    numbers = f"{100 * float(redness):.1f},{size}"
    lines[8] = ",".join((name, ";".join(sorted(changed)), numbers))
    manifest.write_text("\n".join(lines))
    settings = (*NUMBERS, "dataset.val_fraction=0.2") if kind == "number" else ()
    told = (f"backbone.name={pipeline.backbone}", *settings)
    summary = audit.fn(build_config(AuditConfig, manifest, settings=told), pipeline.store.root)
    with Path(summary.findings).open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["kind"] == "label_error"]
    assert found[0]["path"] == name
    assert found[0]["exclude"] == "True"
    word = "red" if kind == "labels" else "redness"
    assert word in found[0]["detail"]
    assert word in found[0]["suggested_label"]
    assert name in Path(summary.exclude).read_text()
    assert read_exclusions(Path(summary.exclude)) is not None
    with Path(summary.labels).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == NUM_IMAGES
    assert rows[0]["path"] == name
    assert "nan" not in Path(summary.labels).read_text().casefold()
    page = Path(summary.report).read_text()
    assert found[0]["detail"].split(",")[0] in page


@pytest.mark.parametrize(
    ("settings", "metric", "figure"),
    [((), "mAP", "mean_average_precision"), (NUMBERS, "R²", "r2")], ids=["labels", "number"],
)  # fmt: skip
def test_a_ranking_measures_labels_and_numbers(
    manifest: Path, pipeline: Pipeline, settings: tuple[str, ...], metric: str, figure: str
) -> None:
    from headstart.commands.rank import ranking_lines
    from headstart.flows.rank import rank

    told = (*QUICK[:7], *settings, "candidates.cuts=[second, top]", "bottlenecks.num_parity_rows=2",
            f"candidates.backbones=[{pipeline.backbone}]")  # fmt: skip
    summary = rank.fn(build_config(RankConfig, manifest, settings=told), pipeline.store.root)
    verdict = summary.metrics
    assert (verdict["metric"], verdict["baseline_accuracy"]) == (metric, None)
    assert len(verdict["candidates"]) == 2
    for one in verdict["candidates"]:
        scores = one["scores"]
        assert all(isinstance(scores[name], float) for name in ("logme", "knn", "probe"))
        assert scores["leep"] is scores["h_score"] is None
        assert scores["probe"] <= 1.0
    assert (
        f"{metric} {verdict['candidates'][0]['accuracy']:.4f} on test" in ranking_lines(summary)[1]
    )
    assert metric in Path(summary.report).read_text()
    assert "nan" not in json.dumps(verdict).casefold()


@pytest.mark.parametrize(
    ("settings", "metric"), [((), "f1_micro"), (NUMBERS, "mae")], ids=["labels", "number"]
)
def test_a_sweep_trains_heads_for_labels_and_numbers(
    manifest: Path, pipeline: Pipeline, settings: tuple[str, ...], metric: str
) -> None:
    from headstart.commands.sweep import print_heads
    from headstart.flows.sweep import sweep

    told = (*QUICK, *settings, "dataset.val_fraction=0.3", f"backbone.name={pipeline.backbone}",
            "search.grid={head.learning_rate: [0.001, 0.3]}", "head.epochs=4")  # fmt: skip
    summary = sweep.fn(build_config(SweepConfig, manifest, settings=told), pipeline.store.root)
    slow, quick = summary.heads
    assert {slow.metric, quick.metric} == {metric}
    assert (slow.accuracy, quick.accuracy) == (None, None)
    assert slow.value is not None
    best = summary.heads[summary.chosen - 1]
    assert best.loss == min(slow.loss, quick.loss)
    card = read_card(Path(summary.run_dir) / "model.keras")
    assert len(card.fit.thresholds) == (3 if metric == "f1_micro" else 0)
    assert len(card.fit.radius) == (0 if metric == "f1_micro" else 2)
    assert metric in Path(summary.sweep).read_text()
    shown = io.StringIO()
    print_heads(Console(file=shown, width=120), summary)
    assert metric in shown.getvalue()


def test_logme_of_numbers_that_features_say_nothing_of_stays_finite() -> None:
    from headstart.tasks.ranking.transferability import logme

    rng = np.random.default_rng(0)
    features, numbers = rng.normal(size=(28, 16)), rng.normal(size=(28, 1))
    directions, _ = np.linalg.qr(features)
    numbers -= directions @ (directions.T @ numbers)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.isfinite(logme(features, numbers))


def test_logme_of_columns_is_that_of_the_classes_they_stand_for() -> None:
    from headstart.tasks.ranking.transferability import logme

    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    assert logme(features, np.eye(3)[labels]) == pytest.approx(logme(features, labels))


def test_a_ladder_goes_down_for_numbers_too(manifest: Path, pipeline: Pipeline) -> None:
    from headstart.flows.finetune import finetune

    settings = (*QUICK, *LADDER, "ladder.cuts=[second]", "head.epochs=2", *NUMBERS)
    config = build_config(
        FinetuneConfig, manifest, settings=(*settings, f"backbone.name={pipeline.backbone}")
    )
    summary = finetune.fn(config, pipeline.store.root)
    head, rung, _ = summary.rungs
    assert rung.gain == pytest.approx(head.val_loss - rung.val_loss)
    assert (rung.status == "kept") == (rung.gain > 0)
    assert rung.figure.startswith("mae ")
    assert "of the loss" in rung.gain_words
    assert summary.metrics["test"]["constant_mae"] > 0

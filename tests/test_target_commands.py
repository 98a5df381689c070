"""Each command on each kind of target: it works, or one line says why not."""

import csv
import io
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import typer
from PIL import Image
from rich.console import Console

from headstart.cli import app
from headstart.config import (
    AuditConfig,
    CompareConfig,
    EvaluationConfig,
    FinetuneConfig,
    RankConfig,
    RetrainConfig,
    ScratchConfig,
    Split,
    SweepConfig,
    TargetKind,
    TransferabilityConfig,
    TransferConfig,
    build_config,
)
from headstart.errors import ConfigError, DatasetError, TrainingError
from headstart.flows.budget import BudgetSummary
from headstart.tasks.budgeting.report import table
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.report_content import untouched
from headstart.tasks.export.model_files import read_card
from headstart.tasks.finetuning.charts import Point, pareto_front
from headstart.tasks.finetuning.studies import Line, headline, order_sentence
from headstart.tasks.ranking.candidates import can_judge, judged_split
from headstart.tasks.runs.comparing import compare_runs
from headstart.tasks.runs.overview import find_run
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.support import WHY_NOT, refuse_unsupported
from headstart.tasks.targets.target import Fit
from tests.pipeline import COLOURS, LADDER, QUICK, SIDE, STUDY, Pipeline, statuses
from tests.scratch_data import SCRATCH

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


SHOWN_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("train", "predict", "evaluate", "explain", "plan", "why", "runs", "bench", "search"),
        ("test_labels_and_numbers_go_all_the_way_and_share_what_is_computed",),
    ),
    **dict.fromkeys(
        ("retrain", "promote", "models"),
        ("test_what_is_better_is_promoted_by_the_figure_that_decides",),
    ),
    **dict.fromkeys(
        ("compare", "transferability"),
        ("test_a_comparison_and_a_curve_are_of_labels_and_numbers_too",),
    ),
    "audit": ("test_an_audit_finds_labels_and_numbers_that_were_changed",),
    "rank": ("test_a_ranking_measures_labels_and_numbers",),
    "survey": ("test_a_survey_judges_backbones_by_labels_and_numbers",),
    "sweep": ("test_a_sweep_trains_heads_for_labels_and_numbers",),
    "finetune": ("test_a_ladder_goes_down_for_labels_and_numbers",),
    "scratch": ("test_scratch_learns_labels_and_numbers",),
    "lr-find": ("test_a_range_test_is_of_labels_and_numbers_too",),
    "views": ("test_a_sheet_shows_images_of_labels_and_numbers",),
}
"""By command, the tests that run it on labels and on numbers."""
LOOKS_AT_NONE = {"demo", "config", "backbones", "cuts", "up", "cache", "debug"}
"""Commands that know no targets."""


def unanswered(commands: Any) -> set[str]:
    """List the commands for which nobody has said, and shown, what they do with each target."""
    told = {name.partition(" ")[0] for name in WHY_NOT}
    refusing = {name for name, reasons in WHY_NOT.items() if set(reasons) == {"labels", "number"}}
    shown = set(SHOWN_BY) | LOOKS_AT_NONE | refusing
    return {name for name in commands if name not in told or name not in shown}


def test_every_command_says_which_targets_it_takes_and_a_test_shows_it() -> None:
    group: Any = typer.main.get_command(app)
    assert unanswered(group.commands) == set()
    assert set(group.commands) == {name.partition(" ")[0] for name in WHY_NOT}
    assert unanswered([*group.commands, "newly-added"]) == {"newly-added"}
    for reasons in WHY_NOT.values():
        assert set(reasons) <= set(TARGETS) - {"class"}
    for name in {name for names in SHOWN_BY.values() for name in names}:
        assert callable(globals()[name])


@pytest.mark.parametrize(
    ("command", "kind"), [(name, kind) for name, kinds in WHY_NOT.items() for kind in kinds]
)
def test_what_is_not_taken_is_refused_in_one_line(command: str, kind: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unsupported(command, kind)
    assert f"`headstart {command}`" in caught.value.problem
    assert "\n" not in str(caught.value.received)


@pytest.mark.parametrize(
    ("settings", "metric"), [((), "mAP"), (NUMBERS, "MAE")], ids=["labels", "number"]
)
def test_a_comparison_and_a_curve_are_of_labels_and_numbers_too(
    manifest: Path, pipeline: Pipeline, settings: tuple[str, ...], metric: str
) -> None:
    from headstart.commands.finetune import _print_study
    from headstart.flows.compare import compare
    from headstart.flows.transferability import transferability

    told = (*STUDY, *settings, f"backbone.name={pipeline.backbone}", "dataset.val_fraction=0.3")
    own = (*told, "seeds=[0, 1]", "strategies=[last_layer, full]")
    made = compare.fn(build_config(CompareConfig, manifest, settings=own), pipeline.store.root)
    for line in made.metrics.values():
        assert (line.metric, line.accuracy, len(line.values)) == (metric, None, 2)
        assert line.value is not None
        assert line.interval is not None
        assert line.interval[0] < line.value < line.interval[1] or line.value in line.interval
    page = Path(made.report).read_text()
    assert f"Test {metric}" in page
    assert f"{metric} against seconds" in page
    shown = io.StringIO()
    _print_study(Console(file=shown, width=200), made)
    assert f"test {metric} " in shown.getvalue()
    own = (*told, "seeds=[0]", "cuts=[second, top]")
    curve = transferability.fn(
        build_config(TransferabilityConfig, manifest, settings=own), pipeline.store.root
    )
    assert {line.metric for line in curve.metrics.values()} == {metric}
    assert f"{metric} against the cut" in Path(curve.report).read_text()


def index_with(kind: TargetKind, values: list[tuple[float, ...]]) -> DatasetIndex:
    """Make an index of test images with these targets; the training images differ."""
    told = [("train", (0.0,)), ("train", (1.0,)), *(("test", one) for one in values)]
    rows = tuple(
        ImageRow(f"{number}.png", f"{number:064}", 0, cast(Split, split), 8, 8, "PNG", one)
        for number, (split, one) in enumerate(told)
    )
    return DatasetIndex(("a", "b") if kind == "labels" else ("a",), rows, kind=kind)


def test_a_split_without_the_figure_is_refused_before_it_would_be_told_as_0() -> None:
    for kind, values in (("labels", [(), ()]), ("number", [(0.1,)] * 3)):
        with pytest.raises(DatasetError, match="the test images cannot show") as caught:
            judged_split(index_with(cast(TargetKind, kind), cast(Any, values)))
        assert JUDGES[cast(TargetKind, kind)].ranked_name in caught.value.problem
    assert judged_split(index_with("labels", [(), (1,)])) == "test"
    assert judged_split(index_with("number", [(0.1,), (0.2,)])) == "test"
    # An error is defined of numbers that are the same.
    assert judged_split(index_with("number", [(0.1,)] * 3), JUDGES["number"].main) == "test"
    assert not can_judge(index_with("labels", []), "test")


def test_numbers_that_are_all_the_same_have_no_r2_and_leave_that_of_others_as_it_is() -> None:
    rng = np.random.default_rng(0)
    true, fit = rng.normal(size=(10, 1)), Fit(offset=(0.0,), scale=(1.0,))
    same = np.full((10, 1), 0.3)  # their mean is another number, by rounding
    said = true + 0.1 * rng.normal(size=(10, 1))
    both = Fit(offset=(0.0, 0.3), scale=(1.0, 1.0))

    def judge(said: Any, true: Any, fit: Fit) -> Any:
        names = [str(column) for column in range(true.shape[1])]
        config = EvaluationConfig(num_bootstrap=50)
        return JUDGES["number"].evaluate(said, true, names, fit, config)

    assert judge(same + 0.1, same, fit).r2 is None
    assert judge(same + 0.1, same, fit).r2_interval is None
    alone = judge(said, true, fit)
    beside = judge(np.hstack([said, same - 0.3]), np.hstack([true, same]), both)
    assert beside.per_number[1].r2 is None
    assert beside.r2 == pytest.approx(alone.r2)
    assert beside.r2_interval == pytest.approx(alone.r2_interval)


@pytest.mark.parametrize(
    ("fit", "told"),
    [(Fit(), "the choice, and"), (Fit(thresholds=(0.5,)), "thresholds (val), and"),
     (Fit(radius=(1.0,)), "intervals (val), and")],
)  # fmt: skip
def test_the_table_of_a_budget_says_what_the_val_split_decided(fit: Fit, told: str) -> None:
    assert f"{told} were looked at once" in table([], 60, 30, 2, untouched(fit)).text


def line_of(name: str, error: float) -> Line:
    return Line(
        name=name, split="test", accuracies=(), accuracy=None, metric="MAE", values=(error,),
        value=error, interval=(error - 0.1, error + 0.1), num_trained=1, flops=1, once_flops=0,
        train_s=1, once_s=0, peak_bytes=None, largest_changes={},
    )  # fmt: skip


def test_of_errors_the_smaller_is_the_better() -> None:
    small, near, large = line_of("full", 1.0), line_of("scratch", 1.05), line_of("last_layer", 9.0)
    assert headline([large, small]) == "full is best, with MAE 1 on the test images"
    assert "the difference from scratch is within noise" in headline([near, small])
    told = order_sentence({line.name: line for line in (small, near, large)})
    assert "full MAE 1 ≈ scratch MAE 1.05 < last_layer MAE 9" in told
    points = [Point("a", 1.0, 5.0), Point("b", 2.0, 7.0), Point("c", 3.0, 4.0)]
    assert [one.label for one in pareto_front(points, less_is_better=True)] == ["a", "c"]


@pytest.mark.parametrize(
    ("settings", "metric", "figure"),
    [((), "mAP", "mean_average_precision"), (NUMBERS, "R²", "r2")], ids=["labels", "number"],
)  # fmt: skip
def test_a_budget_finds_heads_for_labels_and_numbers(
    manifest: Path, pipeline: Pipeline, settings: tuple[str, ...], metric: str, figure: str
) -> None:
    from headstart.flows.transfer import transfer

    told = (*QUICK, *settings, f"backbone.name={pipeline.backbone}", "budget.seconds=600",
            "budget.attempts=[solver, mlp, average]", "budget.num_folds=2",
            "dataset.val_fraction=0.35")  # fmt: skip
    made = transfer.fn(build_config(TransferConfig, manifest, settings=told), pipeline.store.root)
    assert isinstance(made, BudgetSummary)
    tried = [one for one in made.tried if one.outcome in ("chosen", "tried")]
    assert {one.attempt for one in tried} == {"configured", "solver", "mlp", "average"}
    assert {(one.metric, one.accuracy) for one in tried} == {(metric, None)}
    chosen = next(one for one in tried if one.outcome == "chosen")
    assert chosen.value == max(one.value for one in tried if one.value is not None)
    assert chosen.num_judged >= 20  # each training image once, but for those of a lone label
    assert made.metrics["test"][figure] is not None
    card = read_card(Path(made.run_dir) / "model.keras")
    assert len(card.fit.thresholds) == (0 if settings else 3)  # found by val, once all is chosen
    assert len(card.fit.radius) == (2 if settings else 0)
    page = Path(made.report).read_text()
    assert "Candidates that were tried" in page
    assert f"Held-out {metric}" in page
    again = transfer.fn(build_config(TransferConfig, manifest, settings=told), pipeline.store.root)
    assert isinstance(again, BudgetSummary)
    assert again.chosen == made.chosen
    assert all(one.was_there for one in again.tried if one.attempt in ("configured", "mlp"))


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
    from headstart.flows import search
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
        with pytest.raises(DatasetError, match="a different kind of target than the model"):
            judge(folder, manifest.parent)
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
    assert "closer to the true value" in made.verdict
    assert {"mae", "r2"} <= {figure for _, figure, *_ in made.figures}

    picture = manifest.parent / "00.png"
    for told in ((), NUMBERS):  # whatever is learned of them, the nearest images are the nearest
        config = pipeline.config(*told, images=manifest)
        ((found,),) = search.run(config, [picture], 1, pipeline.store.root).values()
        assert found.label
        assert Path(found.path) == picture
    assert Run.load(labels.run_dir).class_names == sorted(COLOURS)
    assert Run.load(numbers.run_dir).class_names == ["redness", "size"]
    with pytest.raises(ConfigError, match="no confusion matrix"):
        _ = Run.load(numbers.run_dir).confusion_matrix
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
    with pytest.raises(ConfigError, match="no such metric") as caught:
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
            f"candidates.backbones=[{pipeline.backbone}]", "baseline.max_seconds=0.5",
            "baseline.image_size=16")  # fmt: skip
    summary = rank.fn(build_config(RankConfig, manifest, settings=told), pipeline.store.root)
    verdict = summary.metrics
    assert (verdict["metric"], verdict["figure"]) == (metric, figure)
    assert isinstance(verdict[f"baseline_{figure}"], float)
    assert len(verdict["candidates"]) == 2
    for one in verdict["candidates"]:
        scores = one["scores"]
        assert all(isinstance(scores[name], float) for name in ("logme", "knn", "probe"))
        assert scores["leep"] is scores["h_score"] is None
        assert scores["probe"] <= 1.0
        low, high = one[f"{figure}_interval"]
        assert low <= one[figure] <= high
        assert "accuracy" not in one
    best = verdict["candidates"][0][figure]
    assert f"{metric} {best:.4f} on test" in ranking_lines(summary)[1]
    assert f"{figure}_low" in Path(summary.table).read_text().splitlines()[0]
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

    told = (*QUICK, *settings, "dataset.val_fraction=0.35", f"backbone.name={pipeline.backbone}",
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
    decided = "thresholds (val)" if metric == "f1_micro" else "intervals (val)"
    assert decided in Path(summary.sweep).read_text()
    shown = io.StringIO()
    print_heads(Console(file=shown, width=120), summary)
    assert metric in shown.getvalue()


def test_numbers_that_are_all_the_same_are_refused_before_anything_is_computed(
    manifest: Path, pipeline: Pipeline
) -> None:
    from headstart.flows.rank import rank
    from headstart.tasks.preview.why import explain_misses
    from headstart.tasks.store.artifacts import use_store

    header, *lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([f"{header},same", *(f"{line},5" for line in lines)]))
    told = ("dataset.target_columns=[redness, same]",)
    config = pipeline.config(*told, images=manifest)

    def ranking() -> Any:
        return rank.fn(build_config(RankConfig, manifest, settings=told), pipeline.store.root)

    def why() -> Any:
        with use_store(pipeline.store):
            return explain_misses(config)

    for command in (lambda: pipeline.run(*told, images=manifest), why, ranking):
        with pytest.raises(TrainingError, match="the same in all training images") as caught:
            command()
        assert "same is 5" in str(caught.value.received)
    assert pipeline.num_passed() == 0


@pytest.mark.parametrize("settings", [(), NUMBERS], ids=["labels", "number"])
def test_a_range_test_is_of_labels_and_numbers_too(
    manifest: Path, pipeline: Pipeline, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    from headstart.flows.lr_find import find_learning_rate
    from headstart.tasks.store.artifacts import use_store

    (tmp_path / "curve").mkdir()
    with use_store(pipeline.store):
        config = pipeline.config(*settings, images=manifest)
        found = find_learning_rate(config, 10, tmp_path / "curve")
        told = (*SCRATCH, *settings, "dataset.image_size=20", "training.batch_size=8")
        scratch = build_config(ScratchConfig, str(manifest), settings=told)
        other = find_learning_rate(scratch, 10, tmp_path / "curve")
    for one in (found, other):
        assert np.isfinite(one["losses"]).all()
        assert one["suggested"] > 0


@pytest.mark.parametrize("settings", [(), NUMBERS], ids=["labels", "number"])
def test_a_sheet_shows_images_of_labels_and_numbers(
    manifest: Path, pipeline: Pipeline, settings: tuple[str, ...]
) -> None:
    from headstart.tasks.dataset.building import dataset_root
    from headstart.tasks.dataset.stage import index_of
    from headstart.tasks.dataset.stage import stage as dataset_stage
    from headstart.tasks.store.artifacts import use_store
    from headstart.tasks.views.sheet import draw_sheet

    config = pipeline.config(*settings, images=manifest)
    with use_store(pipeline.store):
        index = index_of(dataset_stage(config.dataset))
        drawn = draw_sheet(index, dataset_root(config.dataset), config.views, SIDE, 10**6, 2)
    with Image.open(io.BytesIO(drawn)) as sheet:
        assert sheet.size[0] > 2 * SIDE


@pytest.mark.parametrize(
    ("metric", "column", "value"), [("mAP", "mean_average_precision", 0.8), ("R²", "r2", -0.1)]
)
def test_a_survey_judges_backbones_by_labels_and_numbers(
    tmp_path: Path, metric: str, column: str, value: float
) -> None:
    from headstart.commands.survey import print_survey
    from headstart.tasks.surveying.plots import draw_survey
    from headstart.tasks.surveying.survey import SurveySummary, table_rows, write_survey
    from tests.test_survey import surveyed

    told = {"metric": metric, "value": value}
    lines = [
        surveyed(name, flops, None).model_copy(update=told) for name, flops in (("a", 1), ("b", 2))
    ]
    assert [row[column] for row in table_rows(lines)] == [value, value]
    plots = draw_survey(lines)
    assert plots[0][0].startswith(f"{metric} against operations")
    page, table, cuts = write_survey(tmp_path, "Survey", lines, "test", plots, [])
    assert f"{metric} (test)" in page.read_text()
    assert f"{value:.4g}" in page.read_text()
    assert column in table.read_text().splitlines()[0]
    summary = SurveySummary(
        run_dir=str(tmp_path), report=str(page), table=str(table), cuts=str(cuts), stages=(),
        metrics={"backbones": [one.model_dump(mode="json") for one in lines], "judged": "test"},
        seconds=1.0,
    )  # fmt: skip
    shown = io.StringIO()
    print_survey(Console(file=shown, width=200), summary)
    assert metric in shown.getvalue()
    assert f"{value:.4f}" in shown.getvalue()


@pytest.mark.parametrize("kind", ["labels", "number"])
def test_scratch_learns_labels_and_numbers(manifest: Path, tmp_path: Path, kind: str) -> None:
    from headstart.flows.scratch import scratch
    from headstart.tasks.export.judging import judge

    own = NUMBERS if kind == "number" else ()
    told = (*SCRATCH, *own, "dataset.image_size=20", "training.epochs=12", "views.flip=auto",
            "dataset.val_fraction=0.45", "dataset.test_fraction=0.2", "training.batch_size=8",
            f"training.learning_rate={0.02 if own else 0.1}", "compare=true")  # fmt: skip
    config = build_config(ScratchConfig, str(manifest), settings=told)
    summary = scratch.fn(config, tmp_path / "store")
    test, folder = summary.metrics["test"], Path(summary.run_dir)
    page = Path(summary.report).read_text()
    card = read_card(folder / "model.keras")
    assert "were held back from training" in page
    assert (folder / "heatmaps.png").is_file()
    assert "flip on" in page if kind == "labels" else "flip off" in page
    assert len((folder / "predictions.csv").read_text().splitlines()) > 10
    if kind == "labels":
        assert test["mean_average_precision"] > 0.6
        assert len(card.fit.thresholds) == 3
        assert set(summary.metrics) == {"test", "test_flip"}
    else:
        assert test["mae"] < test["constant_mae"]
        assert len(card.fit.radius) == 2
    figure = "mean_average_precision" if kind == "labels" else "mae"
    judged = judge(folder, manifest)  # by the columns that it was trained on
    assert getattr(judged.groups["test"], figure) == pytest.approx(test[figure], rel=2e-3)


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


@pytest.mark.parametrize(
    ("settings", "figure"), [((), "f1_micro"), (NUMBERS, "mae")], ids=["labels", "number"]
)
def test_a_ladder_goes_down_for_labels_and_numbers(
    manifest: Path, pipeline: Pipeline, settings: tuple[str, ...], figure: str
) -> None:
    from headstart.flows.finetune import finetune

    told = (*QUICK, *LADDER, "ladder.cuts=[second]", "head.epochs=2", *settings)
    config = build_config(
        FinetuneConfig, manifest, settings=(*told, f"backbone.name={pipeline.backbone}")
    )
    summary = finetune.fn(config, pipeline.store.root)
    head, rung, _ = summary.rungs
    assert rung.gain == pytest.approx(head.val_loss - rung.val_loss)
    assert (rung.status == "kept") == (rung.gain > 0)
    assert rung.figure.startswith(f"{figure} ")
    assert "of the loss" in rung.gain_words
    test = summary.metrics["test"]
    assert test["constant_mae"] > 0 if settings else test["f1_micro"] is not None

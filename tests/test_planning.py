"""What a run would do: hits, misses, bytes and reasons, without doing it."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from headstart.config import TransferConfig
from headstart.printing import print_reasons
from headstart.tasks.bottlenecks.choosing import Choice
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.preview import measuring
from headstart.tasks.preview import plan as planning
from headstart.tasks.preview.measuring import Speeds, bottleneck_cuts
from headstart.tasks.preview.plan import RECORD_OVERHEAD_BYTES, Plan, plan
from headstart.tasks.preview.why import StageReason, explain_misses
from headstart.tasks.store.artifacts import use_store
from headstart.tasks.store.garbage import Criteria, collect_garbage
from tests.pipeline import NUM_IMAGES, SIDE, Pipeline, add_images, computed, statuses

STAGES = ["dataset", "views", "bottlenecks", "head", "evaluation", "export"]
VIEW_BYTES = SIDE * SIDE * 3 + RECORD_OVERHEAD_BYTES
TOP_BYTES = 16 * 2 + RECORD_OVERHEAD_BYTES
"""Bytes of a record with the 16 float16 activations at the top."""


@pytest.fixture(autouse=True)
def _measure_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MIN_MEASURED_S", 1e-6)


def planned(pipeline: Pipeline, *settings: str) -> Plan:
    with use_store(pipeline.store):
        return plan(pipeline.config(*settings))


def explained(pipeline: Pipeline, *settings: str) -> dict[str, StageReason]:
    with use_store(pipeline.store):
        answers = explain_misses(pipeline.config(*settings))
    assert [answer.name for answer in answers] == STAGES
    return {answer.name: answer for answer in answers}


def column(made: Plan, name: str) -> dict[str, Any]:
    return {stage.name: getattr(stage, name) for stage in made.stages}


def missing(made: Plan) -> dict[str, tuple[int, int]]:
    """Return (rows missing, rows) of the stages that keep rows."""
    return {
        stage.name: (stage.rows_missing, stage.rows)
        for stage in made.stages
        if stage.name in ("views", "bottlenecks")
    }


UNCOUNTED = {"dataset", "index", "locks", "remembered"}


def contents(pipeline: Pipeline) -> dict[str, tuple[int, int]]:
    """Return size and time of every file of the store, but for what may change."""
    return {
        path.relative_to(pipeline.store.root).as_posix(): (stat.st_size, stat.st_mtime_ns)
        for path in pipeline.store.root.rglob("*")
        if path.is_file()
        and not {"dataset", "index", "locks", "remembered"}
        & set(path.relative_to(pipeline.store.root).parts)
        for stat in [path.stat()]
    }


def test_a_cold_store_misses_everything(pipeline: Pipeline) -> None:
    made = planned(pipeline)
    assert list(column(made, "status").items()) == [
        *((name, "miss") for name in STAGES),
    ]
    assert missing(made) == dict.fromkeys(("views", "bottlenecks"), (NUM_IMAGES, NUM_IMAGES))
    sizes = {"views": NUM_IMAGES * VIEW_BYTES, "bottlenecks": NUM_IMAGES * TOP_BYTES}
    assert column(made, "num_bytes") == {**dict.fromkeys(STAGES, 0), **sizes}
    assert made.bytes_needed == sum(sizes.values())
    assert made.fits
    assert "36 images" in made.dataset


def test_the_engine_that_the_run_would_take_is_measured(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str]] = []
    taken: list[int] = []

    def choose(frozen: Any, work: Any, config: Any) -> Choice:
        def extract(pixels: Any) -> Any:
            taken.append(len(pixels))
            return frozen(pixels)

        asked.append((work.num_rows, config.engine))
        return Choice("onnxruntime", extract, "")

    monkeypatch.setattr(measuring, "choose_engine", choose)
    made = planned(pipeline, "bottlenecks.engine=onnxruntime")
    assert asked == [(NUM_IMAGES, "onnxruntime")]
    assert set(taken) == {measuring.NUM_MEASURED}
    assert made.images_per_s is not None


def test_a_cold_store_is_measured(pipeline: Pipeline) -> None:
    made = planned(pipeline)
    assert made.images_per_s is not None
    assert made.images_per_s > 0
    assert made.uncached_epoch_s is not None
    assert made.cached_epoch_s is not None
    assert 0 < made.cached_epoch_s < made.uncached_epoch_s
    assert made.break_even_epoch is not None
    assert made.break_even_epoch >= 1
    seconds = column(made, "seconds")
    assert seconds["views"] > 0
    assert seconds["bottlenecks"] > 0
    assert [seconds[name] for name in STAGES[3:]] == [None] * 3


@pytest.mark.parametrize(("frozen_s", "expected"), [(0.5, 1), (3.0, 4)])
def test_the_break_even_follows_from_the_measured_speeds(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, frozen_s: float, expected: int
) -> None:
    limit = open_backbone(pipeline.config().backbone, None).resolve_cut("top").speedup_limit
    speeds = Speeds(view_s=0.1, frozen_s=frozen_s, uncached_s=1.0, speedup_limit=limit)
    monkeypatch.setattr(planning, "_measure", lambda *arguments: speeds)
    made = planned(pipeline)
    index = pipeline.index()
    num_per_epoch = NUM_IMAGES - len(index.rows_of("test"))
    assert made.images_per_s == 1 / frozen_s
    assert made.uncached_epoch_s == pytest.approx(num_per_epoch * 1.1)
    assert 1 < limit < planning.MAX_SPEEDUP
    assert made.cached_epoch_s == pytest.approx(num_per_epoch * 1.1 / limit)
    assert column(made, "seconds")["bottlenecks"] == pytest.approx(NUM_IMAGES * frozen_s)
    saved_s = num_per_epoch * 1.1 * (1 - 1 / limit)
    assert made.break_even_epoch == expected == math.ceil(NUM_IMAGES * (0.1 + frozen_s) / saved_s)


def test_a_finished_run_hits_everything_and_measures_nothing(finished: Pipeline) -> None:
    made = planned(finished)
    assert column(made, "status") == dict.fromkeys(STAGES, "hit")
    assert set(column(made, "rows_missing").values()) == {0}
    assert made.bytes_needed == 0
    assert (made.images_per_s, made.uncached_epoch_s, made.cached_epoch_s) == (None, None, None)
    assert made.break_even_epoch is None


def test_another_head_misses_from_the_head_on(finished: Pipeline) -> None:
    made = planned(finished, "head.kind=mlp")
    assert [name for name, status in column(made, "status").items() if status == "miss"] == [
        "head",
        "evaluation",
        "export",
    ]
    assert (
        column(made, "reason")["head"] == "head.hidden_units none -> [256], head.kind linear -> mlp"
    )
    assert made.bytes_needed == 0
    assert made.break_even_epoch is None


def test_another_evaluation_misses_alone(finished: Pipeline) -> None:
    made = planned(finished, "evaluation.seed=1")
    assert [name for name, status in column(made, "status").items() if status == "miss"] == [
        "evaluation"
    ]


def test_new_images_and_views_and_types_miss_what_is_new(finished: Pipeline) -> None:
    kept = {"views": (0, NUM_IMAGES), "bottlenecks": (NUM_IMAGES, NUM_IMAGES)}
    wider = planned(finished, "bottlenecks.dtype=float32")
    assert missing(wider) == kept
    assert wider.bytes_needed == NUM_IMAGES * (TOP_BYTES + 32)
    assert "dtype float16 -> float32" in column(wider, "reason")["bottlenecks"]
    views = planned(finished, "views.num_augmented=2")
    assert missing(views) == dict.fromkeys(
        ("views", "bottlenecks"), (2 * NUM_IMAGES, 3 * NUM_IMAGES)
    )
    add_images(finished.images, "red", range(500, 504))
    more = planned(finished)
    assert missing(more) == {"views": (4, 4), "bottlenecks": (4, NUM_IMAGES + 4)}
    assert more.bytes_needed == 4 * (VIEW_BYTES + TOP_BYTES)


def test_what_is_planned_is_what_a_run_does(finished: Pipeline) -> None:
    settings = ("views.num_augmented=1", "bottlenecks.extra_cuts=[second]")
    add_images(finished.images, "blue", range(500, 503))
    made = planned(finished, *settings)
    summary = finished.run(*settings)
    done = {name: computed(summary)[name] for name in ("views", "bottlenecks")}
    assert {name: rows for name, (rows, _) in missing(made).items()} == done
    # The plan has read the new images by then.
    assert column(made, "status") == {**statuses(summary), "dataset": "miss"}


@pytest.mark.parametrize("ask", [planned, explained])
@pytest.mark.parametrize("state", ["pipeline", "finished"])
def test_asking_writes_nothing(ask: Any, state: str, request: pytest.FixtureRequest) -> None:
    asked: Pipeline = request.getfixturevalue(state)
    before = contents(asked)
    ask(asked, "head.kind=mlp", "bottlenecks.dtype=float32")
    ask(asked)
    assert contents(asked) == before
    assert asked.passes == []


def test_a_plan_is_json(pipeline: Pipeline) -> None:
    fields = json.loads(json.dumps(planned(pipeline).to_dict()))
    assert fields["fits"] is True
    assert [stage["name"] for stage in fields["stages"]] == STAGES


def test_a_disk_that_is_too_small_is_told(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=100)
    monkeypatch.setattr("headstart.tasks.preview.plan.shutil.disk_usage", lambda path: usage)
    made = planned(pipeline)
    assert (made.bytes_free, made.fits) == (100, False)


def test_each_cut_is_counted_once(pipeline: Pipeline) -> None:
    config: TransferConfig = pipeline.config(
        "bottlenecks.cut=second", "bottlenecks.extra_cuts=[top, second]"
    )
    assert bottleneck_cuts(config) == ("second", "top")


def test_a_cold_store_has_nothing_to_compare_with(pipeline: Pipeline) -> None:
    answers = explained(pipeline)
    assert {name: answer.status for name, answer in answers.items()} == {
        **dict.fromkeys(STAGES, "miss"),
    }
    assert answers["views"].text == "36 of 36 rows are missing"
    assert answers["head"].text == "there is nothing similar in the store"
    assert answers["export"].text == "follows the head"
    assert [answer.changes for answer in answers.values()] == [()] * 6


def test_a_finished_run_is_explained_as_hits(finished: Pipeline) -> None:
    answers = explained(finished)
    assert {answer.status for answer in answers.values()} == {"hit"}
    assert answers["bottlenecks"].text == "all 36 rows are there"
    assert answers["head"].text.startswith("saves ")


def test_what_is_left_out_is_named_and_where_all_of_it_stands(
    finished: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        (finished.images / "red" / f"broken{number}.png").write_bytes(b"no image")
    with use_store(finished.store):
        reasons = explain_misses(finished.config())
    print_reasons(Console(width=200), reasons)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1].startswith("red/broken0.png: ")
    assert lines[4] == "… and 2 more: not an image"
    index = DatasetIndex.from_json(Path(lines[5].removeprefix("All of them: ")).read_text())
    assert [problem.path for problem in index.problems] == [f"red/broken{n}.png" for n in range(5)]
    told = [reason.to_dict()["remarks"] for reason in reasons]
    assert told == [[problem.to_dict() for problem in index.problems], *[[]] * 5]


@pytest.mark.parametrize(
    ("settings", "name", "changes"),
    [
        (
            ["head.learning_rate=0.2", "head.epochs=9"],
            "head",
            [("head.epochs", 8, 9), ("head.learning_rate", 0.1, 0.2)],
        ),
        (["evaluation.top_k=2"], "evaluation", [("evaluation.top_k", 5, 2)]),
        (["bottlenecks.dtype=float32"], "bottlenecks", [("dtype", "float16", "float32")]),
        (["views.resize=pad"], "views", [("plain.resize", "squash", "pad")]),
    ],
)
def test_a_miss_lists_the_fields_that_changed(
    finished: Pipeline, settings: list[str], name: str, changes: list[tuple[str, Any, Any]]
) -> None:
    answers = explained(finished, *settings)
    assert answers[name].status == "miss"
    assert list(answers[name].changes) == changes
    assert json.loads(json.dumps(answers[name].to_dict()))["status"] == "miss"
    before = STAGES[: STAGES.index(name)]
    assert [answers[earlier].status for earlier in before] == ["hit"] * len(before)


def test_a_damaged_artefact_is_explained(finished: Pipeline) -> None:
    (path,) = (finished.store.root / "artefacts" / "head").rglob("head.keras")
    path.write_bytes(b"?")
    answers = explained(finished)
    assert answers["head"].status == "miss"
    assert answers["head"].text == "its files are gone or damaged"


def test_views_that_were_removed_are_not_missed(finished: Pipeline) -> None:
    collect_garbage(finished.store, Criteria(views=True))
    made = planned(finished)
    assert missing(made)["views"] == (0, NUM_IMAGES)
    assert explained(finished)["views"].status == "hit"
    assert statuses(finished.run()) == column(made, "status")
    assert computed(finished.run())["views"] == 0

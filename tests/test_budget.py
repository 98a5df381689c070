"""The best model in the time there is: what is tried next, what is honest, when it ends."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import headstart
from headstart.cli import app
from headstart.config import FinetuneConfig, HeadConfig, SweepConfig, TransferConfig, build_config
from headstart.errors import ConfigError, OutOfTimeError, TrainingError
from headstart.flows import budget
from headstart.flows.trials import Trials
from headstart.tasks.budgeting.average import average_networks
from headstart.tasks.budgeting.choosing import Candidate, Cost, Judged, next_candidate, ranking
from headstart.tasks.budgeting.clock import Clock, counting_from_now
from headstart.tasks.budgeting.folds import hold_out
from headstart.tasks.budgeting.recipes import House, Recipe, Step, steps
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.head.training import build_head
from headstart.tasks.progress import Reporter, ended_by, reporter
from tests.pipeline import QUICK, Pipeline

FIRST = Recipe("net", "top")
HOUSE = House(backbones=("other",), inner_cut="inner", num_rungs=2)
MEANT = ("budget.attempts=[solver, ladder, average]", "budget.num_folds=2", "head.epochs=2")


def candidate(share: float, trial_s: float, refit_s: float = 0.0) -> Candidate:
    recipe = Recipe("net", "top", num_views=round(1000 * share))
    return Candidate(Step("solver", recipe, share), Cost(trial_s, refit_s))


def chosen(candidates: list[Candidate], left_s: float, **more: float) -> Candidate | None:
    return next_candidate(candidates, left_s, **{"best_refit_s": 0.0, "closing_s": 0.0, **more})


def test_the_most_gain_a_second_is_next_among_what_fits() -> None:
    cheap, good, dear = candidate(0.02, 2), candidate(0.3, 20), candidate(0.9, 300)
    assert chosen([cheap, good, dear], 500) is good
    assert chosen([cheap, good, dear], 19) is cheap
    assert chosen([dear], 299) is None
    # What would have to be trained again, should it be the best, counts as well.
    refitted = candidate(0.3, 20, refit_s=80)
    assert chosen([cheap, refitted], 500) is cheap
    assert chosen([refitted], 99) is None
    assert chosen([refitted], 100) is refitted
    # What is in the store costs next to nothing.
    assert chosen([good, candidate(0.01, 0.0)], 500) != good


def test_the_end_is_kept_time_for() -> None:
    one = candidate(0.1, 10, refit_s=5)
    assert chosen([one], 20, closing_s=5) is one
    assert chosen([one], 19.9, closing_s=5) is None
    # Should it be no better, the best so far has still to be trained on all images.
    assert chosen([one], 20, closing_s=5, best_refit_s=6) is None


def test_recipes_are_compared_by_the_parts_that_both_were_judged_by() -> None:
    whole = Judged(FIRST, (90, 60), (100, 100))
    rung = Judged(replace(FIRST, rungs=1), (91,), (100,))
    worse = Judged(replace(FIRST, head="mlp"), (95, 50), (100, 100))
    assert rung.gain_over(whole) == pytest.approx(0.01)
    assert worse.gain_over(whole) == pytest.approx(-0.025)
    assert ranking([whole, rung]) == [rung, whole]
    assert ranking([whole, worse]) == [whole, worse]
    tie = Judged(replace(FIRST, head="solver"), (60, 90), (100, 100))
    assert ranking([whole, tie]) == [whole, tie]  # no better is no reason to change


def test_other_rows_are_tried_once_and_heads_on_the_best_ones() -> None:
    def attempts(*ranked: Recipe) -> dict[str, list[Recipe]]:
        found: dict[str, list[Recipe]] = {}
        for step in steps(ranked, HOUSE, set(ranked)):
            found.setdefault(step.attempt, []).append(step.recipe)
        return found

    first = attempts(FIRST)
    assert first["solver"] == [replace(FIRST, head="solver")]
    assert first["views"] == [replace(FIRST, num_views=2)]
    assert first["backbones"] == [Recipe("other", "top")]
    assert first["cuts"] == [replace(FIRST, cut="inner")]
    assert first["ladder"] == [replace(FIRST, rungs=1)]
    assert not {"average", "again"} & first.keys()

    views, solver = replace(FIRST, num_views=2), replace(FIRST, head="solver")
    more = attempts(views, FIRST, solver)
    assert more["solver"] == [replace(views, head="solver")]
    assert more["views"] == [replace(FIRST, num_views=4)]
    assert [len(one.members) for one in more["average"]] == [2, 3]
    assert "views" not in attempts(solver, views, FIRST)  # two views were no better than none


def test_a_rung_is_trained_again_twice_and_averaged_with_its_like() -> None:
    rung = replace(FIRST, rungs=1)
    seeds = [replace(rung, seed=number) for number in range(3)]
    found = steps((rung, FIRST), HOUSE, {rung, FIRST})
    assert Step("again", seeds[1], 0.08) in found
    assert "average" not in {step.attempt for step in found}  # the head takes other rows
    found = steps((seeds[1], rung, FIRST), HOUSE, {*seeds[:2], FIRST})
    assert [one.recipe.members for one in found if one.attempt == "average"] == [tuple(seeds[:2])]
    assert "again" not in {step.attempt for step in steps((*seeds, FIRST), HOUSE, set(seeds))}


def test_the_like_of_the_best_rung_come_before_heads_without_one() -> None:
    seeds = (replace(FIRST, rungs=1, seed=1), replace(FIRST, rungs=1))
    found = steps((*seeds, FIRST), HOUSE, {*seeds, FIRST})
    costs = {"again": Cost(55, 60), "average": Cost(0, 150), "views": Cost(60, 60)}
    candidates = [Candidate(step, costs[step.attempt]) for step in found if step.attempt in costs]
    order = []
    while candidates:
        best = next_candidate(candidates, 400, best_refit_s=60, closing_s=10)
        assert best is not None
        order.append(best.step.attempt)
        candidates.remove(best)
    assert order == ["again", "average", "views"]
    head = next(step for step in steps((FIRST,), HOUSE, {FIRST}) if step.attempt == "views")
    assert head.share > next(step for step in found if step.attempt == "views").share


def test_every_training_image_is_left_out_once_and_no_other_is_used() -> None:
    rows = [("a", 0), ("b", 0), ("b", 0), ("c", 0), ("d", 1), ("e", 1), ("alone", 2)]
    images = [
        ImageRow(f"{number}.png", name, label, "train", 8, 8, "PNG")
        for number, (name, label) in enumerate(rows)
    ]
    others = [images[0]._replace(path="v.png", digest="v", split="val")]
    index = DatasetIndex(("x", "y", "z"), (*images, *others))
    parts = [hold_out(index, number, 2, seed=0) for number in range(2)]
    left_out = [{row.digest for row in part.rows_of("test")} for part in parts]
    assert left_out[0] | left_out[1] == set("abcde")  # the only image of a class is always learned
    assert not left_out[0] & left_out[1]
    for part, digests in zip(parts, left_out, strict=True):
        assert not digests & {row.digest for row in part.rows_of("train")}
        assert {row.label for row in part.rows_of("train")} == {0, 1, 2}
        assert len(part.rows) == len(rows)
    assert {row.split for row in hold_out(index, None, 2, seed=0).rows} == {"train"}


@pytest.mark.parametrize("kinds", [("linear", "linear"), ("linear", "mlp", "mlp")])
def test_an_average_gives_the_mean_of_the_logits_as_one_network(kinds: tuple[Any, ...]) -> None:
    shape = (2, 2, 5)
    heads = [
        build_head(HeadConfig(kind=kind, hidden_units=(4,), seed=number), shape, 3)
        for number, kind in enumerate(kinds)
    ]
    merged = average_networks(heads)
    rows = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    expected = np.mean([head(rows) for head in heads], axis=0)
    np.testing.assert_allclose(merged(rows), expected, atol=1e-6)
    num_dense = sum(isinstance(layer, keras.layers.Dense) for layer in merged.layers)
    assert num_dense == (1 if set(kinds) == {"linear"} else 5)
    assert merged.layers[-1].name == "logits"


def test_a_loop_ends_when_only_the_reserve_is_left() -> None:
    seconds = [0.0]
    clock = Clock(100.0, lambda: seconds[0])
    with ended_by(clock.keep(30.0)), Reporter().track("work", 10, "things") as advance:
        seconds[0] = 69.0
        advance(1)
        seconds[0] = 70.0
        with pytest.raises(OutOfTimeError, match="the time budget is used up"):
            advance(1)
    assert clock.left_s == 30.0
    assert clock.spent_s == 70.0
    check = clock.keep(5.0, limit_s=10.0)
    seconds[0] = 80.0
    check()
    seconds[0] = 81.0
    with pytest.raises(OutOfTimeError, match="not done after 11 s"):
        check()


@pytest.mark.parametrize("model", [SweepConfig, FinetuneConfig])
def test_a_budget_is_refused_where_it_is_not_read(model: Any) -> None:
    with pytest.raises(ConfigError, match=r"budget\.seconds is for `headstart train`"):
        build_config(model, "images", settings=["budget.seconds=60"])


class Pretended:
    """Recipes that take as long, and get as much right, as a test says.

    Args:
        seconds: The clock.
        right: Images of 100 that are right, by the kind of head; None for a training that fails.
        takes: Seconds of a trial, by the kind of head; 10 are expected.
    """

    configured, folds, num_swept, head_s, kind = FIRST, ("one",), 32, 1.0, "class"

    def __init__(
        self, seconds: list[float], right: dict[str, int | None], takes: dict[str, float]
    ) -> None:
        self._seconds, self._right, self._takes = seconds, right, takes
        self.tried: list[Recipe] = []

    def inner_cut(self, recipe: Recipe) -> None: ...

    def num_rungs(self, recipe: Recipe) -> int:
        return 0

    def cost(self, recipe: Recipe) -> Cost:
        return Cost(10.0, 5.0 if recipe != FIRST else 0.0)

    def is_there(self, recipe: Recipe) -> bool:
        return False

    def remembered(self) -> list[Any]:
        return []

    def remember(self, attempt: str, recipe: Recipe) -> None:
        self.tried.append(recipe)

    def try_out(self, recipe: Recipe) -> Judged:
        left_s = self._takes.get(recipe.head, 1.0)
        with reporter().track("training", 10**6, "seconds") as advance:
            while left_s > 0:
                step_s = min(7.0, left_s)
                left_s -= step_s
                self._seconds[0] += step_s
                self._takes[recipe.head] = left_s  # what is done is in the store
                advance(1)
        if (right := self._right[recipe.head]) is None:
            raise TrainingError("a bottleneck is not a finite number")
        return Judged(recipe, (right,), (100,))


def search(seconds: float, right: dict[str, int | None], **takes: float) -> Any:
    told = ["budget.attempts=[solver, mlp, sweep]"]
    now = [0.0]
    trials: Any = Pretended(now, right, takes)
    made = budget.Search(build_config(TransferConfig, "images", settings=told), trials,
                         Clock(seconds, lambda: now[0]))  # fmt: skip
    made.run()
    return made


def outcomes(made: Any) -> list[tuple[str, str]]:
    return [(line.attempt, line.outcome) for _, line in made.lines]


@pytest.mark.usefixtures("store")
def test_a_trial_that_fails_or_is_slow_lets_the_others_come_first() -> None:
    right: dict[str, int | None] = {"configured": 90, "solver": 93, "mlp": None, "sweep": 92}
    made = search(500.0, right, sweep=100.0)
    assert outcomes(made) == [
        ("configured", "tried"), ("sweep", "stopped"), ("mlp", "failed"), ("solver", "tried"),
        ("sweep", "tried"),
    ]  # fmt: skip
    slow = made.lines[1][1]
    assert slow.reason == "not done after 42 s"  # 3 times the 10 s that were expected, and 10
    assert made.lines[4][1].expected_s == 84.0
    assert ranking(made.judged)[0].recipe.head == "solver"


@pytest.mark.usefixtures("store")
def test_what_does_not_fit_any_more_is_left_out_with_what_it_would_take() -> None:
    right: dict[str, int | None] = dict.fromkeys(("configured", "solver", "mlp", "sweep"), 90)
    made = search(29.7, right, configured=10.0, sweep=10.0)
    assert outcomes(made) == [
        ("configured", "tried"), ("sweep", "tried"), ("solver", "left out"), ("mlp", "left out"),
    ]  # fmt: skip
    # Its trial, its training on all images, and what is kept for evaluation and export.
    assert made.lines[2][1].reason == "20 s including all that follows, but there are 10 s left"
    assert made.train_best("the head") == (FIRST, "the head")  # a tie is no reason to change


@pytest.mark.usefixtures("store")
def test_the_last_seconds_go_to_what_may_be_faster_than_expected() -> None:
    right: dict[str, int | None] = {"configured": 90, "solver": 91, "mlp": 93, "sweep": 92}
    made = search(33.0, right, configured=10.0, sweep=10.0, mlp=2.0, solver=10.0)
    # 13 seconds are left for the MLP, which is expected to take 20 with all that follows.
    assert outcomes(made) == [
        ("configured", "tried"), ("sweep", "tried"), ("mlp", "tried"), ("solver", "stopped"),
    ]  # fmt: skip
    assert made.lines[3][1].reason == "the time budget is used up"
    assert ranking(made.judged)[0].recipe.head == "mlp"


@pytest.mark.usefixtures("store")
def test_nothing_is_tried_where_nothing_is_wrong() -> None:
    assert outcomes(search(500.0, {"configured": 100})) == [("configured", "tried")]


def rung(seed: int) -> Recipe:
    return Recipe("net", "top", rungs=1, seed=seed)


PAIR = Recipe("net", "top", rungs=1, members=(rung(0), rung(1)))


class Finished:
    """Recipes of which only the training on all images takes time, and can be found afterwards."""

    configured, whole, dataset, head_s, kind = FIRST, "whole", "all", 0.0, "class"
    num_swept, folds = 32, ("one",)

    def __init__(self, seconds: list[float], takes: float, saving: float = 0.0) -> None:
        self._seconds, self._takes, self._saving = seconds, takes, saving
        self.trained: list[Recipe] = []

    def extract(self, recipe: Recipe, dataset: str, views: Any) -> None: ...

    def is_missing(self, recipe: Recipe, views: Any) -> bool:
        return False

    def find(self, recipe: Recipe, dataset: str) -> str | None:
        return self.describe(recipe) if recipe in self.trained else None

    def train(self, recipe: Recipe, dataset: str) -> str:
        with reporter().track("training", 10, "steps") as advance:
            while not recipe.members and recipe not in self.trained:
                self._seconds[0] += self._takes
                advance(1)
                self._seconds[0] += self._saving
                self.trained.append(recipe)
        return self.describe(recipe)

    def describe(self, recipe: Recipe) -> str:
        return f"network of {len(recipe.members) or recipe}"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("seconds", "kept"), [(300.0, PAIR), (150.0, rung(1)), (90.0, FIRST)], ids=str
)
def test_the_best_that_is_trained_when_the_time_is_up_is_kept(seconds: float, kept: Recipe) -> None:
    now = [0.0]
    trials: Any = Finished(now, takes=100.0)
    config = build_config(TransferConfig, "images")
    made = budget.Search(config, trials, Clock(seconds, lambda: now[0]))
    made.judged = [
        Judged(one, (right,), (100,))
        for one, right in [(FIRST, 90), (rung(0), 92), (rung(1), 93), (PAIR, 94)]
    ]
    recipe, manifest = made.train_best(cast(Any, "the configured head"))
    assert recipe == kept
    is_first = kept == FIRST
    assert manifest == ("the configured head" if is_first else trials.describe(kept))
    assert len(trials.trained) == {300.0: 2, 150.0: 1, 90.0: 0}[seconds]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("judged", "kept"),
    [([FIRST, rung(0)], rung(0)), ([FIRST, rung(0), PAIR], PAIR)],
    ids=["one", "of a pair a member was left out"],
)
def test_what_is_finished_late_is_kept_all_the_same(judged: list[Recipe], kept: Recipe) -> None:
    now = [0.0]
    trials: Any = Finished(now, takes=20.0, saving=30.0)
    config = build_config(TransferConfig, "images")
    made = budget.Search(config, trials, Clock(80.0, lambda: now[0]))
    made.judged = [Judged(one, (90 + place,), (100,)) for place, one in enumerate(judged)]
    assert made.train_best(cast(Any, "the configured head"))[0] == kept
    assert now[0] == 50.0 * len(kept.members or [kept])


def test_a_budget_counts_from_where_the_run_began() -> None:
    with counting_from_now():
        time.sleep(0.05)
        assert Clock(10.0).spent_s >= 0.05
    assert Clock(10.0).spent_s < 0.05


@pytest.fixture
def mislabelled(pipeline: Pipeline) -> Pipeline:
    """A pipeline some of whose images are in another class, so that there is something to gain."""
    for number in range(4):
        (pipeline.images / "blue" / f"000{number}.png").rename(
            pipeline.images / "red" / f"b{number}.png"
        )
    return pipeline


def settings(pipeline: Pipeline, *more: str) -> list[str]:
    return [*QUICK, f"backbone.name={pipeline.backbone}", *MEANT, *more]


def test_a_run_tries_chooses_exports_and_finds_all_of_it_again(mislabelled: Pipeline) -> None:
    options = [part for one in settings(mislabelled) for part in ("--set", one)]
    store = ("--store", str(mislabelled.store.root))
    line = ["train", str(mislabelled.images), "--budget-s", "10000", *store, *options, "--json"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, (result.output, result.exception)
    made = json.loads(result.stdout)
    tried = {one["attempt"]: one for one in made["tried"]}
    assert made["tried"][0]["attempt"] == "configured"
    assert {"solver", "ladder"} <= tried.keys()
    assert made["budget_s"] == 10000.0
    (kept,) = [one for one in made["tried"] if one["outcome"] == "chosen"]
    assert kept["what"] == made["chosen"]
    assert tried["configured"]["num_judged"] > tried["ladder"]["num_judged"] > 0
    assert not any(one["was_there"] for one in made["tried"] if one["attempt"] != "average")
    # No split but train decided anything, not even an epoch.
    for stage in ("head", "rung"):
        for manifest in mislabelled.store.manifests(stage):
            assert not manifest["has_val"]
            assert manifest["best_epoch"] == len(manifest["history"])
    page = Path(made["report"]).read_text()
    assert "Candidates that were tried" in page
    assert made["chosen"] in page

    mislabelled.num_passed()
    again = headstart.train(
        mislabelled.images, budget_s=10000, settings=settings(mislabelled),
        store=mislabelled.store.root,
    )  # fmt: skip
    assert mislabelled.num_passed() == 0
    assert {stage["status"] for stage in again.stages} == {"hit"}
    records = json.loads((again.run_dir / "run.json").read_text())["tried"]
    assert [one["what"] for one in records] == [one["what"] for one in made["tried"]]
    assert all(one["was_there"] for one in records if one["attempt"] != "average")
    assert len(again.tried) == len(records)
    assert again.metrics == made["metrics"]
    assert again.predict(mislabelled.images / "green" / "0100.png").label == "green"


def test_a_run_that_was_killed_goes_on_where_it_was(
    mislabelled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trials.try_out

    def die_at_the_solver(trials: Trials, recipe: Recipe) -> Judged:
        if recipe.head == "solver":
            raise KeyboardInterrupt
        return original(trials, recipe)

    more = (*MEANT, "budget.seconds=10000", "budget.attempts=[solver]")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trials, "try_out", die_at_the_solver)
        mislabelled.run(*more)
    summary: Any = mislabelled.run(*more)
    assert [(one.attempt, one.was_there) for one in summary.tried] == [
        ("configured", True), ("solver", False),
    ]  # fmt: skip


def clock_of(monkeypatch: pytest.MonkeyPatch, now: Callable[[], float]) -> None:
    monkeypatch.setattr(budget, "Clock", lambda seconds: Clock(seconds, now))


def test_what_runs_when_the_time_is_up_is_ended_and_the_best_is_exported(
    mislabelled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    original = Trials.train

    def train(trials: Trials, recipe: Recipe, dataset: Any) -> Any:
        seconds[0] = 9995.0 if recipe.head == "mlp" else seconds[0]
        return original(trials, recipe, dataset)

    monkeypatch.setattr(Trials, "train", train)
    clock_of(monkeypatch, lambda: seconds[0])
    monkeypatch.setattr(budget, "MARGIN", 100.0)  # more than 5 s are kept for the end
    more = (*MEANT, "budget.seconds=10000", "budget.attempts=[mlp]")
    summary: Any = mislabelled.run(*more)
    outcomes = {one.attempt: one.outcome for one in summary.tried}
    assert outcomes == {"configured": "chosen", "mlp": "stopped"}
    kinds = {one["key_fields"]["head"]["kind"] for one in mislabelled.store.manifests("head")}
    assert kinds == {"linear"}
    assert Path(summary.model).exists()
    assert summary.metrics["val"]["num_images"] > 0


def test_without_time_the_configured_head_is_delivered_and_that_is_said(
    mislabelled: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    summary: Any = mislabelled.run(*MEANT, "budget.seconds=1")
    (line,) = summary.tried
    assert (line.what, line.outcome, line.accuracy) == ("linear head", "chosen", None)
    assert summary.chosen == "linear head"
    assert Path(summary.model).exists()
    for told in (line.reason, " ".join(capsys.readouterr().err.split())):
        assert "too little to try anything" in told


@pytest.mark.parametrize("kind", ["class", "labels", "number"])
@pytest.mark.parametrize("head", ["solver", "mlp"])
def test_a_configured_head_may_have_what_a_solver_does_not_know(kind: Any, head: Any) -> None:
    config = SimpleNamespace(
        head=HeadConfig(label_smoothing=0.1, dropout=0.2, class_weights="balanced")
    )
    own = SimpleNamespace(config=config, kind=kind)
    own._solver = Trials._solver.fget(own)  # type: ignore[attr-defined]
    made = Trials.head_of(cast(Trials, own), Recipe("net", "top", head=head))
    assert made.label_smoothing == (0.0 if head == "solver" else 0.1)
    assert made.class_weights == "balanced"


def test_a_class_that_lives_in_one_mixed_group_is_always_trained_on() -> None:
    rows = tuple(
        ImageRow(
            f"{n}.png", f"{n:064x}", int(n in (0, 1)), "train", 8, 8, "PNG", group=f"P{n // 4}"
        )
        for n in range(24)
    )
    index = DatasetIndex(("common", "rare"), rows)
    for number in range(3):
        parts = hold_out(index, number, 3, 0).rows
        assert 1 in {row.label for row in parts if row.split == "train"}
        assert {row.split for row in parts} == {"train", "test"}

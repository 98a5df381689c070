"""Training within a time budget: search for the best model, as part of the transfer flow.

The configured head is trained first; while time remains, candidates that are one change away from
the best so far follow, by expected gain per second. Cross-validation on the training images chooses
among them, so the val and test splits are evaluated only once, at the end. Every trial is made of
stages, so a run that was killed, or gets more time, continues from what is finished.
"""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headstart.config import Attempt, TransferConfig
from headstart.errors import BackboneError, OutOfTimeError, TrainingError
from headstart.flows.artifacts import publish
from headstart.flows.context import flow_run_context
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks
from headstart.flows.diagnosis import watching_stages
from headstart.flows.trials import Trials, quietly, seconds_a_view
from headstart.tasks.bottlenecks.rows import check_names
from headstart.tasks.budgeting.choosing import Candidate, Cost, Judged, next_candidate, ranking
from headstart.tasks.budgeting.clock import Clock
from headstart.tasks.budgeting.deciding import stage as decided_stage
from headstart.tasks.budgeting.recipes import House, Recipe, describe, steps
from headstart.tasks.budgeting.report import Tried, gain_words, table, told
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.report_content import untouched
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.export.seen_images import write_seen
from headstart.tasks.export.stage import BehindBackbone
from headstart.tasks.export.stage import stage as export_stage
from headstart.tasks.head.stage import HeadManifest
from headstart.tasks.head.training_warnings import check_classes
from headstart.tasks.preview.measuring import measure
from headstart.tasks.progress import ended_by, reporter
from headstart.tasks.ranking.candidates import backbones_at_hand
from headstart.tasks.running.stage import Outcome, collect_outcomes
from headstart.tasks.runs.judged_images import write_judged
from headstart.tasks.runs.projector import write_projector
from headstart.tasks.runs.run_folder import (
    RUN_FILE,
    RunSummary,
    finish_run,
    make_report,
    tell_problems,
)
from headstart.tasks.store.artifacts import current_store
from headstart.tasks.store.files import write_json

EXPORT_BY_HEAD = 2.0
"""Seconds of an export by those of the configured head, until the store knows some."""
PATIENCE, LEAST_PATIENCE_S = 3.0, 10.0
"""How many times what was expected a trial may take, and seconds more, before others come first."""
STRETCH = 2.0
"""Where nothing fits, what is expected to take so many times what is left is begun all the same."""
MEASURED_FROM_S = 60.0
"""With more seconds left some are spent to measure, where no view had to be extracted."""
MARGIN = 1.2
"""Of what is kept for training the best on all images, and for the end, by what is expected."""


class BudgetSummary(RunSummary):
    """What a training in a time came to; the object that ``--json`` prints."""

    budget_s: float
    chosen: str
    """What the model is, in words."""
    tried: tuple[Tried, ...]
    """In order, and what was left out."""


def train_in_time(config: TransferConfig, folder: Path) -> BudgetSummary:
    """Find the best model in the time there is, evaluate and export it.

    Args:
        config: What to train on, and ``budget``: how long.
        folder: The run's folder, for results and the report.

    Returns:
        Where the results are, the figures, and what was tried.
    """
    clock = Clock(config.budget.seconds or math.inf)
    started_s = time.monotonic()
    found: list[dict[str, Any]] = []
    with collect_outcomes() as outcomes, tempfile.TemporaryDirectory() as scratch:
        check_names(config.backbone, config.views.image_size, config.bottlenecks)
        dataset = dataset_stage(config.dataset)
        index = index_of(dataset)
        tell_problems(index, folder)
        check_classes(index)
        make_bottlenecks(dataset, config.dataset, config.views, config.backbone, config.bottlenecks)
        with quietly():
            pace_s = _seconds_a_view(config, index, outcomes, clock)
            trials = Trials(config, dataset, Path(scratch), pace_s)
        with watching_stages(folder / "crash", found):
            configured = trials.train(trials.configured, trials.whole)
        trials.head_s = configured.duration_s
        search = Search(config, trials, clock)
        search.run()
        recipe, kept = search.train_best(configured)
        features, told_by = trials.judged(recipe), trials.told(recipe, kept)
        if dataset.kind != "class" and index.rows_of("val"):
            kept = decided_stage(features, kept, config.head)
        evaluation = evaluation_stage(features, kept, config.evaluation)
        export = export_stage(BehindBackbone(features), kept, config.export)
    write_seen(folder, index.by_split)
    report = make_report(folder, told_by, index, kept, evaluation, outcomes)
    lines = search.told(recipe)
    nothing = untouched(kept.fit)
    tried = table(lines, clock.seconds, clock.spent_s, len(trials.folds), nothing)
    note = f"{search.caveat(recipe)} {nothing}; not even the epoch was chosen by them."
    report = replace(report, tables=(tried,), notes=(*report.notes, note))
    write_judged(folder, evaluation, index.class_names, index, kept.fit)
    summary = finish_run(folder, report, kept, evaluation, export, outcomes, started_s, found)
    if config.show.num_projected:
        write_projector(folder / "tensorboard", features, config.show.num_projected)
    publish("transfer", report, summary)
    whole = BudgetSummary(
        **summary.model_dump(),
        budget_s=clock.seconds,
        chosen=search.describe(recipe),
        tried=lines,
    )
    write_json(folder / RUN_FILE, whole.model_dump(mode="json"))
    if flow_run_context() is not None:
        from prefect.artifacts import create_table_artifact

        rows = [dict(row) for row in tried.rows]
        create_table_artifact(rows, key="transfer-budget", description=tried.title)
    return whole


def _seconds_a_view(
    config: TransferConfig, index: DatasetIndex, outcomes: Sequence[Outcome], clock: Clock
) -> float:
    """Say what extracting a view takes: just now, not when the machine had other work to do."""
    if outcomes[-1].status == "miss" or clock.left_s < MEASURED_FROM_S:
        return seconds_a_view(outcomes)
    speeds = measure(config, index, len(index.rows))
    return speeds.view_s + speeds.frozen_s


@dataclass
class Search:
    """The search for the best recipe.

    Attributes:
        config: The run's configuration.
        trials: Trains, evaluates and prices recipes.
        clock: Counts the budget down.
        judged: Recipes judged so far, in order.
        lines: What was tried and what came of it, in order.
        slow: What took much longer than expected and may be tried again, after what promises more
            a second: the recipe, and the seconds that are expected now.
    """

    config: TransferConfig
    trials: Trials
    clock: Clock
    judged: list[Judged] = field(default_factory=list)
    lines: list[tuple[Recipe, Tried]] = field(default_factory=list)
    slow: dict[Recipe, float] = field(default_factory=dict)
    _told_plan: bool = False

    def run(self) -> None:
        """Try what fits into the time, the most gain a second first."""
        trials = self.trials
        if not trials.folds:
            self._try_nothing("no training images that tell models apart can be held out")
            return
        with quietly():
            cost = trials.cost(trials.configured)
        if cost.trial_s + self.closing_s > self.clock.left_s:
            self._try_nothing(
                f"{max(0.0, self.clock.left_s):,.0f} s are left, too little to try anything: "
                f"evaluating this head alone takes about {cost.trial_s:,.0f} s"
            )
            return
        self._try(trials.configured, "configured", None)
        self._replay()
        while self.judged:
            best = ranking(self.judged)[0]
            if best.figure == 1.0:
                reporter().note("     every held-out image is right: there is nothing to gain")
                break
            candidates = self.candidates()
            if not self._told_plan:
                self._tell_plan(candidates, best)
            left_s, refit_s = self.clock.left_s, self._refit_s(best.recipe)
            chosen = next_candidate(candidates, left_s, refit_s, self.closing_s)
            if chosen is None:  # it may take less than expected, and ends in time if not
                chosen = next_candidate(candidates, STRETCH * left_s, refit_s, self.closing_s)
            if chosen is None:
                self._leave_out(candidates, best)
                reporter().note("     everything that fits into the time was tried")
                break
            self._try(chosen.step.recipe, chosen.step.attempt, best, chosen)

    def _replay(self) -> None:
        """Try first what earlier runs have tried, in their order: it is all in the store.

        What is next depends on what trials take, which is never the same twice; without this a
        second run could go another way, and come to less than the first.
        """
        for attempt, recipe in self.trials.remembered():
            if attempt not in self.config.budget.attempts or not self.judged:
                continue
            with quietly():
                is_there = self.trials.is_there(recipe)
            if is_there:
                self._try(recipe, attempt, ranking(self.judged)[0])

    @property
    def metric(self) -> str:
        """What recipes are compared by, in a line."""
        return JUDGES[self.trials.kind].ranked_name

    @property
    def closing_s(self) -> float:
        """Seconds to keep for the evaluation, the export and the report."""
        known = next(current_store().manifests("export"), None)
        export_s = float(known["duration_s"]) if known else EXPORT_BY_HEAD * self.trials.head_s
        return MARGIN * (export_s + self.trials.head_s)

    def candidates(self) -> list[Candidate]:
        """List what is one step from the best, and what each would take."""
        ranked = tuple(one.recipe for one in ranking(self.judged))
        judged = {one.recipe for one in self.judged}
        tried = {recipe for recipe, _ in self.lines if recipe in judged or recipe not in self.slow}
        with quietly():
            house = self._house(next(one for one in ranked if not one.members))
            return [
                Candidate(step, self._cost(step.recipe))
                for step in steps(ranked, house, tried)
                if step.attempt in self.config.budget.attempts
            ]

    def _cost(self, recipe: Recipe) -> Cost:
        cost = self.trials.cost(recipe)
        trial_s = max(cost.trial_s, self.slow.get(recipe, 0.0))
        return Cost(trial_s, MARGIN * cost.refit_s)

    def _house(self, best: Recipe) -> House:
        head = self.config.head
        others: dict[Attempt, bool] = {
            "solver": head.solver not in ("lbfgs", "ridge"),
            "mlp": head.kind != "mlp",
            "sweep": True,
        }
        return House(
            heads=tuple(name for name, is_other in others.items() if is_other),
            backbones=tuple(
                name for name in backbones_at_hand() if name != self.config.backbone.name
            ),
            inner_cut=self.trials.inner_cut(best),
            num_rungs=self.trials.num_rungs(best),
            can_tune=head.kind in ("linear", "mlp"),
        )

    def _try(
        self,
        recipe: Recipe,
        attempt: str,
        best: Judged | None,
        candidate: Candidate | None = None,
    ) -> None:
        """Try a recipe, and write what came of it."""
        started_s = self.clock.now()
        reserve_s = self.closing_s + (self._refit_s(best.recipe) if best else 0.0)
        metric = self.metric
        told: dict[str, Any] = {"what": self.describe(recipe), "attempt": attempt, "metric": metric}
        if candidate is not None and best is not None:
            told["expected_gain"] = candidate.step.share * (1 - best.figure)
            told["expected_s"] = candidate.cost.trial_s
        limit_s = math.inf
        if candidate is not None:
            limit_s = PATIENCE * candidate.cost.trial_s + LEAST_PATIENCE_S
        self.slow.pop(recipe, None)
        judged, is_slow = None, False
        with quietly(self.clock.keep(reserve_s, limit_s)) as outcomes:
            try:
                judged = self.trials.try_out(recipe)
                told["outcome"] = "tried"
            except OutOfTimeError as error:
                told |= {"outcome": "stopped", "reason": error.problem}
                is_slow = self.clock.left_s > reserve_s
            except (TrainingError, BackboneError) as error:
                told |= {"outcome": "failed", "reason": error.problem}
        if judged is not None:
            name = "accuracy" if metric == "accuracy" else "value"
            told |= {name: judged.figure, "num_judged": sum(judged.sizes)}
            told["gain"] = None if best is None else judged.gain_over(best)
            refit_s = self._refit_s(recipe)
            if best is not None and refit_s + self.closing_s > self.clock.left_s:
                reason = f"training it on all images would take {refit_s:,.0f} s"
                told |= {"outcome": "left out", "reason": reason}
            else:
                self.judged.append(judged)
                self.trials.remember(attempt, recipe)
        took_s = self.clock.now() - started_s
        if is_slow:  # those parts of it that were done are in the store
            self.slow[recipe] = 2 * took_s
        told["seconds"] = round(took_s, 3)
        # Of what was ended, what took so long has no outcome.
        is_hit = bool(outcomes) and all(one.status == "hit" for one in outcomes)
        told["was_there"] = judged is not None and is_hit
        self._add(recipe, Tried(**told))

    def _add(self, recipe: Recipe, line: Tried) -> None:
        self.lines.append((recipe, line))
        reporter().note(told(line, self.clock.left_s))

    def _refit_s(self, recipe: Recipe) -> float:
        with quietly():
            return self._cost(recipe).refit_s

    def train_best(self, configured: HeadManifest) -> tuple[Recipe, HeadManifest]:
        """Train the best on all training images.

        Where the time is up before that is done, the best of what is trained by then is kept: of
        an average perhaps one of its members, and at the worst the configured head.

        Args:
            configured: Manifest of the configured head, which was trained already.

        Returns:
            What is kept, and its manifest.
        """
        trials = self.trials
        ranked = [one.recipe for one in ranking(self.judged)] or [trials.configured]
        best, *others = ranked[: ranked.index(trials.configured) + 1]
        reporter().note(f"     the best is: {self.describe(best)}")
        if best == trials.configured:
            return best, configured
        plain = self.config.views.model_copy(update={"num_augmented": 0})
        check = self.clock.keep(self.closing_s / MARGIN)
        # The better members first: what is done when the time is up can be kept.
        members = [one for one in ranked if one in best.members]
        members += [one for one in best.members if one not in members]
        try:
            with ended_by(check):
                for recipe in members or [best]:
                    if not self._is_done(recipe):
                        check()
                    trials.extract(recipe, trials.dataset, plain)
                    trials.train(recipe, trials.whole)
            return best, trials.train(best, trials.whole)
        except (OutOfTimeError, TrainingError, BackboneError) as error:
            finished = (one for one in others if one != trials.configured and self._is_done(one))
            kept = next(finished, trials.configured)
            is_late = isinstance(error, OutOfTimeError)
            how = "was not finished" if is_late else "failed"
            again = "; the same command continues from here" if is_late else ""
            reporter().note(
                f"     training it on all images {how} ({error.problem}): the best trained one is "
                f"kept, {self.describe(kept)}{again}"
            )
            if kept == trials.configured:
                return kept, configured
            return kept, trials.train(kept, trials.whole)

    def _is_done(self, recipe: Recipe) -> bool:
        """Say whether all that training a recipe on all images takes is there already."""
        plain = self.config.views.model_copy(update={"num_augmented": 0})
        return all(
            self.trials.find(one, self.trials.whole) is not None
            and not self.trials.is_missing(one, plain)
            for one in recipe.members or (recipe,)
        )

    def describe(self, recipe: Recipe) -> str:
        """Say what a recipe is."""
        trials = self.trials
        solver = "ridge regression" if trials.kind == "number" else "L-BFGS"
        kind = self.config.head.kind
        return describe(recipe, trials.configured, kind, trials.num_swept, solver)

    def told(self, kept: Recipe) -> tuple[Tried, ...]:
        """List what was tried, with what is kept marked."""
        return tuple(
            line.model_copy(update={"outcome": "chosen"}) if recipe == kept else line
            for recipe, line in self.lines
        )

    def caveat(self, kept: Recipe) -> str:
        """Say in a sentence what the model is."""
        return (
            f"The model: {self.describe(kept)}, chosen among {max(1, len(self.judged))} on "
            "training images that were held out."
        )

    def _try_nothing(self, reason: str) -> None:
        first = self.trials.configured
        line = Tried(
            what=self.describe(first),
            attempt="configured",
            outcome="left out",
            reason=reason,
            metric=self.metric,
        )
        self._add(first, line)

    def _tell_plan(self, candidates: Sequence[Candidate], best: Judged) -> None:
        self._told_plan = True
        refit_s = self._refit_s(best.recipe)
        ordered = sorted(candidates, key=lambda one: -one.rate(refit_s))
        reporter().note("     candidates, by expected gain per second:")
        for one in ordered:
            gain = gain_words(one.step.share * (1 - best.figure), self.metric)
            seconds = (
                f"{one.cost.trial_s:,.0f} s + {one.cost.refit_s:,.0f} s more if it is the best"
            )
            line = f"{self.describe(one.step.recipe)}: {gain}, {seconds}"
            reporter().note(f"       {line}")

    def _leave_out(self, candidates: Sequence[Candidate], best: Judged) -> None:
        for one in candidates:
            needed_s = one.needed_s(self._refit_s(best.recipe)) + self.closing_s
            left_s = max(0.0, self.clock.left_s)
            line = Tried(
                what=self.describe(one.step.recipe),
                attempt=one.step.attempt,
                outcome="left out",
                expected_gain=one.step.share * (1 - best.figure),
                expected_s=one.cost.trial_s,
                reason=f"{needed_s:,.0f} s including all that follows, but there are {left_s:,.0f} "
                "s left",
                metric=self.metric,
            )
            self._add(one.step.recipe, line)

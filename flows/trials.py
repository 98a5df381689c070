"""Train and evaluate the candidates of a time budget with the existing stages, and time them.

Every part is a stage with a key, so a trial that was done before is found in the store.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from headstart.config import (
    BackboneConfig,
    HeadConfig,
    SweepConfig,
    TargetKind,
    TransferConfig,
    TuningConfig,
    ViewsConfig,
)
from headstart.config.base import MAX_SEED
from headstart.config.sweep import swept_fields, swept_heads
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks
from headstart.tasks.backbones.cuts import TOP
from headstart.tasks.backbones.natural_cuts import natural_cuts
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import bottleneck_collections, open_backbone, wanted_rows
from headstart.tasks.budgeting.average import stage as average_stage
from headstart.tasks.budgeting.choosing import Cost, Judged
from headstart.tasks.budgeting.folds import stage as fold_stage
from headstart.tasks.budgeting.recipes import Head, Recipe
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.finetuning.rungs import plan_rungs
from headstart.tasks.finetuning.stage import rung as rung_stage
from headstart.tasks.head.stage import HeadManifest
from headstart.tasks.head.stage import stage as head_stage
from headstart.tasks.progress import Reporter, ended_by, reporter, use_reporter
from headstart.tasks.ranking.candidates import can_judge
from headstart.tasks.running.stage import Outcome, collect_outcomes
from headstart.tasks.runs.run_folder import cold_seconds
from headstart.tasks.store.artifacts import artefact, current_store
from headstart.tasks.store.remembered import remember, remembered
from headstart.tasks.store.versions import arithmetic_versions
from headstart.tasks.sweeping.stage import SweepManifest
from headstart.tasks.sweeping.stage import stage as sweep_stage
from headstart.tasks.targets.target import Fit

FACTORS: dict[Head, float] = {"configured": 1.0, "solver": 12.0, "mlp": 2.0, "sweep": 5.0}
"""Seconds of a head by those of the configured one, until one of its kind was trained. The solver
compares eight penalties on four folds: 20 s where the configured head took 1.7 (flower photos)."""
TRAINING_SLOWDOWN = 1.7
"""Seconds of a FLOP in a training step by those in extraction, whose engine may be a faster one:
110 and 190 images/s were measured forward. Backward FLOPs are counted as such."""
UNKNOWN_IMAGE_S = 0.02
"""Seconds to extract an image, where the store does not know what it took."""
_TRIED = TypeAdapter(list[tuple[str, Recipe]])
SEARCHING = {"num_bootstrap": 10, "num_top_losses": 0}
"""Of evaluations that only choose."""
TUNING = TuningConfig(patience=0)
"""Of rungs: no split tells which epoch is the best, so the last is kept."""


@dataclass
class Trials:
    """The recipes of one data set.

    Attributes:
        config: The run's configuration.
        dataset: Manifest of all images, with their own splits.
        whole: The training images alone.
        folds: Each part held out once, as its test split.
        scratch: A folder for the trainings' event files, which are kept with what was trained.
        image_s: Seconds to extract a view, by the configured backbone.
        head_s: Seconds of the configured head on all training images.
    """

    config: TransferConfig
    dataset: DatasetManifest
    scratch: Path
    image_s: float = UNKNOWN_IMAGE_S
    head_s: float = 1.0
    _took: dict[Any, float] = field(default_factory=dict)
    _flops: dict[str, int] = field(default_factory=dict)
    _known: dict[tuple[Recipe, str], bool] = field(default_factory=dict)
    _missing: dict[Any, int] = field(default_factory=dict)
    _evaluations: dict[Recipe, list[EvaluationManifest]] = field(default_factory=dict)
    _fits: dict[Recipe, list[Fit]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        """Draw the parts."""
        told = self.config.budget
        self.whole = fold_stage(self.dataset, None, told.num_folds, told.seed)
        drawn = (
            fold_stage(self.dataset, number, told.num_folds, told.seed)
            for number in range(told.num_folds)
        )
        # Of very few images a part may have none, or none that tells two models apart.
        self.folds = tuple(fold for fold in drawn if can_judge(index_of(fold), "test"))
        name, cut = self.config.backbone.name, self.config.bottlenecks.cut
        self.configured = Recipe(name, cut, self.config.views.num_augmented)

    def backbone_of(self, recipe: Recipe) -> BackboneConfig:
        """Return the backbone of a recipe."""
        is_own = recipe.backbone == self.config.backbone.name
        return self.config.backbone if is_own else BackboneConfig(name=recipe.backbone)

    def start_of(self, recipe: Recipe) -> str:
        """Return the cut whose rows a recipe's network takes."""
        if not recipe.rungs:
            return recipe.cut
        network = open_backbone(self.backbone_of(recipe), self.config.views.image_size)
        return plan_rungs(network, recipe.rungs)[recipe.rungs - 1]

    def num_rungs(self, recipe: Recipe) -> int:
        """Return how many rungs may lie behind a recipe's head: two, or as many as there are."""
        network = open_backbone(self.backbone_of(recipe), self.config.views.image_size)
        return len(plan_rungs(network, 2)) if recipe.cut == TOP else 0

    def inner_cut(self, recipe: Recipe) -> str | None:
        """Return the last natural cut before the top."""
        network = open_backbone(self.backbone_of(recipe), self.config.views.image_size)
        before = natural_cuts(network)[:-1]
        return before[-1].name if before else None

    @property
    def sweep(self) -> SweepConfig:
        """The grid of heads."""
        fields = self.config.model_dump(exclude={"budget"})
        fields["head"] |= {"kind": "linear", "solver": "minibatch"}
        return SweepConfig.model_validate(fields)

    @property
    def num_swept(self) -> int:
        """Heads of the grid."""
        return len(swept_heads(self.sweep))

    def told(self, recipe: Recipe, kept: HeadManifest) -> TransferConfig:
        """Return the configuration that a recipe stands for, as far as one can say it.

        Args:
            recipe: The recipe; of an average its first member is told.
            kept: Manifest of what was trained.
        """
        first = recipe.members[0] if recipe.members else recipe
        cut, head = {"cut": first.cut}, self.head_of(first)
        if isinstance(kept, SweepManifest):
            head = head.model_copy(update=kept.swept[kept.chosen - 1].settings)
        changes = {
            "views": self.views_of(first),
            "backbone": self.backbone_of(first),
            "bottlenecks": self.config.bottlenecks.model_copy(update=cut),
            "head": head,
        }
        return self.config.model_copy(update=changes)

    def head_of(self, recipe: Recipe) -> HeadConfig:
        """Return the head of a recipe."""
        changes: dict[str, Any] = {
            "solver": self._solver,
            "mlp": {"kind": "mlp", "solver": "minibatch"},
        }.get(recipe.head, {})
        return HeadConfig.model_validate({**self.config.head.model_dump(), **changes})

    @property
    def kind(self) -> TargetKind:
        """What is learned."""
        return self.dataset.kind

    @property
    def _solver(self) -> dict[str, Any]:
        plain = {"kind": "linear", "label_smoothing": 0.0}  # a solver knows no other
        if self.kind == "number":  # ridge regression, which minimises squared errors
            return {**plain, "solver": "ridge", "number_loss": "mse"}
        return {**plain, "solver": "lbfgs"}

    def views_of(self, recipe: Recipe) -> ViewsConfig:
        """Return how many views a recipe trains on."""
        return self.config.views.model_copy(update={"num_augmented": recipe.num_views})

    def features(self, recipe: Recipe, dataset: DatasetManifest, views: ViewsConfig) -> Features:
        """Say where a recipe takes its rows."""
        told = self.config.bottlenecks
        start, backbone = self.start_of(recipe), self.backbone_of(recipe)
        source = self.config.dataset
        return Features(
            dataset, source, views, backbone, start, told.dtype, precision=told.precision
        )

    def judged(self, recipe: Recipe) -> Features:
        """Say where the rows are that a recipe is judged by and exported with: the plain ones."""
        plain = self.config.views.model_copy(update={"num_augmented": 0})
        return self.features(recipe, self.dataset, plain)

    def extract(
        self, recipe: Recipe, dataset: DatasetManifest, views: ViewsConfig | None = None
    ) -> None:
        """Make the rows of a recipe, and of what it goes on from."""
        self._missing.clear()
        for one in recipe.members or (recipe,):
            self._extract(one, dataset, views or self.views_of(one))

    def _extract(self, recipe: Recipe, dataset: DatasetManifest, views: ViewsConfig) -> None:
        if recipe.rungs:
            self._extract(recipe.below, dataset, views)
        backbone, source = self.backbone_of(recipe), self.config.dataset
        cut = {"cut": self.start_of(recipe), "extra_cuts": ()}
        bottlenecks = self.config.bottlenecks.model_copy(update=cut)
        make_bottlenecks(dataset, source, views, backbone, bottlenecks)

    def train(self, recipe: Recipe, dataset: DatasetManifest) -> HeadManifest:
        """Train a recipe, on rows that are there.

        Args:
            recipe: Of an average, each member is trained.
            dataset: Whose train split it is trained on, and that has no val split.

        Returns:
            What was trained, or found.
        """
        made = self._make(recipe, dataset, lambda stage, *arguments: stage(*arguments))
        if made is None:
            raise AssertionError("a stage that is called returns a manifest")
        self._known[recipe, dataset.key] = True
        return made

    def find(self, recipe: Recipe, dataset: DatasetManifest) -> HeadManifest | None:
        """Return what `train` would find; None where it would have to train."""
        return self._make(recipe, dataset, lambda stage, *arguments: stage.find(*arguments))

    def _make(
        self,
        recipe: Recipe,
        dataset: DatasetManifest,
        call: Callable[..., HeadManifest | None],
    ) -> HeadManifest | None:
        features = self.features(recipe, dataset, self.views_of(recipe))
        log_dir = self.scratch / str(next(self._numbers))
        if recipe.members:
            members = [self._make(member, dataset, call) for member in recipe.members]
            return None if None in members else call(average_stage, features, members, log_dir)
        if recipe.rungs:
            below = self._make(recipe.below, dataset, call)
            seed = (self.config.head.seed + recipe.seed) % (MAX_SEED + 1)
            head = self.config.head.model_copy(update={"seed": seed})
            start = self.start_of(recipe.below)
            arguments = (features, below, start, TUNING, head, log_dir)
            return None if below is None else call(rung_stage, *arguments)
        if recipe.head == "sweep":
            sweep = self.sweep
            fields, seed = swept_fields(sweep), sweep.search.seed
            return call(sweep_stage, features, swept_heads(sweep), fields, seed, log_dir)
        return call(head_stage, features, self.head_of(recipe), log_dir)

    def folds_of(self, recipe: Recipe) -> tuple[DatasetManifest, ...]:
        """Return the parts that judge a recipe: all, and of a rung, which is dear, the first."""
        return self.folds[:1] if recipe.rungs else self.folds

    def try_out(self, recipe: Recipe) -> Judged:
        """Train a recipe without each part, and judge it by that part.

        Args:
            recipe: The recipe; an average is of recipes that were judged.

        Returns:
            How good it is on the images left out.
        """
        if recipe.members:
            return self._judge_average(recipe)
        self.extract(recipe, self.whole)
        plain = self.config.views.model_copy(update={"num_augmented": 0})
        evaluation = self.config.evaluation.model_copy(update=SEARCHING)
        found, fits = [], []
        for fold in self.folds_of(recipe):
            trained = self.train(recipe, fold)
            fits.append(trained.fit)
            # What it took when it was made, should it be a hit now.
            self._took[_alike(recipe)] = trained.duration_s
            found.append(evaluation_stage(self.features(recipe, fold, plain), trained, evaluation))
        if recipe == self.configured:  # the first training in a process takes longer
            self.head_s = self._took[_alike(recipe)]
        self._evaluations[recipe], self._fits[recipe] = found, fits
        told = [one.metrics["test"] for one in found]
        sizes = tuple(one["num_images"] for one in told)
        figure = JUDGES[self.kind].ranked
        right = tuple(one[figure] * one["num_images"] for one in told)
        if self.kind == "class":  # whole images, so that equal sums are equal
            right = tuple(round(one) for one in right)
        return Judged(recipe, right, sizes)

    def _judge_average(self, recipe: Recipe) -> Judged:
        judge, config = JUDGES[self.kind], self.config.evaluation.model_copy(update=SEARCHING)
        parts = zip(*(self._evaluations[member] for member in recipe.members), strict=True)
        fits = self._fits[recipe.members[0]]
        right: list[float] = []
        sizes = []
        for part, fit in zip(parts, fits, strict=True):
            arrays = [np.load(artefact(one, "predictions.npz")) for one in part]
            logits = sum(one["test_logits"] for one in arrays)
            labels = arrays[0]["test_labels"]
            if self.kind == "class":
                right.append(int((logits.argmax(axis=1) == labels).sum()))
            else:
                names = self.dataset.class_names
                made = judge.evaluate(logits / len(arrays), labels, names, fit, config)
                right.append(getattr(made, judge.ranked) * len(labels))
            sizes.append(len(labels))
        return Judged(recipe, tuple(right), tuple(sizes))

    def is_there(self, recipe: Recipe) -> bool:
        """Say whether the store has all that judging a recipe takes."""
        if recipe.members:
            return all(member in self._evaluations for member in recipe.members)
        return all(self._is_trained(recipe, fold) for fold in self.folds_of(recipe))

    def _is_trained(self, recipe: Recipe, dataset: DatasetManifest) -> bool:
        """Look a recipe up once: of many images the key alone takes long."""
        place = recipe, dataset.key
        if place not in self._known:
            self._known[place] = self.find(recipe, dataset) is not None
        return self._known[place]

    def remembered(self) -> list[tuple[str, Recipe]]:
        """List what earlier runs have tried of the same, in order: kind of step and recipe."""
        text = remembered("budget", self._about())
        try:
            return _TRIED.validate_json(text or "[]")
        except ValidationError:
            return []

    def remember(self, attempt: str, recipe: Recipe) -> None:
        """Add a recipe to those that were tried."""
        known = self.remembered()
        if recipe not in [one for _, one in known]:
            text = _TRIED.dump_json([*known, (attempt, recipe)]).decode()
            remember("budget", self._about(), text)

    def _about(self) -> dict[str, Any]:
        told = self.config
        return {
            "dataset": self.dataset.key,
            "folds": [fold.key for fold in self.folds],
            "config": [told.views, told.backbone, told.bottlenecks, told.head],
            **arithmetic_versions(),
        }

    def cost(self, recipe: Recipe) -> Cost:
        """Estimate what it takes to try a recipe, and to train it on all images then."""
        if recipe.members:
            return Cost(0.0, sum(self.cost(member).refit_s for member in recipe.members))
        fold_s = self._fold_s(recipe)
        missing = sum(not self._is_trained(recipe, fold) for fold in self.folds_of(recipe))
        refit_s = 0.0
        if not self._is_trained(recipe, self.whole):
            refit_s = fold_s * len(self.folds) / max(1, len(self.folds) - 1)
            refit_s += self.cost(recipe.below).refit_s if recipe.rungs else 0.0
        plain = self.config.views.model_copy(update={"num_augmented": 0})
        rows_s = self._rows_s(recipe, self.whole, self.views_of(recipe))
        # Those of the held-out splits are made for what is chosen alone.
        both_s = self._rows_s(recipe, self.dataset, plain)
        later_s = max(0.0, both_s - self._rows_s(recipe, self.whole, plain))
        return Cost(rows_s + missing * fold_s, refit_s + later_s)

    def _fold_s(self, recipe: Recipe) -> float:
        if (took := self._took.get(_alike(recipe))) is not None:
            return took
        if not recipe.rungs:
            same = [s for kind, s in self._took.items() if kind[3:] == (recipe.head, 0)]
            # All views at once, where others take one an epoch.
            times = max(1, recipe.num_views) if recipe.head == "solver" and not same else 1
            return max(same) if same else times * FACTORS[recipe.head] * self.head_s
        network = open_backbone(self.backbone_of(recipe), self.config.views.image_size)
        cut = network.resolve_cut(self.start_of(recipe))
        share = (cut.flops_after + cut.flops_backward_after) / max(1, self._flops_of(recipe))
        steps = TUNING.epochs * len(index_of(self.folds[0]).rows_of("train"))
        own_s = steps * share * self._image_s(recipe) * TRAINING_SLOWDOWN
        return own_s + 2 * self.head_s  # building and judging it

    def _rows_s(self, recipe: Recipe, dataset: DatasetManifest, views: ViewsConfig) -> float:
        """Estimate how long it takes to make the rows that are missing at a recipe's start."""
        return self._num_missing(recipe, dataset, views) * self._image_s(recipe)

    def is_missing(self, recipe: Recipe, views: ViewsConfig) -> bool:
        """Say whether rows of the whole data set are missing at a recipe's start."""
        return self._num_missing(recipe, self.dataset, views) > 0

    def _num_missing(self, recipe: Recipe, dataset: DatasetManifest, views: ViewsConfig) -> int:
        network = open_backbone(self.backbone_of(recipe), views.image_size)
        told = self.config.bottlenecks.model_copy(
            update={"cut": self.start_of(recipe), "extra_cuts": ()}
        )
        place = recipe.backbone, told.cut, views.num_augmented, dataset.key
        if place not in self._missing:
            cuts = bottleneck_collections(current_store(), network, views, told)
            self._missing[place] = sum(
                len(collection.missing(rows))
                for cut in cuts.values()
                for collection, rows in wanted_rows(cut, index_of(dataset), views.num_augmented)
            )
        return self._missing[place]

    def _image_s(self, recipe: Recipe) -> float:
        """Estimate the seconds of a view, by the arithmetic of the recipe's backbone."""
        return self.image_s * self._flops_of(recipe) / max(1, self._flops_of(self.configured))

    def _flops_of(self, recipe: Recipe) -> int:
        if recipe.backbone not in self._flops:
            network = open_backbone(self.backbone_of(recipe), self.config.views.image_size)
            self._flops[recipe.backbone] = network.resolve_cut(TOP).flops_before
        return self._flops[recipe.backbone]


def _alike(recipe: Recipe) -> tuple[Any, ...]:
    """Return what has to be the same for two trainings to take as long."""
    return recipe.backbone, recipe.cut, recipe.num_views, recipe.head, recipe.rungs


def seconds_a_view(outcomes: Sequence[Outcome]) -> float:
    """Say what making a view and its bottleneck took here, or in the run that made them.

    Args:
        outcomes: Outcomes of the stages up to the bottlenecks.
    """
    made = [one for one in outcomes if one.name in ("views", "bottlenecks")]
    rows = max((one.rows for one in made), default=0)
    return cold_seconds(made) / rows if rows and cold_seconds(made) > 0 else UNKNOWN_IMAGE_S


@contextmanager
def quietly(check: Callable[[], None] | None = None) -> Iterator[list[Outcome]]:
    """Let stages work without a line of each; what goes on for long shows how far it is.

    Args:
        check: Raises OutOfTimeError where they have to end.

    Yields:
        How the stages went.
    """
    console = reporter().console
    with ExitStack() as stack:
        stack.enter_context(use_reporter(Reporter(console, stage_lines=False, notes=False)))
        if check is not None:
            stack.enter_context(ended_by(check))
        yield stack.enter_context(collect_outcomes())

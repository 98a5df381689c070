"""Recipes: what can be trained on a data set, and which are one step from the best so far."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from headstart.config import Attempt
from headstart.tasks.backbones.cuts import TOP

Head = Literal["configured", "solver", "mlp", "sweep"]
HEADS: Mapping[Attempt, Head] = {"solver": "solver", "mlp": "mlp", "sweep": "sweep"}
MORE_VIEWS = {0: 2, 1: 2, 2: 4, 3: 4}
"""Augmented views an image that are tried next, by how many there are."""
MAX_SEEDS = 3
"""Trainings of one rung."""
SIZES = (2, 3)
"""Of averages: the best few of those that take the same rows."""

SHARES: Mapping[Attempt, float] = {
    "ladder": 0.25,
    "sweep": 0.08,
    "again": 0.08,
    "views": 0.06,
    "mlp": 0.06,
    "backbones": 0.06,
    "solver": 0.05,
    "average": 0.05,
    "cuts": 0.02,
}
"""Share of the errors that a kind of step is expected to spare, before anything is known of it.
The ladder's: 92.7 to 94.7 and 94.9 % on flower photos (docs/finetuning.md); the others' are guesses
of which only the order counts."""
OTHER_ROWS = ("views", "backbones", "cuts")
"""Steps to other rows, of which the extraction is what costs."""
DEEPER_SHARE = 0.03
"""Of a further rung, which there took nothing away."""
BELOW_RUNGS = 0.2
"""Of what another head, or other rows, are expected to spare, where the best has rungs: they would
first have to spare what the rungs do."""


@dataclass(frozen=True)
class Recipe:
    """What can be trained.

    Attributes:
        backbone: Its name, or the path of its file.
        cut: Name of the cut that the head sits on.
        num_views: Augmented views an image.
        head: "configured", or what replaces that head: "solver", "mlp" or "sweep".
        rungs: How many rungs of the ladder are trained behind the head, from the top down.
        seed: Added to the configured one, of a rung's training.
        members: Recipes that an average is of; all take the same rows.
    """

    backbone: str
    cut: str
    num_views: int = 0
    head: Head = "configured"
    rungs: int = 0
    seed: int = 0
    members: tuple["Recipe", ...] = ()

    @property
    def below(self) -> "Recipe":
        """What a rung goes on from."""
        return replace(self, rungs=self.rungs - 1, seed=0)

    @property
    def rows(self) -> tuple[str, str, int]:
        """What two recipes share that take the same rows: networks that can be averaged."""
        return self.backbone, self.cut, self.rungs


@dataclass(frozen=True)
class House:
    """What there is to try recipes with.

    Attributes:
        heads: Other heads than the configured one.
        backbones: Others whose weights are installed.
        inner_cut: A cut before the top of the best recipe's backbone; None where there is none.
        num_rungs: How many rungs that backbone has.
        can_tune: Whether a rung can go on from the configured head.
    """

    heads: tuple[Attempt, ...] = ("solver", "mlp", "sweep")
    backbones: tuple[str, ...] = ()
    inner_cut: str | None = None
    num_rungs: int = 0
    can_tune: bool = True


@dataclass(frozen=True)
class Step:
    """A recipe to try, and why.

    Attributes:
        attempt: The kind of step.
        recipe: The recipe to try.
        share: Share of the errors that it is expected to spare.
    """

    attempt: Attempt
    recipe: Recipe
    share: float


def steps(ranked: tuple[Recipe, ...], house: House, tried: Collection[Recipe]) -> list[Step]:
    """List what is one step from the best recipe.

    Args:
        ranked: The recipes that were judged, the best first.
        house: Heads, backbones, cuts and rungs that can be tried.
        tried: Recipes that are not to be tried again, whatever came of them.

    Returns:
        Each recipe once. Other rows (a backbone, a cut, more views) are tried with the best head
        so far, and not again with each that is better.
    """
    rows = {(one.backbone, one.cut, one.num_views) for one in tried}
    has_rungs = bool(ranked[0].rungs)  # an average takes the rungs of its members
    found: dict[Recipe, Step] = {}
    for step in _steps(ranked, house):
        one = step.recipe
        if has_rungs and not one.rungs:
            step = replace(step, share=BELOW_RUNGS * step.share)
        is_new = (one.backbone, one.cut, one.num_views) not in rows
        if one not in tried and (is_new or step.attempt not in OTHER_ROWS):
            found.setdefault(one, step)
    return list(found.values())


def _steps(ranked: tuple[Recipe, ...], house: House) -> Iterator[Step]:
    single = next(recipe for recipe in ranked if not recipe.members)
    head = replace(single, rungs=0, seed=0)
    for other in house.heads:
        yield _step(other, replace(head, head=HEADS[other]))
    if head.num_views in MORE_VIEWS:
        yield _step("views", replace(head, num_views=MORE_VIEWS[head.num_views]))
    for name in house.backbones:
        yield _step("backbones", Recipe(name, TOP, head=head.head))
    if house.inner_cut is not None and head.cut == TOP:
        yield _step("cuts", replace(head, cut=house.inner_cut, num_views=0))
    if head.cut == TOP and (house.can_tune or head.head != "configured"):
        yield from _rungs(single, ranked, house)
    for size in SIZES:
        members = [one for one in ranked if not one.members and one.rows == single.rows][:size]
        if len(members) == size:
            # In an order of their own, so that the same few are one recipe.
            ordered = tuple(sorted(members, key=repr))
            yield _step("average", replace(single, members=ordered, seed=0))


def _rungs(single: Recipe, ranked: tuple[Recipe, ...], house: House) -> Iterator[Step]:
    if single.rungs < house.num_rungs:
        share = DEEPER_SHARE if single.rungs else SHARES["ladder"]
        yield Step("ladder", replace(single, rungs=single.rungs + 1, seed=0), share)
    if single.rungs:
        seeds = {one.seed for one in ranked if replace(one, seed=0) == replace(single, seed=0)}
        if len(seeds) < MAX_SEEDS:
            yield _step("again", replace(single, seed=max(seeds) + 1))


def _step(attempt: Attempt, recipe: Recipe) -> Step:
    return Step(attempt, recipe, SHARES[attempt])


def describe(
    recipe: Recipe, configured: Recipe, kind: str, num_swept: int, solver: str = "L-BFGS"
) -> str:
    """Say what a recipe is in a few words.

    Args:
        recipe: The recipe to put in words.
        configured: The first one, whose backbone and cut go without saying.
        kind: Kind of the configured head.
        num_swept: Number of heads in the sweep.
        solver: What finds the optimum of a linear head.
    """
    if recipe.members:
        names = (describe(one, configured, kind, num_swept, solver) for one in recipe.members)
        return f"average of {len(recipe.members)}: {' + '.join(names)}"
    words = {
        "configured": f"{kind} head",
        "solver": f"linear head by {solver}",
        "mlp": "MLP head",
        "sweep": f"best of {num_swept} heads",
    }[recipe.head]
    if recipe.rungs:
        words += f" and rung {recipe.rungs}"
    if recipe.seed:
        words += f", seed +{recipe.seed}"
    if recipe.num_views:
        words += f", {recipe.num_views} views"
    if recipe.backbone != configured.backbone:
        words += f", {Path(recipe.backbone).stem}"
    if recipe.cut != configured.cut:
        words += f", cut {recipe.cut}"
    return words

"""Which candidate is tried next, and which of those that were tried is the best."""

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.tasks.budgeting.recipes import Recipe, Step

LEAST_S = 0.5
"""What any trial takes: what is all in the store has to be read, too."""


@dataclass(frozen=True)
class Cost:
    """What a recipe is expected to take, in seconds; nothing of what the store has.

    Attributes:
        trial_s: Seconds to judge it, the rows that are missing included.
        refit_s: Seconds to train it on all training images then, and to make the rows to judge that
            by.
    """

    trial_s: float
    refit_s: float


@dataclass(frozen=True)
class Candidate:
    """A step and what it is expected to take and to bring."""

    step: Step
    cost: Cost

    def needed_s(self, best_refit_s: float) -> float:
        """Return the seconds until there is a trained network, whether it is the better or not."""
        return self.cost.trial_s + max(self.cost.refit_s, best_refit_s)

    def rate(self, best_refit_s: float) -> float:
        """Return the share of the errors that it is expected to spare in a second."""
        dearer_s = max(0.0, self.cost.refit_s - best_refit_s)
        return self.step.share / max(LEAST_S, self.cost.trial_s + dearer_s)


def next_candidate(
    candidates: Sequence[Candidate], left_s: float, best_refit_s: float, closing_s: float
) -> Candidate | None:
    """Choose what is tried next.

    Args:
        candidates: Recipes that could be tried, with their expected gains and seconds.
        left_s: Seconds that are left.
        best_refit_s: Seconds to train the best so far on all training images.
        closing_s: Seconds to evaluate and export what is chosen, which always has to fit.

    Returns:
        Of the candidates that fit, the one with the most gain a second; None where none fits.
    """
    fitting = [one for one in candidates if one.needed_s(best_refit_s) + closing_s <= left_s]
    return max(fitting, key=lambda one: one.rate(best_refit_s), default=None)


@dataclass(frozen=True)
class Judged:
    """A recipe and how good it was on held-out training images, part by part.

    Attributes:
        recipe: The recipe that was trained.
        right: Of each part that it was judged by, from the first on, the number of images that
            were right; of labels and numbers, mAP or R² times the number of images.
        sizes: Number of images in those parts.
    """

    recipe: Recipe
    right: tuple[float, ...]
    sizes: tuple[int, ...]

    @property
    def figure(self) -> float:
        """Share of the held-out images that were right; mAP or R²."""
        return sum(self.right) / sum(self.sizes)

    def gain_over(self, other: "Judged") -> float:
        """Return by how much it is the better, on the images that both were judged by."""
        count = min(len(self.right), len(other.right))
        more = sum(self.right[:count]) - sum(other.right[:count])
        return more / sum(self.sizes[:count])


def ranking(judged: Sequence[Judged]) -> list[Judged]:
    """Put the best first: each is compared with those before it by the parts that both have.

    A recipe that is no better than an earlier one comes behind it.
    """
    ranked: list[Judged] = []
    for one in judged:
        place = next((n for n, other in enumerate(ranked) if one.gain_over(other) > 0), len(ranked))
        ranked.insert(place, one)
    return ranked

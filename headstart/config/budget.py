"""Finding the best model within a time budget: `headstart train --budget-s`."""

from typing import Literal

from pydantic import Field

from headstart.config.base import Config, Seed

Attempt = Literal[
    "solver", "mlp", "sweep", "views", "backbones", "cuts", "ladder", "again", "average"
]
"""A kind of candidate."""
MAX_BUDGET_S = 30 * 86_400.0
"""A month."""


class BudgetConfig(Config):
    """How long to search for a model better than the configured one."""

    seconds: float | None = Field(None, ge=1.0, le=MAX_BUDGET_S)
    """Seconds for the whole run. The configured head is trained first; the remaining time goes to
    candidates that may be better, by expected gain per second. None: the configured head only."""
    attempts: tuple[Attempt, ...] = (
        *("solver", "mlp", "sweep", "views", "backbones", "cuts", "ladder", "again", "average"),
    )
    """What may be tried. solver: the linear head's optimum; mlp: hidden layers; sweep: the best of
    a grid of heads; views: augmented ones; backbones: others whose weights are installed; cuts: one
    before the top; ladder: training the backbone's last layers; again: the same from another seed,
    for an average; average: of several heads, as one model."""
    num_folds: int = Field(4, ge=2, le=20)
    """Number of cross-validation folds of the training images; a rung of the ladder is evaluated on
    the first fold only."""
    seed: Seed = 0
    """Seed of the split into folds."""

    def refuse(self, command: str) -> None:
        """Refuse a budget for a command that has none.

        Raises:
            ValueError: A budget is set.
        """
        if self.seconds is not None:
            raise ValueError(f"budget.seconds is for `headstart train`; {command} does not read it")

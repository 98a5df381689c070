"""A training that has a time to be the best it can in: `headstart train --budget-s`."""

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
    """How long a training may look for a better model than the one that is configured."""

    seconds: float | None = Field(None, ge=1.0, le=MAX_BUDGET_S)
    """Seconds for the whole run. The head as configured comes first; then, while they last, what
    may be better, by expected gain a second. None: that head alone."""
    attempts: tuple[Attempt, ...] = (
        *("solver", "mlp", "sweep", "views", "backbones", "cuts", "ladder", "again", "average"),
    )
    """What may be tried. solver: the linear head's optimum; mlp: hidden layers; sweep: the best of
    a grid of heads; views: augmented ones; backbones: others whose weights are installed; cuts: one
    before the top; ladder: training the backbone's last layers; again: the same from another seed,
    for an average; average: of several heads, as one model."""
    num_folds: int = Field(4, ge=2, le=20)
    """Parts of the training images. Each is left out once, and judges what was trained on the
    others; a rung of the ladder is judged by the first part alone."""
    seed: Seed = 0
    """Of the draw of those parts."""

    def refuse(self, command: str) -> None:
        """Refuse a budget for a command that has none.

        Raises:
            ValueError: A budget is set.
        """
        if self.seconds is not None:
            raise ValueError(f"budget.seconds is for `headstart train`; {command} does not read it")

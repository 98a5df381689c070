"""Candidates that were tried there was: a line each, and the table of the report."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from headstart.tasks.evaluation.report_content import UNDEFINED, Table, percent

OF_VARIANCE = "R²"
"""Of numbers: a gain of it is told as it is, where that of a share is told in points."""


class Tried(BaseModel, frozen=True):
    """A line of the table."""

    what: str
    attempt: str
    """The kind of step; configured for the first."""
    outcome: Literal["chosen", "tried", "stopped", "failed", "left out"]
    accuracy: float | None = None
    """Share of the held-out training images that were right; None where targets are no classes."""
    num_judged: int = 0
    """Number of those images."""
    gain: float | None = None
    """Over the best before it, on the images that both were judged by, as a share."""
    expected_gain: float | None = None
    expected_s: float | None = None
    seconds: float = 0.0
    """That the trial took in this run."""
    was_there: bool = False
    """Whether all of it was found in the store."""
    reason: str = ""
    """Why it was stopped, failed or left out."""
    metric: str = "accuracy"
    """What the gains are of: accuracy, mAP (of labels) or R² (of numbers)."""
    value: float | None = None
    """mAP or R² of the held-out training images; None where it is the accuracy."""

    @property
    def figure_text(self) -> str:
        """What it came to on them."""
        if self.metric == "accuracy":
            return percent(self.accuracy)
        return UNDEFINED if self.value is None else f"{self.value:.4f}"


def told(line: Tried, left_s: float) -> str:
    """Write a line for the terminal."""
    parts = [line.what]
    if line.accuracy is not None or line.value is not None:
        gain = "" if line.gain is None else f" ({gain_words(line.gain, line.metric)})"
        name = "" if line.metric == "accuracy" else f"{line.metric} "
        parts.append(f"{name}{line.figure_text} of {line.num_judged:,} held out{gain}")
    if line.reason:
        parts.append(f"{line.outcome}: {line.reason}")
    took = "from the store" if line.was_there else f"{line.seconds:,.1f} s"
    return f"     {', '.join(parts)}; {took}, {max(0.0, left_s):,.0f} s left"


def table(
    lines: Sequence[Tried], budget_s: float, spent_s: float, num_folds: int, untouched: str
) -> Table:
    """Make the report's table.

    Args:
        lines: What was tried, and what was left out.
        budget_s: Seconds that were given.
        spent_s: Seconds that were taken until the report was written.
        num_folds: Parts of the training images.
        untouched: What the other splits had no part in: `report_content.untouched`.
    """
    return Table(
        "Candidates that were tried",
        f"{budget_s:,.0f} s were available and {spent_s:,.0f} s used. Each candidate was evaluated "
        f"on training images that it was not trained on ({num_folds} folds; only the first one for "
        "a rung), and compared with the best before it on the images that both were evaluated on. "
        f"{untouched}, and were looked at once: for what was chosen, trained on all training "
        "images.",
        [_row(line) for line in lines],
    )


def _row(line: Tried) -> dict[str, str]:
    expected = UNDEFINED
    if line.expected_gain is not None and line.expected_s is not None:
        gain = gain_words(line.expected_gain, line.metric)
        expected = f"{gain} in {line.expected_s:,.0f} s"
    was_tried = line.outcome != "left out"
    factor, unit = (1, "") if line.metric == OF_VARIANCE else (100, ", points")
    return {
        "What": line.what,
        "Expected": expected,
        f"Held-out {line.metric}": line.figure_text,
        f"Gain{unit}": UNDEFINED
        if line.gain is None
        else f"{factor * line.gain:+.{2 if unit else 4}f}",
        "Time": ("stored" if line.was_there else f"{line.seconds:,.1f} s") if was_tried else "",
        "Outcome": f"{line.outcome}: {line.reason}" if line.reason else line.outcome,
    }


def gain_words(gain: float, metric: str) -> str:
    """Write a gain with its unit."""
    return f"{gain:+.4f}" if metric == OF_VARIANCE else f"{100 * gain:+.1f} points"

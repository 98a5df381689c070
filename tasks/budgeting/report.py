"""What was tried in the time there was: a line each, and the table of the report."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from headstart.tasks.evaluation.report_content import UNDEFINED, Table, percent


class Tried(BaseModel):
    """A line of the table."""

    model_config = ConfigDict(frozen=True)

    what: str
    attempt: str
    """The kind of step; configured for the first."""
    outcome: Literal["chosen", "tried", "stopped", "failed", "left out"]
    accuracy: float | None = None
    """Share of the held-out training images that were right."""
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


def told(line: Tried, left_s: float) -> str:
    """Write a line for the terminal."""
    parts = [line.what]
    if line.accuracy is not None:
        gain = "" if line.gain is None else f" ({_points(line.gain)})"
        parts.append(f"{percent(line.accuracy)} of {line.num_judged:,} held out{gain}")
    if line.reason:
        parts.append(f"{line.outcome}: {line.reason}")
    took = "from the store" if line.was_there else f"{line.seconds:,.1f} s"
    return f"     {', '.join(parts)}; {took}, {max(0.0, left_s):,.0f} s left"


def table(lines: Sequence[Tried], budget_s: float, spent_s: float, num_folds: int) -> Table:
    """Make the report's table.

    Args:
        lines: What was tried, and what was left out.
        budget_s: Seconds that were given.
        spent_s: Seconds that were taken until the report was written.
        num_folds: Parts of the training images.
    """
    return Table(
        "What was tried in the time",
        f"{budget_s:,.0f} s were given and {spent_s:,.0f} s taken. Each was judged by training "
        f"images that it did not learn from ({num_folds} parts, each left out once; of a rung the "
        "first part alone), and compared with the best before it on the images that both were "
        "judged by. The val and test splits decided nothing, and were looked at once: for what "
        "was chosen, trained on all training images.",
        [_row(line) for line in lines],
    )


def _row(line: Tried) -> dict[str, str]:
    expected = UNDEFINED
    if line.expected_gain is not None and line.expected_s is not None:
        expected = f"{_points(line.expected_gain)} in {line.expected_s:,.0f} s"
    was_tried = line.outcome != "left out"
    return {
        "What": line.what,
        "Expected": expected,
        "Held-out accuracy": percent(line.accuracy),
        "Gain, points": UNDEFINED if line.gain is None else f"{100 * line.gain:+.2f}",
        "Time": ("stored" if line.was_there else f"{line.seconds:,.1f} s") if was_tried else "",
        "Outcome": f"{line.outcome}: {line.reason}" if line.reason else line.outcome,
    }


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"

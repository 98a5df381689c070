"""The ranking's page, table and summary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from headstart.tasks.evaluation.report_content import markdown_table
from headstart.tasks.ranking.stage import SCORES
from headstart.tasks.ranking.verdict import Candidate, Verdict
from headstart.tasks.running.stage import Outcome
from headstart.tasks.runs.pages import write_csv, write_page

TITLES = {
    "logme": "LogME",
    "h_score": "H-score",
    "regularised_h_score": "H-score, reg.",
    "leep": "LEEP",
    "nce": "NCE",
    "nearest_mean": "nearest mean",
    "knn": "k-NN",
    "probe": "probe",
}
"""What each score is called on pages and terminals."""
COLUMNS = (
    "backbone",
    "cut",
    *SCORES,
    "num_features",
    "bytes_per_image",
    "flops",
    "epochs",
    "cached_s",
    "uncached_s",
)


class RankSummary(BaseModel, frozen=True):
    """What `headstart rank` came to; the object that ``--json`` prints."""

    run_dir: str
    report: str
    table: str
    """The candidates as CSV."""
    stages: tuple[Outcome, ...]
    metrics: dict[str, Any]
    """The whole verdict: candidates, agreement, choices, pick, seconds, warnings."""
    seconds: float


def write_ranking(
    folder: Path, title: str, verdict: Verdict, outcomes: Sequence[Outcome]
) -> tuple[Path, Path]:
    """Write the page and the table.

    Args:
        folder: The run's folder.
        title: Heading that names the data.
        verdict: What the page says.
        outcomes: How the stages went.
    """
    columns = (*COLUMNS[:2], *_measured_columns(verdict), *COLUMNS[2:])
    rows = [_row(one, verdict) for one in verdict.candidates]
    table = write_csv(folder / "ranking.csv", rows, columns)
    page = write_page(
        folder / "ranking.html",
        Path(__file__).parent / "ranking.html.j2",
        title=title,
        verdict=verdict,
        titles=TITLES,
        stages=outcomes,
    )
    return page, table


def markdown(verdict: Verdict) -> str:
    """Summarise a ranking in Markdown, for the Prefect UI."""
    lines = [
        f"**{verdict.pick}** is the best of {len(verdict.candidates)} candidates "
        f"({_measured(verdict)} on {verdict.judged}).",
        "",
        f"{verdict.ranking_s:,.0f} s for the ranking {verdict.ranked_from}; training all heads "
        f"uncached would take about {verdict.uncached_s:,.0f} s.",
        "",
        *(f"> {warning}\n" for warning in verdict.warnings),
    ]
    rows = [(one.name, f"{one.figure:.4f}", one.scores) for one in verdict.candidates]
    rows.append(("weighted Kendall τ", "1", verdict.agreement))
    table = markdown_table(
        ("candidate", verdict.metric, *(TITLES[name] for name in SCORES)),
        ((name, figure, *(_figure(of[score]) for score in SCORES)) for name, figure, of in rows),
    )
    return "\n".join([*lines, *table])


def _measured(verdict: Verdict) -> str:
    return verdict.write(verdict.candidates[0].figure)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _measured_columns(verdict: Verdict) -> tuple[str, str, str]:
    return verdict.figure, f"{verdict.figure}_low", f"{verdict.figure}_high"


def _row(one: Candidate, verdict: Verdict) -> dict[str, Any]:
    measured = (one.figure, *(one.interval or (None, None)))
    own = dict(zip(_measured_columns(verdict), measured, strict=True))
    return {**one.model_dump(), **one.scores, **own}

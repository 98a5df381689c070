"""One self-contained HTML page of tables and pictures, for ladders, comparisons and curves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from headstart.tasks.evaluation.report_content import escaped, markdown_table
from headstart.tasks.running.stage import Outcome
from headstart.tasks.runs.pages import Section
from headstart.tasks.runs.pages import write_page as render_page


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes:
        title: Heading at the top.
        headline: The result in one sentence.
        notes: What to know before believing it.
        sections: Shown in this order.
    """

    title: str
    headline: str
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    created: datetime = field(default_factory=lambda: datetime.now().astimezone())


def write_study_page(path: Path, page: Page, stages: Sequence[Outcome] = ()) -> Path:
    """Write a page, replacing an earlier one in a single step.

    Args:
        path: HTML file to write; its folder exists.
        page: What it says. Text is escaped, and may come from data sets.
        stages: How the run's stages went, where no other page of the run tells.

    Raises:
        RecordError: The file cannot be written.
    """
    template = Path(__file__).parent / "sections.html.j2"
    return render_page(path, template, title=page.title, page=page, stages=stages)


def markdown_page(page: Page) -> str:
    """Write a page as Markdown, pictures included, for the Prefect UI."""
    lines = [f"# {escaped(page.title)}", "", f"**{escaped(page.headline)}**", ""]
    lines += [f"> {escaped(note)}\n" for note in page.notes]
    for section in page.sections:
        lines += [f"## {escaped(section.title)}", ""]
        if section.text:
            lines += [escaped(section.text), ""]
        if section.rows:
            cells = (map(escaped, row.values()) for row in section.rows)
            lines += [*markdown_table(map(escaped, section.rows[0]), cells), ""]
        for one in section.pictures:
            lines += [f"![{escaped(one.caption)}]({one.uri})", ""]
    return "\n".join(lines)

"""One self-contained HTML page of tables and pictures, for ladders, comparisons and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from headstart.tasks.dataset.printable import printable
from headstart.tasks.evaluation.report import data_uri
from headstart.tasks.running.stage import Outcome
from headstart.tasks.runs.pages import write_page as render_page


@dataclass(frozen=True)
class Picture:
    """A picture and what it shows.

    Attributes:
        data: Bytes of an SVG or PNG file.
        media_type: MIME type, such as "image/svg+xml".
        caption: Under the picture, and in its place where it cannot be seen.
        is_pixels: Whether each pixel counts, so that none is smoothed away.
    """

    data: bytes
    media_type: str
    caption: str
    is_pixels: bool = False

    @property
    def uri(self) -> str:
        """The picture as an address that holds it."""
        return data_uri(self.data, self.media_type)


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, a table, pictures; each may be missing but the heading.

    Attributes:
        title: Text of the heading.
        text: Paragraph under the heading.
        rows: A table: each row maps the columns' names to text.
        pictures: Shown one below the other.
    """

    title: str
    text: str = ""
    rows: Sequence[Mapping[str, str]] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes:
        title: Heading at the top.
        headline: The result in one sentence.
        notes: What to know before believing it.
        sections: Shown in this order.
        created: Time at which it was made.
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
    lines = [f"# {_cell(page.title)}", "", f"**{_cell(page.headline)}**", ""]
    lines += [f"> {_cell(note)}\n" for note in page.notes]
    for section in page.sections:
        lines += [f"## {_cell(section.title)}", ""]
        if section.text:
            lines += [_cell(section.text), ""]
        if section.rows:
            names = list(section.rows[0])
            lines += [f"| {' | '.join(map(_cell, names))} |", "|---" * len(names) + "|"]
            lines += [f"| {' | '.join(map(_cell, row.values()))} |" for row in section.rows] + [""]
        for one in section.pictures:
            lines += [f"![{_cell(one.caption)}]({one.uri})", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return "".join("\\" + c if c in "\\`*_[]<>#|~$&" else c for c in printable(text))

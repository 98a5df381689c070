"""Pages: one HTML file each that works offline, and the tables that go with them.

A page extends ``page.html.j2`` of this package: pictures are ``data:`` URIs, there is no script,
nothing is fetched, and it is legible in light and in dark.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.tasks.evaluation.report import data_uri
from headstart.tasks.evaluation.report_content import UNDEFINED
from headstart.tasks.evaluation.templates import make_environment
from headstart.tasks.store.files import write_text


@dataclass(frozen=True)
class Picture:
    """A picture with what is to be seen on it.

    Attributes:
        uri: Address that holds it.
        caption: Under the picture, and in its place where it cannot be seen.
        is_pixels: Whether each pixel counts, so that none is smoothed away.
    """

    uri: str
    caption: str
    is_pixels: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, and what there is of a paragraph, a table and pictures.

    Attributes:
        rows: A table: each row maps the columns' names to text.
        pictures: Shown one below the other.
        gallery: Small pictures, shown side by side.
    """

    title: str
    text: str = ""
    rows: Sequence[Mapping[str, str]] = ()
    pictures: Sequence[Picture] = ()
    gallery: Sequence[Picture] = ()


def svg_picture(drawn: bytes, caption: str) -> Picture:
    """Make a picture of an SVG file's bytes."""
    return Picture(data_uri(drawn, "image/svg+xml"), caption)


def write_page(path: Path, template: Path, **context: Any) -> Path:
    """Render a template and write the page, replacing an earlier one in a single step.

    Args:
        path: HTML file to write.
        template: A ``.html.j2`` file that extends ``page.html.j2``.
        **context: What the template reads.

    Raises:
        RecordError: The file cannot be written.
    """
    environment = make_environment(
        template.parent, Path(__file__).parent, figure=figure, amount=amount
    )
    return write_text(path, environment.get_template(template.name).render(**context))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Path:
    """Write rows as CSV, replacing an earlier file in a single step.

    Args:
        path: CSV file to write.
        rows: One mapping a line; what is None is left empty.
        columns: Names and order of the columns.

    Raises:
        RecordError: The file cannot be written.
    """
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def figure(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits; a dash where there is none."""
    return UNDEFINED if value is None else f"{value:.{digits}g}"


def amount(value: float | None, digits: int = 0) -> str:
    """Write a number with thousands separated and so many decimals; a dash where there is none."""
    return UNDEFINED if value is None else f"{value:,.{digits}f}"

"""The audit's page, and its summary."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from headstart.tasks.auditing.findings import KINDS, TITLES, Finding
from headstart.tasks.evaluation.report import SmallPicture, small_picture
from headstart.tasks.evaluation.report_content import markdown_table
from headstart.tasks.running.stage import Outcome
from headstart.tasks.runs.pages import write_page


class AuditSummary(BaseModel, frozen=True):
    """What `headstart audit` came to; the object that ``--json`` prints."""

    run_dir: str
    report: str
    findings: str
    """All findings as CSV."""
    labels: str
    """All images as CSV, the most suspicious label first."""
    exclude: str
    """What to leave out, as CSV: for ``headstart train --exclude``."""
    stages: tuple[Outcome, ...]
    metrics: dict[str, Any]
    """counts (findings of each kind), num_images, num_excluded."""
    seconds: float


class Shown(NamedTuple):
    """A finding and its pictures, its own first."""

    finding: Finding
    pictures: tuple[SmallPicture, ...]


def write_audit(
    path: Path,
    title: str,
    root: Path,
    findings: Sequence[Finding],
    num_images: int,
    num_shown: int,
    max_pixels: int,
    exclude: str,
    stages: Sequence[Outcome],
) -> Path:
    """Write the page.

    Args:
        path: HTML file to write.
        title: Heading that names the data.
        root: Folder that the findings' paths start at.
        findings: By kind, the most suspicious first.
        num_images: Number of images looked at.
        num_shown: Number of pictures shown of each kind.
        max_pixels: Larger files are not decoded for the page.
        exclude: Path of the CSV for ``--exclude``.
        stages: How the stages went.
    """
    by_kind = {kind: [one for one in findings if one.kind == kind] for kind in KINDS}
    shown = [one for of_kind in by_kind.values() for one in of_kind[:num_shown]]

    def look(one: Finding) -> Shown:
        if one.kind == "thin_class":
            return Shown(one, ())
        names = [one.path, *([one.other] if one.other else [])]
        pictures = [small_picture(root / name, max_pixels) for name in names]
        return Shown(one, tuple(pictures))

    # Pillow lets go of the interpreter lock while it decodes and encodes.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        looked = list(pool.map(look, shown))
    sections = {kind: [one for one in looked if one.finding.kind == kind] for kind in KINDS}
    return write_page(
        path,
        Path(__file__).parent / "audit.html.j2",
        title=title,
        titles=TITLES,
        sections=sections,
        counts={kind: len(of_kind) for kind, of_kind in by_kind.items()},
        num_images=num_images,
        num_excluded=len({one.digest for one in findings if one.exclude}),
        exclude=exclude,
        stages=stages,
    )


def markdown(counts: dict[str, int], num_images: int, num_excluded: int) -> str:
    """Summarise an audit in Markdown, for the Prefect UI."""
    table = markdown_table(
        ("finding", "images"), ((TITLES[kind], f"{counts[kind]:,}") for kind in KINDS)
    )
    told = f"{num_images:,} images, {num_excluded:,} suggested for exclusion."
    return "\n".join([told, "", *table])

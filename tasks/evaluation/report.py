"""Write what a run found: one HTML page, a Markdown summary, table rows for Prefect.

The page is one file that works offline and forbids itself to fetch anything: pictures are
``data:`` URIs, there is no script, and it is legible in light and in dark.
"""

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from markupsafe import Markup
from PIL import Image

from headstart.errors import DatasetError
from headstart.tasks.dataset.decode import decode_image
from headstart.tasks.dataset.printable import printable
from headstart.tasks.evaluation import figures
from headstart.tasks.evaluation.advice import caveats, next_steps
from headstart.tasks.evaluation.figures import confusion_excerpt, curves_svg, reliability_svg
from headstart.tasks.evaluation.metrics import SplitMetrics
from headstart.tasks.evaluation.report_content import (
    UNDEFINED,
    HardImage,
    Report,
    escaped,
    headline_split,
    markdown_table,
    percent,
    weakest_first,
)
from headstart.tasks.evaluation.templates import make_environment
from headstart.tasks.store.files import write_text
from headstart.tasks.store.fingerprint import file_digest
from headstart.tasks.store.remembered import remember, remembered
from headstart.tasks.store.versions import version_of

REPORT_NAME = "report.html"
THUMBNAIL_SIDE = 160
"""Longest side of a thumbnail in pixels."""

THUMBNAIL_QUALITY = 80
"""JPEG quality of a thumbnail: about 6 kB each at this size."""

MAX_FILES_SHOWN = 200
"""Files left out, and notes on files, that stand on the page; the others are counted."""

MAX_MARKDOWN_PICTURES = 8
"""Pictures in the Markdown report: it is stored in Prefect's database, once a run."""

_DRAWN_BY = file_digest(Path(figures.__file__))
"""The code that draws decides a figure, too."""


class SmallPicture(NamedTuple):
    """A thumbnail as an address, or why there is none."""

    uri: str
    reason: str


@dataclass(frozen=True)
class Thumbnail:
    """A small picture for the page, or why there is none."""

    hard_image: HardImage
    name: str
    """The path below the folder that all of them share."""
    uri: str
    """Empty where the file cannot be shown."""
    reason: str


def write_report(folder: Path, report: Report) -> Path:
    """Write the page, replacing an earlier one in a single step.

    Args:
        folder: Made where it does not exist.
        report: What the page says. The files of ``pictures`` and ``hard_images`` are read; one
            of the latter that cannot be read any more is shown as a placeholder with its path.

    Returns:
        The path of ``report.html`` in the folder.

    Raises:
        RecordError: The folder or the file cannot be written.
    """
    return write_text(folder / REPORT_NAME, _render(report))


def data_uri(data: bytes, media_type: str) -> str:
    """Turn a picture's bytes into an address that holds them.

    Args:
        data: Encoded picture, such as a PNG file's bytes.
        media_type: Its MIME type, such as "image/png".

    Returns:
        A ``data:`` URI, for an ``img`` tag or a Markdown picture.
    """
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def picture_uri(path: Path) -> str:
    """Turn a PNG or JPEG file into an address that holds it."""
    return data_uri(path.read_bytes(), "image/png" if path.suffix == ".png" else "image/jpeg")


def markdown_summary(report: Report) -> str:
    """Summarise a run in GitHub-flavoured Markdown, without pictures.

    Returns:
        Headline, figures of each split, caveats, next steps and commands. Names from the data
        set are escaped.
    """
    lines = [f"# {escaped(report.title)}", ""]
    split = headline_split(report)
    if split:
        one = report.metrics[split]
        noun = "image" if one.num_images == 1 else "images"
        lines += [f"**{percent(one.accuracy)}** accuracy on {one.num_images:,} {split} {noun}"]
        lines += [f"(interval {_interval(one)}).", ""]
    rows = [_split_row(name, one) for name, one in report.metrics.items()]
    if rows:
        lines += [*markdown_table(rows[0], (map(escaped, row.values()) for row in rows)), ""]
    lines += [f"> {escaped(caveat)}\n" for caveat in caveats(report)]
    if steps := next_steps(report):
        lines += ["## What to do next", "", *(f"1. {escaped(step)}" for step in steps), ""]
    if report.commands:
        lines += ["## Commands", ""]
        # Indented code cannot be ended by a fence of backticks inside a path.
        for command in report.commands:
            lines += [f"{escaped(command.purpose)}:", "", f"    {printable(command.line)}", ""]
    return "\n".join(lines)


def markdown_top_losses(report: Report) -> str:
    """Show the images with the highest loss as a Markdown table with pictures.

    Args:
        report: Of the run; the files of its ``hard_images`` are read.

    Returns:
        At most `MAX_MARKDOWN_PICTURES` of them, worst first; "" where there are none.
    """
    shown = report.hard_images[:MAX_MARKDOWN_PICTURES]
    if not shown:
        return ""
    lines = ["| | Label | Predicted | Loss | File |", "|---|---|---|---|---|"]
    for one in _thumbnails(shown, report.max_pixels):
        loss, names = one.hard_image.top_loss, report.class_names
        picture = f"![]({one.uri})" if one.uri else escaped(one.reason)
        predicted = f"{escaped(names[loss.predicted])} ({percent(loss.predicted_probability)})"
        label, name = escaped(names[loss.label]), escaped(one.name)
        cells = (picture, label, predicted, f"{loss.loss:.3f}", name)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def per_class_rows(metrics: SplitMetrics) -> list[dict[str, str | int]]:
    """Lay out the classes as table rows, weakest first.

    Returns:
        Rows with the columns class, images, precision, recall and F1.
    """
    return [
        {
            "class": printable(one.name),
            "images": one.support,
            "precision": percent(one.precision),
            "recall": percent(one.recall),
            "F1": percent(one.f1),
        }
        for one in weakest_first(metrics)
    ]


def _split_row(name: str, metrics: SplitMetrics) -> dict[str, str]:
    top_k = metrics.top_k
    return {
        "Split": printable(name),
        "Images": f"{metrics.num_images:,}",
        "Accuracy": percent(metrics.accuracy),
        "Interval": _interval(metrics),
        "Top-k": f"{percent(top_k.accuracy)} (k = {top_k.k} of {len(metrics.per_class)})",
        "Macro F1": percent(metrics.macro_f1),
        "Loss (nats)": UNDEFINED if metrics.loss is None else f"{metrics.loss:.4f}",
        "ECE": percent(metrics.ece),
    }


def _interval(metrics: SplitMetrics) -> str:
    if metrics.accuracy_interval is None:
        return UNDEFINED
    low, high = metrics.accuracy_interval
    return f"{percent(low)} to {percent(high)} ({100 * metrics.interval_confidence:.4g} %)"


def _render(report: Report) -> str:
    environment = make_environment(
        Path(__file__).parent,
        duration=_duration,
        embedded=picture_uri,
    )
    template = environment.get_template("report.html.j2")
    split = headline_split(report)
    return template.render(
        report=report,
        split=split,
        metrics=report.metrics[split] if split else None,
        split_rows=[_split_row(name, one) for name, one in report.metrics.items()],
        caveats=caveats(report),
        next_steps=next_steps(report),
        thumbnails=_thumbnails(report.hard_images, report.max_pixels),
        picture_folder=str(_shared_folder(report.hard_images) or ""),
        max_files_shown=MAX_FILES_SHOWN,
        config_yaml=_yaml(report.config),
        **_figures(report),
    )


def _figures(report: Report) -> dict[str, Any]:
    split = headline_split(report)
    metrics = report.metrics[split] if split else None
    shown = (tuple(report.history), report.best_epoch)
    return {
        "curves": report.history and _drawn(curves_svg, *shown),
        "reliability": metrics and _drawn(reliability_svg, metrics),
        "confusion": metrics and confusion_excerpt(metrics),
        "weakest": metrics and weakest_first(metrics),
    }


def _drawn(draw: Callable[..., bytes], *shown: Any) -> str:
    """Draw a figure unless the store remembers it: importing Matplotlib takes a second."""
    # By the repr, which tells apart what the figures of a training may hold, NaN too.
    about = [draw.__name__, repr(shown), _DRAWN_BY, version_of("matplotlib")]
    svg = remembered("figures", about)
    if svg is None:
        svg = draw(*shown).decode()
        remember("figures", about, svg)
    return data_uri(svg.encode(), "image/svg+xml")


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _yaml(config: Mapping[str, Any] | None) -> Markup | None:
    if config is None:
        return None
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    return Markup.escape("\n".join(map(printable, text.split("\n"))))


def _shared_folder(images: Sequence[HardImage]) -> Path | None:
    """The folder that all pictures are below, to be said once."""
    try:
        return Path(os.path.commonpath([one.path.parent for one in images]))
    except ValueError:  # none, on several drives, or relative and absolute
        return None


def _thumbnails(images: Sequence[HardImage], max_pixels: int) -> list[Thumbnail]:
    folder = _shared_folder(images)

    def thumbnail(one: HardImage) -> Thumbnail:
        name = one.path if folder is None else one.path.relative_to(folder)
        return Thumbnail(one, str(name), *small_picture(one.path, max_pixels))

    # Pillow lets go of the interpreter lock while it decodes and encodes.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(thumbnail, images))


def small_picture(path: Path, max_pixels: int) -> SmallPicture:
    """Make a thumbnail of an image file, at most `THUMBNAIL_SIDE` pixels a side.

    Args:
        path: Image file of any format that headstart decodes.
        max_pixels: Files with more pixels are not decoded.

    Returns:
        The picture as an address and "", or "" and why there is none.
    """
    try:
        if not path.is_file():  # opening a pipe or a device could wait for ever
            return SmallPicture("", "the file is gone")
        picture = Image.fromarray(decode_image(path.read_bytes(), max_pixels))
    except OSError as error:
        return SmallPicture("", error.strerror or "the file cannot be read")
    except DatasetError as error:
        return SmallPicture("", error.received)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), reducing_gap=2.0)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=THUMBNAIL_QUALITY)
    return SmallPicture(data_uri(file.getvalue(), "image/jpeg"), "")

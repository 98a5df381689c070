"""The page of a run on labels or numbers: how good it is, where it errs, what was left out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.tasks.evaluation.figures import curves_svg
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.label_metrics import LabelFigures
from headstart.tasks.evaluation.number_metrics import NumberFigures
from headstart.tasks.evaluation.report import REPORT_NAME, picture_uri, small_picture
from headstart.tasks.evaluation.report_content import (
    UNDEFINED,
    Report,
    headline_split,
    markdown_table,
    percent,
    title_of,
)
from headstart.tasks.runs.pages import Picture, Section, figure, svg_picture, write_page
from headstart.tasks.runs.target_figures import (
    label_reliability_svg,
    precision_recall_svg,
    predicted_true_svg,
    weakest_labels,
)
from headstart.tasks.targets.choice import TARGETS

TEMPLATE = Path(__file__).with_name("target_page.html.j2")
MAX_FILES_SHOWN = 200
"""Files left out that stand on the page; the others are counted."""

Row = dict[str, str]


def write_target_page(folder: Path, report: Report) -> Path:
    """Write the page of a run on labels or numbers.

    Args:
        folder: The run's folder; its predictions.npz is read.
        report: What the page says.
    """
    return write_page(
        folder / REPORT_NAME,
        TEMPLATE,
        title=report.title,
        created=report.created,
        headline=headline(report),
        notes=_notes(report),
        sections=_sections(folder, report),
        commands=report.commands,
        stages=report.stages,
    )


def headline(report: Report) -> str:
    """Say in a sentence how good the model is."""
    split = headline_split(report)
    if split is None:
        return "No split has images to evaluate the model on."
    judge, one = JUDGES[report.kind], report.metrics[split]
    bounds = getattr(one, f"{judge.main}_interval")
    text = f"{judge.main_name} {judge.write(getattr(one, judge.main))}"
    if bounds:
        coverage = f"{100 * one.interval_confidence:.4g} %"
        text += f" ({coverage} interval {judge.write(bounds[0])} to {judge.write(bounds[1])})"
    if report.kind == "number":
        text += (
            "; always predicting the mean of the training images gives "
            f"{judge.write(one.constant_mae)}"
        )
    return f"{text}, on {one.num_images:,} {split} images."


def markdown(report: Report) -> str:
    """Say the same in Markdown, for Prefect."""
    lines = [f"# {report.title}", "", headline(report), ""]
    rows = _split_rows(report)
    if rows:
        lines += markdown_table(rows[0], (row.values() for row in rows))
    return "\n".join(lines) + "\n"


def _notes(report: Report) -> list[str]:
    notes = []
    if report.selected_on:
        also = "thresholds" if report.kind == "labels" else "intervals"
        notes.append(
            f"The {report.selected_on} split chose the epoch that is kept and the {also}, so its "
            "own figures are optimistic; those of a test split are not."
        )
    return [*notes, *report.notes]


def _sections(folder: Path, report: Report) -> list[Section]:
    split = headline_split(report)
    sections = [Section("Splits", rows=_split_rows(report))]
    if split is not None:
        of_kind = _label_sections if report.kind == "labels" else _number_sections
        sections += of_kind(folder, split, report)
        sections += _worst(report)
    if report.history:
        drawn = curves_svg(tuple(report.history), report.best_epoch)
        text = f"The weights of epoch {report.best_epoch} of {len(report.history)} were kept."
        sections.append(Section("Training", pictures=[svg_picture(drawn, text)]))
    sections += [
        Section(one.title, one.text, [dict(row) for row in one.rows]) for one in report.tables
    ]
    for shown in report.pictures:
        picture = Picture(picture_uri(shown.path), shown.text)
        sections.append(Section(shown.title, pictures=[picture]))
    return [*sections, *_files(report), *_data(report)]


def _split_rows(report: Report) -> list[Row]:
    judge = JUDGES[report.kind]
    names = [name for name in judge.shown if f"{name}_interval" in judge.shown]
    return [
        {
            "Split": split,
            "Images": f"{one.num_images:,}",
            **{title_of(name): _with_interval(one, name) for name in names},
            "Loss": figure(one.loss, 4),
        }
        for split, one in report.metrics.items()
    ]


def _with_interval(one: Any, name: str) -> str:
    value, bounds = getattr(one, name), getattr(one, f"{name}_interval")
    if value is None or bounds is None:
        return figure(value, 4)
    return f"{value:.4g} ({bounds[0]:.4g} to {bounds[1]:.4g})"


def _label_sections(folder: Path, split: str, report: Report) -> list[Section]:
    one: LabelFigures = report.metrics[split]
    ordered = sorted(one.per_label, key=lambda label: (label.average_precision is None,
                                                       label.average_precision or 0.0))  # fmt: skip
    rows = [
        {
            "Label": label.name,
            "Images": f"{label.support:,}",
            "Average precision": _with_interval(label, "average_precision"),
            "Threshold": f"{label.threshold:.3f}",
            "Precision": percent(label.precision),
            "Recall": percent(label.recall),
            "F1": percent(label.f1),
            "Calibration error": percent(label.ece),
        }
        for label in ordered
    ]
    sections = [Section(f"Labels, weakest first ({split})", rows=rows)]
    if shown := weakest_labels(one.per_label):
        text = "Precision against recall; the dot marks the label's threshold."
        sections.append(
            Section(
                "Precision and recall", pictures=[svg_picture(precision_recall_svg(shown), text)]
            )
        )
        text = (
            "Where the line meets the dotted one, a probability of 80 % is right for 80 of 100 "
            "images."
        )
        sections.append(
            Section("Reliability", pictures=[svg_picture(label_reliability_svg(shown), text)])
        )
    pairs = [
        {"Missed": pair.missed, "Said instead": pair.said, "Images": f"{pair.count:,}"}
        for pair in one.error_pairs
    ]
    if pairs:
        sections.append(Section("Errors that occur together", rows=pairs))
    return sections


def _number_sections(folder: Path, split: str, report: Report) -> list[Section]:
    one: NumberFigures = report.metrics[split]
    rows = [
        {
            "Number": number.name,
            "MAE": _with_interval(number, "mae"),
            "of the training mean": figure(number.constant_mae, 4),
            "RMSE": _with_interval(number, "rmse"),
            "R²": _with_interval(number, "r2"),
            "Median error": _with_interval(number, "median_absolute_error"),
            "Interval": UNDEFINED if number.radius is None else f"± {number.radius:.4g}",
            "Coverage": percent(number.coverage),
        }
        for number in one.per_number
    ]
    text = (
        f"Interval: around each answer, to hold {percent(one.wanted_coverage)} of new images, by "
        f"split conformal prediction on the val images; coverage: of the {split} images it holds."
    )
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        outputs, targets = arrays[f"{split}_logits"], arrays[f"{split}_labels"]
    answers = TARGETS["number"].answers(outputs, report.fit)
    drawn = predicted_true_svg([number.name for number in one.per_number], answers, targets)
    return [
        Section(f"Numbers ({split})", text, rows),
        Section(
            "Predicted and true",
            pictures=[
                svg_picture(
                    drawn,
                    "Left: predicted against true, exact on the dotted line. Right: the errors.",
                )
            ],
        ),
    ]


def _worst(report: Report) -> list[Section]:
    if not report.worst:
        return []
    caption: Callable[[Mapping[str, Any]], str] = (
        _label_caption(report) if report.kind == "labels" else _number_caption(report)
    )
    gallery = []
    for one in report.worst:
        uri, reason = small_picture(Path(one["file"]), report.max_pixels)
        shown = f"{Path(one['file']).name}: {caption(one)}"
        gallery.append(Picture(uri, shown if uri else f"{shown}; cannot be shown: {reason}"))
    return [Section("Images with the largest errors, worst first", gallery=gallery)]


def _label_caption(report: Report) -> Callable[[Mapping[str, Any]], str]:
    names = report.class_names

    def caption(one: Mapping[str, Any]) -> str:
        parts = [
            f"{word} {', '.join(names[label] for label in one[key])}"
            for word, key in (("missed", "missed"), ("wrongly", "wrongly_said"))
            if one[key]
        ]
        return "; ".join(parts) or f"right, but loss {one['loss']:.2f}"

    return caption


def _number_caption(report: Report) -> Callable[[Mapping[str, Any]], str]:
    def caption(one: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{name} {true:.4g}, predicted {said:.4g}"
            for name, true, said in zip(
                report.class_names, one["true"], one["predicted"], strict=True
            )
        )

    return caption


def _files(report: Report) -> list[Section]:
    if not report.formats:
        return []
    unit = "%" if report.kind == "number" else "points"
    rows = [
        {
            "Format": one.name,
            "Largest difference": f"{one.difference:.1g}",
            "Judged": one.judged,
            f"Lost, {unit}": "" if one.lost is None else f"{100 * one.lost:.2f}",
        }
        for one in report.formats
    ]
    return [Section("Exported files", "Compared with the pipeline's own predictions.", rows)]


def _data(report: Report) -> list[Section]:
    data = report.dataset
    rows = [
        {"": name, **{split: f"{counts.get(name, 0):,}" for split, counts in data.counts.items()}}
        for name in report.class_names
    ]
    sections = [Section("Data", f"{data.source}: images of each split", rows)]
    if data.notes:
        noted = [{"Note": note} for note in data.notes[:MAX_FILES_SHOWN]]
        sections.append(Section("Notes on the data", _rest(len(data.notes), "remarks.json"), noted))
    if data.left_out:
        shown = [
            {"File": one.path, "Reason": one.reason} for one in data.left_out[:MAX_FILES_SHOWN]
        ]
        title = f"Left out: {len(data.left_out):,}"
        sections.append(Section(title, _rest(len(data.left_out), "left_out.json"), shown))
    return sections


def _rest(number: int, file: str) -> str:
    if number <= MAX_FILES_SHOWN:
        return ""
    return f"The first {MAX_FILES_SHOWN:,} of {number:,}; {file} has all of them."

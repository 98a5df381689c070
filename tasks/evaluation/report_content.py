"""What a finished run has to say: the content of its report, and how to read it.

No rendering and nothing heavy here: ``advice.py`` says what follows from it, ``figures.py``
draws it and ``report.py`` writes it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.config import TargetKind
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.problems import Problem
from headstart.tasks.evaluation.metrics import ClassMetrics, SplitMetrics, TopLoss
from headstart.tasks.head.epochs import EpochFigures
from headstart.tasks.targets.target import NO_FIT, Fit

if TYPE_CHECKING:
    from headstart.tasks.running.stage import Outcome

UNDEFINED = "–"  # noqa: RUF001 - a dash, as tables write it
"""Stands for a figure that cannot be computed."""


@dataclass(frozen=True)
class HardImage:
    """A file and the loss that the head has on it."""

    path: Path
    split: str
    top_loss: TopLoss


@dataclass(frozen=True)
class PictureFile:
    """A PNG or JPEG file that the report shows at its full width, with what is to be seen on it."""

    path: Path
    title: str
    text: str


@dataclass(frozen=True)
class LeftOut:
    """A file that is not part of the data set."""

    path: str
    reason: str


@dataclass(frozen=True)
class DatasetSummary:
    """What the run was trained and judged on."""

    source: str
    """The image folder or manifest."""
    counts: Mapping[str, Mapping[str, int]]
    """Number of images: split -> class -> count."""
    left_out: Sequence[LeftOut] = ()
    notes: Sequence[str] = ()
    """Such as duplicates that were kept on one side."""
    remarks: Sequence[Problem] = ()
    """What the notes are made of."""
    complaints: Sequence[LeftOut] = ()
    """Files that are used, and what their decoders say is wrong with them."""

    @classmethod
    def of(
        cls,
        source: str,
        counts: Mapping[str, Mapping[str, int]],
        problems: Sequence[Problem] = (),
    ) -> "DatasetSummary":
        """Sort the problems of a data set's index by where they are shown."""
        remarks = [problem for problem in problems if problem.is_remark]
        return cls(
            source=source,
            counts=counts,
            left_out=[LeftOut(one.path, one.reason) for one in problems if one.left_out],
            notes=[f"{one.path}: {one.reason}" for one in remarks],
            remarks=remarks,
            complaints=[
                LeftOut(one.path, one.reason) for one in problems if one.kind == "decoder_note"
            ],
        )


@dataclass(frozen=True)
class Command:
    """A line to paste into a shell, and what it is for."""

    purpose: str
    line: str


@dataclass(frozen=True)
class FormatLine:
    """One exported file.

    Attributes:
        name: Name of the format, such as "onnx".
        difference: Largest difference of a probability from the pipeline's, over the proof images.
        num_same_labels: Proof images whose likeliest class is the pipeline's too.
        judged: Split and accuracy of a quantised file; "" of others.
        lost: Accuracy that quantising cost; None of other files.
    """

    name: str
    difference: float
    num_same_labels: int
    num_images: int
    judged: str = ""
    lost: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of a run's own, with a heading and a paragraph.

    Attributes:
        text: Paragraph that says what the table shows.
        rows: Each maps the columns' names to text.
    """

    title: str
    text: str
    rows: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Report:
    """Everything on the page. Nothing in it is looked up when it is rendered but the pictures."""

    title: str
    created: datetime
    class_names: Sequence[str]
    """Of classes, labels or numbers."""
    metrics: Mapping[str, Any]
    """By split name; the ``model`` of `headstart.tasks.evaluation.judges` for the target."""
    dataset: DatasetSummary
    history: Sequence[EpochFigures] = ()
    best_epoch: int | None = None
    """The epoch whose weights were kept."""
    selected_on: str | None = None
    """The split whose loss chose that epoch; its own figures are optimistic for that reason."""
    hard_images: Sequence[HardImage] = ()
    """Worst first."""
    pictures: Sequence[PictureFile] = ()
    max_pixels: int = 89_478_485
    """Pictures with more pixels are not decoded for the page (dataset.max_pixels)."""
    stages: "Sequence[Outcome]" = ()
    formats: Sequence[FormatLine] = ()
    """Exported files, where one of them is for another engine than TensorFlow."""
    commands: Sequence[Command] = ()
    trained_by: str = "head"
    """The section of the configuration whose epochs and weight decay the training followed."""
    config: Mapping[str, Any] | None = None
    """``TransferConfig.model_dump(mode="json")``."""
    versions: Mapping[str, str] | None = None
    notes: Sequence[str] = ()
    """Further sentences that the reader should know before believing the figures."""
    kind: TargetKind = "class"
    """What was learned."""
    fit: Fit = NO_FIT
    """What the training found out about the targets."""
    tables: Sequence[Table] = ()
    """What a flow has to say besides."""
    worst: Sequence[Mapping[str, Any]] = ()
    """In place of ``hard_images`` where targets are no classes; each with its "file"."""


_MARKDOWN_SPECIAL = frozenset("\\`*_[]<>#|~$&")
_ACRONYMS = {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "f1": "F1"}


def title_of(name: str) -> str:
    """Write the name of a figure as a heading: f1_micro becomes "F1 micro"."""
    text = " ".join(_ACRONYMS.get(word, word) for word in name.split("_"))
    return text[:1].upper() + text[1:]


def escaped(text: str) -> str:
    """Escape what Markdown would take for markup."""
    return "".join("\\" + c if c in _MARKDOWN_SPECIAL else c for c in printable(text))


def markdown_table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Write a table as lines of Markdown; its cells stand as they are given."""
    titles = list(titles)
    lines = [f"| {' | '.join(cells)} |" for cells in (titles, *rows)]
    return [lines[0], "|---" * len(titles) + "|", *lines[1:]]


def percent(share: float | None) -> str:
    """Write a share as a percentage that never rounds to a perfect or a void 100 % or 0 %.

    Args:
        share: In [0, 1], or None where it is undefined.

    Returns:
        Such as "92.3 %", "> 99.9 %" or the sign of the undefined.
    """
    if share is None:
        return UNDEFINED
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def untouched(fit: Fit) -> str:
    """Say what the val and test splits had a part in.

    Args:
        fit: Of the model: what was found by the val images, once all else was decided.
    """
    nothing = "The val and test splits did not influence the choice"
    if fit.thresholds:
        return f"{nothing} except for the labels' thresholds (val)"
    return f"{nothing} except for the width of the intervals (val)" if fit.radius else nothing


def headline_split(report: Report) -> str | None:
    """Name the split that the run is judged by.

    Returns:
        test before val before any other; None where no split has images.
    """
    judged = [name for name, one in report.metrics.items() if one.num_images]
    return next((name for name in ("test", "val", *judged) if name in judged), None)


def weakest_first(metrics: SplitMetrics) -> list[ClassMetrics]:
    """Sort the classes by F1, ascending; those where it is undefined come last.

    Returns:
        All classes; equal ones with the larger support first.
    """
    return sorted(
        metrics.per_class,
        key=lambda one: (one.f1 is None, one.f1 if one.f1 is not None else 0.0, -one.support),
    )

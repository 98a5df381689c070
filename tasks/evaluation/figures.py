"""Training curves, confusion matrix and reliability diagram, drawn with Matplotlib.

PNG on white for Prefect's artifacts, SVG for the report's page: it takes the page's text colour
in light and in dark, and the reader's own fonts. Matplotlib's import takes longer than the
drawing, so each function imports it when called. pyplot is not used: it keeps global state and
may look for a display. The user's own matplotlibrc is set aside, since one with ``text.usetex``
would ask for LaTeX.
"""

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.tasks.dataset.printable import printable
from headstart.tasks.evaluation.metrics import SplitMetrics
from headstart.tasks.evaluation.report_content import title_of
from headstart.tasks.head.epochs import EpochFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CONFUSION_CLASSES = 30
"""Classes in a confusion matrix that is still legible; beyond, those with the most errors."""

MAX_LABEL_CHARACTERS = 22
"""Longer class names are cut in pictures."""

# Okabe & Ito's blue and vermilion, told apart by colour-blind eyes on light and on dark.
TRAIN_COLOR, VAL_COLOR = "#4a90d9", "#e0662a"
RIGHT_RGB, WRONG_RGB = (0.20, 0.48, 0.80), (0.84, 0.37, 0.13)
# Ink of a page whose colour is not known yet; the SVG gets the page's instead.
INK, FAINT_INK = "#1f2937", "#9ca3af"
PNG_DPI = 144

_SVG_STYLE = (
    "<style>svg{color:#1f2937}text{font-family:system-ui,sans-serif!important}"
    "@media(prefers-color-scheme:dark){svg{color:#e5e7eb}}</style>"
)


class ConfusionExcerpt(NamedTuple):
    """The part of a confusion matrix that is shown.

    Attributes:
        classes: Indices of the classes shown, ascending.
        counts: int64 of shape [len(classes), len(classes)], or one column more with the images
            taken for a class that is not shown.
        shares: float64 of the same shape: counts as shares of the true class.
    """

    classes: list[int]
    counts: NDArray[np.int64]
    shares: NDArray[np.float64]

    @property
    def has_others(self) -> bool:
        """Whether there is a last column for the classes that are not shown."""
        return len(self.classes) < int(self.counts.shape[1])


def confusion_excerpt(
    metrics: SplitMetrics, max_classes: int = MAX_CONFUSION_CLASSES
) -> ConfusionExcerpt:
    """Choose what of a confusion matrix to show.

    Args:
        metrics: Figures of one split.
        max_classes: Where there are more, those with the most errors are shown, either way.

    Returns:
        The classes in order, their counts and shares.
    """
    confusion = np.array(metrics.confusion, np.int64)
    support = confusion.sum(axis=1)
    if len(confusion) <= max_classes:
        classes, counts = np.arange(len(confusion)), confusion
    else:
        errors = support + confusion.sum(axis=0) - 2 * confusion.diagonal()
        classes = np.sort(np.argsort(-errors, kind="stable")[:max_classes])
        shown = confusion[np.ix_(classes, classes)]
        others = support[classes] - shown.sum(axis=1)
        counts = np.column_stack([shown, others])
    shares = counts / np.maximum(support[classes], 1)[:, np.newaxis]
    return ConfusionExcerpt(classes.tolist(), counts, shares)


def curves_png(history: Sequence[EpochFigures], best_epoch: int | None = None) -> bytes:
    """Draw loss and accuracy over the epochs.

    Args:
        history: The epochs; values that are None or not finite leave a gap.
        best_epoch: Marked by a line.
    """
    with _matplotlib_defaults():
        return _png(_curves(history, best_epoch))


def curves_svg(history: Sequence[EpochFigures], best_epoch: int | None = None) -> bytes:
    """Draw `curves_png` as SVG for the report's page."""
    with _matplotlib_defaults():
        return _svg(_curves(history, best_epoch))


def reliability_svg(metrics: SplitMetrics) -> bytes:
    """Draw accuracy against confidence, one bar for each bin that holds images."""
    with _matplotlib_defaults():
        return _svg(_reliability(metrics))


def draw_svg(draw: Callable[[], "Figure"]) -> bytes:
    """Draw a figure in this report's style, as SVG for a page.

    Args:
        draw: Makes the figure; called with Matplotlib's own defaults in effect.
    """
    with _matplotlib_defaults():
        return _svg(draw())


def confusion_png(metrics: SplitMetrics) -> bytes:
    """Draw the confusion matrix, rows true and columns predicted."""
    with _matplotlib_defaults():
        return _png(_confusion(metrics))


@contextmanager
def _matplotlib_defaults() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def _curves(history: Sequence[EpochFigures], best_epoch: int | None) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    epochs = [one.epoch for one in history]
    metric = history[0].metric if history else "accuracy"
    for axes, title, train, val in (
        (loss, "Loss", [e.train_loss for e in history], [e.val_loss for e in history]),
        (accuracy, title_of(metric), [e.train_figure for e in history],
         [e.val_figure for e in history]),
    ):  # fmt: skip
        _draw_line(axes, epochs, train, "train", TRAIN_COLOR)
        _draw_line(axes, epochs, val, "val", VAL_COLOR)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=FAINT_INK, linestyle=":", label="epoch kept")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(title, loc="left", fontsize=11, color=INK)
        if axes.lines:
            axes.legend(frameon=False, labelcolor=INK, fontsize=9)
        soften(axes)
    if metric != "mae":
        accuracy.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
    return figure


def _draw_line(
    axes: "Axes", epochs: list[int], values: Iterable[float | None], label: str, color: str
) -> None:
    points = [math.nan if v is None or not math.isfinite(v) else v for v in values]
    if not all(map(math.isnan, points)):
        # A marker keeps a single epoch, or one between gaps, visible.
        axes.plot(epochs, points, color=color, label=label, marker=".", markersize=4, linewidth=1.6)


def _reliability(metrics: SplitMetrics) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    axes = figure.subplots()
    filled = [one for one in metrics.calibration if one.count]
    axes.plot([0, 1], [0, 1], color=FAINT_INK, linestyle=":", label="ideal")
    axes.bar(
        [one.low for one in filled],
        [one.accuracy or 0.0 for one in filled],
        width=[one.high - one.low for one in filled],
        align="edge",
        color=TRAIN_COLOR,
        alpha=0.55,
        label="bin",
    )
    axes.plot(
        [one.confidence or 0.0 for one in filled],
        [one.accuracy or 0.0 for one in filled],
        color=VAL_COLOR,
        linestyle="none",
        marker="o",
        markersize=4,
        label="at its mean confidence",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    figure.legend(frameon=False, labelcolor=INK, fontsize=8, loc="outside upper left", ncols=3,
                  columnspacing=1.2, handletextpad=0.5)  # fmt: skip
    soften(axes)
    return figure


def _confusion(metrics: SplitMetrics) -> "Figure":
    from matplotlib.figure import Figure

    excerpt = confusion_excerpt(metrics)
    num_rows, num_columns = excerpt.counts.shape
    names = [_label(metrics.per_class[index].name, index) for index in excerpt.classes]
    side = 2.2 + 0.34 * num_columns
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(_cell_colors(excerpt), aspect="equal")
    # Names are text, never formulas: "$x" is a class like any other.
    columns = [*names, "others"] if excerpt.has_others else names
    axes.set_xticks(range(num_columns), columns, rotation=90, parse_math=False, fontsize=8)
    axes.set_yticks(range(num_rows), names, parse_math=False, fontsize=8)
    for row, column in zip(*np.nonzero(excerpt.counts), strict=True):
        strong = excerpt.shares[row, column] > 0.55
        axes.text(column, row, f"{excerpt.counts[row, column]}", ha="center", va="center",
                  fontsize=7, color="white" if strong else INK)  # fmt: skip
    axes.set(xlabel="predicted", ylabel="true")
    soften(axes, grid=False)
    return figure


def _cell_colors(excerpt: ConfusionExcerpt) -> NDArray[np.float64]:
    """Colour cells by share: blue where right, vermilion where wrong; [rows, columns, 3]."""
    rows, columns = excerpt.counts.shape
    right = np.eye(rows, columns, dtype=bool)[..., np.newaxis]
    full = np.where(right, RIGHT_RGB, WRONG_RGB)
    # The square root lifts the rare errors, which are what one looks for.
    strength = np.sqrt(excerpt.shares)[..., np.newaxis]
    colors: NDArray[np.float64] = 1.0 - strength * (1.0 - full)
    return colors


def _label(name: str, index: int) -> str:
    """A class name that the built-in font can draw, or its number where it cannot."""
    from matplotlib import font_manager

    text = printable(name)
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    if not all(font.get_char_index(ord(character)) for character in text):
        return f"class {index}"
    if len(text) > MAX_LABEL_CHARACTERS:
        return text[: MAX_LABEL_CHARACTERS - 1] + "…"
    return text


def soften(axes: "Axes", grid: bool = True) -> None:
    """Make axes recede behind what is drawn on them.

    Args:
        axes: Matplotlib axes, changed in place.
        grid: Draw faint horizontal lines, and keep the left and the lower spine.
    """
    for side in ("top", "right") if grid else ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(FAINT_INK)
    axes.tick_params(colors=INK, color=FAINT_INK, labelsize=8)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
    if grid:
        axes.grid(axis="y", color=FAINT_INK, alpha=0.3, linewidth=0.7)
        axes.set_axisbelow(True)


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=PNG_DPI, facecolor="white")
    return file.getvalue()


def _svg(figure: "Figure") -> bytes:
    import matplotlib

    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    file = io.StringIO()
    # Text stays text; a fixed salt makes equal figures equal bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "headstart"}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = re.sub(r"^.*?(?=<svg)", "", file.getvalue(), count=1, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    return re.sub(r"(<svg[^>]*>)", rf"\1{_SVG_STYLE}", text, count=1).encode()

"""The pictures of a run on labels or numbers, as SVG for its page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headstart.tasks.evaluation.figures import (
    FAINT_INK,
    INK,
    TRAIN_COLOR,
    VAL_COLOR,
    draw_svg,
    soften,
)
from headstart.tasks.evaluation.label_metrics import LabelMetrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LABELS_DRAWN = 12
"""Labels whose curves are drawn: those with the lowest average precision."""
NUM_COLUMNS = 4


def precision_recall_svg(labels: Sequence[LabelMetrics]) -> bytes:
    """Draw precision over recall of each label, with the place of its threshold.

    Args:
        labels: Those to draw; they have some images.
    """

    def draw(axes: "Axes", one: LabelMetrics) -> None:
        axes.plot(*zip(*one.curve, strict=True), color=TRAIN_COLOR, linewidth=1.4)
        if one.recall is not None and one.precision is not None:
            axes.plot([one.recall], [one.precision], "o", color=VAL_COLOR, markersize=5)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="recall", ylabel="precision")

    return _grid(labels, draw)


def label_reliability_svg(labels: Sequence[LabelMetrics]) -> bytes:
    """Draw, for each label, how often it applies at each probability."""

    def draw(axes: "Axes", one: LabelMetrics) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT_INK, linestyle=":")
        confidence, share, _ = zip(*one.calibration, strict=True)
        axes.plot(confidence, share, color=TRAIN_COLOR, marker=".", markersize=6, linewidth=1.2)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability", ylabel="share with it")

    return _grid(labels, draw)


def predicted_true_svg(
    names: Sequence[str], answers: npt.NDArray[Any], targets: npt.NDArray[Any]
) -> bytes:
    """Draw predicted against true numbers, and the errors against the true ones."""

    def drawn() -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 3.1 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), 2, squeeze=False)
        for (left, right), name, said, true in zip(grid, names, answers.T, targets.T, strict=True):
            both = [float(np.min([said, true])), float(np.max([said, true]))]
            left.plot(both, both, color=FAINT_INK, linestyle=":")
            left.plot(true, said, ".", color=TRAIN_COLOR, markersize=4, alpha=0.6)
            right.axhline(0, color=FAINT_INK, linestyle=":")
            right.plot(true, said - true, ".", color=VAL_COLOR, markersize=4, alpha=0.6)
            left.set_title(name, loc="left", fontsize=10, color=INK, parse_math=False)
            left.set(xlabel="true", ylabel="predicted")
            right.set(xlabel="true", ylabel="predicted - true")
            soften(left)
            soften(right)
        return figure

    return draw_svg(drawn)


def weakest_labels(labels: Sequence[LabelMetrics]) -> list[LabelMetrics]:
    """Pick the labels to draw, the weakest first; those without images have nothing to draw."""
    known = [one for one in labels if one.average_precision is not None]
    return sorted(known, key=lambda one: one.average_precision or 0.0)[:MAX_LABELS_DRAWN]


def _grid(labels: Sequence[LabelMetrics], draw: Any) -> bytes:
    def drawn() -> "Figure":
        from matplotlib.figure import Figure

        num_columns = min(NUM_COLUMNS, len(labels))
        num_rows = -(-len(labels) // num_columns)
        figure = Figure(figsize=(2.5 * num_columns + 0.6, 2.4 * num_rows), layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes, one in zip(grid, labels, strict=False):
            draw(axes, one)
            axes.set_title(one.name[:24], loc="left", fontsize=9, color=INK, parse_math=False)
            soften(axes)
        for axes in grid[len(labels) :]:
            axes.set_visible(False)
        return figure

    return draw_svg(drawn)

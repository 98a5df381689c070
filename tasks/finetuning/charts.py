"""Charts of ladders, comparisons and transferability, as SVG for their pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headstart.tasks.evaluation.figures import INK, draw_svg, soften
from headstart.tasks.evaluation.report_content import title_of
from headstart.tasks.head.epochs import EpochFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#4a90d9", "#e0662a", "#2e9e73", "#b065c2", "#c9a227", "#6b7a8f", "#d14d72", "#3fb0c9")
"""After Okabe & Ito: told apart by colour-blind eyes on light and on dark."""
ERROR = "MAE"
"""The figure that is no share."""


@dataclass(frozen=True)
class Point:
    """One mark of a scatter chart.

    Attributes:
        label: Text beside the mark.
        x: Position across, in the unit of the axis.
        y: Position up: a share in [0, 1], or an error in the unit of the numbers.
        low: Lower end of its interval; None for no interval.
        high: Upper end of it; None likewise.
    """

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


def curves(histories: Mapping[str, Sequence[Sequence[EpochFigures]]]) -> bytes:
    """Draw loss and accuracy over the epochs, all overlaid.

    Args:
        histories: By name, the epochs of each training of that name; several of one name are
            drawn alike. Training is dotted, validation is solid.
    """

    def draw() -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.2, 3.6), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        for number, (name, trainings) in enumerate(histories.items()):
            color = PALETTE[number % len(PALETTE)]
            for index, epochs in enumerate(trainings):
                x = [one.epoch for one in epochs]
                label = name if index == 0 else None
                _line(loss, x, [e.train_loss for e in epochs], color, ":", None)
                _line(loss, x, [e.val_loss for e in epochs], color, "-", label)
                _line(accuracy, x, [e.train_figure for e in epochs], color, ":", None)
                _line(accuracy, x, [e.val_figure for e in epochs], color, "-", None)
        loss.set_title("Loss", loc="left", fontsize=11, color=INK)
        metric = next(iter(histories.values()))[0][0].metric
        accuracy.set_title(title_of(metric), loc="left", fontsize=11, color=INK)
        for axes in (loss, accuracy):
            axes.set_xlabel("epoch (validation solid, training dotted)")
            axes.xaxis.get_major_locator().set_params(integer=True)
            soften(axes)
        if metric != "mae":
            _percent_axis(accuracy)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, labelcolor=INK,
                      fontsize=9)  # fmt: skip
        return figure

    return draw_svg(draw)


def pareto(points: Sequence[Point], metric: str = "accuracy") -> bytes:
    """Draw what is compared against seconds, and the line of those that nothing beats in both.

    Args:
        points: x in seconds, y the figure.
        metric: What it is called; of errors (MAE) less is better.
    """

    def draw() -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.6, 3.8), layout="constrained")
        axes = figure.subplots()
        front = pareto_front(points, less_is_better=metric == ERROR)
        axes.plot([p.x for p in front], [p.y for p in front], color=INK, alpha=0.35, linewidth=1,
                  drawstyle="steps-post")  # fmt: skip
        for number, point in enumerate(points):
            _mark(axes, point, PALETTE[number % len(PALETTE)])
        seconds = [point.x for point in points]
        axes.set(xlabel="seconds", ylabel=metric)
        if max(seconds) > 10 * min(seconds) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        soften(axes)
        if metric != ERROR:
            _percent_axis(axes)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, labelcolor=INK,
                      fontsize=9)  # fmt: skip
        return figure

    return draw_svg(draw)


def pareto_front(points: Sequence[Point], less_is_better: bool = False) -> list[Point]:
    """Return the points that no other is both as quick as and better than, by seconds."""
    front: list[Point] = []
    sign = -1 if less_is_better else 1
    for point in sorted(points, key=lambda one: (one.x, -sign * one.y)):
        if not front or sign * point.y > sign * front[-1].y:
            front.append(point)
    return front


def transfer_curve(
    names: Sequence[str], series: Mapping[str, Sequence[Point]], metric: str = "accuracy"
) -> bytes:
    """Draw what is compared against the cut.

    Args:
        names: Names of the cuts, from the input to the top.
        series: By name of a line, its points; x is the cut's position in `names`.
        metric: Name of the quantity on the y axis.
    """

    def draw() -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.2, 4.2), layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(series.items()):
            color = PALETTE[number % len(PALETTE)]
            axes.plot([p.x for p in points], [p.y for p in points], color=color, linewidth=1.6)
            for index, point in enumerate(points):
                _mark(axes, point, color, name if index == 0 else None)
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", parse_math=False,
                        fontsize=8)  # fmt: skip
        axes.set(ylabel=metric)
        soften(axes)
        if metric != ERROR:
            _percent_axis(axes)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=INK, fontsize=9)
        return figure

    return draw_svg(draw)


def _line(
    axes: "Axes", x: Sequence[int], y: Sequence[float | None], color: str, style: str,
    label: str | None,
) -> None:  # fmt: skip
    values = [np.nan if value is None else value for value in y]
    axes.plot(x, values, color=color, linestyle=style, label=label, marker=".", markersize=3,
              linewidth=1.4)  # fmt: skip


def _mark(axes: "Axes", point: Point, color: str, label: str | None = "") -> None:
    error = None
    if point.low is not None and point.high is not None:
        error = [[point.y - point.low], [point.high - point.y]]
    axes.errorbar(point.x, point.y, yerr=error, color=color, marker="o", markersize=5,
                  capsize=3, linestyle="none",
                  label=point.label if label == "" else label)  # fmt: skip


def _percent_axis(axes: "Axes") -> None:
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")

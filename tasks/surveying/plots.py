"""Plots of a survey, in the manner of Canziani et al.

Source: Canziani et al., "An Analysis of Deep Neural Network Models for Practical Applications",
2016, https://arxiv.org/abs/1605.07678: accuracy against operations with the parameters as the
area of each point, accuracy against throughput, memory against batch size.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from headstart.tasks.evaluation.figures import INK, draw_svg, soften
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.report import data_uri
from headstart.tasks.surveying.survey import Surveyed, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS_PER_MILLION = 9.0
"""Area of a point, in square points, for a million parameters."""
MAX_MEMORY_LINES = 8
"""Backbones in the plot of memory; more lines could not be told apart."""
NUMBERS = JUDGES["number"].ranked_name
"""What numbers are judged by, which is no share."""


def draw_survey(surveyed: Sequence[Surveyed]) -> list[tuple[str, str]]:
    """Draw what there are figures for.

    Returns:
        (caption, ``data:`` URI of an SVG) each.
    """
    judged = [one for one in surveyed if one.figure is not None]
    title = heading(surveyed)
    timed = [one for one in judged if one.images_per_s]
    measured = [one for one in surveyed if len(one.measurements) > 1]
    plots: list[tuple[str, Callable[[Axes], None]]] = []
    if judged:
        plots.append(
            (f"{title} against operations; the area is the number of parameters.",
             lambda axes: _accuracy(axes, judged))
        )  # fmt: skip
    else:
        plots.append(
            ("Parameters against operations; the area is the number of parameters.",
             lambda axes: _parameters(axes, surveyed))
        )  # fmt: skip
    if timed:
        plots.append(
            (f"{title} against throughput.", lambda axes: _throughput_accuracy(axes, timed))
        )
    if measured:
        fewest = sorted(measured, key=lambda one: one.anatomy.flops)[:MAX_MEMORY_LINES]
        plots.append(("Throughput against batch size.", lambda axes: _throughput(axes, fewest)))
        plots.append(
            ("Memory of activations against batch size: measured (solid) and computed (dotted).",
             lambda axes: _memory(axes, fewest))
        )  # fmt: skip
    return [(caption, _draw(draw)) for caption, draw in plots]


def _draw(draw: Callable[["Axes"], None]) -> str:
    def drawn() -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        soften(axes)
        return figure

    return data_uri(draw_svg(drawn), "image/svg+xml")


def _scatter(axes: "Axes", x: list[float], y: list[float], surveyed: Sequence[Surveyed]) -> None:
    areas = [20 + POINTS_PER_MILLION * one.anatomy.num_parameters / 1e6 for one in surveyed]
    axes.scatter(x, y, s=areas, alpha=0.55, color="#4a90d9", edgecolors="#1d5fa8")
    for one, left, bottom in zip(surveyed, x, y, strict=True):
        axes.annotate(
            one.anatomy.name, (left, bottom), (0, 7), textcoords="offset points", fontsize=7,
            ha="center", color=INK,
        )  # fmt: skip
    axes.margins(0.12)


def _accuracy(axes: "Axes", surveyed: Sequence[Surveyed]) -> None:
    _scatter(
        axes,
        [one.anatomy.flops / 1e9 for one in surveyed],
        _figures(surveyed),
        surveyed,
    )
    axes.set(xlabel="GFLOPs per image", ylabel=_label(surveyed))


def _figures(surveyed: Sequence[Surveyed]) -> list[float]:
    factor = 1 if surveyed[0].metric == NUMBERS else 100
    return [factor * (one.figure or 0.0) for one in surveyed]


def _label(surveyed: Sequence[Surveyed]) -> str:
    metric = surveyed[0].metric
    return metric if metric == NUMBERS else f"{metric}, %"


def _parameters(axes: "Axes", surveyed: Sequence[Surveyed]) -> None:
    _scatter(
        axes,
        [one.anatomy.flops / 1e9 for one in surveyed],
        [one.anatomy.num_parameters / 1e6 for one in surveyed],
        surveyed,
    )
    axes.set(
        xlabel="GFLOPs per image", ylabel="parameters, millions", xscale="log",
        yscale="log",
    )  # fmt: skip


def _throughput_accuracy(axes: "Axes", surveyed: Sequence[Surveyed]) -> None:
    _scatter(
        axes,
        [one.images_per_s or 0.0 for one in surveyed],
        _figures(surveyed),
        surveyed,
    )
    axes.set(xlabel="images/s at the fastest batch size", ylabel=_label(surveyed))


def _throughput(axes: "Axes", surveyed: Sequence[Surveyed]) -> None:
    for one in surveyed:
        sizes = [point.batch_size for point in one.measurements]
        rates = [point.images_per_s for point in one.measurements]
        axes.plot(sizes, rates, marker="o", label=one.anatomy.name)
    axes.set(xlabel="batch size", ylabel="images/s", xscale="log")
    _name_sizes(axes, surveyed)


def _memory(axes: "Axes", surveyed: Sequence[Surveyed]) -> None:
    for one in surveyed:
        known = [point for point in one.measurements if point.memory_bytes is not None]
        sizes = [point.batch_size for point in known]
        used = [(point.memory_bytes or 0) / 1e6 for point in known]
        (line,) = axes.plot(sizes, used, marker="o", label=one.anatomy.name)
        computed = [one.anatomy.inference_bytes * size / 1e6 for size in sizes]
        axes.plot(sizes, computed, linestyle="dotted", color=line.get_color())
    axes.set(xlabel="batch size", ylabel="MB", xscale="log", yscale="symlog")
    _name_sizes(axes, surveyed)


def _name_sizes(axes: "Axes", surveyed: Sequence[Surveyed]) -> None:
    sizes = sorted({point.batch_size for one in surveyed for point in one.measurements})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK)

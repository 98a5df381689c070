"""The page of a sweep: the table of its heads, and a line for each through what it was set to."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.tasks.evaluation.figures import FAINT_INK, INK, draw_svg
from headstart.tasks.evaluation.report_content import UNDEFINED, percent, untouched
from headstart.tasks.finetuning.page import Page
from headstart.tasks.runs.pages import Section, svg_picture
from headstart.tasks.sweeping.stage import SweepManifest, SweptHead

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG_RATIO = 10.0
"""Numbers of which the largest is this many times the smallest stand at their logarithms."""
MAX_TICKS = 8


def sweep_page(title: str, sweep: SweepManifest) -> Page:
    """Compose the page of a sweep."""
    best = sweep.swept[sweep.chosen - 1]
    diverged = sum(line.loss is None for line in sweep.swept)
    notes = [
        f"The best head was chosen on {sweep.num_held_out:,} training images that the heads were "
        "not trained on, so its figures here are optimistic. It was then trained on all training "
        f"images. {untouched(sweep.fit)}: what the report says of them is honest."
    ]
    if diverged:
        notes.append(f"{diverged} of the {len(sweep.swept)} heads diverged and have no loss.")
    return Page(
        title=title,
        headline=f"Head {best.number} of {len(sweep.swept)}: {setting_text(best)}",
        notes=notes,
        sections=[
            Section(
                "Loss by setting",
                pictures=[
                    svg_picture(
                        parallel_coordinates(sweep.swept, sweep.chosen),
                        "One line per head, through its settings to its loss on the held-out "
                        "images; the best is drawn bold",
                    )
                ],
            ),
            Section("Heads, best first", rows=[_row(line) for line in best_first(sweep.swept)]),
        ],
    )


def best_first(swept: Sequence[SweptHead]) -> list[SweptHead]:
    """Return the heads by their loss; those without one last."""
    return sorted(swept, key=lambda line: math.inf if line.loss is None else line.loss)


def setting_text(line: SweptHead) -> str:
    """Return what varies and its values in words."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in line.settings.items())


def parallel_coordinates(swept: Sequence[SweptHead], chosen: int) -> bytes:
    """Draw a line a head through an axis a setting, and the loss at the end."""
    lines = [line for line in swept if line.loss is not None]
    names = list(swept[0].settings)
    columns = [[line.settings[name] for line in lines] for name in names]
    columns.append([line.loss for line in lines])

    def draw() -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.2, 4.0), layout="constrained")
        axes = figure.subplots()
        places = [_axis(axes, x, values) for x, values in enumerate(columns)]
        losses = places[-1]
        for number, line in enumerate(lines):
            is_best = line.number == chosen
            y = [column[number] for column in places]
            shade = 0.25 + 0.5 * (1 - losses[number])
            axes.plot(range(len(y)), y, color="#e0662a" if is_best else "#4a90d9",
                      alpha=1.0 if is_best else shade, linewidth=2.4 if is_best else 0.9,
                      zorder=3 if is_best else 2)  # fmt: skip
        axes.set_xticks(range(len(columns)), [*names, "held-out loss"], parse_math=False)
        axes.set_yticks([])
        axes.set_xlim(-0.3, len(columns) - 0.5)
        axes.tick_params(colors=INK, length=0, labelsize=9)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return figure

    return draw_svg(draw)


def _axis(axes: "Axes", x: int, values: Sequence[Any]) -> list[float]:
    """Draw one axis, and return the heights 0 to 1 of the values on it."""
    axes.axvline(x, color=FAINT_INK, linewidth=1, zorder=1)
    distinct = list(dict.fromkeys(map(_hashable, values)))
    if all(isinstance(value, int | float) for value in distinct):
        distinct.sort()
        is_log = distinct[0] > 0 and distinct[-1] >= LOG_RATIO * distinct[0]
        scaled = [math.log(value) if is_log else value for value in distinct]
    else:
        scaled = list(range(len(distinct)))
    low, high = min(scaled), max(scaled)
    heights = {
        value: (at - low) / (high - low) if high > low else 0.5
        for value, at in zip(distinct, scaled, strict=True)
    }
    step = -(-len(distinct) // MAX_TICKS)
    for value in dict.fromkeys([*distinct[::step], distinct[-1]]):
        axes.text(x + 0.02, heights[value], _shown(value), fontsize=7, color=INK, va="center",
                  parse_math=False, zorder=4)  # fmt: skip
    return [heights[_hashable(value)] for value in values]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(line: SweptHead) -> dict[str, str]:
    return {
        "Head": str(line.number),
        **{name: _shown(value) for name, value in line.settings.items()},
        "Held-out loss": UNDEFINED if line.loss is None else f"{line.loss:.4f}",
        f"Held-out {line.metric}": percent(line.accuracy)
        if line.metric == "accuracy"
        else line.figure_text or UNDEFINED,
        "Epoch": f"{line.best_epoch or UNDEFINED} of {line.num_epochs}",
    }

"""The pages of a comparison and of a transferability curve."""

from collections.abc import Mapping, Sequence

from headstart.tasks.evaluation.report import data_uri
from headstart.tasks.evaluation.report_content import UNDEFINED
from headstart.tasks.finetuning.charts import Point, curves, pareto, transfer_curve
from headstart.tasks.finetuning.kernels import KernelChange, kernels_png
from headstart.tasks.finetuning.page import Page
from headstart.tasks.finetuning.studies import FINETUNED, FROZEN, Line, headline, order_sentence
from headstart.tasks.finetuning.trial import TrialManifest
from headstart.tasks.runs.pages import Picture, Section, svg_picture

_TRAINED_BY = {"accuracy": "accuracy", "mAP": "F1", "MAE": "MAE"}
"""By what is compared, what an epoch is known by."""


def compare_page(
    title: str,
    lines: Sequence[Line],
    trials: Mapping[str, Sequence[TrialManifest]],
    kernels: Mapping[str, list[KernelChange]],
    notes: Sequence[str],
) -> Page:
    """Compose the page of a comparison.

    Args:
        title: Names the data set and the backbone.
        lines: One a strategy, in the order asked for.
        trials: By strategy, one a seed.
        kernels: By strategy, of its first seed.
        notes: What to know before believing it.
    """
    points = [
        Point(line.name, line.train_s + line.once_s, line.figure, *(line.interval or (None,) * 2))
        for line in lines
    ]
    metric = lines[0].metric
    title_of_chart = f"{_capital(metric)} against seconds"
    order = order_sentence({line.name: line for line in lines})
    return Page(
        title=title,
        headline=headline(lines),
        notes=[*([order] if order else []), *notes],
        sections=[
            Section("Strategies", rows=[_row(line) for line in lines]),
            Section(
                title_of_chart,
                "Time for views and bottlenecks (once for all seeds) plus one training. Strategies "
                "on the grey line are not beaten in both accuracy and time by any other.",
                pictures=[svg_picture(pareto(points, metric), title_of_chart)],
            ),
            Section(
                "Training",
                pictures=[
                    svg_picture(
                        curves({name: [one.history for one in of] for name, of in trials.items()}),
                        f"Loss and {_TRAINED_BY[metric]} of every training, epoch by epoch",
                    )
                ],
            ),
            Section(
                "Kernels of the first two convolutions",
                "Before training, after it, and the difference, which is zero for a frozen layer.",
                pictures=[
                    _kernels(changes, f"{name}, first seed")
                    for name, changes in kernels.items()
                    if changes
                ],
            ),
        ],
    )


def transferability_page(
    title: str, names: Sequence[str], lines: Sequence[Line], notes: Sequence[str]
) -> Page:
    """Compose the page of a transferability curve.

    Args:
        title: Names the data set and the backbone.
        names: The cuts, from the input to the top.
        lines: As `headstart.tasks.finetuning.studies.transferability_trials` names them.
        notes: What to know before believing it.
    """
    by_name = {line.name: line for line in lines}
    series = {
        kind: [
            Point(name, place, line.figure, *(line.interval or (None, None)))
            for place, name in enumerate(names)
            if (line := by_name.get(f"{kind} {name}")) is not None
        ]
        for kind in (FROZEN, FINETUNED)
    }
    series = {kind: points for kind, points in series.items() if points}
    metric = lines[0].metric
    chart = f"{_capital(metric)} against the cut"
    return Page(
        title=title,
        headline=headline(lines),
        notes=notes,
        sections=[
            Section(
                chart,
                "The backbone's layers up to the cut, averaged over positions, and a dense layer: "
                "frozen or, if requested, fine-tuned. After Yosinski et al., How transferable are "
                "features in deep neural networks?, 2014.",
                pictures=[svg_picture(transfer_curve(names, series, metric), chart)],
            ),
            Section("Figures", rows=[_row(line) for line in lines]),
        ],
    )


def _kernels(changes: list[KernelChange], caption: str) -> Picture:
    return Picture(data_uri(kernels_png(changes), "image/png"), caption, is_pixels=True)


def _capital(metric: str) -> str:
    return "Accuracy" if metric == "accuracy" else metric


def _row(line: Line) -> dict[str, str]:
    interval = UNDEFINED
    if line.interval is not None:
        interval = f"{line.write(line.interval[0])} to {line.write(line.interval[1])}"
    peak = UNDEFINED if line.peak_bytes is None else f"{line.peak_bytes / 1e6:,.0f} MB"
    return {
        "Strategy": line.name,
        f"{line.split.capitalize()} {line.metric}": line.write(line.figure),
        "Interval": interval,
        "Trained parameters": f"{line.num_trained:,}",
        "Training": f"{line.train_s:,.1f} s",
        "Preparation, once": f"{line.once_s:,.1f} s",
        "Training GFLOPs": _gflops(line.flops),
        "Preparation GFLOPs": _gflops(line.once_flops),
        "Peak memory added": peak,
    }


def _gflops(flops: float) -> str:
    """Write FLOPs in billions: of a small network in digits that say something."""
    return f"{flops / 1e9:,.0f}" if flops >= 1e11 else f"{flops / 1e9:.3g}"

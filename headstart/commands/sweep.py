"""The command that trains many heads at once."""

from typing import Annotated, Any

import typer
from rich.console import Console

from headstart.commands.options import (
    AsJson,
    BackboneName,
    ConfigFile,
    CutName,
    Epochs,
    Exclude,
    ImagesOrConfigs,
    NumViews,
    Out,
    Overwrite,
    Record,
    Settings,
    StoreFolder,
    run_and_show,
    show_run,
)
from headstart.tables import print_table

app = typer.Typer()
NUM_SHOWN = 10
"""Heads that the terminal shows; the page has all."""


@app.command(no_args_is_help=True)
def sweep(
    images: ImagesOrConfigs = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            help="Values of one field of the head: head.learning_rate=1e-3,1e-2, or a range such "
            "as 1e-4..1e-1 or 1e-4..1e-1:7; repeatable. By default, 32 combinations of learning "
            "rate, weight decay and dropout.",
        ),
    ] = None,
    num_random: Annotated[
        int | None,
        typer.Option("--random", help="Train this many random heads of the grid, instead of all."),
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    cut: CutName = None,
    views: NumViews = None,
    epochs: Epochs = None,
    exclude: Exclude = None,
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Train many heads at once, in little more time than one, and export the best."""
    from headstart.config import SweepConfig, build_config

    overrides = {
        "search.grid": _parse_grid(grid),
        "search.num_random": num_random,
        "backbone.name": backbone,
        "bottlenecks.cut": cut,
        "views.num_augmented": views,
        "head.epochs": epochs,
        "dataset.exclude": exclude,
    }
    wanted = build_config(SweepConfig, images, config, tuple(settings or ()), overrides)

    def show(console: Console, summary: Any) -> None:
        print_heads(console, summary)
        show_run(console, summary)

    run_and_show("sweep", wanted, show, store, out, record, as_json, overwrite)


def _parse_grid(options: list[str] | None) -> dict[str, Any] | None:
    from headstart.config.loading import parse_value
    from headstart.errors import ConfigError

    grid: dict[str, Any] = {}
    for option in options or ():
        name, sign, text = option.partition("=")
        if not sign or not name.strip() or not text.strip():
            raise ConfigError(
                "--grid expects head.field=values",
                repr(option),
                "for instance --grid head.learning_rate=1e-3,1e-2",
            )
        if ".." in text:
            grid[name.strip()] = text.strip()
            continue
        listed = text.strip().startswith("[")
        parts = [text] if listed else text.split(",")
        values = [parse_value(option, part) for part in parts]
        grid[name.strip()] = values[0] if listed else values
    return grid or None


def print_heads(console: Console, summary: Any) -> None:
    """Print the best heads of a sweep."""
    from headstart.tasks.evaluation.report_content import percent
    from headstart.tasks.sweeping.page import best_first

    fields = list(summary.heads[0].settings)
    rows = []
    for line in best_first(summary.heads)[:NUM_SHOWN]:
        loss = "-" if line.loss is None else f"{line.loss:.4f}"
        figure = percent(line.accuracy) if line.metric == "accuracy" else line.figure_text
        figures = (loss, figure, f"{line.best_epoch} of {line.num_epochs}")
        told = (f"{one:.4g}" if isinstance(one, float) else str(one)
                for one in line.settings.values())  # fmt: skip
        rows.append((str(line.number), *told, *figures))
    titles = ("held-out loss", summary.heads[0].metric, "epoch")
    console.print()
    print_table(console, ("head", *fields, *titles), rows, titles)
    more = len(summary.heads) - NUM_SHOWN
    if more > 0:
        console.print(f"  and {more} more")
    for name, path in (("sweep", summary.sweep), ("config", summary.best_config)):
        console.print(f"  {name:<9} {path}", soft_wrap=True)

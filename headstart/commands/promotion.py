"""Commands about the models in use: retrain, promote, models."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headstart.commands.options import (
    AsJson,
    ConfigFile,
    ImagesOrConfigs,
    Out,
    Overwrite,
    Record,
    Settings,
    StoreFolder,
    in_store,
    open_store,
    print_json,
    run_and_show,
)
from headstart.errors import HeadstartError
from headstart.tables import print_table
from headstart.tasks.progress import plain_console

app = typer.Typer()

Name = Annotated[
    str | None, typer.Option("--name", help="Name of the model; the data set's name by default.")
]


@app.command(no_args_is_help=True)
def retrain(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    name: Name = None,
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Train again if the images have changed; promote the model if it is better."""
    from headstart.config import RetrainConfig, build_config

    overrides = {"promotion.name": name}
    chosen = build_config(RetrainConfig, images, config, tuple(settings or ()), overrides)

    def show(console: Console, summary: Any) -> None:
        if summary.in_use:
            told = f"in use: {summary.name}@current, {summary.in_use}"
            console.print(told, soft_wrap=True)

    run_and_show("retrain", chosen, show, store, out, record, as_json, overwrite)


@app.command()
def promote(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or of an earlier version.", show_default=False)
    ],
    name: Name = None,
    min_gain: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Minimum improvement: 0.01 is one percentage point of accuracy, or 1 % of an "
            "error.",
        ),
    ] = 0.0,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric to compare by: accuracy, mean_average_precision, f1_micro, mae, r2, …"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Promote without comparing.")
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Put a run's model into use if it beats the current one on the same held-out images."""
    folder = run.expanduser().absolute()

    def work() -> Any:
        from headstart.tasks.models.promotion import promote as promote_run
        from headstart.tasks.models.registry import check_run, default_name
        from headstart.tasks.runs.config_file import dataset_of

        check_run(folder)
        chosen = name or default_name(dataset_of(folder).images)
        return chosen, *promote_run(folder, chosen, min_gain=min_gain, force=force, metric=metric)

    chosen, version, reason = in_store(store, work)
    if as_json:
        fields = version.model_dump(mode="json") if version else None
        print_json({"name": chosen, "version": fields, "reason": reason})
    else:
        print(f"{chosen}@{version.number}: {reason}" if version else f"{chosen}: {reason}")
    if version is None:
        raise typer.Exit(code=HeadstartError.exit_code)


@app.command()
def models(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """List the promoted models; an arrow marks the version in use."""
    from headstart.tasks.models.registry import Registry

    entries = Registry(open_store(store)).entries()
    if as_json:
        print_json({name: entry.model_dump(mode="json") for name, entry in entries.items()})
        return
    rows = [
        (
            "→" if one.number == entry.current else "",
            f"{name}@{one.number}",
            f"{one.promoted.astimezone():%Y-%m-%d %H:%M}",
            f"{_figure(one.metric, one.accuracy, one.value)} {one.split or ''}",
            "forced" if one.forced else _figure(one.metric, one.accuracy_before, one.value_before),
        )
        for name, entry in entries.items()
        for one in entry.versions
    ]
    if not rows:
        print("no model has been promoted yet: `headstart promote RUN`")
        return
    judged = {one.metric for entry in entries.values() for one in entry.versions}
    heading = "Accuracy" if judged == {"accuracy"} else "Judged by"
    titles = ("", "Model", "Promoted", heading, "before")
    print_table(plain_console(), titles, rows, ("Promoted",), num_keys=2)
    for name, entry in entries.items():
        for one in entry.versions:
            print(f"{name}@{one.number} is of {one.run}")


def _figure(metric: str, accuracy: float | None, value: float | None) -> str:
    if metric != "accuracy":
        return "" if value is None else f"{metric} {value:.4g}"
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"

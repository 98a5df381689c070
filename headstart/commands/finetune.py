"""Commands that train more than a head: finetune, compare, transferability."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headstart.commands.options import (
    AsJson,
    BackboneName,
    ConfigFile,
    Epochs,
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

app = typer.Typer()


@app.command(no_args_is_help=True)
def finetune(
    images: Annotated[
        Path | None,
        typer.Argument(
            help="A folder of images as for `train`, or the folder of a finished run, whose head "
            "is trained further; by default what the --config file names.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    views: NumViews = None,
    rungs: Annotated[
        int | None,
        typer.Option(help="Number of rungs trained from the cache; each unfreezes one more block."),
    ] = None,
    end_to_end: Annotated[
        bool | None,
        typer.Option(help="Train the whole network as the last rung; by default, only on a GPU."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Maximum number of epochs of each rung.")
    ] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Unfreeze the backbone from the top, one block (a rung) at a time, as long as it helps."""
    from headstart.config import FinetuneConfig, build_config

    images, config = _run_or_images(images, config)
    overrides = {
        "backbone.name": backbone,
        "views.num_augmented": views,
        "ladder.num_rungs": rungs,
        "ladder.end_to_end": None if end_to_end is None else ("always" if end_to_end else "never"),
        "tuning.epochs": epochs,
    }
    wanted = build_config(FinetuneConfig, images, config, tuple(settings or ()), overrides)

    def show(console: Console, summary: Any) -> None:
        _print_rungs(console, summary)
        show_run(console, summary)

    run_and_show("finetune", wanted, show, store, out, record, as_json, overwrite)


def _run_or_images(images: Path | None, config: Path | None) -> tuple[Path | None, Path | None]:
    """Tell the folder of a run, whose configuration is gone on from, from a folder of images."""
    if images is None or not (images / "run.json").is_file():
        return images, config
    from headstart.errors import ConfigError

    if config is not None:
        raise ConfigError(
            "a run and --config were both given: a run brings its own configuration",
            f"{images} and --config {config}",
            "leave --config out; --set changes single fields",
        )
    return None, images / "config.yaml"


def _print_rungs(console: Console, summary: Any) -> None:
    console.print()
    for rung in summary.rungs:
        line = f"  {rung.name:<22} {rung.figure:>8}  {rung.verdict}"
        console.print(line, soft_wrap=True)
    console.print(f"  {'rungs':<9} {summary.ladder}", soft_wrap=True)


Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="A seed to train with; repeatable; 0, 1 and 2 by default."),
]


@app.command(no_args_is_help=True)
def compare(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    inner_rates: Annotated[
        str | None,
        typer.Option(
            help="Sweep the learning rate of the last block instead: multiples of the head's, "
            "such as 0,0.01,0.1,1."
        ),
    ] = None,
    epochs: Epochs = None,
    seeds: Seeds = None,
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Compare training from scratch with training the last layer, last block or everything."""
    from headstart.config import CompareConfig, build_config

    overrides = {
        "backbone.name": backbone,
        "inner_rates": None if inner_rates is None else inner_rates.split(","),
        "tuning.epochs": epochs,
        "seeds": seeds or None,
    }
    wanted = build_config(CompareConfig, images, config, tuple(settings or ()), overrides)
    run_and_show("compare", wanted, _print_study, store, out, record, as_json, overwrite)


@app.command(no_args_is_help=True)
def transferability(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    cuts: Annotated[
        int | None, typer.Option(help="Number of cuts to try, spread over the backbone.")
    ] = None,
    finetuned: Annotated[
        bool | None, typer.Option(help="Also train the layers up to each cut, on views.")
    ] = None,
    epochs: Epochs = None,
    seeds: Seeds = None,
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy against the cut at which the backbone's features are frozen."""
    from headstart.config import TransferabilityConfig, build_config

    overrides = {
        "backbone.name": backbone,
        "num_cuts": cuts,
        "finetuned": finetuned,
        "tuning.epochs": epochs,
        "seeds": seeds or None,
    }
    wanted = build_config(TransferabilityConfig, images, config, tuple(settings or ()), overrides)
    run_and_show("transferability", wanted, _print_study, store, out, record, as_json, overwrite)


def _print_study(console: Console, summary: Any) -> None:
    console.print()
    for line in summary.metrics.values():
        interval = ""
        if line.interval is not None:
            low, high = line.interval
            interval = f" ({line.write(low)} to {line.write(high)})"
        text = (
            f"  {line.name:<24} {line.split} {line.told}{interval}, "
            f"{line.train_s:,.1f} s training, {line.once_s:,.1f} s preparation"
        )
        console.print(text, soft_wrap=True)
    for note in summary.notes:
        console.print(f"  {note}", soft_wrap=True)
    console.print(f"  report    {summary.report}", soft_wrap=True)
    console.print(f"  {summary.seconds:,.1f} s in all")

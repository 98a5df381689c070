"""Commands about a transfer run: train, demo, plan, why, config."""

from pathlib import Path
from typing import Annotated, Any

import typer

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
    Runner,
    Settings,
    StoreFolder,
    Workers,
    in_store,
    make_reporter,
    open_store,
    print_json,
    run_and_show,
    show_run,
)
from headstart.tasks.progress import plain_console

app = typer.Typer()
NUM_PROJECTED = 1000
"""What the projector shows fluently, and a sprite of 1,536 pixels a side."""

# So that `plan` and `why` take the line of a `train`, word for word.
NotProjected = Annotated[bool, typer.Option("--projector", hidden=True)]
NotWritten = Annotated[Path | None, typer.Option("--out", hidden=True)]
NotReplaced = Annotated[bool, typer.Option("--overwrite", hidden=True)]
NotInTime = Annotated[float | None, typer.Option("--budget-s", hidden=True)]
NotRecorded = Annotated[bool, typer.Option("--record", hidden=True)]


@app.command(no_args_is_help=True)
def train(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    cut: CutName = None,
    views: NumViews = None,
    epochs: Epochs = None,
    budget_s: Annotated[
        float | None,
        typer.Option(
            "--budget-s",
            help="Search for the best model within this many seconds: other heads, views and "
            "backbones, fine-tuning, averages.",
        ),
    ] = None,
    exclude: Exclude = None,
    runner: Runner = None,
    workers: Workers = None,
    projector: Annotated[
        bool,
        typer.Option(
            "--projector",
            metavar="",
            help="Write the bottlenecks of 1,000 images for TensorBoard's projector.",
        ),
    ] = False,
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Train, evaluate and export a classifier."""
    spread = {"spread.runner": runner, "spread.num_workers": workers}
    shown = {"show.num_projected": NUM_PROJECTED if projector else None}
    more = {**spread, **shown, "dataset.exclude": exclude, "budget.seconds": budget_s}
    run_config = _load(images, config, settings, backbone, cut, views, epochs, more)
    _run(run_config, store, out, record, as_json, overwrite)


@app.command()
def demo(
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Annotated[
        bool,
        typer.Option(help="Record the run; start a temporary Prefect server if none is running."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Run the whole flow on scikit-learn's handwritten digits, offline."""
    from headstart.demo import demo_config, write_digits

    folder = open_store(store).root / "demo" / "digits"
    make_reporter(as_json).note(f"digits of scikit-learn as PNG files in {folder}")
    _run(demo_config(write_digits(folder)), store, out, record, as_json, overwrite)


@app.command(no_args_is_help=True)
def plan(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    cut: CutName = None,
    views: NumViews = None,
    epochs: Epochs = None,
    exclude: Exclude = None,
    runner: Runner = None,
    workers: Workers = None,
    budget_s: NotInTime = None,
    projector: NotProjected = False,
    out: NotWritten = None,
    overwrite: NotReplaced = False,
    store: StoreFolder = None,
    record: NotRecorded = False,
    as_json: AsJson = False,
) -> None:
    """Show what `train` would compute, how much it would write and how long it would take."""
    spread = {"spread.runner": runner, "spread.num_workers": workers}
    more = {**spread, "dataset.exclude": exclude, "budget.seconds": budget_s}
    run_config = _load(images, config, settings, backbone, cut, views, epochs, more)

    def work() -> Any:
        from headstart.tasks.preview.plan import plan

        return plan(run_config)

    made = in_store(store, work, computes=False)
    if as_json:
        print_json(made.to_dict())
    else:
        from headstart.printing import print_plan

        print_plan(plain_console(), made)
        _tell_of_budget(run_config)
    if not made.fits:
        raise typer.Exit(code=4)


@app.command(no_args_is_help=True)
def why(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    cut: CutName = None,
    views: NumViews = None,
    epochs: Epochs = None,
    exclude: Exclude = None,
    runner: Runner = None,
    workers: Workers = None,
    budget_s: NotInTime = None,
    projector: NotProjected = False,
    out: NotWritten = None,
    overwrite: NotReplaced = False,
    store: StoreFolder = None,
    record: NotRecorded = False,
    as_json: AsJson = False,
) -> None:
    """Show for each stage of `train` whether it would be a hit, and if not, what changed."""
    spread = {"spread.runner": runner, "spread.num_workers": workers}
    more = {**spread, "dataset.exclude": exclude, "budget.seconds": budget_s}
    run_config = _load(images, config, settings, backbone, cut, views, epochs, more)

    def work() -> Any:
        from headstart.tasks.preview.why import explain_misses

        return explain_misses(run_config)

    reasons = in_store(store, work, computes=False)
    if as_json:
        print_json({"stages": [reason.to_dict() for reason in reasons]})
    else:
        from headstart.printing import print_reasons

        print_reasons(plain_console(), reasons)
        _tell_of_budget(run_config)


@app.command()
def config(
    command: Annotated[
        str,
        typer.Argument(help="Command to print the configuration of: train, scratch, finetune, …"),
    ] = "train",
) -> None:
    """Print a configuration file with every field at its default, and what each means."""
    from headstart.config.loading import CONFIG_OF
    from headstart.config.template import template
    from headstart.errors import ConfigError

    if command not in CONFIG_OF:
        problem = (
            f"this command has no configuration; those that have one are {', '.join(CONFIG_OF)}"
        )
        raise ConfigError(problem, repr(command), "for instance `headstart config scratch`")
    print(template(command), end="")


def _tell_of_budget(config: Any) -> None:
    if config.budget.seconds is not None:
        told = (
            "this is the plan without the budget: `train` decides what to try once it has "
            "measured its speed"
        )
        plain_console().print(told)


def _load(
    images: Path | None,
    file: Path | None,
    settings: list[str] | None,
    backbone: str | None,
    cut: str | None,
    views: int | None,
    epochs: int | None,
    more: dict[str, Any] | None = None,
) -> Any:
    from headstart.config import load_config

    overrides = {
        "backbone.name": backbone,
        "bottlenecks.cut": cut,
        "views.num_augmented": views,
        "head.epochs": epochs,
        **(more or {}),
    }
    return load_config(images, file, tuple(settings or ()), overrides)


def _run(
    config: Any, store: Path | None, out: Path | None, record: bool, as_json: bool, overwrite: bool
) -> None:
    run_and_show("transfer", config, show_run, store, out, record, as_json, overwrite)

"""Commands about training from scratch, and about learning rates: scratch, lr-find."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from headstart.commands.options import (
    AsJson,
    ConfigFile,
    Out,
    Overwrite,
    Record,
    Settings,
    StoreFolder,
    in_store,
    print_json,
    run_and_show,
    show_run,
)
from headstart.tasks.progress import plain_console

app = typer.Typer()

DataSet = Annotated[
    str | None,
    typer.Argument(
        help="fashion-mnist, mnist, cifar10 or cifar100; a folder of images with one sub-folder "
        "per class; a folder with IDX or binary CIFAR files; or a manifest; by default what the "
        "--config file names.",
        show_default=False,
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with a copy of the named data set's files."),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget-s", help="Time budget in seconds; determines the number of epochs and the width."
    ),
]
Width = Annotated[
    str | None,
    typer.Option("--width", help="Factor that the channels of ResNet9 are multiplied by, or auto."),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick", metavar="", help="Train a narrow network for 70 s; two minutes in all."
    ),
]


@app.command(no_args_is_help=True)
def scratch(
    data_set: DataSet = None,
    data: DataFolder = None,
    config: ConfigFile = None,
    settings: Settings = None,
    quick: Quick = False,
    budget_s: Budget = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Number of epochs.")] = None,
    width: Width = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", metavar="", help="Only show what would be written and whether it fits."
        ),
    ] = False,
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Train a network from scratch, on augmented views computed before training starts."""
    run_config = _load(data_set, data, config, settings, quick, budget_s, epochs, width)
    if plan:
        _plan(run_config, store, as_json)
        return
    run_and_show("scratch", run_config, show_run, store, out, record, as_json, overwrite)


@app.command("lr-find", no_args_is_help=True)
def lr_find(
    data_set: DataSet = None,
    command: Annotated[
        Literal["train", "finetune", "scratch"],
        typer.Option("--for", help="Command to suggest a learning rate for."),
    ] = "scratch",
    data: DataFolder = None,
    config: ConfigFile = None,
    settings: Settings = None,
    steps: Annotated[
        int,
        typer.Option(
            "--steps", min=10, max=10_000, help="Number of training steps of the range test."
        ),
    ] = 100,
    width: Width = None,
    out: Out = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Suggest a learning rate: raise it gradually until the loss diverges.

    For `train` and `finetune`, it uses their settings, on cached bottlenecks.
    """
    run_config = (
        _load(data_set, data, config, settings, False, None, None, width)
        if command == "scratch"
        else _load_transfer(command, data_set, data, config, settings, width)
    )

    def work() -> Any:
        from headstart.flows.lr_find import find_learning_rate
        from headstart.tasks.head.lr_range import holds_curve
        from headstart.tasks.runs.run_folder import make_result_folder
        from headstart.tasks.store.artifacts import current_store

        title = f"{Path(run_config.dataset.images).resolve().name}-lr-find"
        folder = make_result_folder(current_store(), title, out, holds_curve)
        return find_learning_rate(run_config, steps, folder)

    found = in_store(store, work)
    if as_json:
        print_json(found)
        return
    console = plain_console()
    suggested = f"--set {found['setting']}={found['suggested']:g}"
    console.print(f"suggested: {found['suggested']:g}   {suggested}")
    if not found["broke_away"]:
        console.print("the loss never diverged: a higher rate may work as well")
    for name in ("picture", "run_dir"):
        text = f"{name:<9} {found[name]}"
        console.print(text, soft_wrap=True)


def _load_transfer(
    command: str,
    images: str | None,
    data: Path | None,
    file: Path | None,
    settings: list[str] | None,
    width: str | None,
) -> Any:
    from headstart.config import FinetuneConfig, TransferConfig, build_config
    from headstart.errors import ConfigError

    if data is not None or width is not None:
        raise ConfigError(
            "--data and --width only apply to training from scratch",
            f"--for {command}",
            "leave them out",
        )
    model = FinetuneConfig if command == "finetune" else TransferConfig
    return build_config(model, images, file, settings or ())


def _load(
    data_set: str | None,
    data: Path | None,
    file: Path | None,
    settings: list[str] | None,
    quick: bool,
    budget_s: float | None,
    epochs: int | None,
    width: str | None,
) -> Any:
    from headstart.config import ScratchConfig, build_config

    if budget_s is not None and epochs is not None:
        from headstart.errors import ConfigError

        raise ConfigError(
            "--budget-s and --epochs exclude each other: training ends by time or by epochs",
            "--budget-s and --epochs",
        )
    preset = _quick_settings(data_set, file, settings) if quick else ()
    if epochs is not None:  # over a budget of --quick, or of the file
        settings = [*(settings or ()), "training.budget_s=null"]
    overrides = {
        "dataset.data": data,
        "training.budget_s": budget_s,
        "training.epochs": epochs,
        "network.width": width,
    }
    return build_config(ScratchConfig, data_set, file, (*preset, *(settings or ())), overrides)


def _quick_settings(
    data_set: str | None, file: Path | None, settings: list[str] | None
) -> tuple[str, ...]:
    """Return what --quick sets, but for the sizes of a ResNet9 where another network is asked for.

    Raises:
        ConfigError: The configuration is wrong whatever --quick sets.
    """
    from headstart.config import ScratchConfig, build_config
    from headstart.config.scratch import QUICK

    preset = tuple(f"{name}={value}" for name, value in QUICK.items())
    # With a width that every network has.
    asked = (*preset, *(settings or ()), "network.width=1.0")
    if build_config(ScratchConfig, data_set, file, asked).network.name == "resnet9":
        return preset
    return tuple(each for each in preset if not each.startswith("network."))


def _plan(config: Any, store: Path | None, as_json: bool) -> None:
    def work() -> Any:
        from headstart.tasks.scratch.planning import plan_scratch

        return plan_scratch(config)

    made = in_store(store, work)
    if as_json:
        print_json(made._asdict())
    else:
        for line in made.lines():
            plain_console().print(line, soft_wrap=True)
    if not made.fits:
        raise typer.Exit(code=4)

"""Arguments and options that several commands share, and what they all do with them."""

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headstart.tasks.progress import plain_console

_IMAGES = (
    "A folder with one sub-folder per class (train/, val/, test/ are respected), or a CSV or "
    "Parquet manifest with the columns path, label and, if wanted, split"
)
Images = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGES",
        help=f"{_IMAGES}.",
        show_default=False,
    ),
]
ImagesOrConfigs = Annotated[
    Path | None,
    typer.Argument(
        metavar="[IMAGES]",
        help=f"{_IMAGES}; by default what the --config file names.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="A YAML file; `headstart config COMMAND` prints one to start from."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set one field, for instance head.kind=mlp; repeatable."),
]
BackboneName = Annotated[
    str | None,
    typer.Option("--backbone", help="A name from `headstart backbones`, or a model file."),
]
CutName = Annotated[
    str | None,
    typer.Option(
        "--cut",
        help="The cut: the layer whose outputs (bottlenecks) are cached; one of `headstart cuts`, "
        "or top.",
    ),
]
NumViews = Annotated[
    int | None,
    typer.Option("--views", help="Number of augmented views of each image, besides the plain one."),
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Maximum number of epochs.")]
Exclude = Annotated[
    Path | None,
    typer.Option(
        "--exclude", help="A list of images to leave out, as written by `headstart audit`."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="PATH",
        help="Folder for the results; a new one in the store by default.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Replace the finished run that --out holds.")
]
StoreFolder = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="PATH",
        help="Folder of the store that keeps what was computed, or an s3:// or gs:// address.",
        envvar="HEADSTART_STORE",
    ),
]
Runner = Annotated[
    str | None,
    typer.Option(
        "--runner",
        help="What computes views and bottlenecks: inline, thread, process, dask, ray, "
        "dask://HOST:PORT or ray://HOST:PORT.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", help="Number of workers to start on this machine; one per core by default."
    ),
]
Record = Annotated[
    bool,
    typer.Option(
        "--record",
        metavar="",
        help="Record the run; start a temporary Prefect server if none is running.",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", metavar="", help="Print one JSON object on stdout, and everything else on stderr."
    ),
]


def run_recorded_or_plain(
    name: str,
    config: Any,
    store: Path | None,
    out: Path | None,
    record: bool,
    as_json: bool,
    overwrite: bool = False,
) -> Any:
    """Run a flow as its command does: recorded where there is a server, told how to go on if not.

    The arguments are those of `run_and_show`.

    Raises:
        ConfigError: `out` holds a finished run, which nobody said may be replaced.
        typer.Exit: With code 130 on Ctrl-C.
    """
    from headstart.launch import refuse_overwriting, run_flow

    if not overwrite:
        refuse_overwriting(out)
    try:
        return run_flow(name, config, store, out, record, make_reporter(as_json))
    except KeyboardInterrupt as interrupt:
        # Let go of input pipelines while their threads can still end: one that is destroyed when
        # the interpreter shuts down may wait for ever for a thread that waits for the interpreter.
        traceback.clear_frames(interrupt.__traceback__)
        told = "interrupted; run the same command again to continue from what is finished"
        plain_console(stderr=True).print(told)
        raise typer.Exit(code=130) from None


def run_and_show(
    name: str,
    config: Any,
    show: Callable[[Console, Any], None],
    store: Path | None,
    out: Path | None,
    record: bool,
    as_json: bool,
    overwrite: bool = False,
) -> None:
    """Run a flow, and print its summary: as one JSON object, or for a person.

    Args:
        name: Looked up as the function ``headstart.flows.<name>.<name>``.
        config: Of the type that this flow takes.
        show: Prints the summary for a person.
        store: Folder of the store; the default one where None.
        out: Folder for the results; one under the store where None.
        record: Start a temporary server where none is reachable.
        as_json: Print the JSON object.
        overwrite: Replace a finished run in `out`.
    """
    summary = run_recorded_or_plain(name, config, store, out, record, as_json, overwrite)
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        show(plain_console(), summary)


def show_run(console: Console, summary: Any) -> None:
    """Print the summary of a run that trains a network."""
    from headstart.printing import print_summary

    print_summary(console, summary)


def in_store(store: Path | None, work: Callable[[], Any], *, computes: bool = True) -> Any:
    """Do work in a store, with nothing shown on the way but progress.

    Args:
        store: Folder of the store; the default one where None.
        work: Called without arguments while the store is open.
        computes: Whether it needs TensorFlow whatever it finds.
    """
    from headstart.tasks.progress import Reporter, use_reporter
    from headstart.tasks.running.tensorflow import import_tensorflow
    from headstart.tasks.store.artifacts import use_store

    if computes:
        import_tensorflow()
    # The answer names the stages itself; only progress is shown on the way to it.
    quiet = Reporter(plain_console(stderr=True), stage_lines=False)
    with use_store(open_store(store)), use_reporter(quiet):
        return work()


def open_store(folder: Path | None) -> Any:
    """Open the store of an option, or the default one."""
    from headstart.tasks.store import remote_store

    return remote_store.open_store(folder)


def make_reporter(as_json: bool) -> Any:
    """Make what shows progress: on stderr where stdout is for a JSON object."""
    from headstart.tasks.progress import Reporter

    return Reporter(plain_console(stderr=as_json))


def print_json(value: Any) -> None:
    """Write one JSON value to stdout."""
    print(json.dumps(value, indent=1))

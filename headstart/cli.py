"""The command line: arguments become a configuration, the configuration becomes a run.

TensorFlow, Prefect and the stages are imported inside the commands, so that ``--help`` and a
mistyped option answer at once.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headstart import __version__
from headstart.debug.cli import app as debug_app
from headstart.errors import ConfigError, HeadstartError

app = typer.Typer(
    help="A folder of images to a trained classifier; every run after the first is nearly free.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
cache_app = typer.Typer(help="Look after the store.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
app.add_typer(debug_app, name="debug")

Images = Annotated[
    Path,
    typer.Argument(
        help="A folder with one sub-folder a class (train/, val/, test/ are respected), or a CSV "
        "or Parquet manifest with the columns path, label and, if wanted, split.",
        show_default=False,
    ),
]
ImagesOrConfigs = Annotated[
    Path | None,
    typer.Argument(
        help="A folder with one sub-folder a class (train/, val/, test/ are respected), or a CSV "
        "or Parquet manifest with the columns path, label and, if wanted, split; the --config "
        "file's own where not given.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file; `headstart config` prints one with all fields."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.field=value, for instance head.kind=mlp; repeatable."),
]
BackboneName = Annotated[
    str | None,
    typer.Option("--backbone", help="A name from `headstart backbones`, or a model file."),
]
CutName = Annotated[
    str | None, typer.Option("--cut", help="A layer from `headstart cuts`, or top.")
]
NumViews = Annotated[
    int | None, typer.Option("--views", help="Augmented views an image, besides the plain one.")
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Most epochs trained.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the results.")]
StoreFolder = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of the store.", envvar="HEADSTART_STORE"),
]
Record = Annotated[
    bool, typer.Option("--record", help="Start a temporary Prefect server if none is running.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout; everything else on stderr.")
]


@app.command()
def train(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    cut: CutName = None,
    views: NumViews = None,
    epochs: Epochs = None,
    out: Out = None,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Train, evaluate and export a classifier."""
    run_config = _load(images, config, settings, backbone, cut, views, epochs)
    _run(run_config, store, out, record, as_json)


@app.command()
def demo(
    out: Out = None,
    store: StoreFolder = None,
    record: Annotated[
        bool, typer.Option(help="Record the run, with a temporary Prefect server if need be.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Run the whole flow on scikit-learn's handwritten digits, offline."""
    from headstart.demo import demo_config, write_digits
    from headstart.tasks.artifacts import Store, default_root

    folder = Store(store or default_root()).root / "demo" / "digits"
    _reporter(as_json).note(f"digits of scikit-learn as PNG files in {folder}")
    _run(demo_config(write_digits(folder)), store, out, record, as_json)


@app.command()
def plan(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    cut: CutName = None,
    views: NumViews = None,
    epochs: Epochs = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say what `train` would compute, write and take, without doing it."""
    run_config = _load(images, config, settings, backbone, cut, views, epochs)

    def work() -> Any:
        from headstart.tasks.planning import plan

        return plan(run_config)

    made = _in_store(store, work)
    if as_json:
        _print_json(made.to_dict())
    else:
        from headstart.printing import print_plan

        print_plan(Console(), made)
    if not made.fits:
        raise typer.Exit(code=4)


@app.command()
def why(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    cut: CutName = None,
    views: NumViews = None,
    epochs: Epochs = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say for each stage of `train` whether it would be a hit, and if not, what changed."""
    run_config = _load(images, config, settings, backbone, cut, views, epochs)

    def work() -> Any:
        from headstart.tasks.planning import explain

        return explain(run_config)

    answers = _in_store(store, work)
    if as_json:
        _print_json({"stages": [answer.to_dict() for answer in answers]})
    else:
        from headstart.printing import print_answers

        print_answers(Console(), answers)


@app.command()
def config() -> None:
    """Print a configuration file with every field at its default."""
    from headstart.printing import default_yaml

    print(default_yaml(), end="")


@app.command()
def backbones() -> None:
    """List the backbones that have a name."""
    from headstart.printing import print_backbones

    print_backbones(Console())


@app.command()
def cuts(
    backbone: Annotated[str, typer.Argument(help="A name or model file.")] = "efficientnet_lite0",
    image_size: Annotated[int | None, typer.Option(help="Side of a view in pixels.")] = None,
    as_json: AsJson = False,
) -> None:
    """List where a backbone can be cut, and what each cut costs and saves."""
    from headstart.config import BackboneConfig
    from headstart.launch import import_tensorflow
    from headstart.printing import cut_rows, print_cuts

    import_tensorflow()
    from headstart.tasks.backbones.backbone import load_backbone
    from headstart.tasks.backbones.table import BACKBONES

    # Shapes and FLOPs do not depend on the weights, and random ones are there offline; a file
    # brings its own.
    weights = "random" if backbone in BACKBONES else "pretrained"
    network = load_backbone(BackboneConfig(name=backbone, weights=weights), image_size)
    if as_json:
        _print_json({"backbone": network.name, "cuts": cut_rows(network)})
    else:
        print_cuts(Console(), network)


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(help="A run's folder, or an exported model.", show_default=False)
    ],
    images: Annotated[
        list[Path], typer.Argument(help="Image files and folders.", show_default=False)
    ],
    top_k: Annotated[int, typer.Option("--top", min=1, help="Classes an image.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
) -> None:
    """Classify images; a file that cannot be read is reported and skipped."""
    if as_json and as_csv:
        raise ConfigError("One output format is written.", "--json and --csv", "give one of them")
    from headstart.launch import import_tensorflow

    import_tensorflow()
    from headstart.tasks.export.predict import Predictor
    from headstart.tasks.export.prediction_output import OutputFormat, predict_to

    output: OutputFormat = "json" if as_json else "csv" if as_csv else "text"
    _, num_bad = predict_to(sys.stdout, Predictor.load(model), images, output, top_k)
    if num_bad:
        Console(stderr=True).print(f"{num_bad:,} files could not be read", highlight=False)


@app.command()
def evaluate(
    model: Annotated[
        Path, typer.Argument(help="A run's folder, or an exported model.", show_default=False)
    ],
    images: Images,
    as_json: AsJson = False,
) -> None:
    """Judge an exported model on labelled images."""
    from headstart.launch import import_tensorflow

    import_tensorflow()
    from headstart.tasks.export.judging import judge
    from headstart.tasks.progress import use_reporter

    with use_reporter(_reporter(as_json)):
        metrics = judge(model, images)
    if as_json:
        _print_json(metrics.model_dump(mode="json"))
    else:
        from headstart.printing import print_metrics

        print_metrics(Console(), metrics)


@cache_app.command("ls")
def cache_ls(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """List what the store holds, the largest first."""
    from headstart.printing import print_holdings
    from headstart.tasks.upkeep import list_holdings

    holdings = list_holdings(_store(store))
    if as_json:
        _print_json({"holdings": [holding.to_dict() for holding in holdings]})
    else:
        print_holdings(Console(), holdings)


@cache_app.command("du")
def cache_du(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """Say how many bytes each kind of artefact takes."""
    from headstart.printing import print_usage
    from headstart.tasks.upkeep import list_holdings, usage

    opened = _store(store)
    totals = usage(opened, list_holdings(opened))
    if as_json:
        _print_json({"store": str(opened.root), "bytes": totals})
    else:
        print_usage(Console(), opened.root, totals)


@cache_app.command("verify")
def cache_verify(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """Hash every file; damaged ones are set aside, and made again when they are needed."""
    from headstart.tasks.upkeep import verify

    verdict = verify(_store(store))
    if as_json:
        _print_json({"files": verdict.num_files, "damaged": list(verdict.damaged)})
    else:
        print(f"{verdict.num_files:,} files checked, {len(verdict.damaged):,} damaged")
        for path in verdict.damaged:
            print(f"  set aside: {path}")
    if verdict.damaged:
        raise typer.Exit(code=4)


@cache_app.command("gc")
def cache_gc(
    views: Annotated[
        bool, typer.Option("--views", help="Remove all views; bottlenecks do without them.")
    ] = False,
    unused_days: Annotated[
        float | None,
        typer.Option("--unused-days", min=0.0, help="Remove what no run used for so long."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StoreFolder = None,
) -> None:
    """Remove left-overs of killed runs and damaged files, and on request views or old artefacts."""
    from headstart.tasks.upkeep import collect_garbage

    removed = collect_garbage(_store(store), views=views, unused_days=unused_days, dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    for path, num_bytes in removed:
        print(f"  {num_bytes / 1e6:>10,.1f} MB  {path}")
    print(f"{sum(size for _, size in removed) / 1e6:,.1f} MB {verb}")


def main() -> None:
    """Run the command line; errors that headstart raises on purpose end without a traceback."""
    show_traceback = "--traceback" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--traceback"]
    if arguments == ["--version"]:
        print(f"headstart {__version__}")
        return
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        app(args=arguments)
    except HeadstartError as error:
        if show_traceback:
            raise
        _print_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `headstart predict … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _print_error(error: HeadstartError) -> None:
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
    console.print(error.expected, markup=False, highlight=False)
    for title, text in (("received", error.received), ("next", error.next_step)):
        if text:
            console.print(f"  [bold]{title}[/]: ", end="")
            console.print(text, markup=False, highlight=False)


def _load(
    images: Path | None,
    file: Path | None,
    settings: list[str] | None,
    backbone: str | None,
    cut: str | None,
    views: int | None,
    epochs: int | None,
) -> Any:
    from headstart.config import load_config

    overrides = {
        "backbone.name": backbone,
        "bottlenecks.cut": cut,
        "views.num_augmented": views,
        "head.epochs": epochs,
    }
    return load_config(images, file, tuple(settings or ()), overrides)


def _run(config: Any, store: Path | None, out: Path | None, record: bool, as_json: bool) -> None:
    from headstart.launch import run_transfer
    from headstart.printing import print_summary

    try:
        summary = run_transfer(config, store, out, record, _reporter(as_json))
    except KeyboardInterrupt as interrupt:
        # Let go of input pipelines while their threads can still end: one that is destroyed when
        # the interpreter shuts down may wait for ever for a thread that waits for the interpreter.
        traceback.clear_frames(interrupt.__traceback__)
        Console(stderr=True).print("interrupted; the same command goes on from what is finished")
        raise typer.Exit(code=130) from None
    if as_json:
        _print_json(summary.model_dump(mode="json"))
    else:
        print_summary(Console(), summary)


def _in_store(store: Path | None, work: Callable[[], Any]) -> Any:
    from headstart.launch import import_tensorflow
    from headstart.tasks.artifacts import use_store
    from headstart.tasks.progress import Reporter, use_reporter

    import_tensorflow()
    # The answer names the stages itself; only progress is shown on the way to it.
    quiet = Reporter(Console(stderr=True), stage_lines=False)
    with use_store(_store(store)), use_reporter(quiet):
        return work()


def _store(folder: Path | None) -> Any:
    from headstart.tasks.artifacts import Store, default_root

    return Store(folder or default_root())


def _reporter(as_json: bool) -> Any:
    from headstart.tasks.progress import Reporter

    return Reporter(Console(stderr=as_json))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


if __name__ == "__main__":
    main()

"""Commands about networks: backbones and cuts before training, predict and evaluate after it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart.commands.options import (
    AsJson,
    Images,
    Settings,
    StoreFolder,
    make_reporter,
    open_store,
    print_json,
)
from headstart.errors import ConfigError
from headstart.tasks.progress import plain_console

app = typer.Typer()

Model = Annotated[
    Path,
    typer.Argument(
        help="A run's folder, an exported model, or NAME@current of `headstart models`.",
        show_default=False,
    ),
]


@app.command()
def backbones() -> None:
    """List the backbones that can be used by name."""
    from headstart.printing import print_backbones

    print_backbones(plain_console())


@app.command()
def cuts(
    backbone: Annotated[
        str, typer.Argument(help="A name from `headstart backbones`, or a model file.")
    ] = "efficientnet_lite0",
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Width and height of the images in pixels; the backbone's own by default."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List where a backbone can be cut, and what each cut costs and saves.

    A cut is a layer that all paths from input to output pass through. What the layers up to it
    compute for an image is its bottleneck: computed once, cached, and trained from.
    """
    from headstart.config import BackboneConfig
    from headstart.printing import cut_rows, print_cuts
    from headstart.tasks.running.tensorflow import import_tensorflow

    import_tensorflow()
    from headstart.tasks.backbones.backbone import load_backbone
    from headstart.tasks.backbones.table import BACKBONES

    # Shapes and FLOPs do not depend on the weights, and random ones are there offline; a file
    # brings its own.
    weights = "random" if backbone in BACKBONES else "pretrained"
    network = load_backbone(BackboneConfig(name=backbone, weights=weights), image_size)
    if as_json:
        print_json({"backbone": network.name, "cuts": cut_rows(network)})
    else:
        print_cuts(plain_console(), network)


@app.command()
def predict(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(help="Image files and folders.", show_default=False)
    ],
    top_k: Annotated[
        int, typer.Option("--top", min=1, help="Number of classes to show for each image.")
    ] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON object per line.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", metavar="", help="Print CSV with a header.")
    ] = False,
    store: StoreFolder = None,
) -> None:
    """Classify images; a file that cannot be read is reported and skipped."""
    if as_json and as_csv:
        raise ConfigError(
            "--json and --csv exclude each other", "--json and --csv", "give one of them"
        )
    found = _find_model(model, store)
    _import_engine(found)
    from headstart.tasks.export.predict import Predictor
    from headstart.tasks.export.prediction_output import OutputFormat, predict_to

    output: OutputFormat = "json" if as_json else "csv" if as_csv else "text"
    _, num_bad = predict_to(sys.stdout, Predictor.load(found), images, output, top_k)
    if num_bad:
        plain_console(stderr=True).print(f"{num_bad:,} files could not be read")


@app.command()
def evaluate(
    model: Model,
    images: Images,
    settings: Settings = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate an exported model on labelled images.

    A manifest is read by the columns that the model was trained on; --set dataset.FIELD=VALUE
    changes how images are read.
    """
    found = _find_model(model, store)
    _import_engine(found)
    from headstart.tasks.export.judging import judge
    from headstart.tasks.progress import use_reporter

    with use_reporter(make_reporter(as_json)):
        judged = judge(found, images, settings or ())
    if as_json:
        groups = {name: one.model_dump(mode="json") for name, one in judged.groups.items()}
        fields = judged.metrics.model_dump(mode="json")
        listed = [problem.to_dict() for problem in judged.problems]
        print_json({**fields, "judged_on": judged.name, "groups": groups, "left_out": listed})
    else:
        from headstart.printing import print_judgement

        print_judgement(plain_console(), judged)


@app.command()
def bench(
    run: Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)],
    images: Annotated[
        int, typer.Option(min=1, help="Maximum number of held-out images to measure accuracy on.")
    ] = 200,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Seconds to measure each file for, per batch size.")
    ] = 2.0,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="SVG file to write; by default bench.svg in the run."),
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Measure each exported file of a run in each engine, and say what to deploy."""
    from headstart.tasks.benching.bench import bench as measure
    from headstart.tasks.benching.plot import write_plot
    from headstart.tasks.progress import use_reporter

    found = _find_model(run, store)
    with use_reporter(make_reporter(as_json)):
        made = measure(found, images, seconds)
    path = plot or found / "bench.svg"
    write_plot(path, made)
    made = made.model_copy(update={"plot": str(path)})
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        from headstart.printing import print_bench

        print_bench(plain_console(), made)


def _import_engine(model: Path) -> None:
    """Import TensorFlow quietly, if it is what computes the model."""
    from headstart.tasks.export.runtimes import needs_tensorflow

    if needs_tensorflow(model):
        from headstart.tasks.running.tensorflow import import_tensorflow

        import_tensorflow()


def _find_model(model: Path, store: Path | None) -> Path:
    """Return the path itself where there is such a file, else what the store's registry says."""
    from headstart.tasks.models.registry import Registry

    if model.exists():
        return model
    return Registry(open_store(store)).resolve(str(model)) or model

"""headstart from Python: ``run = headstart.train("images/"); run.predict("x.jpg")``."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.config import (
    AuditConfig,
    CompareConfig,
    Config,
    FinetuneConfig,
    RankConfig,
    ScratchConfig,
    SweepConfig,
    TransferConfig,
    build_config,
)
from headstart.errors import ConfigError
from headstart.live_block import make_reporter
from headstart.results import Bottlenecks, Run, SplitBottlenecks
from headstart.tasks.progress import use_reporter


def train(
    images: str | Path | None = None,
    *,
    backbone: str | Path | None = None,
    cut: str | None = None,
    views: int | None = None,
    epochs: int | None = None,
    budget_s: float | None = None,
    config: TransferConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
    out: str | Path | None = None,
    record: bool = False,
    overwrite: bool = False,
) -> Run:
    """Train a classifier on a folder of images.

    Args:
        images: A folder with one sub-folder per class, or a CSV or Parquet manifest.
        backbone: A name from `headstart backbones`, or a model file.
        cut: The layer whose outputs are cached and trained from.
        views: Number of augmented views of each image, besides the plain one.
        epochs: Maximum number of epochs.
        budget_s: Search for the best model within this many seconds; ``.tried`` lists what was
            tried.
        config: A YAML file, or a configuration made in Python; all other arguments override it.
        settings: "section.field=value" strings, or one, as ``--set`` takes them.
        store: Folder of the store; the default one where not given.
        out: Folder for the results; a new one under the store where not given.
        record: Record the run with a temporary Prefect server where none is reachable.
        overwrite: Replace a finished run that `out` holds.

    Returns:
        The finished run.

    Raises:
        HeadstartError: The configuration, the images or the training are not usable; the
            message says what to do.
    """
    named = {
        "backbone.name": backbone,
        "bottlenecks.cut": cut,
        "views.num_augmented": views,
        "head.epochs": epochs,
        "budget.seconds": budget_s,
    }
    made = _configure(TransferConfig, images, config, settings, named)
    return _run_of(_flow("transfer", made, store, out, record, overwrite))


def sweep(
    images: str | Path | None = None,
    *,
    grid: Mapping[str, Sequence[Any] | str] | None = None,
    num_random: int | None = None,
    backbone: str | Path | None = None,
    cut: str | None = None,
    views: int | None = None,
    epochs: int | None = None,
    config: SweepConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
    out: str | Path | None = None,
    record: bool = False,
    overwrite: bool = False,
) -> Run:
    """Train many heads at once, and export the best; its page is ``run_dir / "sweep.html"``.

    Args:
        images: A folder with one sub-folder per class, or a CSV or Parquet manifest.
        grid: Fields of the head, each with its values, or a range: ``{"head.dropout": [0, 0.3],
            "head.learning_rate": "1e-4..1e-1"}``.
        num_random: Train this many random heads of the grid, instead of all.
        backbone: A name from `headstart backbones`, or a model file.
        cut: The layer whose outputs are cached and trained from.
        views: Number of augmented views of each image, besides the plain one.
        epochs: Maximum number of epochs of each head.
        config: A YAML file, or a configuration made in Python; all other arguments override it.
        settings: "section.field=value" strings, or one, as ``--set`` takes them.
        store: Folder of the store; the default one where not given.
        out: Folder for the results; a new one under the store where not given.
        record: Record the run with a temporary Prefect server where none is reachable.
        overwrite: Replace a finished run that `out` holds.
    """
    named = {
        "search.grid": grid,
        "search.num_random": num_random,
        "backbone.name": backbone,
        "bottlenecks.cut": cut,
        "views.num_augmented": views,
        "head.epochs": epochs,
    }
    made = _configure(SweepConfig, images, config, settings, named)
    return _run_of(_flow("sweep", made, store, out, record, overwrite))


def finetune(
    images: str | Path | None = None,
    *,
    backbone: str | Path | None = None,
    views: int | None = None,
    rungs: int | None = None,
    epochs: int | None = None,
    config: FinetuneConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
    out: str | Path | None = None,
    record: bool = False,
    overwrite: bool = False,
) -> Run:
    """Unfreeze the backbone from the top, rung by rung, as far as it helps.

    Args:
        images: A folder with one sub-folder per class, or a CSV or Parquet manifest.
        backbone: A name from `headstart backbones`, or a model file.
        views: Number of augmented views of each image, besides the plain one.
        rungs: Number of cached rungs below the head.
        epochs: Maximum number of epochs of each rung.
        config: A YAML file, or a configuration made in Python; all other arguments override it.
        settings: "section.field=value" strings, or one, as ``--set`` takes them.
        store: Folder of the store; the default one where not given.
        out: Folder for the results; a new one under the store where not given.
        record: Record the run with a temporary Prefect server where none is reachable.
        overwrite: Replace a finished run that `out` holds.
    """
    named = {
        "backbone.name": backbone,
        "views.num_augmented": views,
        "ladder.num_rungs": rungs,
        "tuning.epochs": epochs,
    }
    made = _configure(FinetuneConfig, images, config, settings, named)
    return _run_of(_flow("finetune", made, store, out, record, overwrite))


def scratch(
    images: str | Path | None = None,
    *,
    epochs: int | None = None,
    budget_s: float | None = None,
    config: ScratchConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
    out: str | Path | None = None,
    record: bool = False,
    overwrite: bool = False,
) -> Run:
    """Train a network from scratch, on augmented views computed before training starts.

    Args:
        images: fashion-mnist, mnist, cifar10, cifar100, or a folder.
        epochs: Passes over the training images.
        budget_s: Seconds that the training may take, instead of epochs.
        config: A YAML file, or a configuration made in Python; all other arguments override it.
        settings: "section.field=value" strings, or one, as ``--set`` takes them.
        store: Folder of the store; the default one where not given.
        out: Folder for the results; a new one under the store where not given.
        record: Record the run with a temporary Prefect server where none is reachable.
        overwrite: Replace a finished run that `out` holds.
    """
    named = {"training.epochs": epochs, "training.budget_s": budget_s}
    made = _configure(ScratchConfig, images, config, settings, named)
    return _run_of(_flow("scratch", made, store, out, record, overwrite))


def rank(
    images: str | Path | None = None,
    *,
    backbones: Sequence[str | Path] | None = None,
    cuts: Sequence[str] | None = None,
    config: RankConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
    out: str | Path | None = None,
) -> Any:
    """Rank backbones and cuts for some images; ``.metrics["candidates"]`` has the ranking."""
    named = {"candidates.backbones": backbones, "candidates.cuts": cuts}
    return _flow("rank", _configure(RankConfig, images, config, settings, named), store, out)


def audit(
    images: str | Path | None = None,
    *,
    backbone: str | Path | None = None,
    config: AuditConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
    out: str | Path | None = None,
) -> Any:
    """Find wrong labels, near-duplicates and odd images; ``.metrics["counts"]`` says how many."""
    named = {"backbone.name": backbone}
    return _flow("audit", _configure(AuditConfig, images, config, settings, named), store, out)


def compare(
    images: str | Path | None = None,
    *,
    backbone: str | Path | None = None,
    epochs: int | None = None,
    seeds: Sequence[int] | None = None,
    config: CompareConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
    out: str | Path | None = None,
) -> Any:
    """Train from scratch, last layer, last block and the whole network, and compare them."""
    named = {"backbone.name": backbone, "tuning.epochs": epochs, "seeds": seeds}
    return _flow("compare", _configure(CompareConfig, images, config, settings, named), store, out)


def evaluate(
    model: Run | str | Path, images: str | Path, settings: Iterable[str] | str = ()
) -> Any:
    """Judge an exported model on labelled images: ``.metrics.accuracy``, ``.groups``.

    The settings say how the images are read, such as ``dataset.label_column=class``.
    """
    from headstart.tasks.export.judging import judge
    from headstart.tasks.export.runtimes import needs_tensorflow

    if needs_tensorflow(_folder(model)):
        from headstart.tasks.running.tensorflow import import_tensorflow

        import_tensorflow()
    return judge(_folder(model), Path(images), settings)


def explain(
    model: Run | str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path = "explanation",
) -> Any:
    """Write a heatmap over each image that shows where the model looked, and list them."""
    from headstart.tasks.running.tensorflow import import_tensorflow

    import_tensorflow()
    from headstart.tasks.explanation.explain import explain_images
    from headstart.tasks.explanation.subject import load_subject

    listed = [images] if isinstance(images, str | Path) else images
    return explain_images(load_subject(_folder(model)), [Path(one) for one in listed], Path(out))


def bench(run: Run | str | Path, images: int = 200, seconds: float = 2.0) -> Any:
    """Measure each exported file of a run; ``.figures``, the fastest first, and ``.advice``."""
    from headstart.tasks.benching.bench import bench as measure

    return measure(_folder(run), images, seconds)


def search(
    images: str | Path,
    query: str | Path | Sequence[str | Path],
    k: int = 10,
    *,
    backbone: str | Path | None = None,
    cut: str | None = None,
    config: TransferConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
) -> Any:
    """Find the images of a collection that are most similar to a query.

    The collection is extracted once, and found by `train` too; a further query costs its own
    image alone.

    Args:
        images: The collection: a folder with one sub-folder per class, or a manifest.
        query: An image file, or several, or a folder of them.
        k: How many to find for each.
        backbone: A name from `headstart backbones`, or a model file.
        cut: The layer whose outputs are compared, by their cosine.
        config: A YAML file, or a configuration made in Python; all other arguments override it.
        settings: "section.field=value" strings, or one, as ``--set`` takes them.
        store: Folder of the store; the default one where not given.

    Returns:
        A list of hits (path, similarity, label), the most similar first; a dictionary of such
        lists by query where several were given.

    Raises:
        HeadstartError: A query or the collection cannot be read.
    """
    from headstart.tasks.running.tensorflow import import_tensorflow

    import_tensorflow()
    steps = importlib.import_module("headstart.flows.search")
    named = {"backbone.name": backbone, "bottlenecks.cut": cut}
    wanted = _configure(TransferConfig, images, config, settings, named)
    single = isinstance(query, str | Path) and not Path(query).is_dir()
    listed: list[Any] = []
    if isinstance(query, str | Path):
        listed = [query]
    elif isinstance(query, Sequence):
        listed = list(query)
    if not listed or not all(isinstance(one, str | Path) for one in listed):
        raise ConfigError(
            "a query is an image file or a folder of them",
            f"{type(query).__name__} {query!r:.40}",
            "give paths; for images in memory there is Run.embed",
        )
    if k < 1:
        raise ConfigError("at least one image must be asked for", f"k={k}")
    with use_reporter(make_reporter()):
        found = steps.run(wanted, [Path(one) for one in listed], k, Path(store) if store else None)
    return next(iter(found.values())) if single else found


def bottlenecks(
    images: str | Path | None = None,
    backbone: str | Path | None = None,
    cut: str | None = None,
    *,
    views: int | None = None,
    config: TransferConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
) -> Bottlenecks:
    """Compute the bottlenecks that are missing, and give all of them for a loop of your own.

    `train` with the same images, backbone and cut finds them, and the other way round.

    Args:
        images: A folder with one sub-folder per class, or a CSV or Parquet manifest.
        backbone: A name from `headstart backbones`, or a model file.
        cut: The layer whose outputs are the bottlenecks.
        views: Number of augmented views of each image, besides the plain one.
        config: A YAML file, or a configuration made in Python; all other arguments override it.
        settings: "section.field=value" strings, or one, as ``--set`` takes them.
        store: Folder of the store; the default one where not given.

    Returns:
        ``tf.data`` data sets and NumPy arrays by split.
    """
    from headstart.tasks.running.tensorflow import import_tensorflow

    import_tensorflow()
    from headstart.tasks.bottlenecks.features import Features
    from headstart.tasks.dataset.stage import stage as dataset_stage
    from headstart.tasks.running.stage import collect_outcomes, mending_damage
    from headstart.tasks.store.artifacts import use_store
    from headstart.tasks.store.remote_store import open_store

    steps = importlib.import_module("headstart.flows.dataset_to_bottlenecks")
    named = {"backbone.name": backbone, "bottlenecks.cut": cut, "views.num_augmented": views}
    wanted = _configure(TransferConfig, images, config, settings, named)

    def work() -> Bottlenecks:
        with collect_outcomes() as outcomes:
            dataset = dataset_stage(wanted.dataset)
            recipe = (wanted.views, wanted.backbone, wanted.bottlenecks)
            steps.make_bottlenecks(dataset, wanted.dataset, *recipe)
            rows = Features.of(dataset, wanted).open(("train", "val", "test"))
        splits = {str(name): SplitBottlenecks(each, each.labels) for name, each in rows.items()}
        stages = [outcome.model_dump(mode="json") for outcome in outcomes]
        return Bottlenecks(splits, list(dataset.class_names), stages)

    with use_store(open_store(Path(store) if store else None)), use_reporter(make_reporter()):
        return mending_damage(work)


def load(run_dir: str | Path) -> Run:
    """Open the folder of a finished run."""
    return Run.load(run_dir)


def _folder(model: Run | str | Path) -> Path:
    return model.run_dir if isinstance(model, Run) else Path(model)


def _configure(
    model: type[Any],
    images: str | Path | None,
    config: Any,
    settings: Iterable[str] | str,
    named: dict[str, Any],
) -> Any:
    made = config if isinstance(config, Config) else None
    file = Path(config) if config and made is None else None
    return build_config(model, images, file, settings, named, made)


def _flow(
    name: str,
    config: Config,
    store: str | Path | None,
    out: str | Path | None,
    record: bool = False,
    overwrite: bool = False,
) -> Any:
    from headstart.launch import refuse_overwriting, run_flow

    folder = Path(out) if out else None
    if not overwrite:
        refuse_overwriting(folder)
    return run_flow(name, config, Path(store) if store else None, folder, record, make_reporter())


def _run_of(summary: Any) -> Run:
    fields = summary.model_dump(mode="json")
    return Run(Path(summary.run_dir), fields["metrics"], fields["stages"], summary.seconds)

"""The stages of the pipeline and what each one's key is made of, in data order.

Every function here is thin: it opens what earlier stages made, calls the module that does the
work, and says what came out. What a stage's result depends on is all in its ``*_key`` function.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from headstart.config import (
    BackboneConfig,
    BottleneckConfig,
    DatasetConfig,
    EvaluationConfig,
    ExportConfig,
    HeadConfig,
    Split,
    ViewsConfig,
)
from headstart.errors import BackboneError
from headstart.tasks.artifacts import FileEntry, Manifest, Store, current_store
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import TOP
from headstart.tasks.bottlenecks.extraction import Target, freeze, run_pass
from headstart.tasks.bottlenecks.parity import Sample, check_parity
from headstart.tasks.bottlenecks.rows import (
    CutCollections,
    LabelledRows,
    augmented_rows,
    bottleneck_collections,
    labelled_rows,
    open_backbone,
    plain_rows,
    versions,
    wanted_rows,
)
from headstart.tasks.dataset.building import build_index, dataset_root
from headstart.tasks.dataset.file_cache import FileCache
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.evaluation.metrics import SplitMetrics, evaluate, top_losses
from headstart.tasks.export.joining import join
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.proof import prove
from headstart.tasks.export.writing import export_model
from headstart.tasks.fingerprint import digest
from headstart.tasks.head.training import predict_logits, train_head
from headstart.tasks.progress import reporter
from headstart.tasks.records import RowCollection, RowId, RowReader
from headstart.tasks.stage import Made, Stage
from headstart.tasks.views.writing import (
    ImageJob,
    ViewMaker,
    augmented_collection,
    augmented_recipe,
    plain_collection,
    plain_recipe,
    write_views,
)

JUDGED: tuple[Split, ...] = ("val", "test")
"""Splits that an evaluation reports on."""


class DatasetManifest(Manifest):
    """A data set that has been indexed; the index itself is a file of the artefact."""

    class_names: tuple[str, ...]
    images_digest: str
    labels_digest: str
    headline: str


class ViewsManifest(Manifest):
    """Views that lie in the store."""

    num_augmented: int


class BottlenecksManifest(Manifest):
    """Bottlenecks that lie in the store."""

    cuts: dict[str, tuple[int, ...]]
    """Activation shape of each cut, the head's own first."""
    parity: float
    """Largest difference that the parity gate found, as a share of a row's largest value."""


class HeadManifest(Manifest):
    """A trained head."""

    num_classes: int
    history: tuple[dict[str, float | int | None], ...]
    best_epoch: int
    stopped_early: bool
    has_val: bool


class EvaluationManifest(Manifest):
    """Figures of a trained head."""

    metrics: dict[str, Any]
    """By split; what `headstart.tasks.evaluation.metrics.SplitMetrics` holds."""
    top_losses: tuple[dict[str, Any], ...]


class ExportManifest(Manifest):
    """A joined model in the formats asked for."""

    formats: tuple[str, ...]
    largest_difference: float
    """Between the probabilities of the exported files and the pipeline's own."""


@lru_cache(maxsize=4)
def _read_index(path: Path) -> DatasetIndex:
    return DatasetIndex.from_json(path.read_text(encoding="utf-8"))


def index_of(dataset: DatasetManifest) -> DatasetIndex:
    """Read the index of a data set stage from the current store."""
    return _read_index(artefact(dataset, "index.json"))


def artefact(manifest: Manifest, name: str) -> Path:
    """Return the path of a file that a stage made, in the current store."""
    return current_store().artefact_path(manifest.stage, manifest.key) / name


def _index_dataset(folder: Path, config: DatasetConfig) -> Made:
    store = current_store()
    with (
        FileCache(store.root / "index" / "files.sqlite") as cache,
        reporter().track_to("reading images", "files") as on_progress,
    ):
        index = build_index(config, cache, on_progress)
    (folder / "index.json").write_text(index.to_json(), encoding="utf-8")
    return Made(
        num_rows=len(index.rows),
        num_rows_computed=index.num_decoded,
        fields={
            "key_fields": {
                "images": index.images_digest,
                "labels": index.labels_digest,
                "paths": digest([row.path for row in index.rows]),
                "problems": digest([list(problem) for problem in index.problems]),
            },
            "class_names": index.class_names,
            "images_digest": index.images_digest,
            "labels_digest": index.labels_digest,
            "headline": index.summary_lines()[0],
        },
    )


def _views_key(
    dataset: DatasetManifest, source: DatasetConfig, config: ViewsConfig, image_size: int
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "images": dataset.images_digest,
        "plain": plain_recipe(config, image_size),
    }
    if config.num_augmented:
        fields["num_augmented"] = config.num_augmented
        fields["augmented"] = augmented_recipe(config, image_size)
    return fields


def _write_views(
    folder: Path,
    dataset: DatasetManifest,
    source: DatasetConfig,
    config: ViewsConfig,
    image_size: int,
) -> Made:
    index, store = index_of(dataset), current_store()
    root = dataset_root(source)
    counts = write_views(index, root, config, image_size, store, source.max_pixels)
    return Made(
        num_rows=counts.num_rows,
        num_rows_computed=counts.num_rows_computed,
        shards=_shards_of(wanted_views(store, index, config, image_size)),
        fields={"num_augmented": config.num_augmented},
    )


def wanted_views(
    store: Store, index: DatasetIndex, config: ViewsConfig, image_size: int
) -> list[tuple[RowCollection, list[RowId]]]:
    """List the views that a data set needs, for each of their collections."""
    wanted = [(plain_collection(config, image_size, store), plain_rows(index.digests))]
    if config.num_augmented:
        collection = augmented_collection(config, image_size, store)
        wanted.append((collection, augmented_rows(index.digests, config.num_augmented)))
    return wanted


def _bottlenecks_key(
    dataset: DatasetManifest,
    source: DatasetConfig,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
) -> dict[str, Any]:
    network = open_backbone(backbone, views.image_size)
    names = [network.resolve_cut(name).name for name in (config.cut, *config.extra_cuts)]
    return {
        **_views_key(dataset, source, views, network.image_size),
        "cuts": {name: network.fingerprint(name) for name in names},
        "dtype": config.dtype,
        **versions(),
    }


def _extract_bottlenecks(
    folder: Path,
    dataset: DatasetManifest,
    source: DatasetConfig,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
) -> Made:
    network = open_backbone(backbone, views.image_size)
    index, store = index_of(dataset), current_store()
    cuts = bottleneck_collections(store, network, views, config)
    wanted = [
        pair for cut in cuts.values() for pair in wanted_rows(cut, index, views.num_augmented)
    ]
    with ExitStack() as locks:
        # In one order for all runs, so that no two can wait for each other.
        for collection in sorted((pair[0] for pair in wanted), key=lambda one: one.digest):
            locks.enter_context(collection.lock())
        missing = [(collection, collection.missing(rows)) for collection, rows in wanted]
        if any(rows for _, rows in missing):
            sources = _sources(store, views, network, list(cuts.values()), dict(missing))
            run_pass(freeze(network, list(cuts)), sources, config.batch_size)
        make_views = ViewMaker(views, network.image_size, source.max_pixels)
        files = {row.digest: dataset_root(source) / row.path for row in index.rows}
        parity = _check(files, make_views, network, config, wanted, cuts)
    return Made(
        num_rows=sum(len(rows) for _, rows in wanted),
        num_rows_computed=sum(len(rows) for _, rows in missing),
        shards=_shards_of(wanted),
        fields={"cuts": {name: cut.plain.shape for name, cut in cuts.items()}, "parity": parity},
    )


def _sources(
    store: Store,
    views: ViewsConfig,
    network: Backbone,
    cuts: Sequence[CutCollections],
    missing: Mapping[RowCollection, Sequence[RowId]],
) -> list[tuple[RowReader, list[Target]]]:
    """Pair the views that must go through the backbone with the cuts that lack them."""
    pixels = [plain_collection(views, network.image_size, store)]
    if views.num_augmented:
        pixels.append(augmented_collection(views, network.image_size, store))
    sources = []
    for number, collection in enumerate(pixels):
        targets = [
            Target(output, cut.collections[number], frozenset(missing[cut.collections[number]]))
            for output, cut in enumerate(cuts)
        ]
        rows = sorted(frozenset().union(*(target.rows for target in targets)))
        if rows:
            sources.append((collection.select(rows), targets))
    return sources


def _check(
    files: Mapping[str, Path],
    make_views: ViewMaker,
    network: Backbone,
    config: BottleneckConfig,
    wanted: Sequence[tuple[RowCollection, Sequence[RowId]]],
    cuts: Mapping[str, CutCollections],
) -> float:
    """Run the parity gate, and discard the rows if it fails.

    Rows are drawn from all that are wanted, not from those just computed alone: an earlier run
    may have been killed between its pass and its gate.
    """
    worst = 0.0
    rows_of = {collection.digest: rows for collection, rows in wanted}
    for number in range(len(next(iter(cuts.values())).collections)):
        collections = {name: cut.collections[number] for name, cut in cuts.items()}
        rows = rows_of[next(iter(collections.values())).digest]
        generator = np.random.default_rng(int(rows[0].image_digest[:16], 16))
        count = min(config.num_parity_rows, len(rows))
        chosen = [rows[position] for position in generator.choice(len(rows), count, replace=False)]
        jobs = [ImageJob(files[row.image_digest], row.image_digest, (row.view,)) for row in chosen]
        pixels = np.stack([make_views(job)[0] for job in jobs])
        try:
            worst = max(worst, check_parity(network, Sample(chosen, pixels), collections))
        except BackboneError:
            for collection in collections.values():
                collection.discard(rows)
            raise
    return worst


def _shards_of(wanted: Iterable[tuple[RowCollection, Iterable[RowId]]]) -> tuple[FileEntry, ...]:
    """List the shards that hold rows, so that a manifest vouches for them."""
    entries = []
    for collection, rows in wanted:
        needed = set(rows)
        entries += [
            shard.entry for shard in collection.shards() if not needed.isdisjoint(shard.row_ids)
        ]
    return tuple(entries)


def open_rows(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
    splits: Sequence[Split],
) -> Mapping[Split, LabelledRows]:
    """Open the bottlenecks that a head trains on or is judged by.

    Args:
        dataset: The indexed data set.
        views: How its images became pixels.
        backbone: That computed the bottlenecks.
        config: At which cut.
        splits: Which splits to open.

    Returns:
        The splits that have images.
    """
    network = open_backbone(backbone, views.image_size)
    cuts = bottleneck_collections(current_store(), network, views, config)
    return labelled_rows(next(iter(cuts.values())), index_of(dataset), views.num_augmented, splits)


def _head_key(
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: HeadConfig,
    log_dir: Path,
) -> dict[str, Any]:
    network = open_backbone(backbone, views.image_size)
    cuts = bottleneck_collections(current_store(), network, views, bottlenecks)
    cut = next(iter(cuts.values()))
    fields: dict[str, Any] = {
        "labels": dataset.labels_digest,
        "num_augmented": views.num_augmented,
        "bottlenecks": cut.plain.recipe,
        "augmented": cut.augmented.recipe if cut.augmented else None,
        "head": _settings_in_effect(config),
        **versions(),
    }
    if config.kind == "tail":
        fields["tail"] = network.fingerprint(TOP)
    return fields


def _settings_in_effect(config: HeadConfig) -> dict[str, Any]:
    """Leave out settings that the kind of head or optimizer does not read."""
    unused = set()
    if config.kind != "mlp":
        unused.add("hidden_units")
    if config.optimizer != "sgd":
        unused.add("momentum")
    return config.model_dump(mode="json", exclude=unused)


def _train_head(
    folder: Path,
    dataset: DatasetManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: HeadConfig,
    log_dir: Path,
) -> Made:
    rows = open_rows(dataset, views, backbone, bottlenecks, ("train", "val"))
    network = open_backbone(backbone, views.image_size)
    tail = network.tail(bottlenecks.cut) if config.kind == "tail" else None
    num_classes = len(dataset.class_names)
    trained = train_head(rows["train"], rows.get("val"), config, num_classes, tail, log_dir)
    trained.model.save(folder / "head.keras")
    shutil.copytree(log_dir, folder / "tensorboard")
    return Made(
        num_rows=len(rows["train"]),
        num_rows_computed=len(rows["train"]),
        fields={
            "num_classes": num_classes,
            "history": tuple(asdict(figures) for figures in trained.history),
            "best_epoch": trained.best_epoch,
            "stopped_early": trained.stopped_early,
            "has_val": "val" in rows,
        },
    )


def open_head(head: HeadManifest) -> keras.Model:
    """Load a trained head: float32 [n, *activation shape] -> logits [n, num_classes]."""
    return keras.models.load_model(artefact(head, "head.keras"), compile=False)


def _evaluation_key(
    dataset: DatasetManifest,
    head: HeadManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: EvaluationConfig,
) -> dict[str, Any]:
    # The top losses are shown with their paths, so a renamed file is another evaluation.
    return {"dataset": dataset.key, "head": head.key, "evaluation": config}


def _evaluate_head(
    folder: Path,
    dataset: DatasetManifest,
    head: HeadManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: EvaluationConfig,
) -> Made:
    index = index_of(dataset)
    rows = open_rows(dataset, views, backbone, bottlenecks, JUDGED)
    model = open_head(head)
    metrics: dict[str, SplitMetrics] = {}
    losses: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for split, of_split in rows.items():
        logits = predict_logits(model, of_split)
        metrics[split] = evaluate(logits, of_split.labels, dataset.class_names, config)
        paths = [row.path for row in index.rows_of(split)]
        losses += [
            {"path": paths[loss.position], "split": split, **loss.model_dump(mode="json")}
            for loss in top_losses(logits, of_split.labels, config)
        ]
        arrays |= {f"{split}_logits": logits, f"{split}_labels": of_split.labels}
    plain = {split: of_split.model_dump(mode="json") for split, of_split in metrics.items()}
    (folder / "metrics.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    np.savez(folder / "predictions.npz", **arrays)
    num_rows = sum(len(of_split) for of_split in rows.values())
    worst = sorted(losses, key=lambda loss: -float(loss["loss"]))[: config.num_top_losses]
    return Made(num_rows, num_rows, fields={"metrics": plain, "top_losses": tuple(worst)})


def _export_key(
    dataset: DatasetManifest,
    source: DatasetConfig,
    head: HeadManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: ExportConfig,
) -> dict[str, Any]:
    return {
        "head": head.key,
        "class_names": dataset.class_names,
        "resize": views.resize,
        "backbone": Path(backbone.name).name,  # written into the model's card
        "formats": sorted({"keras", *config.formats}),
        "num_proof_images": config.num_proof_images,
    }


def _export_model(
    folder: Path,
    dataset: DatasetManifest,
    source: DatasetConfig,
    head: HeadManifest,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: ExportConfig,
) -> Made:
    network = open_backbone(backbone, views.image_size)
    model = open_head(head)
    extractor = network.extractor([bottlenecks.cut])
    size, dtype = network.image_size, bottlenecks.dtype
    card = ModelCard(
        class_names=dataset.class_names,
        image_size=size,
        resize=views.resize,
        backbone=Path(network.name).name,  # not where on this machine a file lies
        cut=bottlenecks.cut,
        preprocessing=network.preprocessing.mode,
        storage_dtype=dtype,
    )
    joined = join(extractor, model, size, views.resize, dtype)
    export_model(joined, config.formats, folder, card)
    images, logits = _proof_images(dataset, source, model, views, backbone, bottlenecks, config)
    difference = prove(folder, card, images, logits, source.max_pixels)
    return Made(
        num_rows=len(images),
        num_rows_computed=len(images),
        fields={
            "formats": tuple(sorted({"keras", *config.formats})),
            "largest_difference": difference,
        },
    )


def _proof_images(
    dataset: DatasetManifest,
    source: DatasetConfig,
    model: keras.Model,
    views: ViewsConfig,
    backbone: BackboneConfig,
    bottlenecks: BottleneckConfig,
    config: ExportConfig,
) -> tuple[list[bytes], npt.NDArray[np.float32]]:
    """Pick images spread over the data set, and what the pipeline says of them."""
    index, root = index_of(dataset), dataset_root(source)
    count = min(config.num_proof_images, len(index.digests))
    picked = [index.digests[i] for i in np.linspace(0, len(index.digests) - 1, count, dtype=int)]
    files = {row.digest: root / row.path for row in index.rows}
    network = open_backbone(backbone, views.image_size)
    cut = next(iter(bottleneck_collections(current_store(), network, views, bottlenecks).values()))
    stored = cut.plain.select(plain_rows(picked)).gather(range(count))
    logits = np.asarray(model(stored.astype(np.float32), training=False))
    return [files[digest].read_bytes() for digest in picked], logits


def _describe_head(head: HeadManifest) -> str:
    best = head.history[head.best_epoch - 1]
    judged = f", val accuracy {best['val_accuracy']:.4f}" if head.has_val else ""
    return f"epoch {head.best_epoch} of {len(head.history)}{judged}"


def _describe_evaluation(evaluation: EvaluationManifest) -> str:
    return ", ".join(
        f"{split} accuracy {metrics['accuracy']:.4f}"
        for split, metrics in evaluation.metrics.items()
    )


def _describe_bottlenecks(bottlenecks: BottlenecksManifest) -> str:
    cuts = ", ".join(
        f"{name} {'x'.join(map(str, shape))}" for name, shape in bottlenecks.cuts.items()
    )
    return f"{bottlenecks.num_rows:,} rows at {cuts}"


dataset = Stage("dataset", 1, DatasetManifest, _index_dataset, describe=lambda made: made.headline)
views = Stage("views", 1, ViewsManifest, _write_views, _views_key)
bottlenecks = Stage(
    "bottlenecks",
    1,
    BottlenecksManifest,
    _extract_bottlenecks,
    _bottlenecks_key,
    _describe_bottlenecks,
)
head = Stage("head", 1, HeadManifest, _train_head, _head_key, _describe_head)
evaluation = Stage(
    "evaluation",
    1,
    EvaluationManifest,
    _evaluate_head,
    _evaluation_key,
    _describe_evaluation,
)
export = Stage(
    "export",
    1,
    ExportManifest,
    _export_model,
    _export_key,
    lambda made: f"{', '.join(made.formats)}, equal to {made.largest_difference:.1g}",
)

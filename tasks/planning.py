"""What a run would do, before it does it: hits and misses, bytes, seconds, break-even.

Nothing is written but the data set's index. Speeds come from a measurement of a second or two on
some of the images themselves.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from headstart.config import TransferConfig
from headstart.tasks import stages
from headstart.tasks.artifacts import Manifest, current_store
from headstart.tasks.bottlenecks.extraction import freeze
from headstart.tasks.bottlenecks.rows import (
    CutCollections,
    bottleneck_collections,
    open_backbone,
    wanted_rows,
)
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.evaluation.stage import JUDGED
from headstart.tasks.records import RowCollection, RowId
from headstart.tasks.stage import Stage
from headstart.tasks.views.stage import wanted_views
from headstart.tasks.views.writing import ImageJob, ViewMaker

NUM_MEASURED = 32
"""Images the measurement reads, and the size of its batch."""
MIN_MEASURED_S = 1.0
"""A speed is measured over at least this long."""
RECORD_OVERHEAD_BYTES = 150
"""A TFRecord's frame and the names and address in it, beside the tensor."""
MAX_SPEEDUP = 300.0
"""Where hardly any FLOPs are left behind the cut, starting a step sets the pace."""


@dataclass(frozen=True)
class StagePlan:
    """What one stage would do."""

    name: str
    status: str
    """hit, or miss."""
    rows: int
    rows_missing: int
    num_bytes: int
    """That would be written."""
    seconds: float | None
    """None where it is not known beforehand."""
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What a run would do, and what it would cost."""

    dataset: str
    stages: tuple[StagePlan, ...]
    bytes_needed: int
    bytes_free: int
    images_per_s: float | None
    """Frozen backbone on this machine; None where nothing has to be extracted."""
    uncached_epoch_s: float | None
    cached_epoch_s: float | None
    break_even_epoch: int | None
    """First epoch after which the cache has paid for itself."""

    @property
    def fits(self) -> bool:
        """Whether the disk has room."""
        return self.bytes_needed <= self.bytes_free

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return {**asdict(self), "fits": self.fits}


def plan(config: TransferConfig) -> Plan:
    """Work out what `headstart train` would do with a configuration.

    Args:
        config: Of the run.

    Returns:
        The plan.
    """
    source, views, backbone = config.dataset, config.views, config.backbone
    store = current_store()
    dataset = stages.dataset(source)
    index = index_of(dataset)
    network = open_backbone(backbone, views.image_size)
    cuts = bottleneck_collections(store, network, views, config.bottlenecks)
    wanted = _wanted(cuts, index, views.num_augmented)
    missing = [(collection, collection.missing(rows)) for collection, rows in wanted]
    view_rows = sorted(frozenset().union(*(rows for _, rows in missing)))
    pixels = wanted_views(store, index, views, network.image_size)
    view_misses = [collection.missing(rows) for collection, rows in pixels] if view_rows else []
    num_views = sum(len(rows) for rows in view_misses)
    speeds = _measure(config, index, network) if view_rows else None
    row_bytes = network.image_size**2 * 3 + RECORD_OVERHEAD_BYTES
    lines = [
        _line("dataset", len(index.rows), 0, 0, 0.0),
        _line(
            "views",
            sum(len(rows) for _, rows in pixels),
            num_views,
            num_views * row_bytes,
            num_views * speeds.view_s if speeds else 0.0,
        ),
        _line(
            "bottlenecks",
            sum(len(rows) for _, rows in wanted),
            sum(len(rows) for _, rows in missing),
            sum(len(rows) * (one.row_bytes + RECORD_OVERHEAD_BYTES) for one, rows in missing),
            len(view_rows) * speeds.frozen_s if speeds else 0.0,
            _why(config, dataset) if view_rows else "",
        ),
        *_later_stages(config, dataset, bool(view_rows)),
    ]
    return _assemble(config, dataset.headline, index, lines, network, speeds, len(view_rows))


@dataclass(frozen=True)
class Answer:
    """Whether one stage would be a hit, and if not, what changed.

    Attributes:
        name: Of the stage.
        status: hit or miss.
        text: What there is, or how much is missing.
        changes: (field of the key, old, new) against the nearest earlier artefact.
    """

    name: str
    status: str
    text: str
    changes: tuple[tuple[str, Any, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON data."""
        return asdict(self)


def explain(config: TransferConfig) -> list[Answer]:
    """Say for each stage of a run whether it would hit, and if not, which fields changed.

    Args:
        config: Of the run.

    Returns:
        One answer a stage, as far as the keys are known before anything is computed.
    """
    source, views, backbone, cut = config.dataset, config.views, config.backbone, config.bottlenecks
    store = current_store()
    dataset = stages.dataset(source)
    index = index_of(dataset)
    network = open_backbone(backbone, views.image_size)
    answers = [Answer("dataset", "hit", dataset.headline)]
    arguments: tuple[Any, ...] = (dataset, source, views, network.image_size)
    pixels = wanted_views(store, index, views, network.image_size)
    of_views = _answer_rows(stages.views, arguments, pixels)
    arguments = (dataset, source, views, backbone, cut)
    cuts = bottleneck_collections(store, network, views, cut)
    rows = _wanted(cuts, index, views.num_augmented)
    of_bottlenecks = _answer_rows(stages.bottlenecks, arguments, rows)
    if of_views.status == "miss" and of_bottlenecks.status == "hit":
        of_views = Answer(stages.views.name, "hit", "not needed: all bottlenecks are there")
    answers += [of_views, of_bottlenecks]
    arguments = (dataset, views, backbone, cut, config.head, Path())
    head = stages.head.find(*arguments)
    answers.append(_answer(stages.head, arguments, head))
    if head is None:
        follows = "follows the head"
        return [*answers, Answer("evaluation", "miss", follows), Answer("export", "miss", follows)]
    arguments = (dataset, head, views, backbone, cut, config.evaluation)
    answers.append(_answer(stages.evaluation, arguments, stages.evaluation.find(*arguments)))
    arguments = (dataset, source, head, views, backbone, cut, config.export)
    answers.append(_answer(stages.export, arguments, stages.export.find(*arguments)))
    return answers


def _wanted(
    cuts: Mapping[str, CutCollections], index: DatasetIndex, num_augmented: int
) -> list[tuple[RowCollection, list[RowId]]]:
    return [pair for cut in cuts.values() for pair in wanted_rows(cut, index, num_augmented)]


def _answer_rows(
    stage: Stage[Any],
    arguments: tuple[Any, ...],
    wanted: Sequence[tuple[RowCollection, list[RowId]]],
) -> Answer:
    num_rows = sum(len(rows) for _, rows in wanted)
    num_missing = sum(len(collection.missing(rows)) for collection, rows in wanted)
    if not num_missing:
        return Answer(stage.name, "hit", f"all {num_rows:,} rows are there")
    text = f"{num_missing:,} of {num_rows:,} rows are missing"
    return Answer(stage.name, "miss", text, stage.changes(*arguments))


def _answer(stage: Stage[Any], arguments: tuple[Any, ...], found: Manifest | None) -> Answer:
    if found is not None:
        return Answer(stage.name, "hit", f"saves {found.duration_s:,.1f} s")
    if changes := stage.changes(*arguments):
        return Answer(stage.name, "miss", f"{len(changes)} fields of its key changed", changes)
    return Answer(stage.name, "miss", stage.explain(*arguments) or "there is no earlier one")


@dataclass(frozen=True)
class _Speeds:
    """Seconds an image, measured."""

    view_s: float
    frozen_s: float
    uncached_s: float


def _measure(config: TransferConfig, index: DatasetIndex, network: Any) -> _Speeds:
    root = dataset_root(config.dataset)
    make = ViewMaker(config.views, network.image_size, config.dataset.max_pixels)
    rows = index.rows[:: max(1, len(index.rows) // NUM_MEASURED)][:NUM_MEASURED]
    jobs = [ImageJob(root / row.path, row.digest, (0,)) for row in rows]
    make(jobs[0])  # traces
    started_s = time.perf_counter()
    batch = tf.constant(np.stack([make(job)[0] for job in jobs]))
    view_s = (time.perf_counter() - started_s) / len(jobs)
    frozen = freeze(network, list(bottleneck_cuts(config)))
    extractor = network.extractor(["top"])
    uncached = tf.function(lambda images: extractor(images, training=False))
    return _Speeds(
        view_s=view_s,
        frozen_s=_time(lambda: frozen(batch)) / len(jobs),
        uncached_s=_time(lambda: uncached(batch)) / len(jobs),
    )


def bottleneck_cuts(config: TransferConfig) -> tuple[str, ...]:
    """Return the cuts that a run extracts, the head's own first, each once."""
    return tuple(dict.fromkeys((config.bottlenecks.cut, *config.bottlenecks.extra_cuts)))


def _time(call: Callable[[], Any]) -> float:
    """Return the median seconds of a call, after one to warm up."""
    call()
    durations: list[float] = []
    while sum(durations) < MIN_MEASURED_S:
        started_s = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started_s)
    return float(np.median(durations))


def _line(
    name: str, rows: int, missing: int, num_bytes: int, seconds: float, reason: str = ""
) -> StagePlan:
    status = "miss" if missing else "hit"
    return StagePlan(name, status, rows, missing, num_bytes, seconds, reason)


def _why(config: TransferConfig, dataset: DatasetManifest) -> str:
    arguments = (dataset, config.dataset, config.views, config.backbone, config.bottlenecks)
    return stages.bottlenecks.explain(*arguments)


def _later_stages(
    config: TransferConfig, dataset: DatasetManifest, must_extract: bool
) -> list[StagePlan]:
    """Plan what follows extraction, as far as the keys are known before the head is there."""
    index = index_of(dataset)
    num_train = len(index.rows_of("train"))
    num_judged = sum(len(index.rows_of(split)) for split in JUDGED)
    views, backbone, cut = config.views, config.backbone, config.bottlenecks
    arguments = (dataset, views, backbone, cut, config.head, Path())
    head = None if must_extract else stages.head.find(*arguments)
    if head is None:
        reason = stages.head.explain(*arguments)
        counts = (("head", num_train), ("evaluation", num_judged), ("export", 1))
        return [
            StagePlan(name, "miss", rows, rows, 0, None, reason if name == "head" else "")
            for name, rows in counts
        ]
    evaluation = (dataset, head, views, backbone, cut, config.evaluation)
    export = (dataset, config.dataset, head, views, backbone, cut, config.export)
    lines = [StagePlan("head", "hit", num_train, 0, 0, 0.0)]
    for stage, own, rows in (
        (stages.evaluation, evaluation, num_judged),
        (stages.export, export, config.export.num_proof_images),
    ):
        if stage.find(*own) is not None:
            lines.append(StagePlan(stage.name, "hit", rows, 0, 0, 0.0))
        else:
            lines.append(StagePlan(stage.name, "miss", rows, rows, 0, None, stage.explain(*own)))
    return lines


def _assemble(
    config: TransferConfig,
    headline: str,
    index: DatasetIndex,
    lines: list[StagePlan],
    network: Any,
    speeds: _Speeds | None,
    num_extracted: int,
) -> Plan:
    uncached_s = cached_s = break_even = None
    if speeds is not None:
        # Without a cache every epoch sends the training and validation images through.
        per_epoch = len(index.rows_of("train")) + len(index.rows_of("val"))
        uncached_s = per_epoch * (speeds.uncached_s + speeds.view_s)
        cut = network.resolve_cut(config.bottlenecks.cut)
        cached_s = uncached_s / min(cut.speedup_limit, MAX_SPEEDUP)
        paid_s = sum(line.seconds or 0.0 for line in lines)
        break_even = math.ceil(paid_s / max(1e-9, uncached_s - cached_s))
    return Plan(
        dataset=headline,
        stages=tuple(lines),
        bytes_needed=sum(line.num_bytes for line in lines),
        bytes_free=shutil.disk_usage(current_store().root).free,
        images_per_s=1 / speeds.frozen_s if speeds else None,
        uncached_epoch_s=uncached_s,
        cached_epoch_s=cached_s,
        break_even_epoch=break_even,
    )

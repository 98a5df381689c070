"""What a run would do, before it does it: hits and misses, bytes, seconds, break-even.

Nothing is written but the data set's index. Speeds come from a measurement of a second or two on
some of the images themselves.
"""

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.config import TransferConfig
from headstart.tasks.bottlenecks.features import JUDGED, Features
from headstart.tasks.bottlenecks.stage import stage as bottlenecks_stage
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.export.stage import BehindBackbone
from headstart.tasks.export.stage import stage as export_stage
from headstart.tasks.head.stage import stage as head_stage
from headstart.tasks.preview.expected_hits import Outlook, look_ahead
from headstart.tasks.running.stage import Stage
from headstart.tasks.running.tensorflow import import_tensorflow
from headstart.tasks.store.artifacts import current_store

if TYPE_CHECKING:
    from headstart.tasks.preview.measuring import Speeds

RECORD_OVERHEAD_BYTES = 150
"""A TFRecord's frame and the names and address in it, beside the tensor."""
EXTRACTING = ("views", "bottlenecks")
"""Stages whose cost the cache has to pay back."""
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
    """Of views and bottlenecks as measured here; of later stages as they took the last time in
    this store, None where they never ran. Of the data set, what reading it just took."""
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
    """Work out what `headstart train` would do with a configuration."""
    outlook = look_ahead(config)
    extracted, row_side = outlook.extracted, outlook.network.image_size
    speeds = _measure(config, outlook) if extracted else None
    num_views = sum(len(rows.missing) for rows in outlook.views)
    reading = outlook.reading
    lines = [
        StagePlan(
            "dataset", reading.status, reading.rows, reading.rows_computed, 0, reading.seconds
        ),
        _line(
            "views",
            sum(rows.num_wanted for rows in outlook.views),
            num_views,
            num_views * (row_side**2 * 3 + RECORD_OVERHEAD_BYTES),
            num_views * speeds.view_s if speeds else 0.0,
        ),
        _line(
            "bottlenecks",
            sum(rows.num_wanted for rows in outlook.bottlenecks),
            sum(len(rows.missing) for rows in outlook.bottlenecks),
            sum(
                len(rows.missing) * (rows.collection.row_bytes + RECORD_OVERHEAD_BYTES)
                for rows in outlook.bottlenecks
            ),
            len(extracted) * speeds.frozen_s if speeds else 0.0,
            _why(config, outlook.dataset) if extracted else "",
        ),
        *_later_stages(config, outlook.dataset, bool(extracted)),
    ]
    return _assemble(config, outlook, lines, speeds)


def _measure(config: TransferConfig, outlook: Outlook) -> "Speeds":
    import_tensorflow()  # which a plan of a run that finds everything does without
    from headstart.tasks.preview.measuring import measure

    return measure(config, outlook.index, len(outlook.extracted))


def _line(
    name: str, rows: int, missing: int, num_bytes: int, seconds: float, reason: str = ""
) -> StagePlan:
    status = "miss" if missing else "hit"
    return StagePlan(name, status, rows, missing, num_bytes, seconds, reason)


def _why(config: TransferConfig, dataset: DatasetManifest) -> str:
    arguments = (dataset, config.dataset, config.views, config.backbone, config.bottlenecks)
    return bottlenecks_stage.explain(*arguments)


def _later_stages(
    config: TransferConfig, dataset: DatasetManifest, must_extract: bool
) -> list[StagePlan]:
    """Plan what follows extraction, as far as the keys are known before the head is there."""
    index = index_of(dataset)
    num_train = len(index.rows_of("train"))
    num_judged = sum(len(index.rows_of(split)) for split in JUDGED)
    features = Features.of(dataset, config)
    head = None if must_extract else head_stage.find(features, config.head, Path())
    if head is None:
        reason = head_stage.explain(features, config.head, Path())
        counts = (("head", num_train), ("evaluation", num_judged), ("export", 1))
        return [
            StagePlan(name, "miss", rows, rows, 0, _seconds(name), reason if name == "head" else "")
            for name, rows in counts
        ]
    exported = BehindBackbone(features)
    return [
        StagePlan("head", "hit", num_train, 0, 0, 0.0),
        _artefact(evaluation_stage, num_judged, features, head, config.evaluation),
        _artefact(export_stage, config.export.num_proof_images, exported, head, config.export),
    ]


def _artefact(stage: Stage[..., Any], rows: int, *arguments: Any) -> StagePlan:
    if stage.find(*arguments) is not None:
        return StagePlan(stage.name, "hit", rows, 0, 0, 0.0)
    reason = stage.explain(*arguments)
    return StagePlan(stage.name, "miss", rows, rows, 0, _seconds(stage.name), reason)


def _seconds(name: str) -> float | None:
    """Return how long a stage took the last time in this store; None where it never ran."""
    for manifest in current_store().manifests(name):
        if "pixels" in manifest.get("key_fields", {}):  # of a network from scratch
            continue
        return float(manifest.get("duration_s", 0.0))
    return None


def _assemble(
    config: TransferConfig, outlook: Outlook, lines: list[StagePlan], speeds: "Speeds | None"
) -> Plan:
    index = outlook.index
    uncached_s = cached_s = break_even = None
    if speeds is not None:
        # Without a cache every epoch sends the training and validation images through.
        per_epoch = len(index.rows_of("train")) + len(index.rows_of("val"))
        uncached_s = per_epoch * (speeds.uncached_s + speeds.view_s)
        cached_s = uncached_s / min(speeds.speedup_limit, MAX_SPEEDUP)
        # The head has to be trained either way.
        paid_s = sum(line.seconds or 0.0 for line in lines if line.name in EXTRACTING)
        break_even = math.ceil(paid_s / max(1e-9, uncached_s - cached_s))
    return Plan(
        dataset=outlook.dataset.headline,
        stages=tuple(lines),
        bytes_needed=sum(line.num_bytes for line in lines),
        bytes_free=shutil.disk_usage(current_store().root).free,
        images_per_s=1 / speeds.frozen_s if speeds else None,
        uncached_epoch_s=uncached_s,
        cached_epoch_s=cached_s,
        break_even_epoch=break_even,
    )

"""The sources flow: register a trained model as a source, with what it was trained on.

Run by ``headstart sources add``. The training images go through the reference model (from the
cache where they have before), and their mean features and number go into the store's registry.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow
from pydantic import BaseModel

from headstart.config import SourceConfig
from headstart.flows.artifacts import run_name
from headstart.flows.body import on_store
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.ranking import reference
from headstart.tasks.ranking.sources import REFERENCE, Source, add_source, check_name, seed_registry
from headstart.tasks.running.stage import Outcome, collect_outcomes, mending_damage
from headstart.tasks.runs.run_folder import seconds_since
from headstart.tasks.store.artifacts import current_store
from headstart.tasks.store.fingerprint import file_digest
from headstart.tasks.targets.support import refuse_unsupported


class SourceSummary(BaseModel, frozen=True):
    """What was registered; the object that ``--json`` prints."""

    run_dir: str
    """The folder of the registry."""
    model: str
    stages: tuple[Outcome, ...]
    metrics: dict[str, int]
    """num_images and num_classes of the source."""
    seconds: float


@flow(name="sources", flow_run_name=run_name, persist_result=False)
def sources(
    config: SourceConfig, store: Path | None = None, out: Path | None = None
) -> SourceSummary:
    """Register a trained model as a source.

    Args:
        config: The model, and what it was trained on.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Not used: the registry is in the store.

    Returns:
        What was registered.
    """
    with on_store(store, config):
        check_name(config.name)
        return mending_damage(lambda: _run(config))


def _run(config: SourceConfig) -> SourceSummary:
    started_s, store = time.monotonic(), current_store()
    with collect_outcomes() as outcomes:
        dataset = dataset_stage(config.dataset)
        refuse_unsupported("sources", dataset.kind)
        views, bottlenecks = reference.VIEWS, reference.BOTTLENECKS
        make_bottlenecks(dataset, config.dataset, views, REFERENCE, bottlenecks)
    seed_registry(store, open_backbone(REFERENCE, views.image_size))
    index, features = index_of(dataset), reference.features_of(dataset, config.dataset)
    source = Source(
        name=config.name,
        num_images=len(index.rows_of("train")),
        num_classes=len(index.class_names),
        backbone=config.backbone,
        model_sha256=file_digest(config.model),
        reference=REFERENCE.name,
        mean_features=tuple(reference.mean_features(features).tolist()),
        added=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    add_source(store, source)
    return SourceSummary(
        run_dir=str(store.root / "sources"),
        model=str(config.model),
        stages=tuple(outcomes),
        metrics={"num_images": source.num_images, "num_classes": source.num_classes},
        seconds=seconds_since(started_s),
    )

"""The retrain flow: if the images have changed, train again, and promote a better model.

For a schedule: a run that finds nothing changed says so and ends. One that finds ten new images
computes ten rows, trains a head on all, and compares it with the model in use on the same
held-out images.
"""

import time
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from pydantic import BaseModel

from headstart.config import RetrainConfig
from headstart.flows.body import on_store
from headstart.flows.options import TRAINING_FLOW
from headstart.flows.transfer import transfer
from headstart.tasks.backbones.content import content_digest
from headstart.tasks.backbones.table import BACKBONES
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.models.promotion import Gain, check_classes, check_metric, promote_if_better
from headstart.tasks.models.registry import Attempt, Registry, default_name, without_keras_file
from headstart.tasks.progress import reporter
from headstart.tasks.runs.run_folder import RunSummary
from headstart.tasks.store.fingerprint import digest


class RetrainSummary(BaseModel, frozen=True):
    """What a retraining came to."""

    name: str
    """Of the model."""
    decision: Literal["unchanged", "promoted", "kept"]
    reason: str
    in_use: str | None
    """Folder of the model in use."""
    run: RunSummary | None
    """The training; None where nothing had changed."""
    seconds: float


@flow(name="retrain", **TRAINING_FLOW)
def retrain(
    config: RetrainConfig, store: Path | None = None, out: Path | None = None
) -> RetrainSummary:
    """Train anew where the images have changed; promote the model if it is better.

    Args:
        config: What to train on, how, and when to promote.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        What was decided, and why.
    """
    started_s = time.monotonic()
    name = config.promotion.name or default_name(config.dataset.images)
    if Path(config.backbone.name).is_dir():  # told before it trains, not after
        raise without_keras_file(Path(config.backbone.name))
    with on_store(store, config) as current:
        registry = Registry(current)
        index = index_of(dataset_stage(config.dataset))
        check_metric(config.promotion.metric, index)
        state = {
            "dataset": digest([index.images_digest, index.labels_digest]),
            "config": digest(_settings(config)),
        }
        last = registry.entry(name).last_attempt
        run: RunSummary | None = None
        decision: Literal["unchanged", "promoted", "kept"] = "unchanged"
        if last is not None and state == {"dataset": last.dataset, "config": last.config}:
            reason = (
                f"images, labels and configuration are the same as in the last run: {last.decision}"
            )
        else:
            check_classes(name, index)
            run = transfer.fn(config.training(), store, out)
            folder = Path(run.run_dir)
            gain = Gain(config.promotion.min_gain, config.promotion.metric)
            version, comparison = promote_if_better(name, folder, config.dataset, index, gain)
            decision = "promoted" if version else "kept"
            reason = comparison.describe()
            registry.note_attempt(name, Attempt(**state, run=str(folder), decision=reason))
        in_use = registry.entry(name).in_use
        summary = RetrainSummary(
            name=name,
            decision=decision,
            reason=reason,
            in_use=str(registry.folder_of(in_use)) if in_use else None,
            run=run,
            seconds=round(time.monotonic() - started_s, 3),
        )
        reporter().note(f"{decision.upper():<9} {name}: {reason}")
        _publish(summary)
    return summary


def _settings(config: RetrainConfig) -> dict[str, Any]:
    """Return what a training is told, with the content of a backbone's files for their paths.

    Without defaults: a field that a later version adds does not begin a training.
    """
    settings = config.model_dump(
        mode="json", exclude={"dataset": {"images"}}, exclude_defaults=True
    )
    for name in ("name", "weights"):
        value = getattr(config.backbone, name)
        is_known = value in ("pretrained", "random", *BACKBONES)
        if not is_known and (content := content_digest(Path(value))):
            settings.setdefault("backbone", {})[name] = content
    return settings


def _publish(summary: RetrainSummary) -> None:
    if FlowRunContext.get() is None:
        return
    lines = [f"# {summary.name}: {summary.decision}", "", summary.reason, ""]
    if summary.in_use:
        lines += ["In use:", "", f"    headstart predict {summary.name}@current IMAGES", ""]
    create_markdown_artifact("\n".join(lines), key="retrain-decision", description=summary.reason)

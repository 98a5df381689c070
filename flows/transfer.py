"""The transfer flow: a folder of images becomes a classifier, from cached bottlenecks.

Run by ``headstart train``, from a Prefect deployment, or from Python. Inside a flow run each
stage is a task; ``run(config)`` is the same body without Prefect, whose import takes a second.
Both find the same artefacts in the store. The flow itself is ``headstart.flows.transfer.transfer``.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.config import TransferConfig
from headstart.flows.artifacts import publish
from headstart.flows.body import run_in_folder
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks
from headstart.flows.diagnosis import watching_stages
from headstart.flows.options import training_flow
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import check_names
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.export.seen_images import write_seen
from headstart.tasks.export.stage import BehindBackbone
from headstart.tasks.export.stage import stage as export_stage
from headstart.tasks.head.stage import stage as head_stage
from headstart.tasks.head.training_warnings import check_classes, doubts, propose_few_shot
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import collect_outcomes
from headstart.tasks.running.tensorflow import import_tensorflow
from headstart.tasks.runs.judged_images import write_judged
from headstart.tasks.runs.projector import write_projector
from headstart.tasks.runs.run_folder import (
    RunSummary,
    finish_run,
    make_report,
    tell_problems,
    tensorboard_command,
)

if TYPE_CHECKING:
    transfer: Any


def __getattr__(name: str) -> Any:
    """Make the Prefect flow when somebody asks for it."""
    if name != "transfer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = training_flow(name, run)
    return globals()[name]


def run(config: TransferConfig, store: Path | None = None, out: Path | None = None) -> RunSummary:
    """Train, evaluate and export a head on cached bottlenecks; the best in ``config.budget``.

    Args:
        config: Data, views, backbone and head.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the results are, and the figures.
    """
    title = f"{config.dataset.images.resolve().stem}-{Path(config.backbone.name).stem}"
    return run_in_folder(title, config, store, out, lambda folder: _run(config, folder))


def _run(config: TransferConfig, folder: Path) -> RunSummary:
    if config.budget.seconds is not None:
        import_tensorflow()
        from headstart.flows.budget import train_in_time

        return train_in_time(config, folder)
    started_s = time.monotonic()
    with collect_outcomes() as outcomes:
        check_names(config.backbone, config.views.image_size, config.bottlenecks)
        dataset = dataset_stage(config.dataset)
        tell_problems(index_of(dataset), folder)
        check_classes(index_of(dataset))
        make_bottlenecks(dataset, config.dataset, config.views, config.backbone, config.bottlenecks)
        features = Features.of(dataset, config)
        reporter().note(f"     {tensorboard_command(folder)}")
        log_dir = folder / "tensorboard"
        found: list[dict[str, Any]] = []
        with watching_stages(folder / "crash", found):
            head = head_stage(features, config.head, log_dir)
        for warning in doubts(head, index_of(dataset), config.head):
            reporter().note(f"     warning: {warning}")
        trained_now = outcomes[-1].status == "miss"  # a hit says nothing new, and imports no Keras
        if trained_now and (proposal := propose_few_shot(features, head, config.head)):
            reporter().note(f"     {proposal}")
        evaluation = evaluation_stage(features, head, config.evaluation)
        export = export_stage(BehindBackbone(features), head, config.export)
    write_seen(folder, index_of(dataset).by_split)
    report = make_report(folder, config, index_of(dataset), head, evaluation, outcomes)
    write_judged(folder, evaluation, index_of(dataset).class_names, index_of(dataset), head.fit)
    summary = finish_run(folder, report, head, evaluation, export, outcomes, started_s, found)
    if config.show.num_projected:
        write_projector(log_dir, features, config.show.num_projected)
        reporter().note(f"     {tensorboard_command(folder)}, then Projector")
    publish("transfer", report, summary)
    return summary

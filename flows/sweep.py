"""The sweep flow: many heads trained at once on cached bottlenecks, the best exported.

Run by ``headstart sweep``, from a Prefect deployment, or from Python. What chooses among the heads
is a part of the training images, so that the figures of the val and test splits are honest.
"""

import time
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from headstart.config import SweepConfig, TransferConfig
from headstart.config.sweep import swept_fields, swept_heads
from headstart.flows.artifacts import publish
from headstart.flows.body import run_in_folder
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks
from headstart.flows.options import TRAINING_FLOW
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import check_names
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.export.seen_images import write_seen
from headstart.tasks.export.stage import BehindBackbone
from headstart.tasks.export.stage import stage as export_stage
from headstart.tasks.finetuning.page import markdown_page, write_study_page
from headstart.tasks.head.training_warnings import check_classes
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import collect_outcomes
from headstart.tasks.runs.config_file import write_config
from headstart.tasks.runs.judged_images import write_judged
from headstart.tasks.runs.pages import write_csv
from headstart.tasks.runs.run_folder import (
    RUN_FILE,
    RunSummary,
    finish_run,
    make_report,
    tell_problems,
    tensorboard_command,
)
from headstart.tasks.store.files import write_json
from headstart.tasks.sweeping.page import sweep_page
from headstart.tasks.sweeping.stage import SweptHead
from headstart.tasks.sweeping.stage import stage as sweep_stage

SWEEP_PAGE, SWEEP_TABLE, BEST_FOLDER = "sweep.html", "sweep.csv", "best"


class SweepSummary(RunSummary):
    """What a sweep came to; the object that ``--json`` prints."""

    sweep: str
    """The page about the heads."""
    best_config: str
    """A configuration with which `headstart train` trains a head like the best."""
    chosen: int
    """Number of the best head."""
    heads: tuple[SweptHead, ...]
    """In the order of the grid."""


@flow(name="sweep", **TRAINING_FLOW)
def sweep(config: SweepConfig, store: Path | None = None, out: Path | None = None) -> SweepSummary:
    """Train many heads at once, choose the best on held-out training images, and export it.

    Args:
        config: Data, backbone and the grid of heads.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the results are, the figures, and the heads.
    """
    title = f"{config.dataset.images.resolve().stem}-{Path(config.backbone.name).stem}-sweep"
    return run_in_folder(title, config, store, out, lambda folder: _run(config, folder))


def _run(config: SweepConfig, folder: Path) -> SweepSummary:
    started_s = time.monotonic()
    heads = swept_heads(config)
    with collect_outcomes() as outcomes:
        check_names(config.backbone, config.views.image_size, config.bottlenecks)
        dataset = dataset_stage(config.dataset)
        index = index_of(dataset)
        tell_problems(index, folder)
        check_classes(index)
        make_bottlenecks(dataset, config.dataset, config.views, config.backbone, config.bottlenecks)
        features = Features.of(dataset, config)
        reporter().note(f"     {tensorboard_command(folder)}")
        swept = sweep_stage(
            features, heads, swept_fields(config), config.search.seed, folder / "tensorboard"
        )
        evaluation = evaluation_stage(features, swept, config.evaluation)
        export = export_stage(BehindBackbone(features), swept, config.export)
    write_seen(folder, index.by_split)
    best = _with_best_head(config, swept.chosen)
    report = make_report(folder, best, index, swept, evaluation, outcomes)
    write_judged(folder, evaluation, index.class_names, index, swept.fit)
    summary = finish_run(folder, report, swept, evaluation, export, outcomes, started_s)
    publish("sweep", report, summary)
    about = sweep_page(f"Sweep · {report.title}", swept)
    page = write_study_page(folder / SWEEP_PAGE, about)
    if FlowRunContext.get() is not None:
        create_markdown_artifact(markdown_page(about), key="sweep-heads", description=about.title)
    rows = [{**line.settings, **line.model_dump()} for line in swept.swept]
    judged = ("accuracy",) if dataset.kind == "class" else ("metric", "value")
    columns = ("number", *swept_fields(config), "loss", *judged, "best_epoch", "num_epochs")
    write_csv(folder / SWEEP_TABLE, rows, columns)
    (folder / BEST_FOLDER).mkdir(exist_ok=True)
    write_config(folder / BEST_FOLDER, best)
    whole = SweepSummary(
        **summary.model_dump(),
        sweep=str(page),
        best_config=str(folder / BEST_FOLDER / "config.yaml"),
        chosen=swept.chosen,
        heads=swept.swept,
    )
    write_json(folder / RUN_FILE, whole.model_dump(mode="json"))
    return whole


def _with_best_head(config: SweepConfig, chosen: int) -> TransferConfig:
    """Return the configuration of a training of the best head alone."""
    fields = config.model_dump(exclude={"search"})
    fields["head"] = swept_heads(config)[chosen - 1].model_dump()
    return TransferConfig.model_validate(fields)

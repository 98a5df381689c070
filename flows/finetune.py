"""The finetune flow: train ever more of the backbone below a head, as long as it helps.

Run by ``headstart finetune``, from a Prefect deployment, or from Python. While a rung's frozen
prefix stays frozen it trains from bottlenecks at its cut; one pass of the backbone writes those
of all rungs. Each rung is a stage of its own, so a ladder that was killed goes on where it was.
"""

import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from headstart.config import FinetuneConfig
from headstart.flows.artifacts import publish
from headstart.flows.body import run_in_folder
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks
from headstart.flows.diagnosis import watching_stages
from headstart.flows.options import TRAINING_FLOW
from headstart.tasks.backbones.cuts import PIXELS
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.export.seen_images import write_seen
from headstart.tasks.export.stage import BehindBackbone
from headstart.tasks.export.stage import stage as export_stage
from headstart.tasks.finetuning.ladder import Rung, first_rung, judge_rung, plan_cuts, untried_end
from headstart.tasks.finetuning.ladder_page import ladder_page
from headstart.tasks.finetuning.page import markdown_page, write_study_page
from headstart.tasks.finetuning.stage import rung as train_rung
from headstart.tasks.finetuning.training import require_validation
from headstart.tasks.head.stage import HeadManifest
from headstart.tasks.head.stage import stage as head_stage
from headstart.tasks.head.training_warnings import check_classes
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import collect_outcomes
from headstart.tasks.runs.judged_images import write_judged
from headstart.tasks.runs.run_folder import (
    RUN_FILE,
    RunSummary,
    finish_run,
    make_report,
    tell_problems,
    tensorboard_command,
)
from headstart.tasks.store.files import write_json
from headstart.tasks.views.stage import stage as views_stage

LADDER_PAGE = "ladder.html"


class FinetuneSummary(RunSummary):
    """What a ladder came to; the object that ``--json`` prints."""

    ladder: str
    """The page about the rungs."""
    rungs: tuple[Rung, ...]
    """From the head down, with what each bought."""


@flow(name="finetune", **TRAINING_FLOW)
def finetune(
    config: FinetuneConfig, store: Path | None = None, out: Path | None = None
) -> FinetuneSummary:
    """Train a head, then unfreeze the backbone from the top, rung by rung, as far as it helps.

    Args:
        config: Data, backbone, head and rungs.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the results are, the figures, and the rungs.
    """
    title = f"{config.dataset.images.resolve().stem}-{Path(config.backbone.name).stem}-ladder"
    return run_in_folder(title, config, store, out, lambda folder: _run(config, folder))


def _run(config: FinetuneConfig, folder: Path) -> FinetuneSummary:
    started_s = time.monotonic()
    source, views, backbone = config.dataset, config.views, config.backbone
    with collect_outcomes() as outcomes:
        dataset = dataset_stage(source)
        index = index_of(dataset)
        tell_problems(index, folder)
        check_classes(index)
        require_validation(index.split_counts)
        network = open_backbone(backbone, views.image_size)
        cuts = plan_cuts(network, config)
        every = (*config.bottlenecks.extra_cuts, *cuts)  # in one pass of the backbone
        wanted = config.bottlenecks.model_copy(update={"extra_cuts": every})
        make_bottlenecks(dataset, source, views, backbone, wanted)
        reporter().note(f"     {tensorboard_command(folder)}")
        features = Features.of(dataset, config)
        found: list[dict[str, Any]] = []
        with watching_stages(folder / "crash" / "head", found):
            log_dir = folder / "tensorboard" / "0-head"
            head = head_stage(features, config.head, log_dir)
        climbed = [first_rung(head, features.start, config.head.kind)]
        starts = (*cuts, PIXELS) if trains_end_to_end(config) else cuts
        if PIXELS in starts:
            views_stage(dataset, source, views, network.image_size)
        kept, features = _climb(config, features, folder, head, starts, climbed, found)
        if PIXELS not in starts:
            reason = "not tried: " + _why_not(config)
            num_train = index.split_sizes["train"]
            climbed.append(untried_end(network, num_train, climbed, reason))
        evaluation = evaluation_stage(features, kept, config.evaluation)
        export = export_stage(BehindBackbone(features), kept, config.export)
    write_seen(folder, index.by_split)
    report = make_report(folder, config, index, kept, evaluation, outcomes)
    write_judged(folder, evaluation, index.class_names, index, kept.fit)
    summary = finish_run(folder, report, kept, evaluation, export, outcomes, started_s, found)
    publish("finetune", report, summary)
    return _tell_rungs(folder, report.title, climbed, index.split_sizes["val"], summary)


def _tell_rungs(
    folder: Path, title: str, climbed: list[Rung], num_val: int, summary: RunSummary
) -> FinetuneSummary:
    """Write the page of the rungs, and add them to the run's summary."""
    page = ladder_page(f"Ladder · {title}", climbed, num_val, summary.seconds)
    path = write_study_page(folder / LADDER_PAGE, page)
    whole = FinetuneSummary(**summary.model_dump(), ladder=str(path), rungs=tuple(climbed))
    write_json(folder / RUN_FILE, whole.model_dump(mode="json"))
    if FlowRunContext.get() is not None:
        create_markdown_artifact(markdown_page(page), key="finetune-ladder", description=page.title)
    return whole


def _climb(
    config: FinetuneConfig,
    features: Features,
    folder: Path,
    head: HeadManifest,
    starts: tuple[str, ...],
    climbed: list[Rung],
    found: list[dict[str, Any]],
) -> tuple[HeadManifest, Features]:
    """Train rung after rung, each from what was kept before; say what is kept, and behind what."""
    kept = head
    for number, start in enumerate(starts, 1):
        reporter().note(f"     rung {number} of {len(starts)}: training everything from {start} on")
        with watching_stages(folder / "crash" / f"rung-{number}", found, "tuning"):
            log_dir = folder / "tensorboard" / f"{number}-{start}"
            trained = train_rung(
                features.at(start), kept, features.start, config.tuning, config.head, log_dir
            )
        line = judge_rung(trained, kept)
        status = "kept: " if line.status == "kept" else ""  # the other verdicts say it themselves
        reporter().note(f"     {status}{line.verdict}")
        climbed.append(line)
        if line.status == "kept":
            kept, features = trained, features.at(start)
    return kept, features


def trains_end_to_end(config: FinetuneConfig) -> bool:
    """Say whether the last rung trains the whole network on views."""
    if config.ladder.end_to_end == "auto":
        return bool(tf.config.list_physical_devices("GPU"))
    return config.ladder.end_to_end == "always"


def _why_not(config: FinetuneConfig) -> str:
    if config.ladder.end_to_end == "never":
        return "ladder.end_to_end is never"
    return "there is no GPU, and ladder.end_to_end is auto (--end-to-end tries it)"

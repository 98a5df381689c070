"""The finetune flow: from a trained head down into the backbone, as far as it helps.

Run by ``headstart finetune``, from a Prefect deployment, or from Python. While a rung's frozen
prefix stays frozen it trains from bottlenecks at its cut; one pass of the backbone writes those
of all rungs. Each rung is a stage of its own, so a ladder that was killed goes on where it was.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from headstart.config import FinetuneConfig
from headstart.errors import DamagedShardError
from headstart.flows.artifacts import publish, run_name, shown_in_ui
from headstart.flows.diagnosis import diagnose_failure, forget, watching
from headstart.tasks import stages
from headstart.tasks.artifacts import Store, default_root, use_store
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.bottlenecks.stage import images_to_extract
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.finetuning import stage as rungs
from headstart.tasks.finetuning.ladder import (
    Rung,
    first_rung,
    judge_rung,
    plan_cuts,
    untried_end,
)
from headstart.tasks.finetuning.ladder_page import ladder_page
from headstart.tasks.finetuning.network import PIXELS
from headstart.tasks.finetuning.page import markdown_page, write_page
from headstart.tasks.finetuning.training import many_models, require_validation
from headstart.tasks.head.stage import HeadManifest, watched_by
from headstart.tasks.progress import reporter
from headstart.tasks.run_folder import (
    RUN_FILE,
    RunSummary,
    finish_run,
    make_report,
    open_run_folder,
    tensorboard_command,
    write_config,
)
from headstart.tasks.stage import collect_outcomes

LADDER_PAGE = "ladder.html"


class FinetuneSummary(RunSummary):
    """What a ladder came to; the object that ``--json`` prints."""

    ladder: str
    """The page about the rungs."""
    rungs: tuple[Rung, ...]
    """From the head down, with what each bought."""


@flow(
    name="finetune",
    flow_run_name=run_name,
    persist_result=False,
    on_failure=[diagnose_failure],
    on_completion=[forget],
    on_crashed=[forget],
    on_cancellation=[forget],
)
def finetune(
    config: FinetuneConfig, store: Path | None = None, out: Path | None = None
) -> FinetuneSummary:
    """Train a head, then unfreeze the backbone from the top, rung by rung, as far as it helps.

    Args:
        config: What to do.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the results are, the figures, and the rungs.
    """
    with use_store(Store(store or default_root())) as current, shown_in_ui(), many_models():
        folder = open_run_folder(current, config, out)
        write_config(folder, config)
        try:
            return _run(config, folder)
        except DamagedShardError as error:
            # It has been set aside, so now its rows, and only those, are missing.
            reporter().note(f"     {error.received}: computing its rows again")
            return _run(config, folder)


def _run(config: FinetuneConfig, folder: Path) -> FinetuneSummary:
    started_s = time.monotonic()
    source, views, backbone = config.dataset, config.views, config.backbone
    head_cut, dtype = config.bottlenecks.cut, config.bottlenecks.dtype
    with collect_outcomes() as outcomes:
        dataset = stages.dataset(source)
        index = index_of(dataset)
        require_validation(index.split_counts)
        network = open_backbone(backbone, views.image_size)
        cuts = plan_cuts(network, config)
        make_bottlenecks(config, dataset, cuts)
        reporter().note(f"     {tensorboard_command(folder)}")
        with _watched(folder, "head"):
            log_dir = folder / "tensorboard" / "0-head"
            head = stages.head(dataset, views, backbone, config.bottlenecks, config.head, log_dir)
        climbed = [first_rung(head, head_cut, config.head.kind)]
        starts = (*cuts, PIXELS) if trains_end_to_end(config) else cuts
        if PIXELS in starts:
            stages.views(dataset, source, views, network.image_size)
        kept = _climb(config, dataset, folder, head, starts, climbed)
        if PIXELS not in starts:
            reason = "not tried: " + _why_not(config)
            num_train = sum(index.split_counts["train"])
            climbed.append(untried_end(network, num_train, climbed, reason))
        evaluation = rungs.evaluation(
            dataset, kept, head_cut, views, backbone, dtype, config.evaluation
        )
        export = rungs.export(
            dataset, source, kept, head_cut, views, backbone, dtype, config.export
        )
    report = make_report(folder, config, index, kept, evaluation, outcomes)
    summary = finish_run(folder, report, kept, evaluation, export, outcomes, started_s)
    page = ladder_page(
        f"Ladder · {report.title}", climbed, sum(index.split_counts["val"]), summary.seconds
    )
    path = write_page(folder / LADDER_PAGE, page)
    whole = FinetuneSummary(**summary.model_dump(), ladder=str(path), rungs=tuple(climbed))
    text = json.dumps(whole.model_dump(mode="json"), indent=1)
    (folder / RUN_FILE).write_text(text + "\n", encoding="utf-8")
    publish("finetune", report, summary)
    if FlowRunContext.get() is not None:
        create_markdown_artifact(markdown_page(page), key="finetune-ladder", description=page.title)
    return whole


def make_bottlenecks(
    config: FinetuneConfig, dataset: DatasetManifest, cuts: tuple[str, ...]
) -> None:
    """Write the bottlenecks of the head and of all cached rungs in one pass of the backbone."""
    source, views, backbone = config.dataset, config.views, config.backbone
    extra = (*config.bottlenecks.extra_cuts, *cuts)
    wanted = config.bottlenecks.model_copy(update={"extra_cuts": extra})
    needed = images_to_extract(dataset, views, backbone, wanted)
    if needed == ():
        stages.views.skip("not needed: all bottlenecks are there")
    else:
        size = open_backbone(backbone, views.image_size).image_size
        stages.views(dataset, source, views, size, needed)
    stages.bottlenecks(dataset, source, views, backbone, wanted)


def _climb(
    config: FinetuneConfig,
    dataset: DatasetManifest,
    folder: Path,
    head: HeadManifest,
    starts: tuple[str, ...],
    climbed: list[Rung],
) -> HeadManifest:
    """Train rung after rung, each from what was kept before; return what is kept at the end."""
    kept = head
    for number, start in enumerate(starts, 1):
        reporter().note(f"     rung {number} of {len(starts)}: everything from {start} on trains")
        with _watched(folder, f"rung-{number}"):
            trained = rungs.rung(
                dataset,
                config.views,
                config.backbone,
                config.bottlenecks.dtype,
                start,
                config.bottlenecks.cut,
                kept,
                config.tuning,
                config.head,
                folder / "tensorboard" / f"{number}-{start}",
            )
        line = judge_rung(trained, kept)
        reporter().note(f"     {line.status}: {line.verdict}")
        climbed.append(line)
        if line.status == "kept":
            kept = trained
    return kept


@contextmanager
def _watched(folder: Path, name: str) -> Iterator[None]:
    with (
        watching(folder / "crash" / name, stops_on_nan=False) as watch,
        watched_by(*watch.callbacks),
    ):
        yield


def trains_end_to_end(config: FinetuneConfig) -> bool:
    """Say whether the last rung trains the whole network on views."""
    if config.ladder.end_to_end == "auto":
        return bool(tf.config.list_physical_devices("GPU"))
    return config.ladder.end_to_end == "always"


def _why_not(config: FinetuneConfig) -> str:
    if config.ladder.end_to_end == "never":
        return "ladder.end_to_end is never"
    return "there is no GPU, and ladder.end_to_end is auto (--end-to-end tries it)"

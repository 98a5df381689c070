"""The transfer flow: a folder of images becomes a classifier, from cached bottlenecks.

Run by ``headstart train``, from a Prefect deployment, or from Python. Inside a flow run each
stage is a task; ``transfer.fn(config)`` runs the same body without Prefect. Both find the same
artefacts in the store.
"""

import time
from pathlib import Path
from typing import Any

from prefect import flow

from headstart.config import TransferConfig
from headstart.flows.artifacts import publish, shown_in_ui
from headstart.flows.diagnosis import watching_stages
from headstart.flows.options import TRAINING_FLOW
from headstart.tasks import stages
from headstart.tasks.artifacts import use_store
from headstart.tasks.bottlenecks.rows import check_names, open_backbone
from headstart.tasks.bottlenecks.stage import images_to_extract
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.head.doubts import check_classes, doubts
from headstart.tasks.progress import reporter
from headstart.tasks.remote_store import open_store
from headstart.tasks.run_folder import (
    LEFT_OUT_FILE,
    RunSummary,
    finish_run,
    make_report,
    open_run_folder,
    tensorboard_command,
    write_config,
)
from headstart.tasks.spreading import use_spreading
from headstart.tasks.stage import collect_outcomes, mending_damage


@flow(name="transfer", **TRAINING_FLOW)
def transfer(
    config: TransferConfig, store: Path | None = None, out: Path | None = None
) -> RunSummary:
    """Train, evaluate and export a head on cached bottlenecks.

    Args:
        config: What to do.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the results are, and the figures.
    """
    with use_store(open_store(store)) as current, use_spreading(config.spread), shown_in_ui():
        folder = open_run_folder(current, config, out)
        write_config(folder, config)
        return mending_damage(lambda: _run(config, folder))


def _run(config: TransferConfig, folder: Path) -> RunSummary:
    started_s = time.monotonic()
    source, views, backbone, cut = config.dataset, config.views, config.backbone, config.bottlenecks
    with collect_outcomes() as outcomes:
        check_names(backbone, views.image_size, cut)
        dataset = stages.dataset(source)
        for line in index_of(dataset).summary_lines(listed_in=str(folder / LEFT_OUT_FILE))[1:]:
            reporter().note(f"     {line}")
        check_classes(index_of(dataset))
        # Views are only needed to compute bottlenecks: those of images that have all theirs may
        # be gone (`headstart cache gc --views`), and are not made again.
        needed = images_to_extract(dataset, views, backbone, cut)
        size = open_backbone(backbone, views.image_size).image_size
        if needed == ():
            reason = "not needed: all bottlenecks are there"
            stages.views.skip(reason, dataset, source, views, size)
        else:
            stages.views(dataset, source, views, size, needed)
        stages.bottlenecks(dataset, source, views, backbone, cut)
        reporter().note(f"     {tensorboard_command(folder)}")
        log_dir = folder / "tensorboard"
        found: list[dict[str, Any]] = []
        with watching_stages(folder / "crash", found):
            head = stages.head(dataset, views, backbone, cut, config.head, log_dir)
        for warning in doubts(head, index_of(dataset), config.head):
            reporter().note(f"     warning: {warning}")
        evaluation = stages.evaluation(dataset, head, views, backbone, cut, config.evaluation)
        export = stages.export(dataset, source, head, views, backbone, cut, config.export)
    report = make_report(folder, config, index_of(dataset), head, evaluation, outcomes)
    summary = finish_run(folder, report, head, evaluation, export, outcomes, started_s, found)
    publish("transfer", report, summary)
    return summary

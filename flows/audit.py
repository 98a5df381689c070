"""The audit flow: find suspicious images and labels, for about the cost of training a head.

Run by ``headstart audit``, from a Prefect deployment, or from Python. It reads cached bottlenecks
and views; where an earlier run has written the cut, no image goes through the backbone.
"""

import shutil
import time
from pathlib import Path

from prefect import flow

from headstart.config import AuditConfig
from headstart.flows.artifacts import run_name
from headstart.flows.body import run_in_folder
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks, publish_page
from headstart.tasks.auditing.pictures import stage as pictures_stage
from headstart.tasks.auditing.report import AuditSummary, markdown, write_audit
from headstart.tasks.auditing.stage import EXCLUDE, FINDINGS, LABELS, read_findings
from headstart.tasks.auditing.stage import stage as audit_stage
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.running.stage import collect_outcomes
from headstart.tasks.runs.run_folder import RUN_FILE, seconds_since, tell_problems
from headstart.tasks.store.artifacts import artefact
from headstart.tasks.store.files import write_json
from headstart.tasks.views.stage import stage as views_stage


@flow(name="audit", flow_run_name=run_name, persist_result=False)
def audit(config: AuditConfig, store: Path | None = None, out: Path | None = None) -> AuditSummary:
    """Look for label errors, leaks, near-duplicates and images that stand out.

    Args:
        config: What to look at, and what counts as suspicious.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the results are, and the counts.
    """
    return run_in_folder("audit", config, store, out, lambda folder: _run(config, folder))


def _run(config: AuditConfig, folder: Path) -> AuditSummary:
    started_s = time.monotonic()
    source, views, backbone, cut = (
        config.dataset, config.views, config.backbone, config.bottlenecks
    )  # fmt: skip
    with collect_outcomes() as outcomes:
        dataset = dataset_stage(source)
        tell_problems(index_of(dataset), folder)
        # Of a recipe with augmented views, the plain ones are all that is looked at.
        plain = views.model_copy(update={"num_augmented": 0})
        make_bottlenecks(dataset, source, plain, backbone, cut)
        size = open_backbone(backbone, views.image_size).image_size
        pictures = pictures_stage.find(dataset, views, size)
        if pictures is None:  # the views may be gone since, and only these checks need them
            views_stage(dataset, source, views, size, None)
        pictures = pictures_stage(dataset, views, size)
        made = audit_stage(Features.of(dataset, config), pictures, config.checks)
    for name in (FINDINGS, LABELS, EXCLUDE):
        shutil.copyfile(artefact(made, name), folder / name)
    title = f"Audit of {source.images.resolve().name}"
    page = write_audit(
        folder / "audit.html",
        title,
        dataset_root(source),
        read_findings(made),
        made.num_rows,
        config.num_shown,
        source.max_pixels,
        str(folder / EXCLUDE),
        outcomes,
    )
    summary = AuditSummary(
        run_dir=str(folder),
        report=str(page),
        findings=str(folder / FINDINGS),
        labels=str(folder / LABELS),
        exclude=str(folder / EXCLUDE),
        stages=tuple(outcomes),
        metrics={
            "counts": made.counts,
            "num_images": made.num_rows,
            "num_excluded": made.num_excluded,
        },
        seconds=seconds_since(started_s),
    )
    write_json(folder / RUN_FILE, summary.model_dump(mode="json"))
    text = markdown(made.counts, made.num_rows, made.num_excluded)
    publish_page("audit", title, text, summary.report, outcomes)
    return summary

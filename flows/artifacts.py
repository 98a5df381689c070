"""Artifacts of a flow run in the Prefect UI: stage lines, progress, report and tables."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from headstart.config import BottleneckConfig, HeadConfig, TransferConfig
from headstart.flows.context import flow_run_context
from headstart.flows.dataset_to_bottlenecks import publish_page
from headstart.flows.run_progress import progress_in_ui
from headstart.service.record import running_service
from headstart.tasks.evaluation.figures import confusion_png, curves_png
from headstart.tasks.evaluation.report import (
    data_uri,
    markdown_summary,
    markdown_top_losses,
    per_class_rows,
    picture_uri,
)
from headstart.tasks.evaluation.report_content import Report, headline_split
from headstart.tasks.progress import copy_lines_to
from headstart.tasks.running.task_options import describe_work
from headstart.tasks.runs.run_folder import RunSummary
from headstart.tasks.runs.target_page import markdown
from headstart.tasks.store.artifacts import current_store


@contextlib.contextmanager
def shown_in_ui() -> Iterator[None]:
    """Show the stages' lines and progress in the flow run; outside one, do nothing."""
    if flow_run_context() is None:
        yield
        return
    from prefect import get_run_logger

    with copy_lines_to(lambda text: get_run_logger().info(text.strip())), progress_in_ui():
        yield


def run_name() -> str:
    """Name the flow run in progress by what it works on: data set, backbone, cut, head."""
    context = flow_run_context()
    if context is None or not context.parameters:
        return "run"
    config = context.parameters["config"]
    values = [value for _, value in config]
    if not isinstance(config, TransferConfig):  # a study, which tries several cuts or heads
        values = [one for one in values if not isinstance(one, BottleneckConfig | HeadConfig)]
    return describe_work(values) or type(config).__name__


def publish(flow_name: str, report: Report, summary: RunSummary) -> None:
    """Leave a run's report in the Prefect UI; outside a flow run, do nothing.

    Args:
        flow_name: Begins the artifacts' keys, so that the UI shows one flow's runs in a row.
        report: What the run's page shows.
        summary: What the flow returns.
    """
    if flow_run_context() is None:
        return
    if report.kind != "class":
        text = markdown(report)
        publish_page(flow_name, report.title, text, summary.report, summary.stages)
        return
    from prefect.artifacts import (
        create_link_artifact,
        create_markdown_artifact,
        create_table_artifact,
    )

    create_markdown_artifact(
        _markdown(report, summary), key=f"{flow_name}-report", description=report.title
    )
    split = headline_split(report)
    if split is not None:
        create_table_artifact(
            per_class_rows(report.metrics[split]),
            key=f"{flow_name}-classes",
            description=f"{split} split",
        )
    create_table_artifact(
        [outcome.model_dump(exclude={"key"}) for outcome in summary.stages],
        key=f"{flow_name}-stages",
        description="What came from the store, and what was computed",
    )
    for name, (text, url) in _links(summary).items():
        create_link_artifact(url, text, key=f"{flow_name}-{name}", description=text)


def _markdown(report: Report, summary: RunSummary) -> str:
    parts = [markdown_summary(report)]
    links = _links(summary)
    if links:
        parts.append(" · ".join(f"[{text}]({url})" for text, url in links.values()))
    else:
        # A path to open, not a link: browsers do not follow file: links from a page of a server.
        parts.append(f"Full report: `{summary.report}`")
    if report.history:
        parts.append(_picture("curves", curves_png(report.history, report.best_epoch)))
    split = headline_split(report)
    if split is not None:
        parts.append(_picture(f"confusion matrix ({split})", confusion_png(report.metrics[split])))
    for picture in report.pictures:
        shown = f"![{picture.title}]({picture_uri(picture.path)})"
        parts += [f"## {picture.title}", shown, picture.text]
    if losses := markdown_top_losses(report):
        parts += ["## Images with the highest loss", losses]
    parts += ["## Stages", _ledger(summary)]
    return "\n\n".join(parts) + "\n"


def _ledger(summary: RunSummary) -> str:
    lines = ["| Stage | | Seconds | Rows | Computed | Seconds saved |", "|---|---|---|---|---|---|"]
    for one in summary.stages:
        cells = (one.name, one.status, f"{one.seconds:,.1f}", f"{one.rows:,}")
        saved = f"{one.rows_computed:,}", f"{one.seconds_saved:,.1f}"
        lines.append("| " + " | ".join((*cells, *saved)) + " |")
    return "\n".join([*lines, "", f"{summary.seconds:,.1f} s in all."])


def _links(summary: RunSummary) -> dict[str, tuple[str, str]]:
    """Links to pages of the run, by name: (text, address); none where `up` does not serve them."""
    store = current_store()
    service = running_service(store.root)
    folder = Path(summary.run_dir)
    if service is None or not folder.is_relative_to(store.root / "runs"):
        return {}
    name = folder.relative_to(store.root / "runs").as_posix()
    page = Path(summary.report).name
    return {
        "page": ("Full report", f"{service.runs_url}/{quote(name)}/{page}"),
        "tensorboard": (
            "Training curves in TensorBoard",
            f"{service.tensorboard_url}/?runFilter={quote(name)}#timeseries",
        ),
    }


def _picture(title: str, png: bytes) -> str:
    return f"![{title}]({data_uri(png, 'image/png')})"

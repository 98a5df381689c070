"""What a flow run leaves in the Prefect UI: its lines, its report, its classes as a table."""

import contextlib

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext

from headstart.tasks.evaluation.figures import confusion_png, curves_png
from headstart.tasks.evaluation.findings import Report, headline_split
from headstart.tasks.evaluation.report import data_uri, markdown_summary, per_class_rows
from headstart.tasks.progress import copy_lines_to
from headstart.tasks.run_folder import RunSummary


def lines_in_ui() -> contextlib.AbstractContextManager[None]:
    """Copy the stages' lines into the log of the flow run; outside one, do nothing."""
    if FlowRunContext.get() is None:
        return contextlib.nullcontext()
    return copy_lines_to(lambda text: get_run_logger().info(text.strip()))


def publish(flow_name: str, report: Report, summary: RunSummary) -> None:
    """Leave a run's report in the Prefect UI; outside a flow run, do nothing.

    Args:
        flow_name: Begins the artifacts' keys, so that the UI shows one flow's runs in a row.
        report: Of the run.
        summary: Of the run.
    """
    if FlowRunContext.get() is None:
        return
    split = headline_split(report)
    markdown = markdown_summary(report)
    if report.history:
        markdown += _picture("curves", curves_png(report.history, report.best_epoch))
    if split is not None:
        metrics = report.metrics[split]
        markdown += _picture(f"confusion matrix ({split})", confusion_png(metrics))
        create_table_artifact(
            per_class_rows(metrics), key=f"{flow_name}-classes", description=f"{split} split"
        )
    # A path to open, not a link: browsers do not follow file: links from a page of a server.
    markdown += f"\n\nThe whole report: `{summary.report}`\n"
    create_markdown_artifact(markdown, key=f"{flow_name}-report", description=report.title)
    create_table_artifact(
        [outcome.model_dump(exclude={"key"}) for outcome in summary.stages],
        key=f"{flow_name}-stages",
        description="What was replayed from the store, and what was computed",
    )


def _picture(title: str, png: bytes) -> str:
    return f"\n\n![{title}]({data_uri(png, 'image/png')})\n"

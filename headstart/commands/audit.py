"""The command that looks for what is wrong with images and labels."""

import shlex
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from headstart.commands.options import (
    AsJson,
    BackboneName,
    ConfigFile,
    CutName,
    ImagesOrConfigs,
    Out,
    Overwrite,
    Record,
    Settings,
    StoreFolder,
    run_and_show,
)
from headstart.tables import print_table

if TYPE_CHECKING:
    from headstart.tasks.auditing.report import AuditSummary

app = typer.Typer()


@app.command(no_args_is_help=True)
def audit(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    cut: CutName = None,
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Find wrong labels, leaks between splits, near-duplicates and odd images."""
    from headstart.config import AuditConfig, build_config

    overrides = {"backbone.name": backbone, "bottlenecks.cut": cut}
    run_config = build_config(AuditConfig, images, config, tuple(settings or ()), overrides)
    run_and_show("audit", run_config, print_audit, store, out, record, as_json, overwrite)


def print_audit(console: Console, summary: "AuditSummary") -> None:
    """Print how many findings of each kind there are, and where they can be looked at."""
    from headstart.tasks.auditing.findings import KINDS, TITLES

    rows = [(TITLES[kind], f"{summary.metrics['counts'][kind]:,}") for kind in KINDS]
    console.print()
    print_table(console, ("finding", "images"), rows, ("images",))
    lines = (
        "",
        f"  report   {summary.report}",
        f"  labels   {summary.labels} (all images, the most suspicious first)",
        f"  exclude  {summary.metrics['num_excluded']:,} of {summary.metrics['num_images']:,} "
        f"images: headstart train IMAGES --exclude {shlex.quote(summary.exclude)}",
        f"  {summary.seconds:,.1f} s in all",
    )
    for line in lines:
        console.print(line, soft_wrap=True)

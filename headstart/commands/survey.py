"""The command that says what backbones cost on this machine."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headstart.commands.options import (
    AsJson,
    ConfigFile,
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
    from headstart.tasks.surveying.survey import SurveySummary

app = typer.Typer()


@app.command()
def survey(
    images: ImagesOrConfigs = None,
    backbones: Annotated[
        str | None,
        typer.Option(help="Names from `headstart backbones`, separated by commas; all by default."),
    ] = None,
    measuring: Annotated[
        bool | None,
        typer.Option(
            "--measure/--no-measure", help="Measure memory and throughput on this machine."
        ),
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    out: Out = None,
    overwrite: Overwrite = False,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Measure backbones on this machine: parameters, FLOPs, memory, images/s, bytes per cut."""
    from headstart.config import SurveyConfig, build_config

    names = None if backbones is None else [name.strip() for name in backbones.split(",")]
    overrides = {"backbones": names, "measuring.enabled": measuring}
    run_config = build_config(SurveyConfig, images, config, tuple(settings or ()), overrides)
    run_and_show("survey", run_config, print_survey, store, out, record, as_json, overwrite)


def print_survey(console: Console, summary: "SurveySummary") -> None:
    """Print a line for each backbone, the cheapest first."""
    figures = (
        "params, M",
        "GFLOPs",
        "depth",
        "MB fwd",
        "MB train",
        "kB top",
        "images/s",
        "MB used",
        summary.metrics["backbones"][0]["metric"],
    )
    cheapest = sorted(summary.metrics["backbones"], key=lambda one: one["anatomy"]["flops"])
    console.print()
    print_table(console, ("backbone", *figures), [_row(one) for one in cheapest], figures)
    lines = (
        "",
        "  MB: float32 activations per image, computed (fwd: peak during inference; train: all of "
        "them);",
        "  images/s and MB used as measured at the fastest batch size; 1 multiply-add is 2 FLOPs",
        f"  report   {summary.report}",
        f"  tables   {summary.table}, {summary.cuts}",
        f"  {summary.seconds:,.1f} s in all",
    )
    for line in lines:
        console.print(line, soft_wrap=True)


def _row(one: dict[str, Any]) -> list[str]:
    anatomy = one["anatomy"]
    fastest = max(one["measurements"], key=lambda point: point["images_per_s"], default=None)
    figure = one["accuracy"] if one["metric"] == "accuracy" else one["value"]
    used = fastest and fastest["memory_bytes"]
    return [
        anatomy["name"],
        f"{anatomy['num_parameters'] / 1e6:,.2f}",
        f"{anatomy['flops'] / 1e9:,.2f}",
        str(anatomy["depth"]),
        f"{anatomy['inference_bytes'] / 1e6:,.1f}",
        f"{anatomy['training_bytes'] / 1e6:,.1f}",
        f"{anatomy['cuts'][-1]['bytes_per_image'] / 1e3:,.1f}",
        f"{fastest['images_per_s']:,.1f} ({fastest['batch_size']})" if fastest else "",
        f"{used / 1e6:,.0f}" if used is not None else "",
        "" if figure is None else f"{figure:.4f}",
    ]

"""Commands that choose: rank backbones and cuts, look after the registry of sources."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
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
    open_store,
    print_json,
    run_and_show,
)
from headstart.tables import print_table
from headstart.tasks.progress import plain_console

if TYPE_CHECKING:
    from headstart.tasks.ranking.report import RankSummary

app = typer.Typer()
sources = typer.Typer(
    help="Register trained models as sources, for `headstart rank` to compare.",
    no_args_is_help=True,
)
app.add_typer(sources, name="sources")


@app.command(no_args_is_help=True)
def rank(
    images: ImagesOrConfigs = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            help="Names from `headstart backbones`, or model files, separated by commas; by "
            "default those whose weights are installed."
        ),
    ] = None,
    cuts: Annotated[
        str | None,
        typer.Option(
            help="Layers from `headstart cuts`, top or natural, separated by commas; "
            "BACKBONE:CUT applies to one backbone only."
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
    """Find the backbone and the cut that suit your images, before you train in full."""
    from headstart.config import RankConfig, build_config

    overrides = {
        "candidates.backbones": _listed(backbones),
        "candidates.cuts": _listed(cuts),
    }
    run_config = build_config(RankConfig, images, config, tuple(settings or ()), overrides)
    run_and_show("rank", run_config, print_ranking, store, out, record, as_json, overwrite)


@sources.command("add")
def sources_add(
    run: Annotated[
        Path, typer.Argument(help="Folder of a `train` or `finetune` run.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the source; the name of the run's folder by default."),
    ] = None,
    store: StoreFolder = None,
    record: Record = False,
    as_json: AsJson = False,
) -> None:
    """Register a trained model, with what it learned from, as a source."""
    from headstart.config import BackboneConfig, SourceConfig, build_config
    from headstart.errors import ConfigError
    from headstart.tasks.models.registry import without_keras_file
    from headstart.tasks.runs.config_file import dataset_of, read_config

    model = run / "model.keras"
    if (run / "run.json").is_file() and not model.is_file():
        raise without_keras_file(run)
    if not model.is_file():
        raise ConfigError(
            "this is not the folder of a `headstart train` or `headstart finetune` run",
            f"{run}: it has no model.keras",
            "give the folder that the command named",
        )
    dataset, told = dataset_of(run), read_config(run)
    if "backbone" not in told:
        raise ConfigError(
            "only a model with a pretrained backbone can be a source",
            f"{run}: its network was trained from scratch",
            f"rank it as a candidate: headstart rank IMAGES --backbones {model}",
        )
    overrides = {
        "name": name or run.resolve().name,
        "dataset": dataset.model_dump(),
        "model": model,
        "backbone": told["backbone"].get("name", BackboneConfig().name),
    }
    config = build_config(SourceConfig, overrides=overrides)

    def show(console: Console, summary: Any) -> None:
        told = f"registered {config.name}: {summary.metrics['num_images']:,} training images"
        console.print(told, soft_wrap=True)

    run_and_show("sources", config, show, store, None, record, as_json)


@sources.command("ls")
def sources_ls(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """List the registered sources."""
    from headstart.commands.options import in_store
    from headstart.tasks.ranking.sources import list_sources

    opened = open_store(store)
    if not list_sources(opened) and opened.is_writable:

        def seed() -> None:
            from headstart.tasks.bottlenecks.rows import open_backbone
            from headstart.tasks.ranking.sources import REFERENCE, seed_registry

            seed_registry(opened, open_backbone(REFERENCE, None))

        in_store(store, seed)
    found = list_sources(opened)
    if as_json:
        fields = [one.model_dump(mode="json", exclude={"mean_features"}) for one in found]
        print_json({"sources": fields})
        return
    rows = [
        (one.name, one.backbone, f"{one.num_images:,}", f"{one.num_classes:,}", one.added[:10])
        for one in found
    ]
    titles = ("name", "backbone", "images", "classes", "added")
    print_table(plain_console(), titles, rows, ("images", "classes"))


def print_ranking(console: Console, summary: "RankSummary") -> None:
    """Print a ranking: each score beside the measured accuracy, and how well they agree."""
    from headstart.tasks.ranking.report import TITLES

    verdict: dict[str, Any] = summary.metrics
    rows = []
    shown = shown_names([one["backbone"] for one in verdict["candidates"]])
    for one in verdict["candidates"]:
        scores = [_figure(one["scores"][name]) for name in TITLES]
        rows.append((shown[one["backbone"]], one["cut"], f"{one[verdict['figure']]:.4f}", *scores))
    taus = [_figure(verdict["agreement"][name]) for name in TITLES]
    rows.append(("weighted τ", "", "", *taus))
    console.print()
    figures = (verdict["metric"], *TITLES.values())
    titles = ("backbone", "cut", *figures)
    print_table(console, titles, rows, figures, num_keys=2, bold_rows=(len(rows) - 1,))
    for line in ranking_lines(summary):
        console.print(line, soft_wrap=True)


def shown_names(backbones: Sequence[str]) -> dict[str, str]:
    """Shorten backbones to the names of their files, but for those that share one."""
    distinct = dict.fromkeys(backbones)
    count = Counter(Path(name).name for name in distinct)
    return {name: Path(name).name if count[Path(name).name] == 1 else name for name in distinct}


def ranking_lines(summary: "RankSummary") -> list[str]:
    """Say what a ranking came to, a sentence a line."""
    from headstart.tasks.ranking.verdict import write

    verdict = summary.metrics
    lines = [
        "",
        f"  pick     {verdict['pick']}, {_measured(verdict)} on {verdict['judged']}",
        f"  seconds  {verdict['ranking_s']:,.0f} for the ranking {verdict['ranked_from']}; "
        f"training all heads uncached would take about {verdict['uncached_s']:,.0f} "
        f"({verdict['seconds_saved']:,.0f} saved)",
    ]
    baseline = verdict[f"baseline_{verdict['figure']}"]
    if baseline is not None:
        lines.append(
            f"  scratch  {write(baseline, verdict['metric'])} for a small network in "
            f"{verdict['baseline_s']:,g} s"
        )
    for source in verdict["sources"]:
        measured = "not measured" if source["accuracy"] is None else f"{source['accuracy']:.1%}"
        lines.append(
            f"  source   {source['name']}: P2L {source['p2l']:.3f} (divergence "
            f"{source['divergence']:.3f}, {source['num_images']:,} images), measured: {measured}"
        )
    lines += [f"  note     {warning}" for warning in verdict["warnings"]]
    return [*lines, f"  report   {summary.report}", f"  {summary.seconds:,.1f} s in all"]


def _measured(verdict: dict[str, Any]) -> str:
    from headstart.tasks.ranking.verdict import write

    return write(verdict["candidates"][0][verdict["figure"]], verdict["metric"])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]

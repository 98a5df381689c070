"""The command that finds images by other images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.commands.options import (
    AsJson,
    BackboneName,
    CutName,
    Images,
    Settings,
    StoreFolder,
    make_reporter,
    print_json,
)
from headstart.tasks.progress import plain_console

app = typer.Typer()


@app.command(no_args_is_help=True)
def search(
    images: Images,
    queries: Annotated[
        list[Path],
        typer.Argument(
            metavar="QUERY...", help="Image files and folders to search with.", show_default=False
        ),
    ],
    k: Annotated[
        int, typer.Option("--top", min=1, help="Number of images to find for each query.")
    ] = 10,
    settings: Settings = None,
    backbone: BackboneName = None,
    cut: CutName = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", help="Contact sheet to write (.jpg or .png): each query and its results."
        ),
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Find the images most similar to a query image, by their cached bottlenecks."""
    from headstart.config import build_config
    from headstart.config.transfer import TransferConfig
    from headstart.tasks.running.tensorflow import import_tensorflow

    overrides = {"backbone.name": backbone, "bottlenecks.cut": cut}
    config = build_config(TransferConfig, images, None, tuple(settings or ()), overrides)
    import_tensorflow()
    from headstart.flows.search import run
    from headstart.tasks.dataset.printable import printable
    from headstart.tasks.progress import use_reporter
    from headstart.tasks.searching.found import write_sheet

    bad: list[dict[str, str]] = []
    errors = plain_console(stderr=True, soft_wrap=True)

    def on_bad(path: str, reason: str) -> None:
        bad.append({"path": printable(path), "error": reason})
        errors.print(f"skipped {printable(path)}: {reason}")

    with use_reporter(make_reporter(as_json)):
        found = run(config, queries, k, store, on_bad)
    if sheet is not None:
        write_sheet(sheet, list(found), list(found.values()), config.dataset.max_pixels)
    if as_json:
        print_json({"queries": _records(found), "bad": bad, "sheet": sheet and str(sheet)})
        return
    for query, hits in found.items():
        print(printable(query))
        for hit in hits:
            print(f"  {hit.similarity:.4f}  {printable(hit.path)}  {printable(hit.label)}".rstrip())


def _records(found: dict[str, Any]) -> list[dict[str, Any]]:
    from headstart.tasks.dataset.printable import printable

    return [
        {
            "query": printable(query),
            "results": [
                {"path": printable(hit.path), "similarity": hit.similarity, "label": hit.label}
                for hit in hits
            ],
        }
        for query, hits in found.items()
    ]

"""Commands that look after the store."""

from typing import Annotated

import typer
from rich.console import Console

from headstart.commands.options import AsJson, StoreFolder, open_store, print_json

app = typer.Typer(help="Look after the store.", no_args_is_help=True)


@app.command("ls")
def cache_ls(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """List what the store holds, the largest first."""
    from headstart.printing import print_holdings
    from headstart.tasks.upkeep import list_holdings

    holdings = list_holdings(open_store(store))
    if as_json:
        print_json({"holdings": [holding.to_dict() for holding in holdings]})
    else:
        print_holdings(Console(), holdings)


@app.command("du")
def cache_du(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """Say how many bytes each kind of artefact takes."""
    from headstart.printing import print_usage
    from headstart.tasks.upkeep import list_holdings, usage

    opened = open_store(store)
    totals = usage(opened, list_holdings(opened))
    if as_json:
        print_json({"store": str(opened.root), "bytes": totals})
    else:
        print_usage(Console(), opened.root, totals)


@app.command("verify")
def cache_verify(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """Hash every file; damaged ones are set aside, and made again when they are needed."""
    from headstart.tasks.upkeep import verify

    verdict = verify(open_store(store))
    if as_json:
        print_json({"files": verdict.num_files, "damaged": list(verdict.damaged)})
    else:
        print(f"{verdict.num_files:,} files checked, {len(verdict.damaged):,} damaged")
        for path in verdict.damaged:
            print(f"  set aside: {path}")
    if verdict.damaged:
        raise typer.Exit(code=4)


@app.command("gc")
def cache_gc(
    views: Annotated[
        bool, typer.Option("--views", help="Remove all views; bottlenecks do without them.")
    ] = False,
    unused_days: Annotated[
        float | None,
        typer.Option("--unused-days", min=0.0, help="Remove what no run used for so long."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StoreFolder = None,
) -> None:
    """Remove left-overs of killed runs and damaged files, and on request views or old artefacts."""
    from headstart.tasks.upkeep import collect_garbage

    removed = collect_garbage(
        open_store(store), views=views, unused_days=unused_days, dry_run=dry_run
    )
    verb = "would be removed" if dry_run else "removed"
    for path, num_bytes in removed:
        print(f"  {num_bytes / 1e6:>10,.1f} MB  {path}")
    print(f"{sum(size for _, size in removed) / 1e6:,.1f} MB {verb}")

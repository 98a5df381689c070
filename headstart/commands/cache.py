"""Commands that look after the store."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.addresses import without_secrets
from headstart.commands.options import AsJson, StoreFolder, open_store, print_json
from headstart.errors import RecordError
from headstart.tasks.progress import plain_console

app = typer.Typer(help="List, check and clean up the store.", no_args_is_help=True)


@app.command("ls")
def cache_ls(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """List what the store holds, the largest first."""
    from headstart.printing import print_holdings
    from headstart.tasks.store.inventory import list_holdings

    holdings = list_holdings(_open_existing(store))
    if as_json:
        print_json({"holdings": [holding.to_dict() for holding in holdings]})
    else:
        print_holdings(plain_console(), holdings)


@app.command("du")
def cache_du(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """Say how many bytes each kind of artefact takes."""
    from headstart.printing import print_usage
    from headstart.tasks.store.inventory import list_holdings, usage

    opened = _open_existing(store)
    totals = usage(opened, list_holdings(opened))
    shown = without_secrets(opened.location)
    if as_json:
        print_json({"store": shown, "bytes": totals})
    else:
        print_usage(plain_console(), shown, totals)


@app.command("verify")
def cache_verify(
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            min=0.0,
            help="Skip shards that were checked within this many days, as in a nightly check.",
        ),
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Check every file's hash; damaged files are set aside, and computed again when needed."""
    from headstart.tasks.models.registry import Registry
    from headstart.tasks.store.verifying import verify

    opened = _open_existing(store)
    check = verify(opened, older_than, Registry(opened).digests())
    if as_json:
        print_json(check.to_dict())
    else:
        _print_check(check)
    if check.damaged:
        raise typer.Exit(code=4)


def _print_check(check: Any) -> None:
    recent = f", {check.num_recent:,} checked recently" if check.num_recent else ""
    print(f"{check.num_files:,} files checked, {len(check.damaged):,} damaged{recent}")
    kinds = (
        ("damaged", check.damaged),
        ("not readable by you, left alone", check.unreadable),
        ("being written, left alone", check.busy),
    )
    for what, paths in kinds:
        for path in paths:
            print(f"  {what}: {path}")


@app.command("gc")
def cache_gc(
    views: Annotated[
        bool,
        typer.Option("--views", metavar="", help="Remove all views; bottlenecks do not need them."),
    ] = False,
    unused_days: Annotated[
        float | None,
        typer.Option(
            "--unused-days", min=0.0, help="Remove what no run has used for this many days."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Only list what would be removed.")
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Remove leftovers of killed runs and damaged files; on request, views or unused artefacts.

    The small shards that runs over a few new images leave behind are merged.
    """
    from headstart.printing import print_removed
    from headstart.tasks.store.garbage import (
        Criteria,
        collect_garbage,
        list_garbage,
        merge_small_shards,
    )

    opened, criteria = _open_existing(store), Criteria(views, unused_days)
    removed = list_garbage(opened, criteria) if dry_run else collect_garbage(opened, criteria)
    merged = [] if dry_run else merge_small_shards(opened)
    num_fewer = sum(len(one.old) - len(one.new) for one in merged) // 2
    if as_json:
        entries = [{"path": path, "bytes": num_bytes} for path, num_bytes in removed]
        print_json({"dry_run": dry_run, "removed": entries, "shards_fewer": num_fewer})
    else:
        print_removed(plain_console(), removed, num_fewer, dry_run)


def _open_existing(folder: Path | None) -> Any:
    """Open the store of the option, or the default one; never make one."""
    from headstart.tasks.store.artifacts import default_root
    from headstart.tasks.store.remote_store import folder_here, url_of

    place = folder or default_root()
    if url_of(place) is None and not (folder_here(place) / "store.json").exists():
        raise RecordError(
            "there is no store here",
            f"{folder_here(place)} is not a store",
            "name it with --store or HEADSTART_STORE; `headstart train` makes one",
        )
    return open_store(place)

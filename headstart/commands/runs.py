"""Commands about finished runs: runs, runs compare."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.commands.options import AsJson, StoreFolder, open_store, print_json
from headstart.errors import ConfigError
from headstart.tables import print_table
from headstart.tasks.progress import plain_console

if TYPE_CHECKING:
    from headstart.tasks.runs.comparing import RunComparison
    from headstart.tasks.runs.overview import RunLine

app = typer.Typer()

NARROW = 72
"""Columns of a terminal below which cuts and seconds are left out."""
WIDE = 110
"""Columns of a terminal on which each run's name is shown too."""
MAX_CHANGED = 20
"""Images named that changed sides; --json has all."""
RunName = Annotated[
    str,
    typer.Argument(
        help="A run: its number in `headstart runs`, a part of its name, or its folder.",
        show_default=False,
    ),
]


@app.callback(invoke_without_command=True)
def runs(
    context: typer.Context,
    sort: Annotated[
        str,
        typer.Option("--sort", help="when, accuracy, seconds, data, backbone, cut, head or name."),
    ] = "when",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Number of runs to show; --json has all.")
    ] = 30,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of a store, the newest first; `runs compare A B` compares two of them."""
    if context.invoked_subcommand is not None:
        return
    from headstart.tasks.runs.overview import SORTS, list_runs, sort_runs

    if sort not in SORTS:
        raise ConfigError(f"runs can be sorted by {', '.join(SORTS)}", repr(sort))
    lines = list_runs(open_store(store).root)
    order = sort_runs(lines, sort, descending=sort in ("when", "accuracy"))
    if as_json:
        print_json({"runs": [line.to_dict() for line in order]})
    elif not lines:
        print("no run yet: `headstart train images/` makes one")
    else:
        number_of = {line.folder: number for number, line in enumerate(lines, 1)}
        _print_runs([(number_of[line.folder], line) for line in order[:limit]])
        if len(order) > limit:
            print(f"{len(order) - limit:,} more: --limit {len(order)}")


@app.command("compare")
def compare(
    first: RunName, second: RunName, store: StoreFolder = None, as_json: AsJson = False
) -> None:
    """Compare two runs: settings, figures, and the images only one gets right (McNemar's test)."""
    from headstart.tasks.runs.comparing import compare_runs
    from headstart.tasks.runs.overview import find_run

    root = open_store(store).root
    made = compare_runs(find_run(root, first), find_run(root, second))
    if as_json:
        print_json(made.to_dict())
    else:
        _print_comparison(made)


def _print_runs(lines: "list[tuple[int, RunLine]]") -> None:
    console = plain_console()
    wide = console.width >= WIDE
    left_out = set() if wide else {"run"} if console.width >= NARROW else {"run", "cut", "s"}
    shown = [_cells(number, line, wide) for number, line in lines]
    titles = [title for title in shown[0] if title not in left_out]
    rows = [[cells[title] for title in titles] for cells in shown]
    print_table(console, titles, rows, ("#", "s"))
    for number, line in lines:
        if line.reason:
            console.print(f"{number}: {line.reason}", soft_wrap=True)


def _cells(number: int, line: "RunLine", wide: bool) -> dict[str, str]:
    """Write a run's line of the table, by the titles of its columns."""
    return {
        "#": str(number),
        "data": line.data,
        "backbone": line.backbone,
        "cut": line.cut,
        "head": line.head,
        "accuracy": line.accuracy_text if line.status == "finished" else line.status,
        "s": "" if line.seconds is None else f"{line.seconds:,.0f}",
        "when": f"{line.when:%Y-%m-%d %H:%M}" if wide else f"{line.when:%m-%d %H:%M}",
        "run": line.name,
    }


def _print_comparison(made: "RunComparison") -> None:
    console = plain_console()
    for title, run in (("first", made.first), ("second", made.second)):
        console.print(f"{title:<7} {run.name}  {run.accuracy_text}", soft_wrap=True)
    console.print()
    _print_pairs("setting", [(name, old, new) for name, old, new in made.settings])
    _print_pairs(
        "figure", [(f"{split} {name}", old, new) for split, name, old, new in made.figures]
    )
    console.print(made.verdict, soft_wrap=True)
    for image in made.changed[:MAX_CHANGED]:
        console.print(
            f"  {image.path} ({image.split}) is {image.label}: {image.first} -> {image.second}",
            soft_wrap=True,
        )
    if len(made.changed) > MAX_CHANGED:
        console.print(f"  and {len(made.changed) - MAX_CHANGED:,} more: --json has all")


def _print_pairs(title: str, rows: list[tuple[str, Any, Any]]) -> None:
    from headstart.tasks.running.stage import short

    if not rows:
        print(f"no {title} differs\n")
        return
    told = [
        (name, *(f"{one:.4g}" if isinstance(one, float) else short(one) for one in (old, new)))
        for name, old, new in rows
    ]
    print_table(plain_console(), (title, "first", "second"), told)
    print()

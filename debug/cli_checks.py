"""``headstart debug check`` and ``headstart debug replay``."""

from pathlib import Path
from typing import Annotated

import typer

from headstart.debug.diagnosis import Diagnosis, to_json
from headstart.debug.first_fit import FirstFitSpec, at_first_fit
from headstart.debug.rendering import render_text
from headstart.errors import HeadstartError

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def check(
    script: Annotated[Path, typer.Argument(help="The Python script.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Its arguments.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a script up to its first fit and check model and data there, in seconds.

    Exits with 0 where nothing is wrong, 1 with a diagnosis, 2 where fit was not reached.
    """
    try:
        result = at_first_fit(FirstFitSpec(str(script), tuple(arguments or ()), "check", ""))
    except HeadstartError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    found = [Diagnosis.from_dict(fields) for fields in result["diagnoses"]]
    typer.echo(to_json(found, script=str(script)) if as_json else render_text(found))
    raise typer.Exit(1 if found else 0)


def replay(
    run: Annotated[Path, typer.Argument(help="A crash bundle, or a run's folder with bundles.")],
    as_json: JsonOption = False,
    keep_dump: Annotated[
        Path | None, typer.Option(help="A new folder in which to keep the dump.")
    ] = None,
) -> None:
    """Take the failing step of a crash bundle again and say what broke it.

    Runs the code in the bundle: replay only what you trust. Exits with 1 with a diagnosis, 0 where
    the failure did not come back, 2 where the bundle cannot be replayed.
    """
    from headstart.debug.replay import replay as replay_bundle

    try:
        done = replay_bundle(run, keep_dump)
    except HeadstartError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    if as_json:
        extra = {"bundle": str(done.bundle), "is_exact": done.is_exact, "message": done.message}
        typer.echo(to_json(done.diagnoses, **extra))
    else:
        typer.echo(f"{done.message}\n\n{render_text(done.diagnoses)}")
        if done.dump_folder is not None:
            typer.echo(f"\nheadstart debug tensorboard {done.dump_folder}")
    raise typer.Exit(1 if done.diagnoses else 0)

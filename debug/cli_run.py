"""``headstart debug run`` and ``headstart debug dump``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart.debug.rendering import render_text
from headstart.errors import HeadstartError

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

MEBIBYTE = 1 << 20


def run(
    script: Annotated[Path, typer.Argument(help="The Python script.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Its arguments, after -- where they look like ours.")
    ] = None,
    as_json: JsonOption = False,
    keep_dump: Annotated[
        Path | None, typer.Option(help="A new folder in which to keep the dump.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="What the dump keeps of each tensor, such as FULL_TENSOR.")
    ] = "CONCISE_HEALTH",
    cap_mib: Annotated[int, typer.Option(min=1, help="Most that a dump may take, in MiB.")] = 1024,
) -> None:
    """Run a TensorFlow script and say what breaks it: which op, which layer, which line.

    Exits with 0 for a healthy run, 1 with a diagnosis, 2 where the script could not be run.
    A script that turns NaN or Inf is run a second time, instrumented.
    """
    from headstart.debug.run import run_script

    try:
        result = run_script(
            script,
            tuple(arguments or ()),
            keep_dump=keep_dump,
            dump_mode=mode,
            cap_bytes=cap_mib * MEBIBYTE,
            output=sys.stderr if as_json else sys.stdout,
        )
    except HeadstartError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps({
            "script": str(script),
            "status": result.status,
            "message": result.message,
            "stages": list(result.stages),
            "dump": result.dump_folder,
            "dropped": result.dropped,
            "diagnoses": [found.to_dict() for found in result.diagnoses],
        }, indent=2))  # fmt: skip
    else:
        _print(result.status, result.message, result.dropped)
        if result.status != "unrunnable":
            typer.echo(render_text(result.diagnoses))
    raise typer.Exit(result.exit_code)


def _print(status: str, message: str, dropped: str) -> None:
    if status == "unrunnable":
        typer.echo(f"The script could not be run: {message}", err=True)
    if dropped:
        typer.echo(dropped, err=True)


def dump(
    folder: Annotated[Path, typer.Argument(help="A folder with a Debugger V2 dump.")],
    as_json: JsonOption = False,
) -> None:
    """Name the first op that made NaN or Inf in an existing dump.

    Exits with 0 where there is none, 1 with a diagnosis, 2 where the dump cannot be read.
    """
    from headstart.debug.diagnosis import to_json
    from headstart.debug.dump import read_dump
    from headstart.debug.rootcause import diagnose_dump

    try:
        contents = read_dump(folder)
    except HeadstartError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    found = diagnose_dump(contents)
    if as_json:
        typer.echo(to_json(found, dump=str(folder), has_health=contents.has_health))
    elif not contents.has_health:
        typer.echo("This dump's mode does not tell NaN and Inf; record CURT_HEALTH or fuller.")
    else:
        typer.echo(render_text(found))
    raise typer.Exit(1 if found else 0)

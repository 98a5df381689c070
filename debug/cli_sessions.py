"""``headstart debug session``: a graph-mode script with each of its sessions wrapped."""

import json
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headstart.debug.sessions import DebugSession


def session(
    script: Annotated[Path, typer.Argument(help="A script that uses tf.compat.v1.Session.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Its arguments, after -- where they look like ours.")
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="Show inputs and outputs of this node.")
    ] = None,
    tensor: Annotated[list[str] | None, typer.Option(help="Show the value of this tensor.")] = None,
    plain: Annotated[bool, typer.Option(help="No prompt, also on a terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a graph-mode script with its sessions dumped.

    On a terminal each run stops at tfdbg's prompt; elsewhere the tensors with NaN or Inf of the
    first run that had any are listed. Exits with 0 where there are none, 1 with some, 2 where the
    script failed.
    """
    if not script.is_file():
        typer.echo(f"A Python script is expected.\nReceived: {script}", err=True)
        raise typer.Exit(2)
    is_interactive = sys.stdin.isatty() and not (plain or as_json or node or tensor)
    with _wrapped_sessions(is_interactive) as sessions:
        failure = _run(script, arguments or [], quiet=as_json)
    if failure or is_interactive:
        typer.echo(failure, err=True)
        raise typer.Exit(2 if failure else 0)
    reports = [_report(wrapped, node or [], tensor or []) for wrapped in sessions]
    if as_json:
        typer.echo(json.dumps({"sessions": reports}, indent=2, default=str))
    else:
        typer.echo("\n".join(_text(report) for report in reports) or "No session ran.")
    for wrapped in sessions:
        wrapped.close()
    raise typer.Exit(1 if any(report["bad"] for report in reports) else 0)


@contextmanager
def _wrapped_sessions(is_interactive: bool) -> Iterator[list["DebugSession"]]:
    """Let ``tf.compat.v1.Session`` make wrapped sessions, and list them."""
    import tensorflow as tf

    from headstart.debug.sessions import DebugSession, interactive_session

    plain_class = tf.compat.v1.Session
    made: list[DebugSession] = []

    def make(*args: Any, **kwargs: Any) -> Any:
        inner = plain_class(*args, **kwargs)
        if is_interactive:
            return interactive_session(inner)
        made.append(DebugSession(inner, keeps_first_bad=True))
        return made[-1]

    tf.compat.v1.Session = make
    try:
        yield made
    finally:
        tf.compat.v1.Session = plain_class


def _run(script: Path, arguments: list[str], quiet: bool) -> str:
    """Run the script; return why it failed, empty where it did not."""
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    stdout = sys.stdout
    if quiet:
        sys.stdout = sys.stderr
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Exception as error:
        return f"The script failed: {type(error).__name__}: {error}"
    finally:
        sys.stdout = stdout
    return ""


def _report(wrapped: "DebugSession", nodes: list[str], tensors: list[str]) -> dict[str, Any]:
    if not wrapped.has_run:
        return {"bad": [], "nodes": [], "tensors": {}, "diagnoses": []}
    return {
        "bad": [asdict(dumped.health) for dumped in wrapped.matching()],
        "nodes": [asdict(wrapped.node(name)) for name in nodes],
        "tensors": {name: wrapped.tensor(name).tolist() for name in tensors},
        "diagnoses": [found.to_dict() for found in wrapped.diagnoses()],
    }


def _text(report: dict[str, Any]) -> str:
    from headstart.debug.diagnosis import Diagnosis
    from headstart.debug.rendering import render_text

    lines = [f"{len(report['bad'])} tensors with NaN or Inf"]
    for item in report["bad"]:
        lines.append(f"  {item['name']}: NaN {item['num_nan']}, Inf {item['num_inf']}")
    lines += [f"{name} = {value}" for name, value in report["tensors"].items()]
    for item in report["nodes"]:
        lines.append(f"{item['name']} ({item['op_type']})")
        lines += [f"  input  {health['name']}: {health}" for health in item["inputs"]]
        lines += [f"  output {health['name']}: {health}" for health in item["outputs"]]
    if report["diagnoses"]:
        found = [Diagnosis.from_dict(fields) for fields in report["diagnoses"]]
        lines += ["", render_text(found)]
    return "\n".join(lines)

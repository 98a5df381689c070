"""The commands of ``headstart debug``; TensorFlow is imported only inside a command."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.debug.diagnosis import Diagnosis, to_json
from headstart.debug.rendering import HEALTHY, render_screen, render_text
from headstart.debug.running.first_fit import FirstFitSpec, at_first_fit
from headstart.debug.running.script import found_program, run_program
from headstart.errors import ConfigError, HeadstartError

if TYPE_CHECKING:
    from headstart.debug.dump.dump import Dump
    from headstart.debug.running.ladder import ScriptRun
    from headstart.debug.traces.sessions import DebugSession

app = typer.Typer(
    help="Find which op, which layer and which line broke a TensorFlow program.",
    no_args_is_help=True,
)
SCRIPT = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Everything after the script's name belongs to the script."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
MEBIBYTE = 1 << 20


@app.command(context_settings=SCRIPT)
def run(
    script: Annotated[str, typer.Argument(help="Python script or notebook to run.")] = "",
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="Arguments for the script: everything after its path."),
    ] = None,
    module: Annotated[
        str, typer.Option("-m", help="Run a module instead, such as package.train.")
    ] = "",
    as_json: JsonOption = False,
    shows_all: Annotated[
        bool, typer.Option("--all", help="Show every finding in full, not just the first.")
    ] = False,
    limit_s: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Stop the script after this many seconds and report what was found."
        ),
    ] = None,
    hang_s: Annotated[
        float,
        typer.Option(
            min=1.0,
            help="Print the stacks of all threads after this many seconds without a training step.",
        ),
    ] = 300.0,
    log_dir: Annotated[
        Path | None,
        typer.Option(
            help="Write gradient norms, update ratios and dead units to this TensorBoard folder."
        ),
    ] = None,
    keep_dump: Annotated[
        Path | None, typer.Option(help="A new folder in which to keep the dump.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="What the dump keeps of each tensor, such as FULL_TENSOR.")
    ] = "CONCISE_HEALTH",
    cap_mib: Annotated[int, typer.Option(min=1, help="Maximum size of the dump, in MiB.")] = 1024,
) -> None:
    """Run a TensorFlow script and say what breaks it: which op, which layer, which line.

    Exit codes: 0 if the run is healthy (with or without advice), 1 if there is a diagnosis, 2 if
    the script did not finish and nothing was found. If the loss of a fit turns NaN or Inf, its last
    training steps are repeated with instrumentation; in other cases the script is run a second
    time, which is announced. Put options before the script: everything after it goes to the script.
    """
    from headstart.debug.running.ladder import run_script

    own = [script, *(arguments or [])] if module else [*(arguments or [])]
    own = [argument for argument in own if argument] if module else own
    try:
        if not (script or module):
            raise ConfigError("no Python script was given", "", "give its path, or -m MODULE")
        result = run_script(
            module or script,
            tuple(own[1:] if own[:1] == ["--"] else own),
            is_module=bool(module),
            limit_s=limit_s,
            hang_s=hang_s,
            announce=lambda text: typer.echo(f"headstart: {text}", err=True),
            log_dir=log_dir,
            keep_dump=keep_dump,
            dump_mode=mode,
            cap_bytes=cap_mib * MEBIBYTE,
            output=sys.stderr if as_json else sys.stdout,
        )
    except HeadstartError as error:
        raise _refused(error, as_json, script=module or script, status="unrunnable") from error
    if as_json:
        typer.echo(json.dumps({
            "script": module or script,
            "status": result.status,
            "message": result.message,
            "watched": result.watched,
            "unseen": result.unseen,
            "stages": list(result.stages),
            "dump": result.dump_folder,
            "dropped": result.dropped,
            "traceback": result.trace_file,
            "diagnoses": [found.to_dict() for found in result.diagnoses],
            "advice": [found.to_dict() for found in result.advice],
        }, indent=2))  # fmt: skip
    else:
        print_run(result, shows_all)
    raise typer.Exit(result.exit_code)


def print_run(result: "ScriptRun", shows_all: bool) -> None:
    """Print what a run showed, for a person.

    Args:
        result: What the debugger found in the run.
        shows_all: Whether every finding is shown in full.
    """
    if result.status == "unrunnable":
        typer.echo(f"The script could not be run: {result.message}", err=True)
        return
    found = [*result.diagnoses, *result.advice]
    if result.message:
        typer.echo(result.message, err=True)
    if result.dropped:
        typer.echo(result.dropped, err=True)
    if result.diagnoses or result.advice:
        typer.echo(render_text(found) if shows_all else render_screen(found))
    elif result.status == "healthy" and not result.watched.startswith("Nothing"):
        typer.echo(HEALTHY)
    typer.echo(result.watched)
    for part, reason in result.unseen.items():
        typer.echo(f"Only partly watched by {part}: {reason}")
    if result.trace_file:
        typer.echo(f"Full traceback: {result.trace_file}")


def _refused(error: HeadstartError, as_json: bool, **more: Any) -> typer.Exit:
    """Say why a command cannot be done, in JSON too where that was asked for."""
    typer.echo(str(error), err=True)
    if as_json:
        typer.echo(to_json([], message=str(error), **more))
    return typer.Exit(2)


@app.command()
def dump(
    folder: Annotated[Path, typer.Argument(help="A folder with a Debugger V2 dump.")],
    where: Annotated[
        str,
        typer.Option(
            help="List the values that match a condition, such as 'num_inf > 0' or 'max > 1e4'."
        ),
    ] = "",
    node: Annotated[
        list[str] | None, typer.Option(help="Show the inputs and outputs of this op.")
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(help="Print the values of this tensor (needs a FULL_TENSOR dump)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Name the first op that made NaN or Inf in an existing dump, or answer questions about it.

    Exit codes: 0 if there is none, or if a question was answered, 1 if there is a diagnosis, 2 if
    the dump cannot be read or does not hold what was asked for.
    """
    from headstart.debug.dump.dump import read_dump
    from headstart.debug.dump.rootcause import diagnose_dump

    try:
        contents = read_dump(folder)
        if where or node or tensor:
            _answer(folder, contents, where, node or [], tensor or [], as_json)
            return
    except HeadstartError as error:
        raise _refused(error, as_json, dump=str(folder)) from error
    found = diagnose_dump(contents)
    if as_json:
        typer.echo(to_json(found, dump=str(folder), has_health=contents.has_health))
    elif not contents.has_health:
        typer.echo(
            "This dump's mode does not record NaN and Inf: use CURT_HEALTH or a more detailed mode."
        )
    else:
        typer.echo(render_text(found))
    raise typer.Exit(1 if found else 0)


def _answer(
    folder: Path, contents: "Dump", where: str, nodes: list[str], tensors: list[str], as_json: bool
) -> None:
    from headstart.debug.dump.queries import matching, node_text, values_of

    rows = matching(contents, where) if where else []
    described = {name: node_text(contents, name) for name in nodes}
    values = {name: values_of(folder, name) for name in tensors}
    if as_json:
        payload = {
            "where": [{"tensor": row.tensor, **row.fields} for row in rows],
            "nodes": described,
            "tensors": {name: [value.tolist() for value in found]
                        for name, found in values.items()},
        }  # fmt: skip
        typer.echo(json.dumps(payload, indent=2, default=str))
        return
    for row in rows:
        typer.echo(row.in_words())
    if where:
        typer.echo(f"{len(rows)} values")
    for text in described.values():
        typer.echo(text)
    for name, found in values.items():
        for place, value in enumerate(found):
            typer.echo(f"{name} [{place}] = {value}")


@app.command(context_settings=SCRIPT)
def session(
    script: Annotated[Path, typer.Argument(help="A script that uses tf.compat.v1.Session.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="Arguments for the script: everything after its path."),
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="Show inputs and outputs of this node.")
    ] = None,
    tensor: Annotated[list[str] | None, typer.Option(help="Show the value of this tensor.")] = None,
    plain: Annotated[bool, typer.Option(help="Never show a prompt, even on a terminal.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a graph-mode script with its sessions dumped.

    On a terminal each session run stops at tfdbg's prompt; elsewhere, the tensors with NaN or Inf
    in the first session run that had any are listed. Exit codes: 0 if there are none, 1 if there
    are some, 2 if the script failed.
    """
    try:
        found_program(str(script))
    except HeadstartError as error:
        raise _refused(error, as_json, script=str(script)) from error
    is_interactive = sys.stdin.isatty() and not (plain or as_json or node or tensor)
    with _wrapped_sessions(is_interactive) as sessions:
        failure = _run(script, arguments or [], quiet=as_json)
    if is_interactive:
        typer.echo(failure, err=True)
        raise typer.Exit(2 if failure else 0)
    if failure:
        typer.echo(failure, err=True)
    try:
        reports = [_report(wrapped, node or [], tensor or []) for wrapped in sessions]
    except HeadstartError as error:
        raise _refused(error, as_json, script=str(script)) from error
    if as_json:
        payload = {"sessions": reports, "message": failure}
        typer.echo(json.dumps(payload, indent=2, default=str))
    else:
        typer.echo("\n".join(_text(report) for report in reports) or "No session ran.")
    for wrapped in sessions:
        wrapped.forget()
    bad = any(report["bad"] for report in reports)
    raise typer.Exit(1 if bad else 2 if failure else 0)


@contextmanager
def _wrapped_sessions(is_interactive: bool) -> Iterator[list["DebugSession"]]:
    """Let ``tf.compat.v1.Session`` make wrapped sessions, and list them."""
    import tensorflow as tf

    from headstart.debug.traces.sessions import DebugSession, interactive_session, wrapping

    made: list[DebugSession] = []
    v1 = tf.compat.v1
    plain = {name: getattr(v1, name) for name in ("Session", "InteractiveSession")}

    def wrap(inner: Any) -> Any:
        if is_interactive:
            return interactive_session(inner)
        made.append(DebugSession(inner, keeps_first_bad=True))
        return made[-1]

    for name, plain_class in plain.items():
        setattr(v1, name, wrapping(plain_class, wrap))
    try:
        yield made
    finally:
        for name, plain_class in plain.items():
            setattr(v1, name, plain_class)


def _run(script: Path, arguments: list[str], quiet: bool) -> str:
    """Run the script; return why it failed, empty where it did not."""
    stdout = sys.stdout
    if quiet:
        sys.stdout = sys.stderr
    own = tuple(arguments[1:] if arguments[:1] == ["--"] else arguments)
    try:
        run_program(str(script.resolve()), own)
    except SystemExit as stop:  # tf.compat.v1.app.run ends so
        return "" if stop.code in (None, 0) else f"The script ended with exit code {stop.code}."
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


@app.command(context_settings=SCRIPT)
def check(
    script: Annotated[Path, typer.Argument(help="Python script to check.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments for the script.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a script up to its first fit and check model and data there, in seconds.

    Exit codes: 0 if nothing is wrong, 1 if there is a diagnosis, 2 if fit was not reached.
    """
    try:
        result = at_first_fit(FirstFitSpec(str(script), tuple(arguments or ()), "check", ""))
    except HeadstartError as error:
        raise _refused(error, as_json, script=str(script)) from error
    found = [Diagnosis.from_dict(fields) for fields in result["diagnoses"]]
    typer.echo(to_json(found, script=str(script)) if as_json else render_text(found))
    raise typer.Exit(1 if found else 0)


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="A crash bundle, or a run's folder with bundles.")],
    as_json: JsonOption = False,
    keep_dump: Annotated[
        Path | None, typer.Option(help="A new folder in which to keep the dump.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code of a bundle that was not written here.")
    ] = False,
) -> None:
    """Repeat the failing training step of a crash bundle and say what broke it.

    This runs the code in the bundle. Exit codes: 1 if there is a diagnosis, 0 if the failure did
    not recur, 2 if the bundle cannot be replayed.
    """
    from headstart.debug.replay.replay import replay as replay_bundle

    try:
        done = replay_bundle(run, keep_dump, trusts=trust)
    except HeadstartError as error:
        raise _refused(error, as_json, bundle=str(run)) from error
    if as_json:
        extra = {"bundle": str(done.bundle), "is_exact": done.is_exact, "message": done.message}
        typer.echo(to_json(done.diagnoses, **extra))
    else:
        typer.echo(f"{done.message}\n\n{render_text(done.diagnoses)}")
        if done.dump_folder is not None:
            typer.echo(f"\nheadstart debug tensorboard {done.dump_folder}")
    raise typer.Exit(1 if done.diagnoses else 0)


@app.command(context_settings=SCRIPT)
def profile(
    target: Annotated[Path, typer.Argument(help="A script to profile, or a folder to read.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="The script's arguments.")] = None,
    log_dir: Annotated[Path, typer.Option(help="Folder to write the profile to.")] = Path(
        "profile"
    ),
    first_step: Annotated[int, typer.Option(min=1, help="First training step to profile.")] = 5,
    num_steps: Annotated[
        int, typer.Option(min=1, help="Number of training steps to profile.")
    ] = 20,
) -> None:
    """Profile some training steps of a script's first fit, or summarise an existing profile."""
    try:
        if target.is_dir():
            from headstart.debug.traces.profile import render_profile, summarize

            typer.echo(render_profile(summarize(target)))
            return
        spec = FirstFitSpec(
            str(target), tuple(arguments or ()), "profile", "", str(log_dir.resolve()),
            first_step, num_steps,
        )  # fmt: skip
        typer.echo(at_first_fit(spec)["report"])
    except HeadstartError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    typer.echo(f"\nheadstart debug tensorboard {log_dir}")


@app.command()
def graph(
    model_file: Annotated[Path, typer.Argument(help="A .keras file.")],
    log_dir: Annotated[Path, typer.Option(help="Folder to write the graph to.")] = Path("graph"),
    first: Annotated[
        str, typer.Option(help="Start of the part to export: the output of this layer.")
    ] = "",
    last: Annotated[str, typer.Option(help="End of the part to export: this layer.")] = "",
) -> None:
    """Export the graph of a saved model, or of the part between two layers, for TensorBoard."""
    import keras

    from headstart.debug.traces.graphs import export_graph, export_part

    try:
        model = keras.models.load_model(model_file, compile=False)
        num_ops = (
            export_part(model, first, last, log_dir)
            if first and last
            else export_graph(model, log_dir)
        )
    except (HeadstartError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{num_ops} ops\n\nheadstart debug tensorboard {log_dir}")


@app.command()
def tensorboard(
    run: Annotated[Path, typer.Argument(help="Folder of a run, dump, profile or log.")] = Path(),
    port: Annotated[int, typer.Option(help="TCP port on loopback; 0 picks a free one.")] = 0,
) -> None:
    """Show a folder in TensorBoard, with debugger and profiler, until interrupted."""
    from headstart.debug.traces.tensorboard import start_tensorboard

    try:
        board = start_tensorboard(run, port)
    except HeadstartError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from error
    for name, address in board.pages().items():
        typer.echo(f"{name:<10}{address}")
    board.wait()

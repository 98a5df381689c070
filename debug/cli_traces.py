"""``headstart debug profile``, ``graph`` and ``tensorboard``."""

from pathlib import Path
from typing import Annotated

import typer

from headstart.debug.first_fit import FirstFitSpec, at_first_fit
from headstart.errors import HeadstartError


def profile(
    target: Annotated[Path, typer.Argument(help="A script to profile, or a folder to read.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="The script's arguments.")] = None,
    log_dir: Annotated[Path, typer.Option(help="Where the profile goes.")] = Path("profile"),
    first_step: Annotated[int, typer.Option(min=1, help="First step profiled.")] = 5,
    num_steps: Annotated[int, typer.Option(min=1, help="Steps profiled.")] = 20,
) -> None:
    """Profile some steps of a script's first fit, or read a profile: what takes the time?"""
    try:
        if target.is_dir():
            from headstart.debug.profile import render_profile, summarize

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


def graph(
    model_file: Annotated[Path, typer.Argument(help="A .keras file.")],
    log_dir: Annotated[Path, typer.Option(help="Where the graph goes.")] = Path("graph"),
    first: Annotated[str, typer.Option(help="Layer from whose output on to export.")] = "",
    last: Annotated[str, typer.Option(help="Layer up to which to export.")] = "",
) -> None:
    """Export the graph of a saved model, or of the part between two layers, for TensorBoard."""
    import keras

    from headstart.debug.graphs import export_graph, export_part

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


def tensorboard(
    run: Annotated[Path, typer.Argument(help="A run, dump, profile or log folder.")] = Path(),
    port: Annotated[int, typer.Option(help="TCP port on loopback; 0: any free one.")] = 0,
) -> None:
    """Show a folder in TensorBoard, with debugger and profiler, until interrupted."""
    from headstart.debug.tensorboard import start_tensorboard

    try:
        board = start_tensorboard(run, port)
    except HeadstartError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from error
    for name, address in board.pages().items():
        typer.echo(f"{name:<10}{address}")
    board.wait()

"""The commands of ``headstart debug``; TensorFlow is imported only inside a command."""

import typer

app = typer.Typer(
    help="Find which op, which layer and which line broke a TensorFlow program.",
    no_args_is_help=True,
)

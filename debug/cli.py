"""The commands of ``headstart debug``; TensorFlow is imported only inside a command."""

import typer

from headstart.debug.cli_checks import check, replay
from headstart.debug.cli_run import dump, run
from headstart.debug.cli_sessions import session
from headstart.debug.cli_traces import graph, profile, tensorboard

app = typer.Typer(
    help="Find which op, which layer and which line broke a TensorFlow program.",
    no_args_is_help=True,
)
# Options not known here belong to the script; so does everything after "--".
_SCRIPT = {"ignore_unknown_options": True}
app.command(context_settings=_SCRIPT)(run)
app.command()(dump)
app.command(context_settings=_SCRIPT)(session)
app.command(context_settings=_SCRIPT)(check)
app.command()(replay)
app.command(context_settings=_SCRIPT)(profile)
app.command()(graph)
app.command()(tensorboard)

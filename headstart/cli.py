"""The command line: arguments become a configuration, the configuration becomes a run.

The commands are in headstart/commands. They import TensorFlow, Prefect and the stages when they
run, so that ``--help`` and a mistyped option answer at once.
"""

import gc
import io
import json
import os
import re
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from headstart import __version__
from headstart.commands import (
    audit,
    cache,
    explain,
    finetune,
    models,
    promotion,
    rank,
    runs,
    scratch,
    search,
    service,
    survey,
    sweep,
    transfer,
    views,
)
from headstart.debug.cli import app as debug_app
from headstart.errors import ConfigError, HeadstartError, OutputError
from headstart.standard_output import give_up, telling_failures
from headstart.tasks.progress import plain_console, without_controls
from headstart.tasks.running.tensorflow import quieten_imports

app = typer.Typer(
    help="Turn a folder of images into a trained classifier; every run after the first is nearly "
    "free.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="HIT: the result was in the store. MISS: it was computed now. docs/glossary.md explains "
    "cut, bottleneck, rung and other terms.",
)
app.add_typer(transfer.app)
app.add_typer(views.app)
app.add_typer(sweep.app)
app.add_typer(finetune.app)
app.add_typer(models.app)
app.add_typer(rank.app)
app.add_typer(audit.app)
app.add_typer(survey.app)
app.add_typer(scratch.app)
app.add_typer(explain.app)
app.add_typer(search.app)
app.add_typer(service.app)
app.add_typer(promotion.app)
app.add_typer(runs.app, name="runs")
app.add_typer(cache.app, name="cache")
app.add_typer(debug_app, name="debug")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"headstart {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            metavar="",
            help="Print the version and exit.",
        ),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option(
            "--traceback",
            metavar="",
            help="Show the traceback of an error; may also be given after the command.",
        ),
    ] = False,
) -> None:
    """Begin every command; `main` looks for --traceback itself, wherever it stands."""


CODE_OF_SIGPIPE = 128 + 13
"""What a shell reports of a program that a closed pipe ended."""


def main() -> None:
    """Run the command line; errors that headstart raises on purpose end without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A class may be called anything, a terminal or a log may know no more than ASCII.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show_traceback = "--traceback" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--traceback"]
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    quieten_imports()
    # TensorFlow's import and its tracing make millions of objects that stay; looking through them
    # for garbage at Python's default pace takes about a twentieth of a short run.
    gc.set_threshold(100_000, 20, 100)
    signal.signal(signal.SIGTERM, _end)
    try:
        with telling_failures():
            _run(arguments)
    except HeadstartError as error:
        if show_traceback:
            raise
        _end_with(error, arguments)
    except (RuntimeError, FileNotFoundError) as error:
        explained = _explain_environment(error)
        if show_traceback or explained is None:
            raise
        _end_with(explained, arguments)
    except SystemExit as end:
        # `headstart train … | head`: typer and rich both make a closed pipe an exit with code 1.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        give_up()
        sys.exit(CODE_OF_SIGPIPE)


def _explain_environment(error: Exception) -> HeadstartError | None:
    """Name the variable behind what Python raises without a home or a temporary folder."""
    from headstart.launch import no_temporary_folder

    if isinstance(error, FileNotFoundError):
        is_temporary = "temporary directory" in str(error)
        return no_temporary_folder(error) if is_temporary else None
    if "home directory" not in str(error):
        return None
    return HeadstartError(
        "paths that start with ~ need a home folder, and there is none",
        str(error),
        "set HOME to a folder",
    )


def _end_with(error: HeadstartError, arguments: list[str]) -> NoReturn:
    _print_error(error)
    try:
        if "--json" in arguments and not isinstance(error, OutputError):
            # On one line, as `predict` prints an object a line.
            print(json.dumps({"error": error.to_dict()}))
        print(end="", flush=True)
    except OSError:
        give_up()
    sys.exit(error.exit_code)


class _Ended(SystemExit):
    """SIGTERM: an exit like any other, so that what was started is ended and locks are let go."""


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; the rest is ending
    raise _Ended(128 + number)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse what a variable of the shell that is not set leaves: "" would be this folder."""
    if arguments[:2] == ["debug", "run"]:  # what follows the script is the script's own
        return
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for place, argument in enumerate(own, 1):
        if not argument.strip() or re.fullmatch(r"--[a-z-]+=\s*", argument):
            before = " ".join(own[: place - 1])
            raise ConfigError(
                "an argument is empty",
                f"{argument!r} after `headstart {before}`",
                "write . for the current folder; if it is a variable of the shell, set it",
            )


def _run(arguments: list[str]) -> None:
    _refuse_empty(arguments)
    try:
        app(args=arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except SystemError as error:
        # An interrupt that arrived inside of a callback from C.
        if not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise
        sys.exit(128 + signal.SIGINT)
    except _Ended:
        raise
    except SystemExit:  # every command ends so
        _flush()
        raise


def _flush() -> None:
    """Write what is still to be written, while a closed pipe can be told of as such."""
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        end = SystemExit(1)
        end.__context__ = error
        raise end from None


def _print_error(error: HeadstartError) -> None:
    console = plain_console(stderr=True, soft_wrap=True)
    console.print(type(error).__name__, style="bold red", end=": ")
    console.print(without_controls(error.problem))
    for title, text in error.details():
        console.print(f"  {title}", style="bold", end=": ")
        console.print(without_controls(text))


if __name__ == "__main__":
    main()

"""``%%headstart`` for Jupyter: a cell run under ``headstart debug run``.

``%load_ext headstart.debug`` once; then ``%%headstart`` (or ``%%headstart --all``) as the
first line of a cell that stands by itself: it runs in a process of its own, and sees nothing of
the notebook's variables.
"""

import tempfile
from pathlib import Path
from typing import Any


def load_ipython_extension(ipython: Any) -> None:
    """Register the magic; IPython calls it."""
    ipython.register_magic_function(run_cell, "cell", "headstart")


def run_cell(line: str, cell: str) -> None:
    """Run a cell's code and print what it shows.

    Args:
        line: What stands behind ``%%headstart``: ``--all`` shows every finding in full.
        cell: Python code of the cell.
    """
    from headstart.debug.cli import print_run
    from headstart.debug.running.ladder import run_script

    # Beside the notebook, so that what the cell imports and opens is found.
    with (
        tempfile.NamedTemporaryFile(
            "w", dir=Path.cwd(), prefix="headstart_cell_", suffix=".py", encoding="utf-8"
        ) as script,
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
    ):
        script.write(cell)
        script.flush()
        result = run_script(script.name, announce=print, output=output)
        output.seek(0)
        print(output.read(), end="")
        print_run(result, shows_all="--all" in line.split())

"""Running a stranger's program in this process, as Python itself would.

A script, a module (``-m package.module``) or the code cells of a notebook. There is one way to do
it, whoever wants to watch.
"""

import ast
import importlib.util
import json
import linecache
import re
import runpy
import sys
from pathlib import Path

from headstart.errors import ConfigError

_CELL_MAGIC = re.compile(r"\s*%%(\w+)")
_OF_PYTHON = ("time", "timeit", "capture", "prun", "headstart")
"""Magics of a cell that run it as Python."""
_ASSIGNED = re.compile(r"(\w+)\s*=\s*[!%]")
_ONLY_IPYTHON = re.compile(r"^\s*[%!?]|^\s*\w+\s*=\s*[!%]|\?\s*$")
"""Lines that IPython takes for itself: magics, shell commands, questions."""


def found_program(target: str, is_module: bool = False) -> str:
    """Return a program's target in a form that does not depend on the working folder.

    Args:
        target: Path of a ``.py`` or ``.ipynb`` file, or a module's name.
        is_module: Whether it is a module's name.

    Returns:
        The absolute path, or the module's name.

    Raises:
        ConfigError: There is no such program.
    """
    if not is_module:
        if not Path(target).is_file():
            raise ConfigError("there is no such script", target, "check the path")
        return str(Path(target).resolve())
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(target)
    except (ImportError, ValueError):
        spec = None
    finally:
        sys.path.pop(0)
    if spec is None:
        raise ConfigError(
            "the module named after -m cannot be imported from here",
            target,
            "change to the folder that holds its package, or give the script's path",
        )
    return target


def run_program(target: str, arguments: tuple[str, ...] = (), is_module: bool = False) -> None:
    """Run a program as ``__main__``; what it raises is raised.

    Args:
        target: Path or module name, as `found_program` returned it.
        arguments: Arguments of the program, its ``sys.argv[1:]``.
        is_module: Whether it is a module's name.
    """
    sys.argv = [target, *arguments]
    if is_module:
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(target, run_name="__main__", alter_sys=True)
        return
    sys.path.insert(0, str(Path(target).resolve().parent))
    if target.endswith(".ipynb"):
        _run_notebook(Path(target))
    else:
        runpy.run_path(target, run_name="__main__")


def notebook_in_words(path: Path) -> str:
    """Say what is run of a notebook.

    Raises:
        ConfigError: The file is no notebook.
    """
    cells = _code_cells(path)
    count = sum(
        one != other
        for lines in cells
        for one, other in zip(lines, without_magic(lines), strict=True)
    )
    magics = f"; {count} IPython-only lines are skipped" if count else ""
    return f"the code cells of this notebook ({len(cells)}) run as one script{magics}"


def _code_cells(path: Path) -> list[list[str]]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [
            "".join(cell["source"]).splitlines(keepends=True)
            for cell in cells
            if cell.get("cell_type") == "code"
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "this is not a Jupyter notebook of version 4",
            f"{path}: {type(error).__name__}: {error}",
            "save it with Jupyter, or export it: jupyter nbconvert --to script",
        ) from None


def _run_notebook(path: Path) -> None:
    """Run the code cells in one namespace; lines for IPython itself are left out."""
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    main.__dict__.update(display=print, get_ipython=lambda: None)
    for number, written in enumerate(_code_cells(path), start=1):
        lines = without_magic(written)
        name = f"{path} cell {number}"
        # So that tracebacks, AutoGraph and a diagnosis can read the cell.
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
        exec(compile(ast.parse("".join(lines), name), name, "exec"), main.__dict__)


def without_magic(lines: list[str]) -> list[str]:
    """Take out of a cell what only IPython understands.

    Args:
        lines: The cell's lines, each with its line break.

    Returns:
        As many lines. A line is left out only where Python cannot read it: ``% acc)`` may well go
        on with the line above, and a text may hold anything.
    """
    first = next((place for place, line in enumerate(lines) if line.strip()), 0)
    cell = _CELL_MAGIC.match(lines[first]) if lines else None
    if cell and cell[1] not in _OF_PYTHON:  # another language, or a file to write
        return [_passed_over(line) for line in lines]
    lines = [_passed_over(line) if cell and place == first else line
             for place, line in enumerate(lines)]  # fmt: skip
    for _ in range(len(lines)):
        try:
            ast.parse("".join(lines))
        except SyntaxError as error:
            place = (error.lineno or 0) - 1
            if not 0 <= place < len(lines) or not _ONLY_IPYTHON.search(lines[place]):
                break  # it is the program's
            lines[place] = _passed_over(lines[place])
        else:
            break
    return lines


def _passed_over(line: str) -> str:
    text = line.lstrip()
    assigned = _ASSIGNED.match(text)
    begin = f"{line[: len(line) - len(text)]}"
    return f"{begin}{assigned[1]} = []  # {text}" if assigned else f"{begin}pass  # {text}"

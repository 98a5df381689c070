"""Finding the user's own line: who called, and where in that file a call stands."""

import ast
import functools
import importlib.util
import inspect
import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

_NOT_THE_USERS = ("site-packages", "dist-packages", "<frozen", "<string>")


@functools.cache
def _own_folders() -> tuple[str, ...]:
    """Return the folders of headstart: a user can change nothing in them."""
    here = Path(__file__).parent
    face = here.parent / "headstart"  # in a checkout the packages lie side by side
    places = [here, face] if face.is_dir() else [here.parent]
    for name in ("headstart.flows", "headstart.tasks"):
        spec = importlib.util.find_spec(name)
        places += map(Path, (spec and spec.submodule_search_locations) or ())
    return tuple(f"{place}{os.sep}" for place in places)


@dataclass(frozen=True)
class CallSite:
    """A line of the user's.

    Args:
        file: Path of the source file.
        line: The line, counted from 1.
    """

    file: str
    line: int

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Leave nothing of itself in the program's pickles, to be read without headstart."""
        return type(None), ()

    def __copy__(self) -> "CallSite":
        """Stay what it is in copies of the program's objects."""
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> "CallSite":
        """Stay what it is in copies of the program's objects."""
        return self


@functools.lru_cache(maxsize=4096)  # asked of each frame at each step
def is_users(file: str) -> bool:
    """Tell whether a source file is the user's: no library's, not Python's, not headstart's.

    Nor what pip wrote to start a command.
    """
    standard = str(Path(ast.__file__).parent)
    return not (
        any(part in file for part in _NOT_THE_USERS)
        or file.startswith((*_own_folders(), standard))
        or os.path.dirname(file) == sysconfig.get_path("scripts")  # noqa: PTH120
        or not file
    )


def is_headstarts(file: str) -> bool:
    """Tell whether a source file is headstart's own."""
    return file.startswith(_own_folders())


def calling_site() -> CallSite | None:
    """Return the innermost line of the user's that led to this call; None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            return CallSite(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def locals_of(frame: FrameType) -> dict[str, Any]:
    """Return the local names of a frame and what they stand for, and keep none of it alive.

    Up to Python 3.12 a function's frame keeps a copy of what it is asked for, so that ``del x``
    would free nothing until the function returns. It is taken back, unless the program holds it
    itself (``kept = locals()``); names that ``exec`` added to it stay.

    Args:
        frame: A frame that is running.
    """
    held, code = frame.f_locals, frame.f_code
    names = dict(held)
    num_own_references = 3  # the frame's, this function's, and that of the count
    is_copy = code.co_flags & inspect.CO_OPTIMIZED and sys.version_info < (3, 13)
    if is_copy and sys.getrefcount(held) <= num_own_references:
        for name in (*code.co_varnames, *code.co_cellvars, *code.co_freevars):
            held.pop(name, None)
    return names


@functools.lru_cache(maxsize=8)
def tree_of(file: str) -> ast.Module | None:
    """Return the syntax tree of a file; None where it cannot be read or parsed."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


def find_call(site: CallSite, *names: str) -> CallSite | None:
    """Find where a file calls one of some functions, last before a line.

    Args:
        site: The file, and the line up to which to look.
        *names: Last parts of the callee's name, most wanted first: ``Adam`` finds
            ``keras.optimizers.Adam(...)``.

    Returns:
        The call nearest above the line (or on it) of the first name that is called at all;
        None where none is, or the file cannot be parsed.
    """
    tree = tree_of(site.file)
    if tree is None:
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for name in names:
        lines = [node.lineno for node in calls if callee(node) == name]
        above = [line for line in lines if line <= site.line]
        if above:
            return CallSite(site.file, max(above))
    return None


def callee(call: ast.Call) -> str:
    """Return the last part of the name of what a call calls; empty where it has none."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def find_escape(site: CallSite) -> CallSite | None:
    """Find where a function lets go of a value that it made: into a list, an attribute, a global.

    Args:
        site: Where the value was made.

    Returns:
        The first such line from there on in the same function; None where there is none.
    """
    tree = tree_of(site.file)
    if tree is None:
        return None
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.lineno <= site.line <= (node.end_lineno or 0)
    ]
    for function in sorted(around, key=lambda node: -node.lineno)[:1]:
        shared = {
            name
            for node in ast.walk(function)
            if isinstance(node, ast.Global | ast.Nonlocal)
            for name in node.names
        }
        lines = [
            node.lineno
            for node in ast.walk(function)
            if isinstance(node, ast.stmt) and _lets_go(node, shared) and node.lineno >= site.line
        ]
        if lines:
            return CallSite(site.file, min(lines))
    return None


def _lets_go(node: ast.stmt, shared: set[str]) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return callee(node.value) in ("append", "extend", "add", "insert", "update", "put")
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(
        isinstance(target, ast.Attribute | ast.Subscript)
        or (isinstance(target, ast.Name) and target.id in shared)
        for target in targets
    )

"""What a program shuffles in place, alone or two things apart, as its source shows."""

import ast
import itertools

from headstart.debug.callsites import CallSite
from headstart.debug.source.syntax import tree_of

_RESEEDS = ("seed", "set_state", "RandomState", "default_rng", "setstate", "Random")
"""Calls between two shuffles that may make them alike."""


def shuffled_apart(file: str) -> CallSite | None:
    """Find where a file shuffles two things one after the other, each in an order of its own.

    Args:
        file: Path of the source file.

    Returns:
        The line of the second shuffle; None where there is none, or the file cannot be parsed.
    """
    tree = tree_of(file)
    for node in ast.walk(tree) if tree is not None else ():
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if not isinstance(body, list):
                continue
            for first, second in itertools.pairwise(body):
                names = [_shuffled(first), _shuffled(second)]
                if all(names) and names[0] != names[1]:
                    return CallSite(file, second.lineno)
    return None


def lone_shuffles(file: str) -> list[int]:
    """Return the lines on which a file shuffles one thing in place, such as numpy's shuffle.

    Args:
        file: Path of the source file.
    """
    tree = tree_of(file)
    return [
        node.lineno
        for node in (ast.walk(tree) if tree is not None else ())
        if isinstance(node, ast.stmt) and _shuffle_of(node) is not None
    ]


def _shuffle_of(statement: ast.stmt) -> ast.Call | None:
    """Return the call by which a statement shuffles one thing in place; None where none does."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or len(call.args) != 1 or call.keywords:
        return None
    function = call.func
    return call if isinstance(function, ast.Attribute) and function.attr == "shuffle" else None


def _shuffled(statement: ast.stmt) -> str:
    """Return what a statement shuffles in place; empty where it does not, or chooses a seed."""
    call = _shuffle_of(statement)
    if call is None or any(name in ast.dump(call.func) for name in _RESEEDS):
        return ""
    return ast.unparse(call.args[0])

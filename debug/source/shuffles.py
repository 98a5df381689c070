"""Two lists of one data set that a program shuffles apart, as its source shows."""

import ast
import itertools

from headstart.debug.callsites import CallSite, tree_of
from headstart.debug.source.syntax import shuffle_of

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


def _shuffled(statement: ast.stmt) -> str:
    """Return what a statement shuffles in place; empty where it does not, or chooses a seed."""
    call = shuffle_of(statement)
    if call is None or any(name in ast.dump(call.func) for name in _RESEEDS):
        return ""
    return ast.unparse(call.args[0])

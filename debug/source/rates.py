"""Where a program's text sets the learning rate while it trains."""

import ast
from collections.abc import Iterator

from headstart.debug.callsites import callee, tree_of
from headstart.debug.source.syntax import targets_of

_NAMES = ("learning_rate", "lr")
_SETTERS = ("set_value", "update")


def line_that_sets_rate(file: str) -> int | None:
    """Return where a program's callback, or its schedule, sets the learning rate.

    Args:
        file: The program.

    Returns:
        The last line that writes to an optimizer's rate; else the last line of the function that
        a ``LearningRateScheduler`` is given. None where there is neither.
    """
    tree = tree_of(file)
    if tree is None:
        return None
    unused = _unused_lines(tree)
    set_at = [line for line in _assignments(tree) if line not in unused]
    return max(set_at, default=None) or max(_schedules(tree), default=None)


def _unused_lines(tree: ast.Module) -> set[int]:
    """Return the lines of functions of the file that it never asks for by name."""
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {
        line
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name not in read
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def _assignments(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign):
            if any(_is_rate(target) for target in targets_of(node)):
                yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            is_assigned = node.func.attr == "assign" and _is_rate(node.func.value)
            is_set = node.func.attr in _SETTERS and node.args and _is_rate(node.args[0])
            if is_assigned or is_set:
                yield node.lineno


def _is_rate(node: ast.expr) -> bool:
    """Say whether an expression is the learning rate of something called an optimizer."""
    if not isinstance(node, ast.Attribute) or node.attr not in _NAMES:
        return False
    return "opt" in ast.unparse(node.value).lower()


def _schedules(tree: ast.Module) -> Iterator[int]:
    functions = {one.name: one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or callee(node) != "LearningRateScheduler":
            continue
        named = [one.value for one in node.keywords if one.arg == "schedule"]
        given = next(iter([*node.args, *named]), node)
        if isinstance(given, ast.Name) and given.id in functions:
            found = [one for one in ast.walk(functions[given.id]) if isinstance(one, ast.Return)]
            yield max((one.lineno for one in found), default=functions[given.id].lineno)
        else:
            yield given.lineno

"""Which functions of a program its text can run at all: a helper that nothing names never runs."""

import ast
from collections.abc import Iterator, Mapping

from headstart.debug.source.syntax import SCOPES

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_BY_KERAS = ("build", "call", "compute_loss", "result", "test_step", "train_step", "update_state")
"""Methods that nobody calls by name."""


def reached(trees: Mapping[str, ast.Module], main: str) -> set[ast.AST]:
    """Return the functions of a program that its modules, as they are loaded, may come to call.

    Args:
        trees: The syntax tree of each of its source files.
        main: The file that is run as the program; what the others guard with ``__main__`` is not.

    Returns:
        The functions whose names are used outside of them by what is run, the ones within these
        included where they are named there.
    """
    names: set[str] = set()
    waiting: list[_Function] = []
    for file, tree in trees.items():
        roots = [one for one in tree.body if file == main or not _is_of_main(one)]
        for node in _run_with(roots):
            names |= _named(node)
            waiting += [node] if isinstance(node, _Function) else []
    found: set[ast.AST] = set()
    while ready := [one for one in waiting if _is_called(one, names)]:
        waiting = [one for one in waiting if one not in ready]
        found.update(ready)
        for node in _run_with([part for one in ready for part in one.body]):
            names |= _named(node)
            waiting += [node] if isinstance(node, _Function) else []
    return found


def _run_with(roots: list[ast.stmt]) -> Iterator[ast.AST]:
    """Go through what is run with some statements: not into the bodies of functions there."""
    waiting: list[ast.AST] = [*roots]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, _Function):
            waiting += [*node.decorator_list, node.args]
        else:
            waiting += ast.iter_child_nodes(node)


def _named(node: ast.AST) -> set[str]:
    if isinstance(node, ast.alias):  # imported under another name
        return {node.name} if node.asname else set()
    name = getattr(node, "id", None) or getattr(node, "attr", None)
    return {name} if isinstance(name, str) else set()


def _is_called(function: _Function, names: set[str]) -> bool:
    name = function.name
    is_anothers = name.startswith(("__", "on_")) or name in _BY_KERAS
    return name in names or is_anothers or bool(function.decorator_list)


def _is_of_main(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test)


def functions_around(tree: ast.Module) -> dict[ast.AST, ast.AST | None]:
    """Return the innermost function around each node of a tree; None for what is in none."""
    around: dict[ast.AST, ast.AST | None] = {}
    waiting: list[tuple[ast.AST, ast.AST | None]] = [(tree, None)]
    while waiting:
        node, function = waiting.pop()
        around[node] = function
        inner = node if isinstance(node, SCOPES) else function
        waiting += [(child, inner) for child in ast.iter_child_nodes(node)]
    return around

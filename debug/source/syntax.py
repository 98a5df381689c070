"""What the text of a program says around a line: where a value comes from, which loop holds what.

Running shows that something happened; only the text shows what it was meant for, and the line to
change. Every function returns None, or nothing, where the text cannot be read.
"""

import ast
from collections.abc import Iterator
from typing import Any

from headstart.debug.callsites import CallSite, callee, tree_of

_LOOPS = (ast.For, ast.While, ast.AsyncFor)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_ONCE_ONLY = ("zip", "map", "filter", "iter", "as_numpy_iterator")
"""Callables whose results can be gone through once."""
_PASSING_ON = ("enumerate", "tqdm", "iter", "zip", "map", "trange")
"""Callables that go through what they are given."""


def origin_of_argument(
    site: CallSite | None,
    function: str,
    place: int = 0,
    keyword: str = "",
    with_elements: bool = False,
) -> CallSite | None:
    """Find the line that makes an argument of a call.

    Args:
        site: A line of the call.
        function: Last part of the callee's name, such as ``gradient``.
        place: Which argument, counted from 0.
        keyword: Its name, where it may be given by that.
        with_elements: Whether a line that writes some of its elements counts too.

    Returns:
        The last assignment above it to the variable that is handed over; where that calls a
        function of the same file, what this returns.
    """
    tree = None if site is None else tree_of(site.file)
    if site is None or tree is None:
        return None
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if not call.lineno <= site.line <= (call.end_lineno or 0) or callee(call) != function:
            continue
        named = [one.value for one in call.keywords if one.arg == keyword]
        argument = next(iter([*named, *call.args[place : place + 1]]), None)
        if isinstance(argument, ast.Name):
            return _assignment_of(tree, site, argument.id, with_elements)
    return None


def _assignment_of(
    tree: ast.Module, site: CallSite, name: str, with_elements: bool
) -> CallSite | None:
    def is_written(target: ast.expr) -> bool:
        whole = target
        while with_elements and isinstance(whole, ast.Subscript | ast.Attribute):
            whole = whole.value  # x[i], frame.loc[i, "column"]
        return isinstance(whole, ast.Name) and whole.id == name

    above = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign)
        and node.lineno <= site.line
        and any(map(is_written, targets_of(node)))
    ]
    if not above:
        return None
    last = max(above, key=lambda node: node.lineno)
    is_whole = any(isinstance(target, ast.Name) for target in targets_of(last))
    if isinstance(last.value, ast.Call) and is_whole:
        returned = return_of(tree, callee(last.value))
        if returned is not None:
            return CallSite(site.file, returned)
    return CallSite(site.file, last.lineno)


def return_of(tree: ast.Module, function: str) -> int | None:
    """Return the line of the last ``return`` of a function of a program; None for another's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            lines = [one.lineno for one in ast.walk(node) if isinstance(one, ast.Return)]
            return max(lines, default=None)
    return None


def targets_of(node: Any) -> list[ast.expr]:
    """Return what a statement assigns to, tuples taken apart."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [
        part
        for target in targets
        for part in (target.elts if isinstance(target, ast.Tuple | ast.List) else [target])
    ]


def statement_at(site: CallSite) -> str:
    """Return the innermost statement on a line, as one line; empty where there is none.

    Args:
        site: The line.
    """
    tree = tree_of(site.file)
    around = [
        node
        for node in (ast.walk(tree) if tree is not None else ())
        if isinstance(node, ast.stmt) and node.lineno <= site.line <= (node.end_lineno or 0)
    ]
    last = max(around, key=lambda node: node.lineno, default=None)
    return "" if last is None else ast.unparse(last)


def find_call_below(site: CallSite | None, name: str) -> CallSite | None:
    """Find where a function is next called, from a line on, within the same function.

    Args:
        site: The file, and the line from which to look; None finds nothing.
        name: Last part of the callee's name.

    Returns:
        The call; None where there is none, or the file cannot be parsed.
    """
    tree = None if site is None else tree_of(site.file)
    if site is None or tree is None:
        return None
    around = [node.end_lineno or 0 for node in ast.walk(tree)
              if isinstance(node, ast.FunctionDef) and node.lineno <= site.line
              and site.line <= (node.end_lineno or 0)]  # fmt: skip
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call)
             and callee(node) == name and site.line <= node.lineno
             and node.lineno <= min(around, default=node.lineno)]  # fmt: skip
    return CallSite(site.file, min(lines)) if lines else None


def is_in_inner_loop(file: str, outer_line: int, inner_line: int) -> bool:
    """Tell whether a line stands in a loop beside another line, within the loop around both.

    Args:
        file: Path of the program's source.
        outer_line: A line in some loop.
        inner_line: The line that may stand in a further loop, inside that one.
    """
    tree = tree_of(file)
    around = loops_around(tree, outer_line) if tree is not None else []
    if not around:
        return False
    return len(loops_around(around[-1], inner_line)) > 1


def loops_around(tree: ast.AST, line: int) -> list[Any]:
    """Return the loops that hold a line in their body, the outermost first."""
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, _LOOPS) and node.body[0].lineno <= line <= (node.end_lineno or 0)
    ]
    return sorted(found, key=lambda node: node.lineno)


def spent_iterators(file: str) -> Iterator[tuple[int, str, str]]:
    """Find what can be gone through once, is made before a loop and gone through in each turn.

    Yields:
        Line that makes it, its name, and what it is.
    """
    tree = tree_of(file)
    if tree is None:
        return
    generators = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and _yields(node) and not _is_endless(node)
    }
    for outer in (node for node in ast.walk(tree) if isinstance(node, _LOOPS)):
        for inner in _loops_within(outer):
            name = _gone_through(inner)
            if not name or _leaves_early(inner) or _is_assigned_within(outer, name):
                continue
            made = _made_once(tree, outer, name, generators)
            if made is not None:
                yield made[0], name, made[1]


def _loops_within(outer: ast.AST) -> Iterator[ast.For]:
    for node in ast.walk(outer):
        if isinstance(node, ast.For) and node is not outer:
            yield node


def _gone_through(loop: ast.For) -> str:
    over: ast.expr = loop.iter
    while isinstance(over, ast.Call) and callee(over) in _PASSING_ON and over.args:
        over = over.args[-1] if callee(over) == "map" else over.args[0]
    return over.id if isinstance(over, ast.Name) else ""


def _leaves_early(loop: ast.For) -> bool:
    return any(isinstance(node, ast.Break | ast.Return) for node in ast.walk(loop))


def _is_assigned_within(outer: ast.AST, name: str) -> bool:
    return any(
        isinstance(target, ast.Name) and target.id == name
        for node in ast.walk(outer)
        if isinstance(node, ast.Assign | ast.For | ast.AnnAssign | ast.NamedExpr)
        for target in targets_of(node)
    )


def _made_once(
    tree: ast.Module, outer: Any, name: str, generators: set[str]
) -> tuple[int, str] | None:
    made = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and node.lineno < outer.lineno
        and any(isinstance(target, ast.Name) and target.id == name for target in targets_of(node))
    ]
    last = max(made, key=lambda node: node.lineno, default=None)
    if last is None or _scope_of(tree, last.lineno) is not _scope_of(tree, outer.lineno):
        return None
    if isinstance(last.value, ast.GeneratorExp):
        return last.lineno, "a generator"
    if not isinstance(last.value, ast.Call):
        return None
    called = callee(last.value)
    if called in generators and isinstance(last.value.func, ast.Name):
        return last.lineno, f"a generator, made by {called}()"
    is_plain = isinstance(last.value.func, ast.Name) or called == "as_numpy_iterator"
    return (last.lineno, f"an iterator, made by {called}()") if (
        called in _ONCE_ONLY and is_plain
    ) else None  # fmt: skip


def _scope_of(tree: ast.Module, line: int) -> ast.AST:
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, SCOPES) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(around, key=lambda node: node.lineno, default=tree)


def _yields(function: ast.FunctionDef) -> bool:
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function))


def _is_endless(function: ast.FunctionDef) -> bool:
    return any(
        isinstance(node, ast.While)
        and isinstance(node.test, ast.Constant)
        and bool(node.test.value)
        for node in ast.walk(function)
    )


_CUTTING = ("numpy", "stop_gradient", "array", "asarray", "item", "argmax", "round", "tolist")
"""Calls behind which no gradient is known."""


def made_outside_tape(site: CallSite) -> list[tuple[int, ast.Call]]:
    """Find what is computed before a tape begins to record, and used while it does.

    Args:
        site: The line that asks the tape for a gradient.

    Returns:
        Line and call of each such value, as far as it is made in the same turn of the loop.
    """
    tree = tree_of(site.file)
    block = None if tree is None else _tape_above(tree, site.line)
    if tree is None or block is None:
        return []
    loops = loops_around(tree, block.lineno)
    around: Any = loops[-1] if loops else _scope_of(tree, block.lineno)
    start = getattr(around, "lineno", 0)
    used = {node.id for node in ast.walk(block) if isinstance(node, ast.Name)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and start <= node.lineno < block.lineno
        and isinstance(node.value, ast.Call)
        and any(isinstance(target, ast.Name) and target.id in used for target in targets_of(node))
    ]


def cuts_under_tape(site: CallSite) -> list[int]:
    """Find calls that take a value out of TensorFlow, or stop its gradient, while a tape records.

    Args:
        site: The line that asks the tape for a gradient.

    Returns:
        Their lines: in the tape's block, in what it calls by name, and in every ``call``.
    """
    tree = tree_of(site.file)
    block = None if tree is None else _tape_above(tree, site.line)
    if tree is None or block is None:
        return []
    called = {callee(node) for node in ast.walk(block) if isinstance(node, ast.Call)}
    places: list[ast.AST] = [block]
    places += [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in {*called, "call", "__call__"}
    ]
    return sorted(
        {
            node.lineno
            for place in places
            for node in ast.walk(place)
            if isinstance(node, ast.Call) and callee(node) in _CUTTING
        }
    )


def called_in_inference(gradient_site: CallSite | None) -> CallSite | None:
    """Return the call under a tape that is told ``training=False``.

    Args:
        gradient_site: Where the tape is asked for gradients.
    """
    tree = None if gradient_site is None else tree_of(gradient_site.file)
    block = None if gradient_site is None or tree is None else _tape_above(tree, gradient_site.line)
    if gradient_site is None or block is None:
        return None
    for call in (node for node in ast.walk(block) if isinstance(node, ast.Call)):
        for given in call.keywords:
            if given.arg == "training" and ast.unparse(given.value) == "False":
                return CallSite(gradient_site.file, call.lineno)
    return None


def _tape_above(tree: ast.Module, line: int) -> ast.With | None:
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        and node.lineno <= line
        and any(
            isinstance(item.context_expr, ast.Call) and callee(item.context_expr) == "GradientTape"
            for item in node.items
        )
    ]
    return max(blocks, key=lambda node: node.lineno, default=None)


def sliding_slices(file: str, first: int, last: int) -> list[int]:
    """Find slices that begin at a name and end at that name plus something: ``x[i : i + n]``.

    Args:
        file: Path of the program's source.
        first: The line from which on to look.
        last: The line up to which to look.

    Returns:
        Their lines, in order.
    """
    tree = tree_of(file)
    return sorted(
        node.lineno
        for node in (ast.walk(tree) if tree is not None else ())
        if isinstance(node, ast.Slice) and first <= node.lineno <= last and _slides(node)
    )


def yields(file: str, first: int, last: int) -> list[int]:
    """Return the lines, from one to another, on which a generator gives something.

    Args:
        file: Path of the program's source.
        first: The line from which on to look.
        last: The line up to which to look.
    """
    tree = tree_of(file)
    return sorted(
        node.lineno
        for node in (ast.walk(tree) if tree is not None else ())
        if isinstance(node, ast.Yield) and first <= node.lineno <= last
    )


def _slides(node: ast.Slice) -> bool:
    if not isinstance(node.lower, ast.Name) or not isinstance(node.upper, ast.BinOp):
        return False
    parts = (node.upper.left, node.upper.right)
    return isinstance(node.upper.op, ast.Add) and any(
        isinstance(part, ast.Name) and part.id == node.lower.id for part in parts
    )


_SUMMING = ("reduce_mean", "reduce_sum", "mean", "sum")


def is_added_up(file: str, line: int) -> bool:
    """Tell whether a product on a line goes into a mean, or a sum, over everything, and only there.

    Args:
        file: Path of the program's source.
        line: The line of the product.
    """
    tree = tree_of(file)
    scope = None if tree is None else _scope_of(tree, line)
    if scope is None:
        return False
    wholes = [
        node.args[0]
        for node in ast.walk(scope)
        if isinstance(node, ast.Call)
        and callee(node) in _SUMMING
        and len(node.args) == 1
        and not node.keywords
    ]
    if any(_has_product(whole, line) for whole in wholes):
        return True
    named = {
        target.id
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign) and _has_product(node.value, line)
        for target in targets_of(node)
        if isinstance(target, ast.Name)
    }
    reads = [
        node
        for node in ast.walk(scope)
        if isinstance(node, ast.Name) and node.id in named and isinstance(node.ctx, ast.Load)
    ]
    summed = [node for whole in wholes for node in _terms(whole)]
    return bool(reads) and all(any(node is one for one in summed) for node in reads)


def _has_product(node: ast.expr, line: int) -> bool:
    """Tell whether one of the terms is a product of two, on a line, numbers aside.

    Of three factors it is not known which two meet first.
    """
    return any(
        isinstance(one, ast.BinOp)
        and isinstance(one.op, ast.Mult)
        and one.lineno <= line <= (one.end_lineno or 0)
        and len(_factors(one)) == 2
        for one in _terms(node)
    )


def _factors(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.UnaryOp):
        return _factors(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        return [*_factors(node.left), *_factors(node.right)]
    return [] if isinstance(node, ast.Constant) else [node]


def _terms(node: ast.expr) -> Iterator[ast.expr]:
    """Go through what a sum over everything is the sum of."""
    yield node
    if isinstance(node, ast.UnaryOp):
        yield from _terms(node.operand)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield from _terms(node.left)
        yield from _terms(node.right)


def lone_shuffles(file: str) -> list[int]:
    """Return the lines on which a file shuffles one thing in place, such as numpy's shuffle.

    Args:
        file: Path of the source file.
    """
    tree = tree_of(file)
    return [
        node.lineno
        for node in (ast.walk(tree) if tree is not None else ())
        if isinstance(node, ast.stmt) and shuffle_of(node) is not None
    ]


def shuffle_of(statement: ast.stmt) -> ast.Call | None:
    """Return the call by which a statement shuffles one thing in place; None where none does."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or len(call.args) != 1 or call.keywords:
        return None
    function = call.func
    return call if isinstance(function, ast.Attribute) and function.attr == "shuffle" else None

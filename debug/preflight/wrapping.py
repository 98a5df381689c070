"""Small integers that wrap around: pictures are uint8, and 250 + 10 of them is 4.

What a program computed is computed again, in wide integers, from the text of the assignment and
the arrays as they are. Where the two differ by whole turns of the small type and by nothing else,
the small type was the reason.
"""

import ast
import operator
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, is_users, locals_of, tree_of
from headstart.debug.diagnosis import Diagnosis

MAX_ROWS = 500
"""Computed again of each array."""
MIN_SHARE = 0.01
"""Share of the values that wrapped below which it may be meant."""
MAX_VALUES = 2**16
"""Of an array that has other rows: a mean picture, a scale for each channel."""
MAX_FRAMES = 100
_OPERATORS: Mapping[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
}


class _UnknownError(Exception):
    """A part of an expression that is not computed again."""


def wrapped_integers() -> list[Diagnosis]:
    """Find arrays of small integers that do not hold what their lines compute.

    The program is looked at where it stands: call it while one of its lines is being run.

    Returns:
        A finding for the first such line.
    """
    for frame in _users_frames():
        names = {**frame.f_globals, **locals_of(frame)}
        tree = tree_of(frame.f_code.co_filename)
        for statement in ast.walk(tree) if tree is not None else ():
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                continue
            target = statement.targets[0]
            held = names.get(target.id) if isinstance(target, ast.Name) else None
            if not isinstance(held, np.ndarray) or not _is_small(held):
                continue
            share = _share_wrapped(statement.value, held, names)
            if share >= MIN_SHARE:
                site = CallSite(frame.f_code.co_filename, statement.lineno)
                return [_finding(statement.value, held.dtype, share).at(site)]
    return []


def _users_frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        if is_users(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def _is_small(values: np.ndarray[Any, Any]) -> bool:
    # Of 16 bits and more arithmetic may be meant to wrap, in hashes.
    is_narrow = values.dtype.kind in "iu" and values.dtype.itemsize == 1
    return is_narrow and values.size > 0 and values.ndim > 0


def _share_wrapped(node: ast.expr, held: Any, names: Mapping[str, Any]) -> float:
    """Return the share of values that are off by whole turns; 0 where anything else is off."""
    if isinstance(node, ast.Name | ast.Constant):
        return 0.0
    try:
        right = np.broadcast_to(_again(node, names, held), held[:MAX_ROWS].shape)
    except (_UnknownError, ValueError, OverflowError, ZeroDivisionError):
        return 0.0
    if not np.isfinite(right).all():
        return 0.0
    off = np.trunc(right).astype(np.int64) - held[:MAX_ROWS].astype(np.int64)
    if (off % 2 ** (8 * held.dtype.itemsize)).any():
        return 0.0
    return float((off != 0).mean())


def _again(node: ast.expr, names: Mapping[str, Any], like: Any) -> Any:
    """Compute an expression in wide numbers, on the first rows."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.Name):
        return _wide(names.get(node.id), like)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_again(node.operand, names, like)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = (_again(one, names, like) for one in (node.left, node.right))
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".astype"):
        assert isinstance(node.func, ast.Attribute)
        return _again(node.func.value, names, like)  # to the type that the result has
    raise _UnknownError


def _wide(value: Any, like: Any) -> Any:
    if isinstance(value, bool | int | float | np.integer | np.floating):
        return value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        raise _UnknownError
    has_rows = value.ndim == like.ndim and len(value) == len(like)
    if not has_rows and value.size > MAX_VALUES:
        raise _UnknownError
    first = value[:MAX_ROWS] if has_rows else value
    return first.astype(np.int64 if value.dtype.kind in "iu" else np.float64)


def _finding(node: ast.expr, kind: Any, share: float) -> Diagnosis:
    limits = np.iinfo(kind)
    return Diagnosis(
        symptom="integer-overflow",
        cause=f"`{ast.unparse(node)}` is kept in {kind}, which holds {limits.min} to {limits.max} "
        f"and wraps around beyond: {share:.0%} of its values are not what the line computes.",
        phase="data",
        confidence=0.96,
        suggestions=('convert first: x.astype("float32"), and compute then',),
        evidence={"dtype": str(kind), "share": round(share, 4)},
    )

"""A loss of the user's own, held against the targets that it is given: which way does it pull?"""

import ast
import math
from types import CodeType
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, callee, is_users, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Array, Facts
from headstart.debug.preflight.objectives import single_loss
from headstart.debug.preflight.stateful_losses import may_be_asked
from headstart.debug.source.syntax import return_of
from headstart.debug.symptoms.trace import TrainingTrace

NEARER = 0.5
"""Part of the way to the targets that the answers are moved, before the loss is asked again."""
MIN_DIFFERENCE = 1e-3
"""Relative difference of the loss that counts as an answer."""
_ADVICE = {
    False: "To maximise a likelihood or a score, minimise its negative.",
    True: "Keras's cosine_similarity is a loss already: -1 where the angle is 0. Taken from 1, or "
    "negated, it turns the answers away from the targets.",
}
"""By whether a similarity of Keras's is negated."""
WORSE = 1.2
"""Mean squared error over the variance of the targets from which on a model answers worse than
their mean: that is what a loss with the wrong sign teaches."""


def wrong_sign(facts: Facts, trace: TrainingTrace) -> list[Diagnosis]:
    """Find a loss of the user's own that grows as the answers come nearer to the targets.

    Args:
        facts: What is known of the training.
        trace: The record of it.

    Returns:
        A finding, or none.
    """
    loss = single_loss(facts.model)
    if facts.family or not callable(loss) or not trace.last_loss < trace.first_loss:
        return []
    turns_similarity = _turns_similarity(loss)
    # A positive loss may mean something else by its targets: 1 for pairs to be brought together.
    if trace.last_loss >= 0.0 and not turns_similarity:
        return []
    targets = _targets(facts)
    if targets is None or facts.y_pred is None or facts.y is None:
        return []
    y_pred = facts.y_pred.astype(np.float32)
    error = float(np.mean((y_pred - targets) ** 2))
    if error < WORSE * float(np.mean((targets - targets.mean(axis=0)) ** 2)):
        return []
    if not may_be_asked(loss):
        return []
    nearer = y_pred + NEARER * (targets - y_pred)
    before, after = (_value(loss, facts.y, answers) for answers in (y_pred, nearer))
    if not after - before > MIN_DIFFERENCE * max(abs(before), 1.0):
        return []
    site = site_of(loss)
    return [
        Diagnosis(
            symptom="loss-with-wrong-sign",
            cause=f"The loss has the wrong sign: it grows (from {before:.4g} to {after:.4g}) when "
            "predictions are moved nearer to the targets, and training drives it to "
            f"{trace.last_loss:.4g}. {_ADVICE[turns_similarity]}",
            phase="loss",
            confidence=0.97,
            suggestions=(
                ("return keras.losses.cosine_similarity(y_true, y_pred) as it is",)
                if turns_similarity
                else (
                    "return the negative: -tf.reduce_mean(...)",
                    "or use one of Keras's losses, such as binary_crossentropy",
                )
            ),
            evidence={"before": before, "nearer": after, "is_certain": True},
        ).at(site)
    ]


def _turns_similarity(loss: Any) -> bool:
    """Say whether a loss of the user's own subtracts, or negates, Keras's cosine similarity."""
    code = code_of(loss)
    tree = None if code is None else tree_of(code.co_filename)
    if code is None or tree is None:
        return False
    lines = {line for _, _, line in code.co_lines() if line}
    for node in ast.walk(tree):
        taken = node.right if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) else None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            taken = node.operand
        if taken is None or taken.lineno not in lines:
            continue
        called = (callee(one) for one in ast.walk(taken) if isinstance(one, ast.Call))
        if any(name.lower().replace("_", "") == "cosinesimilarity" for name in called):
            return True
    return False


def _targets(facts: Facts) -> Array | None:
    """Return the targets in the shape of the answers; None where they are no answers to give."""
    y, y_pred = facts.y, facts.y_pred
    if y is None or y_pred is None or not np.isfinite(y).all() or not np.isfinite(y_pred).all():
        return None
    if y.size == y_pred.size:
        shaped = y.reshape(y_pred.shape).astype(np.float32)
    elif y.size == len(y) and y_pred.ndim == 2 and (y == np.rint(y)).all():
        if y.min() < 0 or y.max() >= y_pred.shape[1]:
            return None
        shaped = np.eye(y_pred.shape[1], dtype=np.float32)[y.reshape(-1).astype(np.int64)]
    else:
        return None
    # Targets that are all alike are placeholders: the loss does not read them.
    return None if (shaped == shaped[:1]).all() else shaped


def _value(loss: Any, y: Array, answers: Array) -> float:
    import tensorflow as tf

    try:
        return float(np.mean(np.asarray(loss(tf.constant(y), tf.constant(answers)))))
    except Exception:  # it wants another dtype, or more than it is given here
        return math.nan


def site_of(loss: Any) -> CallSite | None:
    """Return the line on which a loss of the user's own returns; None for another's.

    Args:
        loss: A function, or an object with a ``call``.
    """
    code = code_of(loss)
    if code is None:
        return None
    tree = tree_of(code.co_filename)
    line = return_of(tree, code.co_name) if tree is not None else None
    return CallSite(code.co_filename, line or code.co_firstlineno)


def code_of(loss: Any) -> CodeType | None:
    """Return the code of a loss of the user's own; None for another's.

    Args:
        loss: A function, or an object with a ``call``.
    """
    function = loss if hasattr(loss, "__code__") else getattr(type(loss), "call", None)
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    return code if code is not None and is_users(code.co_filename) else None

"""A loss of the user's own that takes rows of the batch for something else: ``y_pred[0]``.

The first axis of what a loss is given are the rows. What counts by its place in the batch, wherever
the rows are moved to, is an index that was meant for outputs or columns; what counts by its values
(a margin, a mask, the hardest rows) moves along with the rows.
"""

import ast
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from headstart.debug.callsites import CallSite, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Array, Facts
from headstart.debug.preflight.own_losses import code_of, site_of
from headstart.debug.preflight.samples import same_seeds
from headstart.debug.preflight.stateful_losses import may_be_asked

MIN_ROWS, MAX_ROWS = 8, 32
NUM_ORDERS = 4
"""Orders of the rows in which a loss is asked."""
MAX_USED = 0.4
"""Share of the rows up to which a loss leaves most of them out: half may be labelled, by design."""

_asked: WeakKeyDictionary[Any, list[Diagnosis]] = WeakKeyDictionary()
"""What was found of a loss: a program is not disturbed by asking it again."""


def few_rows(facts: Facts) -> list[Diagnosis]:
    """Find a loss that looks at the same few places of the batch, whatever rows are there.

    Args:
        facts: What is known of the training.

    Returns:
        A finding for each such loss.
    """
    found, known = [], set()
    for loss, targets, answers in _losses(facts):
        code = code_of(loss)
        if code is None or code in known or not _is_batch(targets, answers):
            continue
        known.add(code)
        if loss not in _asked:
            _asked[loss] = []  # also where it raises
            if may_be_asked(loss):
                with same_seeds():
                    _asked[loss] = _judged(loss, code, targets[:MAX_ROWS], answers[:MAX_ROWS])
        found += _asked[loss]
    return found


def _judged(loss: Any, code: Any, targets: Array, answers: Array) -> list[Diagnosis]:
    answers_used, targets_used = _places(loss, targets, answers)
    if not answers_used and not targets_used:
        return []
    return [_of(loss, code, answers_used, targets_used, len(answers))]


def _losses(facts: Facts) -> Iterator[tuple[Any, Array, Array]]:
    """Go through the losses of a model, each with targets and answers."""
    names = list(getattr(facts.model, "output_names", None) or [])
    answers = _listed(facts.every_output, names)
    targets = _listed(facts.every_y, names) if len(answers) > 1 else [facts.every_y]
    losses = _listed(getattr(facts.model, "loss", None), names)
    losses = losses * len(answers) if len(losses) == 1 else losses
    if len(losses) == len(targets) == len(answers):
        for loss, y, y_pred in zip(losses, targets, answers, strict=True):
            if callable(loss) and y is not None and y_pred is not None:
                yield loss, np.asarray(y), np.asarray(y_pred)


def _listed(value: Any, names: list[str]) -> list[Any]:
    if isinstance(value, dict):
        return [value.get(name) for name in names]
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_batch(targets: Array, answers: Array) -> bool:
    return (
        answers.ndim > 1
        and len(answers) == len(targets) >= MIN_ROWS
        and targets.dtype.kind in "fiub"
        and not (answers == answers[:1]).all()
    )


def _places(loss: Any, targets: Array, answers: Array) -> tuple[list[int], list[int]]:
    """Return the rows of answers, and of targets, that a loss counts, where these are few."""
    import tensorflow as tf

    def value_of(one: Any, other: Any) -> Any:
        return loss.call(one, other) if hasattr(loss, "call") else loss(one, other)

    y = targets.reshape(-1, 1) if targets.ndim == 1 else targets
    y, y_pred = tf.constant(y.astype(np.float32)), tf.constant(answers.astype(np.float32))
    rng, seen, columns = np.random.default_rng(0), [], np.zeros(y.shape[1:], bool)
    for turn in range(NUM_ORDERS):
        order = rng.permutation(len(y)) if turn else np.arange(len(y))
        one, other = tf.gather(y, order), tf.gather(y_pred, order)
        with tf.GradientTape() as tape:
            tape.watch([one, other])
            value = value_of(one, other)
        gradients = tape.gradient(value, [other, one])
        seen.append([_used(gradient) for gradient in gradients])
        if gradients[1] is not None:
            columns |= (_array(gradients[1]) != 0).any(axis=0)
    places = [sides[0] if all(side == sides[0] for side in sides) else []
              for sides in zip(*seen, strict=True)]  # fmt: skip
    of_answers, of_targets = (few if len(few) <= MAX_USED * len(y) else [] for few in places)
    read = np.asarray(y)[:, columns]
    if (read == read[:1]).all():  # a number for the whole batch: it is no matter whose it is
        of_targets = []
    # Beside labelled rows all answers may count by themselves: do they meet that one target?
    if of_targets and not of_answers and not _meets_all(value_of, y, y_pred, of_targets):
        of_targets = []
    return of_answers, of_targets


def _meets_all(value_of: Callable[..., Any], y: Any, y_pred: Any, rows: list[int]) -> bool:
    """Tell whether all answers are compared with one target: both bear on the loss together."""
    import tensorflow as tf

    if len(rows) > 1:
        return False
    with tf.GradientTape() as outer:
        outer.watch(y_pred)
        with tf.GradientTape() as tape:
            tape.watch(y)
            value = value_of(y, y_pred)
        pull = tape.gradient(value, y)
        pull = None if pull is None else tf.convert_to_tensor(pull)
    return pull is not None and len(_used(outer.gradient(pull, y_pred))) == len(y_pred)


def _array(gradient: Any) -> Array:
    import tensorflow as tf

    return np.asarray(tf.convert_to_tensor(gradient))  # of a gather it holds some rows only


def _used(gradient: Any) -> list[int]:
    if gradient is None:
        return []
    values = _array(gradient)
    return [int(row) for row in np.flatnonzero((values.reshape(len(values), -1) != 0).any(axis=1))]


def _of(loss: Any, code: Any, answers: list[int], targets: list[int], num: int) -> Diagnosis:
    rows = answers or targets
    shown = ", ".join(map(str, rows[:3])) + (", …" if len(rows) > 3 else "")
    what = (
        "all other rows count nothing and get no gradient"
        if answers
        else "all answers are compared with the targets of these"
    )
    return Diagnosis(
        symptom="loss-of-few-rows",
        cause=f"Loss {code.co_name!r} looks at only {len(rows)} of {num} rows of a batch (those at "
        f"{shown}), whichever rows these are; {what}. The first axis of what a loss is given are "
        "the examples: y_pred[0] is the first row of the batch, not the first output or column.",
        phase="loss",
        confidence=0.97,
        suggestions=(
            "columns: y_pred[:, 0], with the rows left whole",
            "several outputs: one loss for each, loss=[first, second]; a loss sees one output",
        ),
        evidence={"rows": rows[:20], "is_certain": True},
    ).at(_line_of_index(code) or site_of(loss))


def _line_of_index(code: Any) -> CallSite | None:
    """Return the first line of a function that takes a place, or a slice, of an argument's rows."""
    tree = tree_of(code.co_filename)
    names = code.co_varnames[: code.co_argcount]
    last = max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)
    lines = [
        node.lineno
        for node in (ast.walk(tree) if tree is not None else ())
        if isinstance(node, ast.Subscript)
        and code.co_firstlineno <= node.lineno <= last
        and isinstance(node.value, ast.Name)
        and node.value.id in names
        and not isinstance(node.slice, ast.Tuple)
    ]
    return CallSite(code.co_filename, min(lines)) if lines else None

"""Rules that read a traced graph, whoever made it: a Keras loss, an own loop or a TF1 session.

They look at shapes and at which op feeds which, never at names, and at an op only where the user's
own line made it.
"""

import linecache
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.symptoms.loss_parts import finding, unbalanced
from headstart.debug.symptoms.swapped import swapped

_PASSING = ("Identity", "Reshape", "Cast", "Sub", "Squeeze", "StopGradient")
_CROSS_ENTROPY = ("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits")
_PAIRED = ("Sub", "SquaredDifference", "Equal")
_DELIBERATE = ("ExpandDims", "StridedSlice", "Tile", "Transpose")
_SCORES = ("MatMul", "BiasAdd", "AddV2", "Add")
"""Ops that end what a layer computes for each row."""
_OF_SHAPE = ("Shape", "Size", "Rank")
"""Ops that do not look at values: gradients take them."""
_SUMS = ("Sum", "Mean")
_SCALED = ("Neg", "Identity", "Cast", "Mul", "AddV2", "Sub", "RealDiv")
"""Ops that leave a sum over everything a sum over everything."""
MAX_OPS = 20_000
"""Ops of one graph that are looked at."""


def check_graph(graph: Any) -> list[Diagnosis]:
    """Look through a graph for what cannot be meant.

    Returns:
        The findings.
    """
    found: list[Diagnosis] = []
    for op in graph.get_operations()[:MAX_OPS]:
        rule = _RULES.get(op.type)
        if rule is not None:
            found += rule(op)
    return found


def broadcast_finding(
    first: tuple[int | None, ...],
    second: tuple[int | None, ...],
    site: CallSite | None,
    is_product: bool = False,
) -> Diagnosis:
    """Return the finding of a row that meets a column.

    Args:
        first: Shape of one operand.
        second: Shape of the other.
        site: The user's line that combines them.
        is_product: Whether they are multiplied, and all of that is added up.
    """
    size = next((dim for dim in (*first, *second) if dim not in (1, None)), None)
    count = "N" if size is None else str(size)
    shown = [str(shape).replace("None", count) for shape in (first, second)]
    return Diagnosis(
        symptom="silent-broadcast",
        cause=f"Shapes {shown[0]} and {shown[1]} are broadcast to ({count}, {count}): every "
        + (
            "value is multiplied with every other, row against column, and the mean of the "
            "result is just the product of two means: the pairing of rows is lost."
            if is_product
            else "prediction is compared with every target, row against column, instead of pair "
            "by pair."
        ),
        phase="loss",
        confidence=0.97,
        suggestions=(
            "give both the same shape: tf.squeeze(column, -1), or tf.expand_dims(row, -1)"
            if is_product
            else "give both the same shape: tf.squeeze(predictions, -1), or tf.reshape / "
            "tf.expand_dims(targets, -1)",
            "check it: tf.debugging.assert_shapes",
        ),
    ).at(site)


def is_row_against_column(first: Any, second: Any) -> bool:
    """Tell whether one of two shapes is (N,) and the other (N, 1), with N the same or unknown."""
    row, column = (first, second) if len(first) < len(second) else (second, first)
    if len(row) != 1 or len(column) != 2 or column[1] != 1:
        return False
    return bool(row[0] == column[0] and row[0] != 1)


def _product(op: Any) -> list[Diagnosis]:
    """Find a row times a column of which nothing is used but the sum of it all.

    An outer product, weights of pairs and an attention go on as what they are.
    """
    if op.outputs[0].shape.rank != 2 or not _is_added_up(op):
        return []
    return _broadcast(op, is_product=True)


def _is_added_up(op: Any) -> bool:
    import tensorflow as tf

    for _ in range(8):
        if op.type in _SUMS:
            axes = tf.get_static_value(op.inputs[1])
            return op.outputs[0].shape.rank == 0 and axes is not None and np.size(axes) == 2
        takers = [one for one in op.outputs[0].consumers() if one.type not in _OF_SHAPE]
        if len(takers) != 1 or takers[0].type not in (*_SCALED, *_SUMS):
            return False
        others = [one for one in takers[0].inputs if one is not op.outputs[0]]
        if takers[0].type in _SCALED and any(one.shape.rank != 0 for one in others):
            return False
        op = takers[0]
    return False


def _broadcast(op: Any, is_product: bool = False) -> list[Diagnosis]:
    shapes = [tensor.shape for tensor in op.inputs]
    if any(shape.rank is None for shape in shapes):
        return []
    first, second = (tuple(shape.as_list()) for shape in shapes)
    if not is_row_against_column(first, second):
        return []
    sources = [_source_tensor(tensor) for tensor in op.inputs]
    column = sources[0] if len(first) == 2 else sources[1]
    if column.op.type in _DELIBERATE or sources[0] is sources[1]:  # pairs of one thing's values
        return []
    site = _own_line(op)
    return [broadcast_finding(first, second, site, is_product)] if site is not None else []


def _logits(op: Any) -> list[Diagnosis]:
    exchanged = swapped(op) if op.type == "SoftmaxCrossEntropyWithLogits" else []
    if exchanged or _num_logits(op.inputs[0]) == 1:
        return exchanged or _one_logit(op)
    source = _source(op.inputs[0])
    if source.type not in ("Relu", "Relu6", "Softmax", "Sigmoid"):
        return []
    site = _line_of_activation(source) or _own_line(op)
    if site is None or _own_line(op) is None:
        return []
    name = source.type.lower()
    if name.startswith("relu"):
        cause = (
            "relu is applied to the last layer (the logits) before "
            "softmax_cross_entropy_with_logits: scores below 0 are cut off and get no gradient."
        )
    else:
        cause = (
            f"{name} is applied before softmax_cross_entropy_with_logits, which applies softmax "
            "itself: it is applied twice and gradients are squashed."
        )
    return [
        Diagnosis(
            symptom="activation-on-logits",
            cause=cause,
            op=source.name,
            op_type=source.type,
            phase="loss",
            confidence=0.93,
            suggestions=("give the loss the last layer's output without activation (the logits)",),
        ).at(site)
    ]


def _num_logits(tensor: Any) -> int | None:
    """Return how many logits a row has, also where TensorFlow's own flattening hides it."""
    while tensor.shape.rank:
        width: int | None = tensor.shape.as_list()[-1]
        if width is not None or tensor.op.type not in ("Reshape", "Cast"):
            return width
        tensor = tensor.op.inputs[0]
    return None


def _one_logit(op: Any) -> list[Diagnosis]:
    site = _own_line(op)
    if site is None:
        return []
    return [
        Diagnosis(
            symptom="softmax-on-one-unit",
            cause="softmax_cross_entropy_with_logits over a single logit (one column) is always 0, "
            "whatever the input: the softmax of one value is 1. Nothing can be learnt.",
            op=op.name,
            op_type=op.type,
            phase="loss",
            confidence=0.97,
            suggestions=(
                "yes or no: tf.nn.sigmoid_cross_entropy_with_logits",
                "otherwise: one logit for each class",
            ),
        ).at(site)
    ]


def _log1p(op: Any) -> list[Diagnosis]:
    """Find a sigmoid below sigmoid_cross_entropy_with_logits, which is made of smaller ops."""
    exchanged = swapped(op)
    if exchanged:
        return exchanged
    power = op.inputs[0].op
    chosen = power.inputs[0].op if power.type == "Exp" else power
    if chosen.type not in ("SelectV2", "Select"):
        return []
    source, site = _source(chosen.inputs[2]), _own_line(op)
    if source.type not in ("Sigmoid", "Softmax") or site is None:
        return []
    name = source.type.lower()
    return [
        Diagnosis(
            symptom="activation-on-logits",
            cause=f"{name} is applied before sigmoid_cross_entropy_with_logits, which applies a "
            "sigmoid itself: it is applied twice, and gradients are squashed. It receives "
            "probabilities, not logits.",
            op=source.name,
            op_type=source.type,
            phase="loss",
            confidence=0.93,
            suggestions=(
                "give the loss the last layer's output without activation (the logits)",
                "or keep the sigmoid, and use keras.losses.binary_crossentropy",
            ),
        ).at(_line_of_activation(source) or site)
    ]


def _softmax(op: Any) -> list[Diagnosis]:
    shape, site = op.inputs[0].shape, _own_line(op)
    if site is not None and _is_over_rows(op):
        return [over_rows_finding(op.inputs[0].op.inputs[0].shape[-1], site, op)]
    if site is None or not shape.rank or shape[-1] != 1:
        return []
    return [
        Diagnosis(
            symptom="softmax-on-one-unit",
            cause="Softmax over a single unit (one column) is always 1, whatever the input: "
            "nothing can be learnt.",
            op=op.name,
            op_type=op.type,
            phase="model",
            confidence=0.96,
            suggestions=("yes or no: sigmoid on one unit", "otherwise: one unit for each class"),
        ).at(site)
    ]


def _is_over_rows(op: Any) -> bool:
    """Tell whether a softmax is taken down the rows of what a layer gave for each of several.

    TensorFlow swaps the axes around a softmax over another axis than the last. Rows against rows
    (a contrastive loss) are as many one way as the other.
    """
    swap = op.inputs[0].op
    if swap.type != "Transpose":
        return False
    scores = swap.inputs[0]
    if scores.shape.rank != 2 or scores.op.type not in _SCORES:
        return False
    rows, classes = scores.shape.as_list()
    return classes is not None and classes > 1 and rows != classes


def over_rows_finding(num_classes: int, site: CallSite, op: Any = None) -> Diagnosis:
    """Return the finding of a softmax down the rows of a batch.

    Args:
        num_classes: Scores of a row.
        site: The user's line.
        op: The op; None where it was computed eagerly.
    """
    return Diagnosis(
        symptom="softmax-over-rows",
        cause="Softmax is taken over the wrong axis: over the rows of the batch (axis=0), so that "
        f"each column sums to 1, and not the {num_classes} scores of a row.",
        op=None if op is None else op.name,
        op_type=None if op is None else op.type,
        phase="model",
        confidence=0.93,
        suggestions=("take it over the last axis, which is the default: tf.nn.softmax(scores)",),
    ).at(site)


def _argmax(op: Any) -> list[Diagnosis]:
    import tensorflow as tf

    shape, site = op.inputs[0].shape, _own_line(op)
    axis = tf.get_static_value(op.inputs[1])
    if site is None or not shape.rank or axis is None or shape[int(axis)] != 1:
        return []
    return [argmax_finding(site, op)]


def argmax_finding(site: CallSite, op: Any = None) -> Diagnosis:
    """Return the finding of an argmax over one column.

    Args:
        site: The user's line.
        op: The op; None where numpy was asked.
    """
    return Diagnosis(
        symptom="argmax-of-one-column",
        cause="argmax over a single column (one unit) is always 0, for predictions and labels "
        "alike: every row gets class 0, and an accuracy computed from it is "
        "meaningless.",
        op=None if op is None else op.name,
        op_type=None if op is None else op.type,
        phase="metric",
        confidence=0.93,
        suggestions=(
            "with one unit, compare with a threshold (predictions > 0.5)",
            "otherwise use one column for each class",
        ),
    ).at(site)


def one_sided(gradients: Any, applied_at: CallSite | None) -> list[Diagnosis]:
    """Find gradients that are cut at 0 before an optimizer is given them, in a traced step.

    Args:
        gradients: What it is given.
        applied_at: The user's line that gives them.
    """
    import tensorflow as tf

    cut = []
    for gradient in gradients:
        op = None if isinstance(gradient, tf.__internal__.EagerTensor) else (
            getattr(gradient, "op", None))  # fmt: skip
        if op is None or op.type not in ("Maximum", "Minimum", "Relu", "Abs"):
            continue
        limits = [tf.get_static_value(one) for one in op.inputs[1:]]
        if all(limit is not None and np.size(limit) == 1 and float(limit) == 0.0
               for limit in limits):  # fmt: skip
            cut.append(op)
    if len(cut) < 2:
        return []
    side = "positive" if cut[0].type == "Minimum" else "negative"
    way = "rise" if side == "positive" else "fall"
    return [
        Diagnosis(
            symptom="gradients-one-sided",
            cause=f"The gradients are cut at 0 before they are applied: every {side} gradient is "
            f"lost (clipped away), and weights can only {way}.",
            op=cut[0].name,
            op_type=cut[0].type,
            phase="optimizer",
            confidence=0.96,
            suggestions=(
                "clip on both sides: tf.clip_by_value(g, -1.0, 1.0), or tf.clip_by_norm(g, 1.0)",
                "or let the optimizer do it: optimizer(global_clipnorm=1.0)",
            ),
        ).at(_own_line(cut[0]) or applied_at)
    ]


def _parts(op: Any) -> list[Diagnosis]:
    """Find a reconstruction that is a mean, added to a divergence that is a sum."""
    both = unbalanced(op)
    if both is None:
        return []
    site = _own_line(both[0].op) or _own_line(op) or _own_line(both[1].op)
    return [finding(*both).at(site)] if site is not None else []


_RULES: dict[str, Callable[[Any], list[Diagnosis]]] = {
    **dict.fromkeys(_PAIRED, _broadcast),
    **dict.fromkeys(_CROSS_ENTROPY, _logits),
    **dict.fromkeys(("AddV2", "AddN"), _parts),
    "Mul": _product,
    "Log": swapped,
    "Log1p": _log1p,
    "Softmax": _softmax,
    "ArgMax": _argmax,
}


def _source(tensor: Any) -> Any:
    """Return the op that made a tensor's values, behind ops that only reshape or pass them on."""
    return _source_tensor(tensor).op


def _source_tensor(tensor: Any) -> Any:
    for _ in range(8):
        op = tensor.op
        if op.type not in _PASSING or not op.inputs or (op.type == "Sub" and not _is_inner(op)):
            break
        tensor = op.inputs[0]
    return tensor


def _is_inner(op: Any) -> bool:
    """Tell whether a subtraction belongs to TensorFlow's own flattening of logits."""
    return _own_line(op) is None


def _own_line(op: Any) -> CallSite | None:
    """Return the user's line that called for an op itself, not for a Keras object that made it."""
    for frame in _innermost_first(op):
        if is_users(frame.filename):
            return CallSite(frame.filename, frame.lineno)
        if "keras/src/" in frame.filename and not _is_function_of_keras(frame.filename):
            return None
    return None


def _line_of_activation(op: Any) -> CallSite | None:
    """Return the user's line that asks for an activation by name, not the helper that calls it."""
    own, name = _own_line(op), op.type.lower().removesuffix("6")
    if own is None:
        return None
    for frame in _innermost_first(op):
        named = is_users(frame.filename) and name in linecache.getline(frame.filename, frame.lineno)
        if named:
            return CallSite(frame.filename, frame.lineno)
    return own


def _innermost_first(op: Any) -> Iterator[Any]:
    try:
        frames = list(op.traceback)
    except (AttributeError, TypeError):
        frames = []
    yield from reversed(frames)


def _is_function_of_keras(file: str) -> bool:
    return any(part in file for part in ("/ops/", "/backend/", "/activations/", "/legacy/"))

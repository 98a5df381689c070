"""Labels and predictions that were given to a cross-entropy in each other's place.

Only predictions depend on what is trained. A cross-entropy of which the labels do, and what goes
into its logarithm does not, has no lower end: it is minimised by larger and larger "labels".
"""

from typing import Any

from headstart.debug.callsites import CallSite, is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.errors.no_gradient import nearest_behind, user_line

_VARIABLES = ("ReadVariableOp", "VariableV2", "Variable", "VarHandleOp", "ResourceGather")
_FUNCTIONS = ("categorical_crossentropy", "binary_crossentropy")
"""Those of Keras's losses that take probabilities."""


def swapped(op: Any) -> list[Diagnosis]:
    """Judge a cross-entropy.

    Args:
        op: ``SoftmaxCrossEntropyWithLogits``, or the logarithm in another cross-entropy.

    Returns:
        A finding, or none.
    """
    labels, predictions = _sides(op)
    if labels is None or depends_on_variables(predictions) or not depends_on_variables(labels):
        return []
    if _is_from_elsewhere(predictions):
        return []
    site = user_line(op)
    return [] if site is None else [finding(site)]


def finding(site: CallSite) -> Diagnosis:
    """Return what to say of it.

    Args:
        site: The user's line that calls the cross-entropy.
    """
    return Diagnosis(
        symptom="labels-and-predictions-swapped",
        cause="Labels and predictions are swapped in the cross-entropy: its first argument (the "
        "labels, y_true) depends on the weights, and its second (the predictions, y_pred) does "
        "not. Such a loss has no lower end and falls below 0.",
        phase="loss",
        confidence=0.97,
        suggestions=(
            "swap the two arguments: Keras's losses take (y_true, y_pred), those of tf.nn take "
            "labels= and logits= by name",
        ),
    ).at(site)


def _sides(op: Any) -> tuple[Any, Any]:
    """Return labels and predictions of a cross-entropy; None where it is not known to be one."""
    if op.type == "SoftmaxCrossEntropyWithLogits":
        return op.inputs[1], op.inputs[0]
    if op.type == "Log1p":  # of sigmoid_cross_entropy_with_logits, which is made of smaller ops
        products = [part.op for taker in op.outputs[0].consumers() for one in taker.inputs
                    if one.op.type == "Sub" for part in one.op.inputs
                    if part.op.type == "Mul"]  # fmt: skip
        if products and _is_called(op, ("sigmoid_cross_entropy_with_logits",)):
            return products[0].inputs[1], products[0].inputs[0]
        return None, None
    products = [one for one in op.outputs[0].consumers() if one.type == "Mul"]
    if len(products) != 1 or not _is_called(op, _FUNCTIONS):
        return None, None
    others = [one for one in products[0].inputs if one is not op.outputs[0]]
    return (others[0], op.inputs[0]) if others else (None, None)


def _is_called(op: Any, functions: tuple[str, ...]) -> bool:
    """Tell whether one of these functions of a library made an op."""
    return any(frame.name in functions and not is_users(frame.filename) for frame in op.traceback)


def _is_from_elsewhere(tensor: Any) -> bool:
    """Tell whether a function may have been given, or may have captured, a model's answer.

    What a tf.function that takes gradients itself is given is data: it sees all that is trained.
    """
    graph = tensor.graph
    if (
        not hasattr(graph, "captures") or nearest_behind([tensor], _is_input) is None
    ):  # what is fed is data
        return False
    return not any(part in op.name for op in graph.get_operations()
                   for part in ("gradient_tape/", "gradients/"))  # fmt: skip


def depends_on_variables(tensor: Any) -> bool:
    """Tell whether a variable goes into a tensor of a graph.

    Args:
        tensor: A symbolic tensor.
    """
    return nearest_behind([tensor], _is_variable) is not None


def _is_variable(op: Any) -> bool:
    return op.type in _VARIABLES or any(one.dtype.name == "resource" for one in op.inputs)


def _is_input(op: Any) -> bool:
    return bool(op.type == "Placeholder")

"""Why a loss has no gradient: the op between it and the variables that cannot be differentiated."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from headstart.debug.callsites import CallSite, is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.syntax import cuts_under_tape, statement_at

MAX_OPS = 10_000
_NOT_DIFFERENTIABLE = {
    *("ArgMax", "ArgMin", "Round", "Rint", "Floor", "Ceil", "Sign", "Bincount", "OneHot"),
    *("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "LogicalNot"),
    *("StopGradient", "PyFunc", "EagerPyFunc", "PyFuncStateless", "Unique", "Where", "Shape"),
}


def diagnose_no_gradient(target: Any, site: CallSite | None, sources: Any = ()) -> Diagnosis:
    """Say why a GradientTape gave None for every source.

    Args:
        target: What was differentiated: a tensor or a structure of tensors.
        site: The user's line that asked for the gradient.
        sources: By what it was to be differentiated.

    Returns:
        The diagnosis, at the op that breaks the chain where the graph shows one.
    """
    import tensorflow as tf

    op, by = _breaking_op(target), tf.nest.flatten(sources)
    if op is None and by and all(isinstance(one, tf.Tensor) for one in by):
        return _by_plain_tensors(site)
    line = (user_line(op) if op is not None else None) or site
    what = f"{op.type} ({op.name}) has no gradient" if op is not None else (
        "no differentiable path from them to the loss was recorded on the tape"
    )  # fmt: skip
    cut = _cut_above(site) if op is None and site is not None else None
    if cut is not None:
        line, what = cut, f"{what}; on this line values leave TensorFlow, and the gradient stops"
    return Diagnosis(
        symptom="no-gradient",
        cause=f"No variable gets a gradient: {what}.",
        op=op.name if op is not None else None,
        op_type=op.type if op is not None else None,
        phase="backward",
        confidence=0.95,
        suggestions=(
            "avoid argmax, round, casts to int, comparisons and .numpy() between model and loss",
            "compute the loss inside the GradientTape, from the model's own output",
            "watch plain tensors with tape.watch",
        ),
        evidence={"asked_at": f"{site.file}:{site.line}" if site else None},
    ).at(line)


def _cut_above(site: CallSite) -> CallSite | None:
    """Return the last line under the tape that takes values out of TensorFlow, prints aside."""
    cuts = [CallSite(site.file, line) for line in cuts_under_tape(site) if line < site.line]
    told = [one for one in cuts if not statement_at(one).startswith("print(")]
    return told[-1] if told else None


def _by_plain_tensors(site: CallSite | None) -> Diagnosis:
    return Diagnosis(
        symptom="no-gradient",
        cause="No gradient: it is asked for with respect to plain tensors, which a GradientTape "
        "watches only after tape.watch, or which the loss does not depend on. A name that "
        "held a tf.Variable may have been overwritten with the result of an op (w = w - ...).",
        phase="backward",
        confidence=0.9,
        suggestions=(
            "change a variable in place: w.assign_sub(rate * gradient)",
            "watch plain tensors: tape.watch(x), before the loss is computed",
        ),
    ).at(site)


def _breaking_op(target: Any) -> Any:
    """Walk from a symbolic tensor towards its inputs, to the first op without gradient."""
    import tensorflow as tf

    tensors = [t for t in tf.nest.flatten(target) if isinstance(t, tf.Tensor)]
    if any(hasattr(tensor, "numpy") for tensor in tensors):
        return None  # eager tensors do not know what made them
    return nearest_behind(
        tensors, lambda op: op.type in _NOT_DIFFERENTIABLE or _casts_to_integers(op)
    )


def nearest_behind(tensors: Iterable[Any], is_sought: Callable[[Any], bool]) -> Any:
    """Walk from symbolic tensors towards their inputs, to the first op that is sought.

    Args:
        tensors: Where to begin.
        is_sought: Is asked of each op, the nearest first.

    Returns:
        The op; None where there is none within `MAX_OPS`.
    """
    border = deque(tensor.op for tensor in tensors)
    seen: set[str] = set()
    while border and len(seen) < MAX_OPS:
        op = border.popleft()
        if op.name in seen:
            continue
        seen.add(op.name)
        if is_sought(op):
            return op
        border.extend(tensor.op for tensor in op.inputs)
    return None


def _casts_to_integers(op: Any) -> bool:
    return (
        op.type == "Cast" and op.inputs[0].dtype.is_floating and not op.outputs[0].dtype.is_floating
    )


def user_line(op: Any) -> CallSite | None:
    """Return the user's innermost line that made an op; None where there is none."""
    for frame in reversed(op.traceback):
        if is_users(frame.filename):
            return CallSite(frame.filename, frame.lineno)
    return None

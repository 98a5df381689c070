"""Why an op makes NaN or Inf, and what to do: one sentence for each kind of op.

The sentences say what the mathematics leaves as the only possibilities: a logarithm is -Inf at 0
and NaN below.
"""

from collections.abc import Sequence

from headstart.debug.dump.dump import EXTERNAL_DATA, TensorEvent

_LOG = ("Log", "Log1p", "Xlogy", "Xlog1py")
_DIVIDE = ("RealDiv", "Div", "DivNoNan", "Reciprocal", "Inv", "Xdivy")
_ROOT = ("Sqrt", "Rsqrt")
_EXP = ("Exp", "Expm1", "Sinh", "Cosh")
_SOFTMAX = ("Softmax", "LogSoftmax")
_POWER = ("Pow",)
_ARC = ("Acos", "Asin", "Acosh", "Atanh")
_NORMALISES = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "LayerNorm")

PYTHON_OPS = ("PyFunc", "EagerPyFunc", "PyFuncStateless")
"""Ops that run the user's Python: what goes on in there is not in any graph."""

_SUGGESTIONS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (_LOG, ("keep the argument above 0: tf.math.log(tf.maximum(x, 1e-7))",
            "for a loss, work on logits: tf.nn.softmax_cross_entropy_with_logits and its like")),
    (_DIVIDE, ("use tf.math.divide_no_nan(x, y), or add a small constant to the divisor",)),
    (_ROOT, ("keep the argument above 0: tf.sqrt(tf.maximum(x, 1e-12)) (sqrt has no finite"
             " gradient at 0)",)),
    (_EXP, ("subtract the maximum before exp, or use tf.nn.softmax or tf.reduce_logsumexp",
            "clip the argument: float32 overflows above 88, float16 above 11")),
    (_SOFTMAX, ("leave at least one position unmasked, or mask with a large finite number"
                " (-1e9)",)),
    (_POWER, ("keep the base above 0: a fractional power has no value below 0 and no finite"
              " gradient at 0",)),
    (_ARC, ("clip the argument to slightly inside the function's domain",)),
    (_NORMALISES, ("give the normalisation an epsilon of 1e-3, and look for constant inputs",)),
)  # fmt: skip
_GUARD_BOTH = (
    "tf.where does not stop a NaN gradient: make its argument safe first, "
    "tf.where(ok, f(tf.where(ok, x, 1.0)), 0.0)"
)
_OVERFLOW = (
    "look at the scale of the inputs, the weights and the learning rate",
    "compute this part in float32 if it runs in float16",
)


def suggestions_for(op_type: str, subject: str, is_backward: bool) -> tuple[str, ...]:
    """Return what to try against NaN or Inf from an op.

    Args:
        op_type: Type of the op that made it.
        subject: Type of the forward op it belongs to, the same in the forward pass.
        is_backward: Whether it was made in the backward pass.

    Returns:
        Sentences, the most promising first.
    """
    if op_type in ("IteratorGetNext", "Placeholder", EXTERNAL_DATA, *PYTHON_OPS):
        return ("check the data: tf.debugging.assert_all_finite in the map, or drop the rows",)
    for types, suggestions in _SUGGESTIONS:
        if subject in types or op_type.removesuffix("Grad") in types:
            return (*suggestions, _GUARD_BOTH) if is_backward else suggestions
    return _OVERFLOW


def cause_of(
    op_type: str,
    subject: str,
    is_backward: bool,
    output: TensorEvent,
    inputs: Sequence[TensorEvent],
) -> str:
    """Say in a sentence why an op made NaN or Inf.

    Args:
        op_type: Type of the op.
        subject: Type of the forward op it is the gradient of; its own in the forward pass.
        is_backward: Whether it belongs to the backward pass.
        output: Health of what it made.
        inputs: Health of what it took.

    Returns:
        The sentence.
    """
    value = "NaN" if output.has_nan else "Inf"
    if is_backward:
        return (
            f"The gradient of {subject} is {value} here, although its inputs are "
            f"finite{_where_gradient_fails(subject)}."
        )
    masked = any(event.num_neg_inf for event in inputs)
    return f"{_forward_cause(op_type, value, masked)}."


def _where_gradient_fails(subject: str) -> str:
    if subject in _ROOT or subject in _POWER:
        return ": it has no finite derivative at 0"
    if subject in _LOG or subject in _DIVIDE:
        return ": the value it divides by is 0"
    if subject in _ARC:
        return ": it has no finite derivative at the border of its domain"
    return ""


def _forward_cause(op_type: str, value: str, masked: bool) -> str:
    if op_type in _LOG:
        return f"{op_type} made {value}: its argument is {'negative' if value == 'NaN' else '0'}"
    if op_type in _DIVIDE:
        return f"{op_type} made {value}: it divides {'0 by 0' if value == 'NaN' else 'by 0'}"
    if op_type == "Sqrt":
        return f"Sqrt made {value}: its argument is negative"
    if op_type == "Rsqrt":
        return f"Rsqrt made {value}: its argument is {'negative' if value == 'NaN' else '0'}"
    if op_type in _SOFTMAX and masked:
        return f"{op_type} made {value}: every position of a row is masked with -Inf"
    if op_type in _EXP:
        return f"{op_type} overflowed to {value}: its argument is too large"
    if op_type in _POWER:
        reason = (
            "a negative base with a fractional exponent"
            if value == "NaN"
            else "0 to a negative power, or overflow"
        )
        return f"Pow made {value}: {reason}"
    if op_type in _ARC:
        return f"{op_type} made {value}: its argument is outside its domain"
    if op_type in PYTHON_OPS:
        return (
            f"The Python code that feeds the pipeline (py_function, numpy_function, a generator or "
            f"PyDataset) gave {value}"
        )
    if op_type == "IteratorGetNext":
        return f"The input data holds {value}: that is how it came out of the input pipeline"
    if op_type in ("Placeholder", "PlaceholderWithDefault", EXTERNAL_DATA):
        return f"The program was given data that holds {value}"
    if op_type == "ReadVariableOp":
        return f"A variable already held {value} when the recording began"
    if op_type in ("Const", "Fill"):
        return f"A constant of the program is {value}"
    if op_type == "Cast":
        return f"Cast made {value}: the value does not fit into the target dtype"
    if value == "Inf":
        return f"{op_type} overflowed to Inf: its inputs are finite but too large for their dtype"
    return f"{op_type} made {value} from finite inputs"

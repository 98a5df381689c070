"""Parts of a loss that are added although one is a mean and the other a sum.

The case that people meet is the autoencoder with a prior: a reconstruction that is averaged over
its pixels, and a Kullback-Leibler term that is summed over its latent values, which then weighs as
many times too much as there are pixels. The network learns to ignore its input.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headstart.debug.diagnosis import Diagnosis

MIN_WIDTH = 50
"""Values of a row that are averaged from which on the two are out of proportion."""
MIN_WEIGHT = 0.1
"""Weight of the sum, relative to the mean's, below which somebody has evened them out."""
MAX_DEPTH = 16
_PASSING = ("Identity", "Cast", "Neg", "Squeeze", "Reshape", "StopGradient")
_ELEMENTWISE = ("AddV2", "Add", "Sub", "Mul", "Neg", "Square", "Exp", "Identity", "Cast", "Pow",
                "AddN", "RealDiv", "Log")  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One part of a loss.

    Args:
        mean_width: Values of a row that are averaged.
        sum_width: Values of a row that are added up.
        weight: What it is multiplied with.
        values: What is reduced.
        op: The last reduction, of which the user may have the line.
    """

    mean_width: int
    sum_width: int
    weight: float
    values: Any
    op: Any

    @property
    def is_divergence(self) -> bool:
        """Whether it is made as the divergence of two normal distributions is."""
        types = {op.type for op in _expression(self.values)}
        return "Exp" in types and bool(types & {"Square", "Mul", "Pow"}) and "Sub" in types


def unbalanced(op: Any) -> tuple[Part, Part] | None:
    """Return the mean and the sum that an addition puts together; None where it does not.

    Args:
        op: An op that adds.
    """
    if op.outputs[0].shape.rank != 0:
        return None
    parts = [part for part in map(_part, op.inputs) if part is not None]
    sums = [one for one in parts if one.sum_width > 1 and one.mean_width == 1]
    divergences = [one for one in sums if one.is_divergence]
    means = [one for one in parts if one.mean_width >= MIN_WIDTH and one.sum_width == 1]
    means = [one for one in means if not one.is_divergence]
    if not divergences or not means:
        return None
    mean, divergence = means[0], divergences[0]
    return (mean, divergence) if divergence.weight >= MIN_WEIGHT * mean.weight else None


def finding(mean: Part, divergence: Part) -> Diagnosis:
    """Return what to say of the two, without its line.

    Args:
        mean: The reconstruction.
        divergence: The other part.
    """
    return Diagnosis(
        symptom="mean-against-sum",
        cause=f"The loss adds a reconstruction that is a mean over the {mean.mean_width} values "
        f"of a row and a KL divergence that is a sum over its {divergence.sum_width} latent "
        f"values: the KL term weighs {mean.mean_width} times too much, and the network learns to "
        "ignore its input (posterior collapse).",
        phase="loss",
        confidence=0.94,
        suggestions=(
            "sum the reconstruction over the values of a row, and take the mean over the batch: "
            "tf.reduce_mean(tf.reduce_sum(errors, axis=-1))",
            f"or multiply it by {mean.mean_width}, or the KL term by a small weight",
        ),
        evidence={"mean_width": mean.mean_width, "sum_width": divergence.sum_width},
    )


def _part(tensor: Any) -> Part | None:
    """Read a scalar backwards: weights, then reductions; None where a weight is not known."""
    weight, means, sums, last, is_divided = 1.0, 1, 1, None, False
    op = tensor.op
    for _ in range(MAX_DEPTH):
        if op.type in ("Mean", "Sum"):
            width = _width(op)
            if width is None:
                return None
            if op.type == "Mean" or is_divided:
                means *= width
            else:
                sums *= width
            last = last or op
            is_divided = is_divided and op.type == "Sum"
            op = op.inputs[0].op
            continue
        if op.type in _PASSING and op.inputs:
            op = op.inputs[0].op
            continue
        if op.type not in ("Mul", "RealDiv", "DivNoNan"):
            break
        value, other, is_count = _factor(op)
        if value is None and not is_count:
            if last is None:  # a weight that is not known
                return None
            break
        is_divided = is_divided or is_count
        weight *= 1.0 if value is None else value if op.type == "Mul" else 1.0 / value
        op = other.op
    return None if last is None else Part(means, sums, abs(weight), op.outputs[0], last)


def _factor(op: Any) -> tuple[float | None, Any, bool]:
    """Return the constant of a product or quotient, the other operand, and whether it counts."""
    import tensorflow as tf

    first, second = op.inputs
    pairs = [(second, first)] if op.type != "Mul" else [(second, first), (first, second)]
    for constant, other in pairs:
        value = tf.get_static_value(constant)
        if value is not None and value.ndim == 0 and float(value) != 0.0:
            return float(value), other, False
    is_count = op.type != "Mul" and any(one.type in ("Shape", "Size", "Prod")
                                        for one in _expression(second, of_shape=True))  # fmt: skip
    return None, first, is_count


def _width(op: Any) -> int | None:
    """Return how many values of a row a reduction takes; the first axis is the batch."""
    import tensorflow as tf

    shape, axes = op.inputs[0].shape, tf.get_static_value(op.inputs[1])
    if shape.rank is None or axes is None:
        return None
    width = 1
    for axis in axes.reshape(-1).tolist():
        place = axis % shape.rank if shape.rank else 0
        if place == 0:
            continue
        if shape[place] is None:
            return None
        width *= shape[place]
    return width


def _expression(tensor: Any, of_shape: bool = False) -> Iterator[Any]:
    """Go through the ops that make values one by one."""
    known = (*_ELEMENTWISE, "Shape", "Size", "Prod", "StridedSlice") if of_shape else _ELEMENTWISE
    waiting, seen = [(tensor.op, 0)], set()
    while waiting:
        op, depth = waiting.pop()
        if op.type not in known or id(op) in seen or depth > MAX_DEPTH:
            continue
        seen.add(id(op))
        yield op
        waiting += [(one.op, depth + 1) for one in op.inputs]

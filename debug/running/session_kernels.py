"""The matrices that a TF1 session trains, read now and then while it does."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.errors.no_gradient import user_line
from headstart.debug.running.session_rates import ops_behind
from headstart.debug.symptoms.kernels import MIN_STEPS, Kernel, alike_units, faint_signal

MORE = 3
"""Times as many training runs after which the matrices are read again."""
MAX_ELEMENTS = 1 << 22
_APPLIES = ("Apply", "ResourceApply", "SparseApply", "ResourceSparseApply")
"""Starts of the types of an optimizer's ops, whose first input is the variable."""
_READS = ("Identity", "ReadVariableOp", "Cast", "Enter")


class SessionKernels:
    """What is known of the matrices behind one loss."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._next = MIN_STEPS
        self._kernels: list[Kernel] = []

    def on_behind(self, ops: set[Any]) -> None:
        """Note ops that run in a training run."""
        self._changed |= {
            op.inputs[0].op.name for op in ops if op.type.startswith(_APPLIES) and op.inputs
        }

    def on_training_run(
        self, loss: Any, num_trained: int, read: Callable[[Sequence[Any]], Sequence[Any]]
    ) -> None:
        """Read the matrices, where it is time to.

        Args:
            loss: What is minimised.
            num_trained: Training runs up to now.
            read: Returns the values of variables.
        """
        if num_trained < self._next:
            return
        self._next = MORE * num_trained
        used = [one for one in _used(loss) if one[0].op.name in self._changed]
        if not used or sum(int(np.prod(one[0].shape)) for one in used) > MAX_ELEMENTS:
            return
        values = read([variable for variable, _ in used])
        self._kernels = [
            Kernel(str(variable.op.name), value.T if is_turned else value, user_line(variable.op))
            for (variable, is_turned), value in zip(used, values, strict=True)
        ]

    def diagnoses(self, losses: Sequence[float]) -> list[Diagnosis]:
        """Return what was found.

        Args:
            losses: What the loss came to, as far as it was fetched.
        """
        return alike_units(self._kernels) or faint_signal(self._kernels, losses)


def _used(loss: Any) -> list[tuple[Any, bool]]:
    """Return the matrices behind a loss in their order, and whether their units are the rows."""
    variables = {one.op: one for one in loss.graph.get_collection("trainable_variables")
                 if one.shape.rank == 2 and one.shape.is_fully_defined()}  # fmt: skip
    behind = ops_behind(loss.op, waited_for=False)
    found: dict[Any, tuple[Any, bool]] = {}
    for op in loss.graph.get_operations():
        if op.type != "MatMul" or op not in behind:
            continue
        for place, side in enumerate("ab"):
            variable = variables.get(_source(op.inputs[place]))
            if variable is not None:
                is_turned = op.get_attr(f"transpose_{side}") != (place == 0)
                found.setdefault(variable.op, (variable, bool(is_turned)))
    return list(found.values())


def _source(tensor: Any) -> Any:
    return next((op for op in _back(tensor.op) if op.type not in _READS), None)


def _back(op: Any) -> Iterator[Any]:
    yield op
    while op.type in _READS and op.inputs:
        op = op.inputs[0].op
        yield op

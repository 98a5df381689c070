"""The learning rate of a training in a TF1 session, where a schedule or the program changes it."""

from collections.abc import Callable, Collection
from typing import Any

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.errors.no_gradient import user_line
from headstart.debug.running.histories import History
from headstart.debug.symptoms.rising_rate import rising_rate

SAMPLE_EVERY = 20
"""Training runs from one look at the rate to the next."""
MAX_SAMPLES = 2_000
"""Rates that are kept, evenly spread."""
_VARIABLES = ("VariableV2", "VarHandleOp", "ReadVariableOp", "Placeholder")
"""Ops that may be asked for their value although they have a state."""
_ASSIGNING = ("Assign", "AssignVariableOp")


class SessionRates:
    """What is known of the rate of one optimizer."""

    def __init__(self) -> None:
        self.rates = History(MAX_SAMPLES, num_latest=1)
        self._num_runs = 0
        self._optimizer: Any = None
        self._tensor: Any = None
        self._feeds: set[str] = set()
        self._setters: set[str] = set()
        self._assigned_at: CallSite | None = None
        self._set_at: CallSite | None = None

    def on_run(self, optimizer: Any, feed: Any, run: Callable[..., Any] | None) -> None:
        """Note a run of a session.

        Args:
            optimizer: The optimizer of TF1's that the program has.
            feed: What the run was fed.
            run: Runs a tensor in the same session, unwatched; None where this run did not train.
        """
        if run is not None and optimizer is not self._optimizer:
            self._optimizer = optimizer
            self._look_at(optimizer)
        if self._tensor is None:
            return
        fed = {str(getattr(one, "name", one)): value for one, value in (feed or {}).items()}
        if self._setters & fed.keys():
            self._set_at = calling_site()
        if run is None:
            return
        self._num_runs += 1
        is_due = self._num_runs % SAMPLE_EVERY == 1
        if is_due and self._feeds <= fed.keys():
            self.rates.append(float(run(self._tensor, {name: fed[name] for name in self._feeds})))

    def _look_at(self, optimizer: Any) -> None:
        """Find the tensor of the rate, where it can be asked without changing anything."""
        self._tensor, self.rates = None, History(MAX_SAMPLES, num_latest=1)
        tensor: Any = getattr(optimizer, "_lr_t", None)
        tensor = getattr(optimizer, "_learning_rate_tensor", None) if tensor is None else tensor
        if getattr(tensor, "graph", None) is None:
            return
        behind = ops_behind(tensor.op)
        if any(op.op_def.is_stateful and op.type not in _VARIABLES for op in behind):
            return
        if not any(op.type in _VARIABLES for op in behind):
            return  # always the same
        self._tensor = tensor
        self._feeds = _placeholders(behind)
        changing = [
            op
            for op in tensor.graph.get_operations()
            if op.type in _ASSIGNING and op.inputs[0].op in behind
        ]
        self._setters = {*self._feeds, *(name for op in changing
                                         for name in _placeholders(ops_behind(op)))}  # fmt: skip
        # The first is the initial value's.
        self._assigned_at = user_line(changing[-1]) if len(changing) > 1 else None

    def diagnoses(self, losses: list[float], site: CallSite | None) -> list[Diagnosis]:
        """Find a rate that rose and rose, and a loss that was better before.

        Args:
            losses: The loss of each run that fetched it.
            site: The user's line that makes the optimizer.
        """
        return rising_rate(self.rates.values, losses, self._set_at or self._assigned_at or site)


def ops_behind(op: Any, without: Collection[Any] = (), *, waited_for: bool = True) -> set[Any]:
    """Return all ops that run with an op, itself too.

    Args:
        op: Where to begin; of what is no op of a graph nothing is behind.
        without: Ops that are left out, with what only they need.
        waited_for: Whether ops count of which no value is used.
    """
    border = [op]
    seen: set[Any] = set()
    while border:
        one = border.pop()
        if one in seen or one in without or not hasattr(one, "control_inputs"):
            continue
        seen.add(one)
        border += [tensor.op for tensor in one.inputs]
        border += one.control_inputs if waited_for else ()
    return seen


def _placeholders(ops: set[Any]) -> set[str]:
    return {op.outputs[0].name for op in ops if op.type == "Placeholder"}

"""From a dump to the first op that made NaN or Inf, its layer and the user's line.

A tensor is a *root* where it holds NaN or Inf although nothing it was made from does. Of all roots
the one that matters came first and *reaches* what training keeps: a variable, or the output of
the function. An Inf written as a constant is meant (a mask) and no root; a NaN made from such
constants alone is one (a softmax with every key masked).
"""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from headstart.debug.callsites import CallSite, is_users
from headstart.debug.diagnosis import Diagnosis, TensorHealth, ranked
from headstart.debug.dump.causes import PYTHON_OPS, cause_of, suggestions_for
from headstart.debug.dump.dump import EXTERNAL_DATA, Dump, OpRecord, TensorEvent, TensorKey
from headstart.debug.dump.origins import EAGER, Origin

MAX_ROOTS = 3
"""Diagnoses made of one dump: the first root and what else may matter."""

FIRST_CONFIDENCE, LESS_CONFIDENCE = 0.9, 0.25
"""Confidence in the first root, and how much less in each that follows."""

_CONSTANTS = ("Const", "Fill")
_UNINITIALISED = ("Empty", "EmptyTensorList", "ResourceGather")
_SOURCES = (
    *("Placeholder", "PlaceholderWithDefault", "ReadVariableOp", "IteratorGetNext"),
    *("OptionalGetValue", "TensorListGetItem", "TensorListStack", EXTERNAL_DATA),
)
"""Ops that hand on what another graph, an earlier step or the input pipeline made."""
_CALLS = (
    "PartitionedCall",
    "StatefulPartitionedCall",
    "If",
    "StatelessIf",
    "While",
    "StatelessWhile",
    "Case",
    "StatelessCase",
)
_KEEPS = ("Assign", "ResourceApply", "ResourceScatter", "ResourceSparseApply")
"""Starts of the op types that write a variable."""


@dataclass(frozen=True)
class Root:
    """A tensor value that is bad although nothing it was made from is.

    Args:
        op: The op that made it.
        tensor: Key of the tensor, among the op's outputs.
        index: Which of the tensor's values, counted from 0.
        event: What the dump tells of the value: its NaN and Inf.
        window: How many calls of functions from Python had finished before.
        reaches: Whether the bad value reaches a variable or the output of its function.
    """

    op: OpRecord
    tensor: TensorKey
    index: int
    event: TensorEvent
    window: int
    reaches: bool


def diagnose_dump(dump: Dump) -> list[Diagnosis]:
    """Name the ops that first made NaN or Inf, most likely cause first.

    Args:
        dump: A dump in a mode that tells NaN and Inf: CURT_HEALTH or fuller.

    Returns:
        The diagnoses; empty where no NaN or Inf reaches anything that training keeps.
    """
    finder = _RootFinder(dump)
    roots = [root for root in finder.roots() if root.reaches]
    # A session's runs are no calls of functions: only the time tells one from the next.
    in_time = not dump.function_calls
    roots.sort(
        key=lambda root: (
            root.window,
            root.op.key[0] != EAGER,
            root.event.order if in_time else root.op.created,
        )
    )
    diagnoses: list[Diagnosis] = []
    for root in roots:
        confidence = FIRST_CONFIDENCE - len(diagnoses) * LESS_CONFIDENCE
        found = _diagnosis(dump, finder, root, confidence)
        if not any((found.file, found.line) == (other.file, other.line) for other in diagnoses):
            diagnoses.append(found)
        if len(diagnoses) == MAX_ROOTS:
            break
    return ranked(diagnoses)


class _RootFinder:
    """Follows bad values through a dump's graphs."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self._makers: dict[TensorKey, OpRecord] = {
            tensor: op for op in dump.ops.values() for tensor in op.outputs
        }
        self._takers: dict[TensorKey, list[OpRecord]] = {}
        for op in dump.ops.values():
            for tensor in op.inputs:
                self._takers.setdefault(tensor, []).append(op)
        self._calls = sorted(dump.function_calls)
        self._call_ops = [
            op for op in dump.ops.values() if op.op_type in _CALLS or op.called_graph is not None
        ]
        self._meant: dict[tuple[TensorKey, int], bool] = {}

    def roots(self) -> list[Root]:
        """Return every root of the dump, those that reach nothing too."""
        found = []
        for tensor, events in self.dump.events.items():
            op = self._makers.get(tensor)
            if op is None or self._is_no_root(op, tensor):
                continue
            for index, event in enumerate(events):
                if event.is_bad and not self._is_meant(tensor, index) and self._starts(op, event):
                    window = self._window(event)
                    reaches = self._reaches(tensor, index)
                    found.append(Root(op, tensor, index, event, window, reaches))
                    break  # later steps of the same op add nothing
        return self._without_echoes(found)

    def bad_inputs(self, op: OpRecord, event: TensorEvent) -> list[tuple[TensorKey, int]]:
        """Return the inputs that were bad as the op made a value: tensor and index of its value."""
        found = []
        for tensor in op.inputs:
            for source in self._through_identities(tensor):
                index = self._index_at(source, op, event)
                if index is not None and self.dump.events[source][index].is_bad:
                    found.append((source, index))
        return found

    def inputs(self, op: OpRecord, event: TensorEvent) -> Iterator[tuple[TensorKey, TensorEvent]]:
        """Yield each input whose value is known, with that value."""
        for tensor in op.inputs:
            for source in self._through_identities(tensor):
                index = self._index_at(source, op, event)
                if index is not None:
                    yield source, self.dump.events[source][index]

    def line_that_takes(self, tensor: TensorKey) -> CallSite | None:
        """Return the user's line that first uses a tensor that no recorded op made."""
        takers = (self.dump.origins.get(op.key) for op in self._takers.get(tensor, ()))
        return next((origin.lines[0] for origin in takers if origin and origin.lines), None)

    def _is_no_root(self, op: OpRecord, tensor: TensorKey) -> bool:
        slots_of_use = op.op_type.startswith("FusedBatchNorm") and tensor[2] > 0
        is_call = op.op_type in _CALLS or op.op_type.startswith("__")
        # The whole data set, which numpy input hands to every call; the batch says more.
        name = self.dump.graph_names.get(op.key[0], "")
        is_data_set = op.op_type == "Placeholder" and name.startswith("Dataset_")
        return slots_of_use or is_call or is_data_set or op.op_type in _UNINITIALISED

    def _starts(self, op: OpRecord, event: TensorEvent) -> bool:
        """Tell whether a bad value has no bad input, but for what is meant."""
        bad = self.bad_inputs(op, event)
        if op.op_type == "Placeholder" and op.key[0] in self.dump.outer_graphs:
            return False  # the value came from the enclosing graph
        makers = [self._makers[tensor] for tensor in op.inputs if tensor in self._makers]
        if any(maker.op_type in _CALLS for maker in makers):
            return not bad and not self._inner_graphs_are_bad(op, event)
        if not bad and self._is_fed_badly(op, event):
            return False
        return all(self._is_meant(tensor, index) for tensor, index in bad)

    def _is_fed_badly(self, op: OpRecord, event: TensorEvent) -> bool:
        """Tell whether an argument of the op's function, not recorded itself, was bad outside."""
        makers = [self._makers[tensor] for tensor in op.inputs if tensor in self._makers]
        if not any(maker.op_type == "Placeholder" for maker in makers):
            return False
        window, graph = self._window(event), op.key[0]
        outer = self.dump.outer_graphs.get(graph)
        for call in self._call_ops:
            if call.called_graph == graph:
                if self._window_of_time(call.wall_time) == window and self._takes_bad(call, None):
                    return True
            elif call.key[0] == outer and (
                self._takes_bad(call, window) or self._is_fed_badly(call, event)
            ):
                return True
        return False

    def _takes_bad(self, call: OpRecord, window: int | None) -> bool:
        return any(
            event.is_bad and (window is None or self._window(event) == window)
            for tensor in call.inputs
            for source in self._through_identities(tensor)
            for event in self.dump.events[source]
        )

    def _inner_graphs_are_bad(self, op: OpRecord, event: TensorEvent) -> bool:
        """Tell whether a graph called from the op's graph holds a bad value of the same window."""
        window = self._window(event)
        inner = {graph for graph, outer in self.dump.outer_graphs.items() if outer == op.key[0]}
        return any(
            tensor[0] in inner and other.is_bad and self._window(other) == window
            for tensor, events in self.dump.events.items()
            for other in events
        )

    def _is_meant(self, tensor: TensorKey, index: int) -> bool:
        """Tell whether a value is Inf only because constants that the user wrote are."""
        known = self._meant.get((tensor, index))
        if known is not None:
            return known
        self._meant[(tensor, index)] = False  # in a cycle nothing is meant
        event, op = self.dump.events[tensor][index], self._makers.get(tensor)
        meant = False
        if op is not None and not event.has_nan:
            if op.op_type in _CONSTANTS:
                meant = True
            else:
                bad = self.bad_inputs(op, event)
                meant = bool(bad) and all(self._is_meant(*source) for source in bad)
        self._meant[(tensor, index)] = meant
        return meant

    def _reaches(self, tensor: TensorKey, index: int) -> bool:
        """Tell whether a bad value spreads to a variable or out of its function."""
        seen, border = {tensor}, [(tensor, index)]
        while border:
            current, at = border.pop()
            event = self.dump.events[current][at] if current in self.dump.events else None
            takers = self._takers.get(current, [])
            if not takers:
                return True  # the function's output, or a value handed to Python
            for op in takers:
                if op.op_type.startswith(_KEEPS) or op.op_type in _CALLS:
                    return True
                for output in op.outputs:
                    if output in seen:
                        continue
                    seen.add(output)
                    if output not in self.dump.events:
                        border.append((output, 0))  # Identity and its like are not recorded
                        continue
                    taken = self._index_near(output, current, at, event)
                    if taken is not None and self.dump.events[output][taken].is_bad:
                        border.append((output, taken))
        return False

    def _without_echoes(self, roots: list[Root]) -> list[Root]:
        """Drop values that came from outside their graph where what made them is a root too."""
        made = [root for root in roots if root.op.op_type not in _SOURCES]
        first = min((root.window for root in made), default=None)
        return [
            root
            for root in roots
            if root.op.op_type not in _SOURCES or first is None or root.window < first
        ]

    def _through_identities(self, tensor: TensorKey) -> Iterator[TensorKey]:
        """Yield the tensors with values that a tensor stands for."""
        if tensor in self.dump.events:
            yield tensor
            return
        op = self._makers.get(tensor)
        if op is not None and op.op_type == "Identity":
            for source in op.inputs:
                yield from self._through_identities(source)

    def _index_at(self, tensor: TensorKey, op: OpRecord, event: TensorEvent) -> int | None:
        """Return which value of a tensor the op took as it made another."""
        for output in op.outputs:
            events = self.dump.events.get(output)
            if events:
                index = next((i for i, other in enumerate(events) if other is event), None)
                if index is not None:
                    return self._index_near(tensor, output, index, event)
        return None

    def _index_near(
        self, tensor: TensorKey, other: TensorKey, index: int, event: TensorEvent | None
    ) -> int | None:
        """Return the value of a tensor that belongs to the ``index``-th value of another."""
        events = self.dump.events[tensor]
        if not events:
            return None
        count = len(self.dump.events[other]) if other in self.dump.events else 0
        if len(events) == count:
            return index
        if event is None:
            return next((i for i, candidate in enumerate(events) if candidate.is_bad), 0)
        # A loop ran one of the two more often, or the buffer cut their first step in two.
        return min(range(len(events)), key=lambda i: abs(events[i].order - event.order))

    def _window(self, event: TensorEvent) -> int:
        return self._window_of_time(event.wall_time)

    def _window_of_time(self, wall_time: float) -> int:
        return bisect.bisect_left(self._calls, wall_time)


def _diagnosis(dump: Dump, finder: _RootFinder, root: Root, confidence: float) -> Diagnosis:
    op = root.op
    origin = dump.origins.get(op.key) or _origin_from_names(dump, op)
    forward = _forward_op(dump, op, origin)
    place = origin
    if forward is not None:
        place = dump.origins.get(forward.key) or _origin_from_names(dump, forward)
    site = place.line or origin.line or finder.line_that_takes(root.tensor)
    inputs = tuple(finder.inputs(op, root.event))
    is_backward = origin.phase == "backward" or forward is not None
    subject = forward.op_type if forward else op.op_type
    is_data = op.op_type in ("IteratorGetNext", EXTERNAL_DATA, *PYTHON_OPS)
    phase = "data" if is_data else origin.phase
    return Diagnosis(
        symptom="nan" if root.event.has_nan else "inf",
        cause=cause_of(op.op_type, subject, is_backward, root.event, [e for _, e in inputs]),
        op=f"{op.op_type} (eager)" if op.key[0] == EAGER else op.key[1],
        op_type=op.op_type,
        graph=dump.graph_names.get(op.key[0]),
        layer=place.layer or origin.layer,
        inputs_health=tuple(_health(tensor, event) for tensor, event in inputs),
        outputs_health=(_health(root.tensor, root.event),),
        step=root.index if op.key[0] != EAGER else None,
        step_unit="graph execution",
        batch=root.index if op.op_type == "IteratorGetNext" else None,
        phase="backward" if is_backward else phase,
        confidence=confidence,
        suggestions=suggestions_for(op.op_type, subject, is_backward),
        evidence={
            "forward_op": forward.key[1] if forward else None,
            "keras_object": place.owner,
            "call_lines": [f"{line.file}:{line.line}" for line in place.lines],
        },
    ).at(site)


def _forward_op(dump: Dump, op: OpRecord, origin: Origin) -> OpRecord | None:
    """Return the op that an op is the gradient of; None for an op of the forward pass."""
    if origin.forward is not None:
        return dump.ops.get(origin.forward)
    if op.key in dump.origins or not op.key[1].startswith("gradient_tape/"):
        return None
    # A dump of someone else's: by the tensors the two share, else by the scope they share.
    scope = op.key[1].removeprefix("gradient_tape/").rsplit("/", 1)[0]
    peers = [
        other
        for other in dump.ops.values()
        if other.key[0] == op.key[0]
        and (other.key[1] == scope or other.key[1].rsplit("/", 1)[0] == scope)
    ]
    sharing = [other for other in peers if {*other.outputs, *other.inputs} & {*op.inputs}]
    return next(iter(sharing or peers), None)


def _origin_from_names(dump: Dump, op: OpRecord) -> Origin:
    """Tell what a stack and a name alone can tell of an op."""
    lines = tuple(CallSite(file, line) for file, line in reversed(op.stack) if is_users(file))
    scope = op.key[1].removeprefix("gradient_tape/").rpartition("/")[0]
    parts = [part.rstrip("0123456789").removesuffix("_") or part for part in scope.split("/")]
    return Origin(
        lines=lines,
        layer="/".join(parts) or None if op.key[0] != EAGER else None,
        is_users_code=True,
        phase="backward" if op.key[1].startswith("gradient_tape/") else "forward",
    )


def _health(tensor: TensorKey, event: TensorEvent) -> TensorHealth:
    counted = event.num_neg_inf is not None and event.num_pos_inf is not None
    return TensorHealth(
        name="eager tensor" if tensor[0] == EAGER else f"{tensor[1]}:{tensor[2]}",
        size=event.size,
        num_nan=event.num_nan,
        num_inf=(event.num_neg_inf or 0) + (event.num_pos_inf or 0) if counted else None,
        min=event.min,
        max=event.max,
    )

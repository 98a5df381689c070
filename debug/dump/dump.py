"""Recording a Debugger V2 dump, with a cap on its disk, and reading it back as plain records.

Once enabled the instrumentation must stay until the process ends: running an instrumented function
afterwards crashes TensorFlow, and so does enabling it twice on a folder. So a dump is recorded in
a process and a folder of its own (``headstart.debug.running.ladder`` sees to that); the cap is
held by the parent, which ends the process before the folder reaches it.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.debug.dump.origins import (
    EAGER,
    OpKey,
    Origin,
    OriginRecorder,
    read_bad_data,
    read_origins,
)
from headstart.debug.internals import private
from headstart.errors import RecordError

DumpMode = Literal[
    "NO_TENSOR", "SHAPE", "CURT_HEALTH", "CONCISE_HEALTH", "FULL_HEALTH", "FULL_TENSOR"
]
HEALTH_BUFFER_EVENTS = 200_000
"""Events kept in memory, the latest, at some 150 bytes each: 24 steps of MobileNetV2."""
NO_BUFFER = -1
FLUSH_EVERY_S = 0.1
EXTERNAL_DATA = "ExternalData"
"""Op type given to eager tensors that no op made: numpy arrays and constants."""


class Recording:
    """A dump being recorded in this process, from construction until the process ends.

    Args:
        folder: A new, empty folder.
        mode: What to keep of each tensor.
        op_regex: Keep only tensors of op types that match; None keeps all.
    """

    def __init__(self, folder: Path, mode: DumpMode, op_regex: str | None = None) -> None:
        import tensorflow as tf

        folder.mkdir(parents=True, exist_ok=True)
        # Whole tensors would fill the memory; they go to the disk, where the cap holds.
        events = NO_BUFFER if mode == "FULL_TENSOR" else HEALTH_BUFFER_EVENTS
        self._closed = threading.Event()
        self._origins = OriginRecorder(folder)
        self._origins.start()
        self._writer = tf.debugging.experimental.enable_dump_debug_info(
            str(folder),
            tensor_debug_mode=mode,
            circular_buffer_size=events,
            op_regex=op_regex,
            # A TF1 variable is a reference to its buffer: what tfdbg puts in its place is none.
            tensor_dtypes=lambda dtype: dtype == dtype.base_dtype,
        )
        self._instrument_threads()
        if events == NO_BUFFER:
            # The process may be ended at any time: what says where the ops come from goes first.
            threading.Thread(target=self._keep_flushing, daemon=True).start()

    def _instrument_threads(self) -> None:
        """Let threads that the program starts from now on be dumped like this one.

        TensorFlow keeps its callbacks by thread, so a function traced or an op run in another
        one would not be seen. Threads that TensorFlow itself starts in C++ (those of
        tf.py_function and generators) stay unseen.
        """
        state, add = private("dumping_state"), private("add_op_callback")
        dumping, origins = state.dumping_callback, self._origins
        start = threading.Thread.start

        def start_instrumented(thread: threading.Thread) -> None:
            run = thread.run

            def run_instrumented() -> None:
                origins.start()
                state.dumping_callback = dumping
                add(dumping.callback)
                run()

            thread.run = run_instrumented  # type: ignore[method-assign]
            start(thread)

        threading.Thread.start = start_instrumented  # type: ignore[method-assign,assignment]

    def _keep_flushing(self) -> None:
        while not self._closed.wait(FLUSH_EVERY_S):
            self._origins.flush()
            self._writer.FlushNonExecutionFiles()

    def flush(self) -> None:
        """Write everything that is held in memory."""
        self._closed.set()
        self._origins.close()
        self._writer.FlushNonExecutionFiles()
        self._writer.FlushExecutionFiles()


TensorKey = tuple[str, str, int]
"""Graph id, op name and output slot; for eager tensors ``EAGER``, tensor id and 0."""


@dataclass(frozen=True)
class TensorEvent:
    """One value that a tensor had.

    Args:
        order: Position in the dump.
        wall_time: Seconds since the epoch.
        is_bad: Whether it holds NaN or Inf.
        size: Number of elements; None where the mode does not count them.
        num_nan: Number of NaN; None where not counted.
        num_neg_inf: Number of -Inf; None where not counted.
        num_pos_inf: Number of +Inf; None where not counted.
        min: Least finite value, in FULL_TENSOR mode.
        max: Greatest finite value, in FULL_TENSOR mode.
    """

    order: int
    wall_time: float
    is_bad: bool
    size: int | None = None
    num_nan: int | None = None
    num_neg_inf: int | None = None
    num_pos_inf: int | None = None
    min: float | None = None
    max: float | None = None

    @property
    def has_nan(self) -> bool:
        """True where it holds NaN, or may (CURT_HEALTH counts nothing)."""
        return self.is_bad and self.num_nan != 0


@dataclass(frozen=True)
class OpRecord:
    """One op of a graph, or one op run eagerly.

    Args:
        key: Graph id and name; for an eager op ``EAGER`` and the id of its first output.
        op_type: Such as ``MatMul``.
        inputs: The tensors it takes.
        outputs: The tensors it makes.
        created: Position among all ops, in the order they were made.
        stack: The Python stack it was made in, innermost last, as (file, line).
        called_graph: For a function called from Python, the id of its graph.
        wall_time: For an eager op, when it had finished; seconds since the epoch.
    """

    key: OpKey
    op_type: str
    inputs: tuple[TensorKey, ...]
    outputs: tuple[TensorKey, ...]
    created: int
    stack: tuple[tuple[str, int], ...] = ()
    called_graph: str | None = None
    wall_time: float = 0.0


@dataclass
class Dump:
    """A dump, read.

    Args:
        ops: Every op, by its key.
        events: The values of each tensor, in time order.
        graph_names: Name of each graph by its id.
        outer_graphs: Id of the enclosing graph by a graph's id.
        function_calls: Wall times at which functions called from Python had finished.
        origins: Origin of each op; empty in a dump that headstart did not record.
        has_health: Whether the mode tells NaN and Inf at all.
    """

    ops: dict[OpKey, OpRecord] = field(default_factory=dict)
    events: dict[TensorKey, list[TensorEvent]] = field(default_factory=lambda: defaultdict(list))
    graph_names: dict[str, str] = field(default_factory=dict)
    outer_graphs: dict[str, str] = field(default_factory=dict)
    function_calls: list[float] = field(default_factory=list)
    origins: dict[OpKey, Origin] = field(default_factory=dict)
    has_health: bool = False


def read_dump(folder: Path) -> Dump:
    """Read a Debugger V2 dump.

    Args:
        folder: The folder, with its ``tfdbg_events.*`` files.

    Returns:
        Its ops and the health of their tensors.

    Raises:
        RecordError: There is no such dump, or it cannot be read.
    """
    if not folder.is_dir() or not list(folder.glob("*.metadata")):
        raise RecordError(
            "this folder holds no Debugger V2 dump (tfdbg_events.*.metadata)",
            str(folder),
            "record one with `headstart debug run --keep-dump DIR SCRIPT`",
        )
    try:
        reader = private("DebugDataReader")(str(folder))
        allow_unknown_ops(reader)
        collector = _collector(reader)
        reader.update()
        collector.read_whole_tensors()
        return _completed(collector.dump, reader, folder)
    except (ValueError, OSError, KeyError, IndexError, TypeError, _data_loss()) as error:
        raise RecordError(
            "the Debugger V2 dump is damaged",
            f"{folder}: {type(error).__name__}: {error}",
            "record it again",
        ) from error


def allow_unknown_ops(reader: Any) -> None:
    """Let a dump be read that was cut off: tensors may be written whose op is not yet.

    Args:
        reader: TensorFlow's reader, before it has read anything.
    """
    type_of = reader._lookup_op_type

    def type_or_none(graph_id: Any, op_name: Any) -> str:
        try:
            return str(type_of(graph_id, op_name))
        except KeyError:
            return ""

    reader._lookup_op_type = type_or_none


def _data_loss() -> type[Exception]:
    """TensorFlow's errors about what it reads; it is imported by now."""
    import tensorflow as tf

    kind: type[Exception] = tf.errors.OpError
    return kind


def _completed(dump: Dump, reader: Any, folder: Path) -> Dump:
    dump.origins = read_origins(folder)
    for tensor_id in read_bad_data(folder):
        key = (EAGER, tensor_id)
        tensor = (EAGER, tensor_id, 0)
        dump.ops[key] = OpRecord(key, EXTERNAL_DATA, (), (tensor,), created=-1)
        dump.events[tensor].append(TensorEvent(-1, 0.0, is_bad=True))
    for created, digest in enumerate(reader.graph_op_digests()):
        _add_graph_op(dump, reader, created, digest)
    return dump


def _add_graph_op(dump: Dump, reader: Any, created: int, digest: Any) -> None:
    graph_id, name = digest.graph_id, digest.op_name
    if graph_id not in dump.graph_names:
        graph = reader.graph_by_id(graph_id)
        dump.graph_names[graph_id] = graph.name or ""
        if graph.outer_graph_id:
            dump.outer_graphs[graph_id] = graph.outer_graph_id
    frames: tuple[tuple[str, int], ...] = ()
    if (graph_id, name) not in dump.origins:
        frames = _stack(reader.read_graph_op_creation_stack_trace, digest)
    dump.ops[(graph_id, name)] = OpRecord(
        key=(graph_id, name),
        op_type=digest.op_type,
        inputs=tuple(_tensor_key(graph_id, tensor) for tensor in digest.input_names or ()),
        outputs=tuple((graph_id, name, slot) for slot in range(digest.num_outputs)),
        created=created,
        stack=frames,
    )


def _stack(read: Callable[[Any], Any], of: Any) -> tuple[tuple[str, int], ...]:
    """Return a stack as (file, line); empty where the dump was cut off before it was written."""
    try:
        _, frames = read(of)
    except KeyError:
        return ()
    return tuple((frame[0], frame[1]) for frame in frames)


def _tensor_key(graph_id: str, tensor_name: str) -> TensorKey:
    op_name, _, slot = tensor_name.partition(":")
    return graph_id, op_name, int(slot or 0)


def _collector(reader: Any) -> Any:
    """Return a monitor that turns what the reader reads into a ``Dump``."""

    class Collector(private("BaseMonitor")):  # type: ignore[misc]
        def __init__(self) -> None:
            self.dump = Dump()
            self._order = 0
            self._unread: list[tuple[int, TensorKey, Any]] = []
            self._unread_executions: list[tuple[int, Any]] = []
            super().__init__(reader)

        def _next(self) -> int:
            self._order += 1
            return self._order

        def on_graph_execution_trace(self, index: int, trace: Any) -> None:
            key = (trace.graph_id, trace.op_name, trace.output_slot)
            if trace.tensor_debug_mode == FULL_TENSOR:
                # The reader holds its lock now; whole tensors are read once it is through.
                self._unread.append((self._next(), key, trace))
                return
            value = trace.debug_tensor_value
            self._add_event(key, trace.wall_time, trace.tensor_debug_mode, value)

        def read_whole_tensors(self) -> None:
            for order, key, trace in self._unread:
                value = reader.graph_execution_trace_to_tensor_value(trace)
                self._add_array(order, key, trace.wall_time, value)
            for order, execution in self._unread_executions:
                values = reader.execution_to_tensor_values(execution)
                outputs = execution.output_tensor_ids or ()
                for tensor_id, value in zip(outputs, values, strict=False):
                    key = (EAGER, str(tensor_id), 0)
                    self._add_array(order, key, execution.wall_time, value)

        def _add_array(self, order: int, key: TensorKey, wall_time: float, value: Any) -> None:
            event = None if value is None else event_of_array(order, wall_time, np.asarray(value))
            if event is not None:
                self.dump.has_health = True
                self.dump.events[key].append(event)

        def _add_event(self, key: TensorKey, wall_time: float, mode: int, value: Any) -> None:
            event = _event(self._next(), wall_time, mode, value)
            if event is not None:
                self.dump.has_health = True
                self.dump.events[key].append(event)

        def on_execution(self, index: int, execution: Any) -> None:
            if execution.graph_id:  # a function, not a single op
                self.dump.function_calls.append(execution.wall_time)
            mode, outputs = execution.tensor_debug_mode, execution.output_tensor_ids or ()
            values = execution.debug_tensor_values or ()
            if mode == FULL_TENSOR:
                self._unread_executions.append((self._next(), execution))
                values = ()
            for tensor_id, value in zip(outputs, values, strict=False):
                self._add_event((EAGER, str(tensor_id), 0), execution.wall_time, mode, value)
            if outputs:
                self._add_eager_op(index, execution, outputs)

        def _add_eager_op(self, index: int, execution: Any, outputs: Any) -> None:
            key = (EAGER, str(outputs[0]))
            stack = _stack(reader.read_execution_stack_trace, execution)
            self.dump.ops[key] = OpRecord(
                key=key,
                op_type=execution.op_type,
                inputs=tuple((EAGER, str(i), 0) for i in execution.input_tensor_ids or ()),
                outputs=tuple((EAGER, str(i), 0) for i in outputs),
                created=index,
                stack=stack,
                called_graph=execution.graph_id or None,
                wall_time=execution.wall_time,
            )

    return Collector()


# TensorDebugMode of debug_event.proto.
_CURT_HEALTH, _CONCISE_HEALTH, _FULL_HEALTH, FULL_TENSOR = 2, 3, 4, 7


def _event(order: int, wall_time: float, mode: int, value: Any) -> TensorEvent | None:
    """Read one debug tensor by the layout its mode gives it; None where it says no health."""
    if value is None or np.ndim(value) == 0:
        return None
    numbers = [int(number) for number in value]
    if mode == _CURT_HEALTH:
        return TensorEvent(order, wall_time, is_bad=bool(numbers[1]))
    if mode == _CONCISE_HEALTH:
        size, negative, positive, nan = numbers[1:5]
    elif mode == _FULL_HEALTH:
        size, negative, positive, nan = numbers[4:8]
    else:
        return None
    bad = bool(negative or positive or nan)
    return TensorEvent(order, wall_time, bad, size, nan, negative, positive)


def event_of_array(order: int, wall_time: float, array: npt.NDArray[Any]) -> TensorEvent | None:
    """Return the health of a whole tensor.

    Args:
        order: Position in the dump.
        wall_time: Seconds since the epoch.
        array: The value, of any shape.

    Returns:
        Its health; None where it is not of floats.
    """
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        return None
    array = array.astype(np.float64)
    finite = array[np.isfinite(array)]
    nan = int(np.isnan(array).sum())
    negative, positive = int(np.isneginf(array).sum()), int(np.isposinf(array).sum())
    return TensorEvent(
        order,
        wall_time,
        bool(nan or negative or positive),
        array.size,
        nan,
        negative,
        positive,
        float(finite.min()) if finite.size else None,
        float(finite.max()) if finite.size else None,
    )

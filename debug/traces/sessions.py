"""Debugging graph-mode programs: a ``tf.compat.v1.Session`` that dumps what it runs.

    session = DebugSession(tf.compat.v1.Session(graph=graph))
    session.run(loss, feed)          # dumps every tensor of the run
    session.matching()               # the tensors with NaN or Inf, first one first
    session.node("dense/MatMul")     # its inputs, its outputs and their values
    session.diagnoses()              # the first bad op, with the line that made it

On a terminal ``interactive_session`` opens tfdbg's own prompt instead.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.debug.callsites import CallSite, is_users
from headstart.debug.diagnosis import Diagnosis, TensorHealth
from headstart.debug.dump.causes import cause_of, suggestions_for
from headstart.debug.dump.dump import TensorEvent, event_of_array
from headstart.debug.internals import private
from headstart.errors import ConfigError

CAP_BYTES = 1 << 30
TensorFilter = Callable[[str, npt.NDArray[Any]], bool]
"""Takes a tensor's name and value, and tells whether it is wanted."""


def has_inf_or_nan(name: str, value: npt.NDArray[Any]) -> bool:
    """Tell whether a tensor holds NaN or Inf.

    Args:
        name: Not read; `matching` passes it to every filter.
        value: Its value, of any shape and dtype.

    Returns:
        False too for tensors that are not of floats.
    """
    event = event_of_array(0, 0.0, value)
    return event is not None and event.is_bad


@dataclass(frozen=True)
class DumpedTensor:
    """One tensor of a dumped run.

    Args:
        name: Name of the form ``node:slot``.
        value: The array that was dumped.
        timestamp_us: When it was computed; microseconds since the epoch.
    """

    name: str
    value: npt.NDArray[Any]
    timestamp_us: int

    @property
    def health(self) -> TensorHealth:
        """What is to be said of its values."""
        event = event_of_array(0, 0.0, self.value)
        return _health(self.name, self.value, event)


@dataclass(frozen=True)
class DumpedNode:
    """One node of a dumped run.

    Args:
        name: Name in the graph.
        op_type: Such as ``MatMul``.
        inputs: The tensors it takes; empty values where they were not dumped.
        outputs: The tensors it made.
        site: The user's line that made it; None where it is not known.
    """

    name: str
    op_type: str
    inputs: tuple[TensorHealth, ...]
    outputs: tuple[TensorHealth, ...]
    site: CallSite | None


class DebugSession:
    """A session whose every ``run`` is dumped and can be asked about afterwards.

    Args:
        session: The ``tf.compat.v1.Session`` to wrap.
        folder: Where the dumps go; None for a folder that lives as long as this object.
        keeps_first_bad: Dump no more once a run had NaN or Inf, so that it stays the last.
        cap_bytes: A run whose dump takes more is the last one dumped.

    Example:
        >>> with DebugSession(tf.compat.v1.Session()) as session:
        ...     session.run(loss)
        ...     print(render_text(session.diagnoses()))
    """

    def __init__(
        self,
        session: Any,
        folder: Path | None = None,
        keeps_first_bad: bool = False,
        cap_bytes: int = CAP_BYTES,
    ) -> None:
        self._plain = session
        self._cap_bytes = cap_bytes
        self._keeps_first_bad = keeps_first_bad
        self._is_settled = False
        self._is_temporary = folder is None
        self._folder = (
            Path(tempfile.mkdtemp(prefix="headstart-tfdbg-")) if folder is None else folder
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        self.graph = session.graph
        self._filters: dict[str, TensorFilter] = {"has_inf_or_nan": has_inf_or_nan}
        # DebugIdentity: the summarising debug op has no kernel in TensorFlow 2.21.
        self._session = private("DumpingSession")(
            session, str(self._folder), watch_fn=_watch_everything
        )

    def __enter__(self) -> "DebugSession":
        """Enter the wrapped session, which makes it and its graph the default."""
        self._session.__enter__()
        return self

    def __getattr__(self, name: str) -> Any:
        """Return whatever else a session has from the wrapped one."""
        if name.startswith("_"):  # not there yet, while this object is being made
            raise AttributeError(name)
        return getattr(self._session, name)

    def __exit__(self, *exception: object) -> None:
        """Leave the wrapped session; it can still be asked about its last run."""
        self._session.__exit__(*exception)

    def run(
        self,
        fetches: Any,
        feed_dict: dict[Any, Any] | None = None,
        options: Any = None,
        run_metadata: Any = None,
    ) -> Any:
        """Run the graph as ``Session.run`` does, and dump every tensor.

        Returns:
            The fetched values.
        """
        if self._is_settled:
            return self._plain.run(fetches, feed_dict, options, run_metadata)
        for earlier in self._folder.glob("run_*"):
            shutil.rmtree(earlier)  # only the last run can be asked about
        result = self._session.run(fetches, feed_dict, options, run_metadata)
        self._is_settled = self._keeps_first_bad and bool(self.matching())
        self._is_settled = self._is_settled or self._is_over_the_cap()
        return result

    def _is_over_the_cap(self) -> bool:
        """Whether one run took so much of the disk that no other is dumped."""
        files = (path for path in self._folder.glob("**/*") if path.is_file())
        return sum(path.stat().st_size for path in files) > self._cap_bytes

    def add_filter(self, name: str, predicate: TensorFilter) -> None:
        """Add a filter for ``matching``.

        Args:
            name: Name by which ``matching`` finds it.
            predicate: Called with a tensor's name and value.
        """
        self._filters[name] = predicate

    @property
    def has_run(self) -> bool:
        """Whether there is a run to ask about."""
        return any(self._folder.glob("run_*"))

    def tensors(self) -> list[DumpedTensor]:
        """Return every tensor of the last run, in the order they were computed."""
        dump = self._last_dump()
        found = [
            DumpedTensor(f"{datum.node_name}:{datum.output_slot}", value, int(datum.timestamp))
            for datum in dump.dumped_tensor_data
            if isinstance(value := datum.get_tensor(), np.ndarray)
        ]
        return sorted(found, key=lambda tensor: tensor.timestamp_us)

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """Return the value that a tensor had in the last run.

        Args:
            name: ``node:slot``, or a node's name for its first output.

        Raises:
            ConfigError: No such tensor was dumped.
        """
        wanted = name if ":" in name else f"{name}:0"
        for dumped in self.tensors():
            if dumped.name == wanted:
                return dumped.value
        raise ConfigError(
            "the last session run has no tensor of this name",
            name,
            "list them with DebugSession.tensors()",
        )

    def matching(self, filter_name: str = "has_inf_or_nan") -> list[DumpedTensor]:
        """Return the tensors of the last run that a filter wants, the first computed first.

        Args:
            filter_name: ``has_inf_or_nan`` or one given to ``add_filter``.

        Raises:
            ConfigError: There is no such filter.
        """
        if filter_name not in self._filters:
            raise ConfigError(
                "unknown filter", filter_name, f"use one of {', '.join(self._filters)}"
            )
        predicate = self._filters[filter_name]
        return [dumped for dumped in self.tensors() if predicate(dumped.name, dumped.value)]

    def node(self, name: str) -> DumpedNode:
        """Return a node of the graph with the health of what it took and made.

        Raises:
            ConfigError: The graph has no such node.
        """
        try:
            op = self.graph.get_operation_by_name(name)
        except (KeyError, ValueError) as error:
            raise ConfigError("the session's graph has no node of this name", name) from error
        values = {dumped.name: dumped for dumped in self.tensors()}
        return DumpedNode(
            name=name,
            op_type=op.type,
            inputs=tuple(_health_of(tensor, values) for tensor in op.inputs),
            outputs=tuple(_health_of(tensor, values) for tensor in op.outputs),
            site=_user_line(op),
        )

    def diagnoses(self) -> list[Diagnosis]:
        """Diagnose the first tensor of the last run that is bad though its inputs are not."""
        bad = {dumped.name for dumped in self.matching()}
        for dumped in self.matching():
            op = self.graph.get_tensor_by_name(dumped.name).op
            if op.type != "Const" and not any(tensor.name in bad for tensor in op.inputs):
                return [self._diagnosis(op, dumped)]
        return []

    def close(self) -> None:
        """Close the session; it can still be asked about its last run."""
        self._session.close()

    def forget(self) -> None:
        """Remove the dumps, if they were this object's own; it can be asked no more."""
        if self._is_temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _diagnosis(self, op: Any, dumped: DumpedTensor) -> Diagnosis:
        node = self.node(op.name)
        event = event_of_array(0, 0.0, dumped.value)
        assert event is not None, "matching() lists tensors of floats only"
        is_backward = op.name.startswith("gradients/") or "_grad/" in op.name
        return Diagnosis(
            symptom="nan" if event.has_nan else "inf",
            cause=cause_of(op.type, op.type.removesuffix("Grad"), is_backward, event, []),
            op=op.name,
            op_type=op.type,
            inputs_health=node.inputs,
            outputs_health=(dumped.health,),
            phase="backward" if is_backward else "forward",
            confidence=0.8,
            suggestions=suggestions_for(op.type, op.type.removesuffix("Grad"), is_backward),
        ).at(node.site)

    def _last_dump(self) -> Any:
        runs = sorted(self._folder.glob("run_*"), key=lambda path: path.stat().st_mtime_ns)
        if not runs:
            raise ConfigError("the session has not run yet", "", "call run first")
        return private("DebugDumpDir")(str(runs[-1]), validate=False)


def wrapping(plain_class: type, wrap: Callable[[Any], Any]) -> type:
    """Return a stand-in for a session class whose sessions come out wrapped.

    ``isinstance(session, tf.compat.v1.Session)`` holds for them as for plain ones.

    Args:
        plain_class: ``tf.compat.v1.Session``, or another class of sessions.
        wrap: Wraps one of its sessions.

    Returns:
        The class to put in its place.
    """

    class Kind(type(plain_class)):  # type: ignore[misc]
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is not stand_in:  # a class that the program derived from it
                return super().__call__(*args, **kwargs)
            return wrap(plain_class(*args, **kwargs))

        def __instancecheck__(cls, instance: Any) -> bool:
            inner = getattr(instance, "_plain", getattr(instance, "_sess", instance))
            return isinstance(inner, plain_class if cls is stand_in else cls)

    stand_in: type = Kind(plain_class.__name__, (plain_class,), {})
    return stand_in


def interactive_session(session: Any, filters: Sequence[tuple[str, TensorFilter]] = ()) -> Any:
    """Wrap a session in tfdbg's own prompt, for work at a terminal.

    Args:
        session: The ``tf.compat.v1.Session`` to wrap.
        filters: Names and predicates for ``run -f NAME``, beside ``has_inf_or_nan``.

    Returns:
        A session with the same methods; each ``run`` stops at the prompt.

    Raises:
        ConfigError: Standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            "an interactive session needs a terminal",
            "standard input is not a terminal",
            "use DebugSession",
        )
    # tfdbg keeps its settings in the home folder unless told otherwise.
    settings = Path(tempfile.mkdtemp(prefix="headstart-tfdbg-")) / "settings"
    wrapped = private("InteractiveSession")(
        session, ui_type="readline", config_file_path=str(settings)
    )
    for name, predicate in (("has_inf_or_nan", has_inf_or_nan), *filters):
        wrapped.add_tensor_filter(name, _as_tfdbg_filter(predicate))
    return wrapped


def _as_tfdbg_filter(predicate: TensorFilter) -> Callable[[Any, Any], bool]:
    def wants(datum: Any, value: Any) -> bool:
        name = f"{datum.node_name}:{datum.output_slot}"
        return isinstance(value, np.ndarray) and predicate(name, value)

    return wants


def _watch_everything(fetches: Any, feeds: Any) -> Any:
    return private("SessionWatchOptions")(
        debug_ops=["DebugIdentity"],
        node_name_regex_allowlist=None,
        op_type_regex_allowlist=None,
        tensor_dtype_regex_allowlist=None,
        tolerate_debug_op_creation_failures=True,
    )


def _health_of(tensor: Any, values: dict[str, DumpedTensor]) -> TensorHealth:
    if tensor.name in values:
        return values[tensor.name].health
    return TensorHealth(tensor.name, tensor.dtype.name)


def _health(name: str, value: npt.NDArray[Any], event: TensorEvent | None) -> TensorHealth:
    known = TensorHealth(name, value.dtype.name, tuple(value.shape), int(value.size))
    if event is None:
        return known
    return TensorHealth(
        name,
        known.dtype,
        known.shape,
        known.size,
        event.num_nan,
        (event.num_neg_inf or 0) + (event.num_pos_inf or 0),
        event.min,
        event.max,
    )


def _user_line(op: Any) -> CallSite | None:
    for frame in _innermost_first(op):
        if is_users(frame.filename):
            return CallSite(frame.filename, frame.lineno)
    return None


def _innermost_first(op: Any) -> Iterator[Any]:
    """Yield the frames in which an op was made; a gradient's forward op says more than its own."""
    forward = getattr(op, "_original_op", None)
    yield from reversed(forward.traceback if forward is not None else op.traceback)

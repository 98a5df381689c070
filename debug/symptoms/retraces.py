"""Which tf.function was traced again, and which argument's shape, dtype or value made it so."""

import sys
from collections import Counter
from dataclasses import dataclass
from types import FrameType
from typing import Any

from headstart.debug.callsites import CallSite, calling_site, is_users
from headstart.debug.diagnosis import Diagnosis, ranked
from headstart.debug.guard import harmless
from headstart.debug.internals import private

MAX_TRACES = 5
"""Traces of one function from which on they are a storm (TensorFlow itself warns at 5)."""
MAX_CALLS_OF_TRACE = 10
"""Calls for each trace from which on tracing has paid: lengths that are sorted into buckets."""
_PLUMBING = ("tensorflow/python/eager/", "tensorflow/python/util/", "tensorflow/python/framework/")
"""Where TensorFlow traces functions, whoever calls them."""
_KERAS_STEPS = ("one_step_on_data", "one_step_on_iterator", "multi_step_on_iterator")
_NEW_FUNCTION = "a new function"
_NOT_JUDGED = ("Dataset_", "initialize_variables", "multi_step_on_iterator", "signature_wrapper",
               "headstart_")  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """One tracing of a tf.function.

    Args:
        function: Name of the traced function.
        arguments: Name and description of each argument, such as ``("x", "float32 [3, 4]")``.
        site: The user's line that called it; None where no line of the user's did.
        variables: Unique names of the trainable variables that it reads.
    """

    function: str
    arguments: tuple[tuple[str, str], ...]
    site: CallSite | None
    variables: frozenset[str] = frozenset()


class RetraceCounter:
    """Counts the tracings of every tf.function while it is open.

    Example:
        >>> with RetraceCounter() as counter:
        ...     train(model)
        >>> counter.diagnoses()
    """

    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self._calls: Counter[str] = Counter()

    def __enter__(self) -> "RetraceCounter":
        """Start counting."""
        private("trace_listeners").append(self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop counting; the traces stay."""
        if self._note in private("trace_listeners"):  # it may never have been started
            private("trace_listeners").remove(self._note)

    def _note(self, concrete: Any) -> None:
        with harmless("the count of traces"):  # TensorFlow passes on what a listener raises
            name = str(concrete.graph.name)
            if not name.startswith(_NOT_JUDGED) and not _is_tensorflows_own():
                variables = frozenset(one._unique_id for one in concrete.graph.trainable_variables)
                self.traces.append(Trace(name, _arguments_of(concrete), calling_site(), variables))

    def on_call(self, function: Any) -> None:
        """Note a call of a tf.function; where none are noted, each trace counts alike."""
        self._calls[str(getattr(function, "__name__", ""))] += 1

    def of(self, function: str) -> list[Trace]:
        """Return the traces of the functions with a name, first to last."""
        return [trace for trace in self.traces if trace.function == function]

    def diagnoses(self) -> list[Diagnosis]:
        """Return a finding for each function that was traced too often, worst first."""
        counts = Counter((t.function, t.site.file if t.site else "") for t in self.traces)
        return ranked(
            storm
            for storm in (
                _storm([t for t in self.of(name) if (t.site.file if t.site else "") == file])
                for (name, file), number in counts.items()
                if number >= MAX_TRACES and self._is_too_often(name)
            )
            if not _is_another_model(storm)
        )

    def _is_too_often(self, name: str) -> bool:
        """Tell whether one function saw many arguments, or was itself made anew many times.

        A step that is made for each of two or three models, and each time sees a short last batch,
        is neither. Nor is one that is traced once for each of many models: of another model are
        traces that share no trainable variable.
        """
        models: list[tuple[frozenset[str], list[Trace]]] = []
        for trace in self.of(name):
            shared = [
                one for one in models if one[0] & trace.variables or one[0] == trace.variables
            ]
            models = [one for one in models if one not in shared]
            joined = frozenset().union(trace.variables, *(one[0] for one in shared))
            models.append((joined, [*(made for one in shared for made in one[1]), trace]))
        return any(
            self._saw_many_arguments(name, times) or max(times.values()) >= MAX_TRACES
            for times in (Counter(trace.arguments for trace in traces) for _, traces in models)
        )

    def _saw_many_arguments(self, name: str, times: Counter[Any]) -> bool:
        has_paid = self._calls[name] >= MAX_CALLS_OF_TRACE * len(self.of(name))
        return len(times) >= MAX_TRACES and not has_paid


def _is_tensorflows_own() -> bool:
    """Tell whether TensorFlow itself called what was just traced: no program can help that."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename.replace("\\", "/")
        if not any(part in file for part in _PLUMBING):
            return "/tensorflow/" in file and not is_users(file)
        frame = frame.f_back
    return False


def explain_retraces(traces: list[Trace]) -> tuple[str, ...]:
    """Say what made each trace after the first necessary.

    Args:
        traces: Traces of one function, first to last.

    Returns:
        Distinct sentences, the commonest first.
    """
    reasons: Counter[str] = Counter()
    for i, trace in enumerate(traces[1:], start=1):
        changes = min((_differences(earlier, trace) for earlier in reversed(traces[:i])), key=len)
        if changes:
            reasons.update(changes)
        else:
            reasons[f"{_NEW_FUNCTION} with the same arguments is made each time"] += 1
    return tuple(f"{reason} ({times} times)" for reason, times in reasons.most_common())


def _storm(traces: list[Trace]) -> Diagnosis:
    causes = explain_retraces(traces)
    site = traces[-1].site
    return Diagnosis(
        symptom="retracing",
        cause=f"{traces[0].function} was traced {len(traces)} times: {causes[0]}.",
        graph=traces[0].function,
        phase="runtime",
        severity="warning",
        confidence=0.8,
        suggestions=(
            "pass tensors instead of Python numbers (tf.constant), and keep shapes equal by "
            "padding or drop_remainder=True",
            "give the function input_signature=[tf.TensorSpec([None, ...])] or "
            "reduce_retracing=True",
            "create the tf.function once, outside the loop",
        ),
        evidence={"num_traces": len(traces), "causes": list(causes)},
    ).at(site)


def _is_another_model(storm: Diagnosis) -> bool:
    """Tell whether Keras made its step anew for another model or another ``compile``."""
    return storm.graph in _KERAS_STEPS and storm.evidence["causes"][0].startswith(_NEW_FUNCTION)


def _differences(earlier: Trace, later: Trace) -> list[str]:
    before, after = dict(earlier.arguments), dict(later.arguments)
    return [
        f"argument {name!r} was {before.get(name, 'absent')} and is {after.get(name, 'absent')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _arguments_of(concrete: Any) -> tuple[tuple[str, str], ...]:
    positional, named = concrete.structured_input_signature
    names = list(concrete.function_type.parameters)
    labelled = list(zip(names, positional, strict=False)) + list(named.items())
    return tuple(pair for name, value in labelled for pair in _flatten(name, value))


def _flatten(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flatten(f"{name}[{key!r}]", item)]
    if isinstance(value, list | tuple):
        return [pair for i, item in enumerate(value) for pair in _flatten(f"{name}[{i}]", item)]
    shape: Any = getattr(value, "shape", None)
    dtype: Any = getattr(value, "dtype", None)
    if hasattr(dtype, "name") and hasattr(shape, "rank"):
        told = "unknown shape" if shape.rank is None else list(shape)
        return [(name, f"{dtype.name} {told}")]
    return [(name, f"{type(value).__name__} {value!r}")]

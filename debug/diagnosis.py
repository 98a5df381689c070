"""A diagnosis: one finding that a person can act on, returned by every tool of the debugger.

A ``Diagnosis`` says what was seen (``symptom``), why (``cause``), where (op, layer, the user's own
line) and what to try. ``headstart.debug.rendering`` draws it as text, Markdown or HTML; here it is
plain data that survives JSON.
"""

import json
import linecache
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from headstart.debug.callsites import CallSite

Phase = Literal["forward", "backward", "data", "loss", "metric", "optimizer", "model", "runtime"]
Severity = Literal["ended", "error", "warning", "advice"]
StepUnit = Literal["training step", "session run", "graph execution"]

SEVERITY_ORDER: dict[Severity, int] = {"ended": 0, "error": 1, "warning": 2, "advice": 3}
CONTEXT_LINES = 2
"""Source lines shown above and below the line of a diagnosis."""


@dataclass(frozen=True)
class TensorHealth:
    """What is known of the values of one tensor.

    Args:
        name: The tensor's name, ``op:slot`` in a graph.
        dtype: Its dtype's name, such as ``float32``; None where not known.
        shape: Its shape; None where not known.
        size: How many elements it has; None where not known.
        num_nan: How many of them are NaN; None where not counted.
        num_inf: How many of them are Inf or -Inf; None where not counted.
        min: Least finite value; None where not known.
        max: Greatest finite value; None where not known.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    size: int | None = None
    num_nan: int | None = None
    num_inf: int | None = None
    min: float | None = None
    max: float | None = None

    @property
    def is_bad(self) -> bool:
        """True where the tensor is known to hold NaN or Inf."""
        return bool(self.num_nan or self.num_inf)


@dataclass(frozen=True)
class Diagnosis:
    """One finding of the debugger.

    Args:
        symptom: Short code of what was seen, such as ``nan``, ``inf``, ``shape-mismatch``,
            ``exploding-gradient``; lower case words joined by hyphens.
        cause: Why, in one sentence.
        op: Name of the op in its graph.
        op_type: Its type, such as ``Log``.
        graph: Name of the function's graph that holds the op.
        layer: Path of the Keras layer, such as ``model/block1/conv``.
        file: The user's source file (never TensorFlow's or Keras's own).
        line: The line in that file, counted from 1.
        source_context: The lines around it, each as ``"> 12 | code"`` (see ``source_lines``).
        inputs_health: Health of the op's inputs.
        outputs_health: Health of the op's outputs.
        step: When it was seen, counted from 0 in ``step_unit``.
        step_unit: What ``step`` counts: a ``training step``, a ``session run`` (a call of
            ``tf.compat.v1.Session.run``) or a ``graph execution`` (one of those in a dump).
        batch: Batch within the epoch, counted from 0.
        phase: The part of training it belongs to.
        severity: ``ended`` where it ended the program, ``error`` where training is broken,
            ``warning`` where it is likely worse, ``advice`` where a healthy training could be
            better: that alone makes no run unhealthy.
        confidence: How sure the finding is, from 0 to 1; only for ranking.
        suggestions: What to try, most promising first.
        evidence: Numbers and texts that support it; JSON values only.
        caused_by: Symptom of the finding that this one follows from; None where it stands alone.
    """

    symptom: str
    cause: str
    op: str | None = None
    op_type: str | None = None
    graph: str | None = None
    layer: str | None = None
    file: str | None = None
    line: int | None = None
    source_context: tuple[str, ...] = ()
    inputs_health: tuple[TensorHealth, ...] = ()
    outputs_health: tuple[TensorHealth, ...] = ()
    step: int | None = None
    step_unit: StepUnit = "training step"
    batch: int | None = None
    phase: Phase = "forward"
    severity: Severity = "error"
    confidence: float = 0.5
    suggestions: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    caused_by: str | None = None

    def at(self, site: CallSite | None) -> "Diagnosis":
        """Return the diagnosis at a line of the user's, with what stands around it.

        Args:
            site: The line; None where it is not known.
        """
        if site is None:
            return self
        return replace(self, file=site.file, line=site.line, source_context=()).with_source()

    def with_source(self) -> "Diagnosis":
        """Return a copy whose ``source_context`` is read from ``file`` and ``line``."""
        if self.source_context or self.file is None or self.line is None:
            return self
        return replace(self, source_context=source_lines(self.file, self.line))

    def to_dict(self) -> dict[str, Any]:
        """Return every field as JSON values, tuples as lists."""
        return json.loads(json.dumps(asdict(self), default=str))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Diagnosis":
        """Rebuild a diagnosis from what ``to_dict`` returned.

        Returns:
            The same diagnosis.

        Raises:
            TypeError: The dictionary has a field that a diagnosis has not.
        """
        plain = dict(fields)
        for name in ("inputs_health", "outputs_health"):
            plain[name] = tuple(_health_from_dict(item) for item in plain.get(name, ()))
        for name in ("source_context", "suggestions"):
            plain[name] = tuple(plain.get(name, ()))
        return cls(**plain)


def _health_from_dict(fields: dict[str, Any]) -> TensorHealth:
    shape = fields.get("shape")
    return TensorHealth(**{**fields, "shape": None if shape is None else tuple(shape)})


def ranked(diagnoses: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Sort diagnoses, most likely first, and drop repeats of the same finding.

    What ended the program comes first, then errors, warnings and advice; among these the more
    confident, then the earlier step; ties keep the order given. A finding that follows from
    another one (``caused_by``) comes after it.

    Args:
        diagnoses: Findings in any order.

    Returns:
        The sorted list.
    """
    never = 1 << 62
    ordered = sorted(
        diagnoses,
        key=lambda found: (
            SEVERITY_ORDER[found.severity],
            -found.confidence,
            never if found.step is None else found.step,
        ),
    )
    seen: set[tuple[object, ...]] = set()
    unique = []
    for found in ordered:
        identity = (found.symptom, found.op, found.layer, found.file, found.line)
        if identity not in seen:
            seen.add(identity)
            unique.append(found)
    return _causes_first(unique)


def _causes_first(found: list[Diagnosis]) -> list[Diagnosis]:
    """Move each cause in front of the first finding that follows from it."""
    ordered: list[Diagnosis] = []
    for diagnosis in found:
        cause = next((other for other in found if other.symptom == diagnosis.caused_by), None)
        for one in (cause, diagnosis):
            if one is not None and not any(one is other for other in ordered):
                ordered.append(one)
    return ordered


def healthy_with(diagnoses: Iterable[Diagnosis]) -> bool:
    """Tell whether findings leave a run healthy: there is none, or advice alone."""
    return all(found.severity == "advice" for found in diagnoses)


def to_json(diagnoses: Sequence[Diagnosis], **more: Any) -> str:
    """Return one JSON object with the list ``diagnoses`` and any other entries.

    Args:
        diagnoses: The findings, most likely first.
        **more: Further JSON values for the object, such as ``script``.

    Returns:
        The text, indented by two spaces.
    """
    payload = {**more, "diagnoses": [found.to_dict() for found in diagnoses]}
    return json.dumps(payload, indent=2, default=str)


def source_lines(file: str, line: int, context: int = CONTEXT_LINES) -> tuple[str, ...]:
    """Return the source around a line, the line itself marked with ``>``.

    Args:
        file: Path of the source file.
        line: The line, counted from 1.
        context: How many lines to show above and below.

    Returns:
        Lines such as ``"> 12 | x = tf.math.log(x)"``; empty where the file cannot be read.
    """
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    if not 1 <= line <= len(lines):
        return ()
    first, last = max(1, line - context), min(len(lines), line + context)
    width = len(str(last))
    return tuple(
        f"{'>' if number == line else ' '} {number:{width}} | {lines[number - 1].rstrip()}".rstrip()
        for number in range(first, last + 1)
    )

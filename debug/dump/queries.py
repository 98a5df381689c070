"""Asking a dump as tfdbg does: which tensors are so, what goes into a node, what a tensor held."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.debug.dump.dump import FULL_TENSOR, Dump, OpRecord, TensorEvent, TensorKey
from headstart.debug.internals import private
from headstart.errors import ConfigError

FIELDS = ("op", "op_type", "graph", "layer", "line", "size", "num_nan", "num_inf", "min", "max",
          "is_bad")  # fmt: skip
"""What a condition may speak of."""


@dataclass(frozen=True)
class Row:
    """One value of one tensor.

    Args:
        tensor: Name of the tensor, ``op:slot``.
        fields: What is known of it, by the names of `FIELDS`; None where the mode does not tell.
    """

    tensor: str
    fields: dict[str, Any]

    def in_words(self) -> str:
        """Return the row as a line."""
        shown = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                 for name, value in self.fields.items()
                 if value is not None and name not in ("op", "is_bad")]  # fmt: skip
        return f"{self.tensor}  {', '.join(shown)}"


def matching(dump: Dump, where: str) -> list[Row]:
    """Return the values for which a condition holds, in the order in which they were made.

    Args:
        dump: The dump to search.
        where: A Python expression over `FIELDS`, such as ``num_nan > 0 and op_type == "Log"``. One
            that compares what the dump does not know does not hold.

    Returns:
        The rows.

    Raises:
        ConfigError: It is no expression, or speaks of something else.
    """
    code = _compiled(where)
    events = sorted(
        ((event.order, key, event) for key, found in dump.events.items() for event in found),
        key=lambda item: item[0],
    )
    rows = (_row(dump, key, event) for _, key, event in events)
    return [row for row in rows if _holds(code, row)]


def _compiled(where: str) -> CodeType:
    try:
        code = compile(where, "<where>", "eval")
    except SyntaxError as error:
        raise ConfigError(
            "the condition of --where is not a Python expression", where, str(error)
        ) from None
    unknown = sorted(set(code.co_names) - set(FIELDS))
    if unknown:
        raise ConfigError(
            f"the condition of --where uses an unknown name: {', '.join(unknown)}",
            where,
            f"use only {', '.join(FIELDS)}",
        )
    return code


def _holds(code: CodeType, row: Row) -> bool:
    try:
        return bool(eval(code, {"__builtins__": {}}, dict(row.fields)))
    except TypeError:  # compares with what is not known
        return False


def _row(dump: Dump, key: TensorKey, event: TensorEvent) -> Row:
    graph_id, name, slot = key
    op = dump.ops.get((graph_id, name))
    origin = dump.origins.get((graph_id, name))
    site = origin.line if origin is not None else None
    infinite = [part for part in (event.num_neg_inf, event.num_pos_inf) if part is not None]
    fields = {
        "op": name,
        "op_type": op.op_type if op is not None else None,
        "graph": dump.graph_names.get(graph_id, graph_id),
        "layer": origin.layer if origin is not None else None,
        "line": site.line if site is not None else None,
        "size": event.size,
        "num_nan": event.num_nan,
        "num_inf": sum(infinite) if infinite else None,
        "min": event.min,
        "max": event.max,
        "is_bad": event.is_bad,
    }
    return Row(f"{name}:{slot}", fields)


def node_text(dump: Dump, name: str) -> str:
    """Describe the ops of a name: type, line, and what goes in and out.

    Args:
        dump: The dump to search.
        name: Name of an op.

    Returns:
        The text.

    Raises:
        ConfigError: No op has this name.
    """
    ops = [op for op in dump.ops.values() if op.key[1] == name]
    if not ops:
        near = [op.key[1] for op in dump.ops.values() if name in op.key[1]][:5]
        raise ConfigError(
            "the dump has no op of this name", name, f"did you mean {', '.join(near)}?"
            if near else "list some with --where 'is_bad'",
        )  # fmt: skip
    return "\n\n".join("\n".join(_node_lines(dump, op)) for op in ops)


def _node_lines(dump: Dump, op: OpRecord) -> Iterator[str]:
    origin = dump.origins.get(op.key)
    site = origin.line if origin is not None else None
    at = f" at {site.file}:{site.line}" if site is not None else ""
    graph = dump.graph_names.get(op.key[0], op.key[0])
    yield f"{op.key[1]} ({op.op_type}) in {graph}{at}"
    for label, keys in (("input", op.inputs), ("output", op.outputs)):
        for key in keys:
            events = dump.events.get(key, [])
            shown = _row(dump, key, events[-1]).in_words() if events else f"{key[1]}:{key[2]}"
            yield f"  {label:6} {shown}" + (f", {len(events)} values" if len(events) > 1 else "")


def values_of(folder: Path, tensor: str) -> list[npt.NDArray[Any]]:
    """Read the values that a tensor had.

    Args:
        folder: A dump that was recorded in mode FULL_TENSOR.
        tensor: Its name, ``op:slot``; slot 0 where none is given.

    Returns:
        The values, in time order.

    Raises:
        ConfigError: The dump holds no values of it.
    """
    name, _, slot = tensor.partition(":")
    reader = private("DebugDataReader")(str(folder))
    reader.update()
    traces = [
        trace
        for trace in reader.graph_execution_traces()
        if trace.op_name == name
        and trace.output_slot == int(slot or 0)
        and trace.tensor_debug_mode == FULL_TENSOR
    ]
    if not traces:
        raise ConfigError(
            "the dump holds no values of this tensor",
            tensor,
            "check its name; values are kept by `headstart debug run --mode FULL_TENSOR "
            "--keep-dump DIR`",
        )
    return [np.asarray(reader.graph_execution_trace_to_tensor_value(trace)) for trace in traces]

"""Tables that are looked up with numbers they have no row for."""

from collections.abc import Mapping
from typing import Any

import keras

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Array, numbers


def ids_beyond_tables(model: Any, given: Mapping[str, Any]) -> list[Diagnosis]:
    """Find an Embedding with fewer rows than its ids ask for; on a GPU such rows are just zeros.

    Args:
        model: The model; of one that is no graph of layers it is not known what they are fed.
        given: What ``fit`` was given, by name.

    Returns:
        A finding for each table.
    """
    fed = _fed(model, given.get("x"))
    found = []
    for layer in model._flatten_layers(include_self=False):
        if type(layer) is not keras.layers.Embedding:
            continue
        sources = [node.input_tensors[0] for node in layer._inbound_nodes if node.input_tensors]
        ids = next((fed[id(one)] for one in sources if id(one) in fed), None)
        if ids is None or not ids.size or ids.dtype.kind not in "fiu":
            continue
        least, most, rows = int(ids.min()), int(ids.max()), int(layer.input_dim)
        if least >= 0 and most < rows:
            continue
        found.append(
            Diagnosis(
                symptom="index-out-of-range",
                cause=f"Embedding {layer.path!r} has {rows} rows (input_dim={rows}, ids 0 to "
                f"{rows - 1}), but it is given ids from {least} to {most}: input_dim must be the "
                "largest id + 1, also where ids start at 1.",
                layer=str(layer.path),
                phase="model",
                confidence=0.97,
                suggestions=(
                    f"Embedding(input_dim={most + 1}, ...)" if least >= 0
                    else "negative ids have no row: look at how they were made",
                    "or number the ids from 0 without gaps: np.unique(ids, return_inverse=True)",
                ),
                evidence={"rows": rows, "least": least, "most": most},
            )
        )  # fmt: skip
    return found


def _fed(model: Any, x: Any) -> dict[int, Array]:
    """Return the array that goes into each input of a model, by the input's identity."""
    inputs = getattr(model, "inputs", None)
    if not isinstance(inputs, list | tuple) or x is None:
        return {}
    if isinstance(x, dict):
        parts = [x.get(getattr(one, "name", "")) for one in inputs]
    else:
        parts = list(x) if isinstance(x, list | tuple) else [x]
    if len(parts) != len(inputs):
        return {}
    arrays = [numbers(part) for part in parts]
    return {id(one): array for one, array in zip(inputs, arrays, strict=True) if array is not None}

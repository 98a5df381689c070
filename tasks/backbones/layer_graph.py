"""The graph of a functional Keras model: one node a call of a layer, in topological order.

It is read from the model's own configuration, the format in which Keras saves models, so it
needs none of Keras' internals.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from headstart.tasks.store.fingerprint import digest

Shape = tuple[int | None, ...]
_Key = tuple[str, int]  # layer name, number of the call

# What these say is in the weights themselves, or changes nothing that a frozen network computes.
_IRRELEVANT_FIELDS = ("name", "trainable", "seed")
_TRAINING_SUFFIXES = ("_regularizer", "_constraint")
_IRRELEVANT_SUFFIXES = ("_initializer", *_TRAINING_SUFFIXES)


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer (or of a bare Keras operation).

    Attributes:
        is_shared: The model calls this layer more than once.
        parents: Positions in the graph of the calls whose results it takes, in argument order.
        input_shapes: Shapes of those results, with None for the batch.
        signature: Digest of what it computes, given its parents and its weights.
        penalties: Digest of the regularisers and constraints that its training obeys.
    """

    name: str
    operation: Any
    is_input: bool
    is_shared: bool
    parents: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    signature: str
    penalties: str


@dataclass(frozen=True)
class LayerGraph:
    """The calls of a model with one input and one output, each after all it depends on."""

    calls: tuple[LayerCall, ...]

    def ancestors(self, position: int) -> list[int]:
        """Return the positions of all calls that one depends on, itself included, in order."""
        wanted = {position}
        for current in range(position, -1, -1):
            if current in wanted:
                wanted.update(self.calls[current].parents)
        return sorted(wanted)

    def bottlenecks(self) -> list[int]:
        """Find the calls that every path from input to output passes through.

        In topological order these are the calls that no edge leaps over: whatever any earlier
        call computed, its last reader is this call or comes before it.

        Returns:
            Positions in order, from the input to the output.
        """
        last_reader = list(range(len(self.calls)))
        for position, call in enumerate(self.calls):
            for parent in call.parents:
                last_reader[parent] = max(last_reader[parent], position)
        found = []
        reach = 0
        for position in range(len(self.calls)):
            if reach <= position:
                found.append(position)
            reach = max(reach, last_reader[position])
        return found


def read_layer_graph(model: Any) -> LayerGraph:
    """Read the graph of a functional model with one input and one output."""
    config = model.get_config()
    entries = {entry["name"]: entry for entry in config["layers"]}
    operations = {operation.name: operation for operation in model.operations}
    num_calls = {name: max(1, len(entry["inbound_nodes"])) for name, entry in entries.items()}
    references: dict[_Key, list[tuple[_Key, Shape]]] = {}
    for name, entry in entries.items():
        for number in range(num_calls[name]):
            arguments = entry["inbound_nodes"][number] if entry["inbound_nodes"] else None
            references[name, number] = list(_find_references(arguments))
    order = list(
        TopologicalSorter(
            {key: [parent for parent, _ in parents] for key, parents in references.items()}
        ).static_order()
    )
    position = {key: number for number, key in enumerate(order)}
    return LayerGraph(
        tuple(
            LayerCall(
                name=name,
                operation=operations[name],
                is_input=entries[name]["class_name"] == "InputLayer",
                is_shared=num_calls[name] > 1,
                parents=tuple(position[parent] for parent, _ in references[name, number]),
                input_shapes=tuple(shape for _, shape in references[name, number]),
                signature=_sign(entries[name], number),
                penalties=digest(list(_find_penalties(entries[name]["config"]))),
            )
            for name, number in order
        )
    )


def _find_references(arguments: Any) -> Iterator[tuple[_Key, Shape]]:
    """Walk the serialised arguments of a call for the tensors among them."""
    if isinstance(arguments, dict):
        if arguments.get("class_name") == "__keras_tensor__":
            layer, call, _ = arguments["config"]["keras_history"]
            yield (layer, call), tuple(arguments["config"]["shape"])
        else:
            for item in arguments.values():
                yield from _find_references(item)
    elif isinstance(arguments, list | tuple):
        for item in arguments:
            yield from _find_references(item)


def _sign(entry: dict[str, Any], number: int) -> str:
    arguments = entry["inbound_nodes"][number] if entry["inbound_nodes"] else None
    return digest(
        {
            "class": [entry["module"], entry["class_name"], entry["registered_name"]],
            "config": _essence(entry["config"], {}),
            "arguments": _essence(arguments, {}),
        }
    )


def _find_penalties(config: Any) -> Iterator[tuple[str, Any]]:
    """Walk a layer's configuration, those of layers inside it too, for what only training reads."""
    if isinstance(config, dict):
        for name, value in config.items():
            if name.endswith(_TRAINING_SUFFIXES):
                yield name, value
            else:
                yield from _find_penalties(value)
    elif isinstance(config, list | tuple):
        for item in config:
            yield from _find_penalties(item)


def _essence(config: Any, numbers: Mapping[str, int]) -> Any:
    """Drop from a configuration what has no bearing on the result.

    Args:
        config: A layer's configuration, or the serialised arguments of a call.
        numbers: Position of each layer of the model around it, which stands for its name. The
            outermost model's are left out: there, `LayerCall.parents` says it.
    """
    if isinstance(config, dict):
        if config.get("class_name") == "__keras_tensor__":
            layer, call, tensor = config["config"]["keras_history"]
            return {"layer": numbers.get(layer), "call": call if numbers else None, "at": tensor}
        if "input_layers" in config and "layers" in config:
            numbers = {layer["name"]: number for number, layer in enumerate(config["layers"])}
        return {
            name: value if name == "dtype" else _essence(value, numbers)
            for name, value in config.items()
            if name not in _IRRELEVANT_FIELDS and not name.endswith(_IRRELEVANT_SUFFIXES)
        }
    if isinstance(config, list | tuple):
        return [_essence(item, numbers) for item in config]
    return numbers.get(config, config) if isinstance(config, str) else config

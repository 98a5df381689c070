"""Graphs for TensorBoard: of a tf.function, a Keras model, or a part of one.

Keras's own ``write_graph`` shows the conceptual graph only, and ``tf.summary.trace_export`` writes
an empty one for a function that was traced before. Here the function is traced anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from headstart.errors import ConfigError


def export_graph(target: Any, log_dir: Path, *inputs: Any) -> int:
    """Write the graph of a model or function where TensorBoard's graph page finds it.

    Args:
        target: A Keras model, a ``tf.function`` or a plain function of tensors.
        log_dir: Folder that TensorBoard is started on.
        *inputs: Example inputs or ``tf.TensorSpec``s; a built model needs none.

    Returns:
        Number of ops in the graph, inner functions not counted.

    Raises:
        ConfigError: The model has no known input shape and no input was given.
    """
    graph = _graph_of(target, inputs)
    writer = tf.summary.create_file_writer(str(log_dir))
    with writer.as_default():
        tf.summary.graph(graph)
    writer.close()
    return len(graph.get_operations())


def export_part(model: Any, first: str, last: str, log_dir: Path) -> int:
    """Write the graph of the part of a Functional model between two layers.

    Args:
        model: A Functional or Sequential model.
        first: Layer whose output the part starts from.
        last: Layer whose output it ends with.
        log_dir: Folder that TensorBoard is started on.

    Returns:
        Number of ops in the graph.

    Raises:
        ConfigError: A layer is not there, or the second does not follow from the first alone.
    """
    try:
        start, end = model.get_layer(first).output, model.get_layer(last).output
        part = keras.Model(start, end)
    except ValueError as error:
        names = ", ".join(layer.name for layer in model.layers)
        raise ConfigError(
            "there is no part of the model between these layers, computed from the first alone",
            f"{first} to {last}: {error}",
            f"choose among {names}",
        ) from error
    return export_graph(part, log_dir)


def _graph_of(target: Any, inputs: tuple[Any, ...]) -> Any:
    specs = [_spec(value) for value in inputs] or _model_specs(target)
    if isinstance(target, keras.Model):
        return _traced(lambda *args: target(*args, training=False), specs)
    return _traced(getattr(target, "python_function", target), specs)


def _traced(function: Callable[..., Any], specs: list[Any]) -> Any:
    return tf.function(function).get_concrete_function(*specs).graph


def _model_specs(target: Any) -> list[Any]:
    tensors = getattr(target, "inputs", None) if isinstance(target, keras.Model) else None
    if not tensors:
        raise ConfigError(
            "the graph cannot be traced: its input shapes are not known",
            f"no example inputs for {getattr(target, 'name', target)!r}",
            "pass a batch, or tf.TensorSpec([None, 224, 224, 3])",
        )
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in tensors]
    return specs if len(specs) == 1 else [specs]


def _spec(value: Any) -> Any:
    return value if isinstance(value, tf.TypeSpec) else tf.TensorSpec.from_tensor(
        tf.convert_to_tensor(value)
    )  # fmt: skip

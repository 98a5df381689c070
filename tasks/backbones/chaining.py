"""Models put one behind another, so that the layers of all can stand side by side in one.

A model's layers are looked up by name, so that no name may occur twice. Keras numbers the names
that it makes up by what the process has built so far: a model that was read from a file may have
any name that the next layer or operation gets, although both had different ones when the file
was written.
"""

import itertools
from typing import Any

import keras

from headstart.tasks.backbones.copying import copy_weights


def with_free_names(model: Any, taken: set[str], *, flat: bool) -> Any:
    """Give a model of the same layers and operations, none of whose names is taken.

    Args:
        model: A functional model or a sequential one.
        taken: Names that other layers have; those used here are added.
        flat: Take models inside the model apart, rather than leave them as they are.

    Returns:
        A functional model. A layer whose name was free is the model's own; of one whose name was
        taken it has a copy under a new name, with the same weights.
    """
    if len(model.inputs) == len(model.outputs) == 1:  # bare tensors, not lists; Sequential too
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)

    def rename(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return layer  # taken apart when it is called
        renamed = layer if layer.name not in taken else _copy(layer, taken)
        taken.add(renamed.name)
        return renamed

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if flat and isinstance(layer, keras.Model):
            return apply(with_free_names(layer, taken, flat=True), *arguments)
        return layer(*arguments, **options)

    return keras.models.clone_model(model, clone_function=rename, call_function=call)


def apply(model: Any, inputs: Any) -> Any:
    """Put a model's layers behind tensors, one by one, and nothing else.

    Args:
        model: A functional model; it shares its layers with the result.
        inputs: What its inputs are to be: tensors of a graph of layers.

    Returns:
        Its outputs. ``model.call`` would put operations of its own before them, with names that
        Keras makes up and that the model may hold already.
    """
    return keras.Function(model.input, model.output).call(inputs)


def _copy(layer: Any, taken: set[str]) -> Any:
    copy = type(layer).from_config(layer.get_config())
    names = (f"{layer.name}_{number}" for number in itertools.count(1))
    copy.name = next(name for name in names if name not in taken)
    if getattr(layer, "weights", None):  # bare operations have none
        copy.build_from_config(layer.get_build_config())
        copy_weights(copy, layer)
    return copy

"""Weights from one layer or model to its copy, with what Keras derives of them.

`keras.layers.Normalization` computes with constants that it makes of its weights when it is
built, adapted or loaded. `set_weights` and `assign` leave them as they were: a clone would
compute unadapted, and come back adapted once it was saved and loaded.
"""

from typing import Any

import keras


def copy_weights(target: Any, origin: Any) -> None:
    """Give a layer or model the weights of another of the same structure.

    Args:
        target: A built layer or model; from now on it computes what `origin` does.
        origin: Where the weights come from.
    """
    target.set_weights(origin.get_weights())
    for layer in adapted_normalisations(target):
        layer.finalize_state()


def adapted_normalisations(operation: Any) -> list[Any]:
    """Find the layers that normalise by adapted statistics, those inside others included.

    Args:
        operation: A layer, a model or a bare Keras operation.

    Returns:
        `keras.layers.Normalization` with weights: those told their statistics have none.
    """
    layers = operation._flatten_layers() if isinstance(operation, keras.Layer) else ()
    return [
        layer for layer in layers if isinstance(layer, keras.layers.Normalization) and layer.weights
    ]

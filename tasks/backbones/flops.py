"""Floating-point operations of a layer, from its kind and its shapes.

One multiply-accumulate (MAC) is two floating-point operations (FLOPs). Only matrix products and
convolutions are counted: additions, activations, pooling and (folded) normalisation are below
2 % of the arithmetic of every network in the table, and bound by memory rather than arithmetic.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from headstart.tasks.backbones.layer_graph import Shape, read_layer_graph

_MACS_TO_FLOPS = 2
# Bare Keras operations that multiply matrices; every other bare operation is elementwise.
_PRODUCTS = {"Conv", "DepthwiseConv", "Dot", "Einsum", "Matmul", "SeparableConv", "Tensordot"}


def count_flops(operation: Any, input_shapes: Sequence[Shape]) -> int:
    """Count the FLOPs of one call of a layer for one image.

    Args:
        operation: A Keras layer, model or operation.
        input_shapes: Shapes of its arguments, the first of each a batch dimension.

    Returns:
        FLOPs (1 MAC = 2 FLOPs) of its products and convolutions. Dense, convolution and model
        layers are counted by formula; any other layer with a matrix among its weights
        (attention, recurrence) is traced and counted by TensorFlow's profiler.
    """
    if hasattr(operation, "operations") or isinstance(operation, keras.Sequential):
        return _count_model(operation)
    macs = _count_macs(operation, input_shapes)
    if macs is not None:
        return _MACS_TO_FLOPS * macs
    if isinstance(operation, keras.layers.Layer):
        has_matrix = any(len(weight.shape) > 1 for weight in operation.weights)
    else:
        has_matrix = type(operation).__name__ in _PRODUCTS
    return _profile(operation, input_shapes) if has_matrix else 0


def _count_model(model: Any) -> int:
    functional = keras.Model(model.inputs, model.outputs)
    return sum(
        count_flops(call.operation, call.input_shapes)
        for call in read_layer_graph(functional).calls
    )


def _count_macs(layer: Any, input_shapes: Sequence[Shape]) -> int | None:
    """Count by formula; None where there is none."""
    layers = keras.layers
    if isinstance(layer, layers.Conv2DTranspose | layers.Conv1DTranspose):
        return int(_size(input_shapes[0]) * math.prod(layer.kernel_size) * layer.filters)
    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        output = layer.compute_output_shape(input_shapes[0])
        num_pixels, filters = _size(output[:-1]), output[-1]
        num_depthwise = layer.pointwise_kernel.shape[-2]
        return int(num_pixels * num_depthwise * (math.prod(layer.kernel_size) + filters))
    if isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
        output = layer.compute_output_shape(input_shapes[0])
        return int(_size(output) * math.prod(layer.kernel_size))
    kinds = layers.Dense | layers.Conv1D | layers.Conv2D | layers.Conv3D
    if isinstance(layer, kinds):
        # Each output is a sum over the kernel's axes but the last, the filters or units.
        output = layer.compute_output_shape(input_shapes[0])
        return int(_size(output) * math.prod(layer.kernel.shape[:-1]))
    return None


def _size(shape: Shape) -> int:
    """Return the number of elements an image."""
    return math.prod(size or 1 for size in shape[1:])


def _profile(operation: Any, input_shapes: Sequence[Shape]) -> int:
    specs = [tf.TensorSpec([1, *(size or 1 for size in shape[1:])]) for shape in input_shapes]
    graph = tf.function(lambda *arguments: operation(*arguments)).get_concrete_function(*specs)
    options = tf.compat.v1.profiler.ProfileOptionBuilder
    counted = tf.compat.v1.profiler.profile(
        graph.graph,
        options=options(options.float_operation()).with_empty_output().build(),
    )
    return int(counted.total_float_ops)

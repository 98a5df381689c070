"""Cuts: where a backbone may be divided into a frozen part and a trained tail.

A cut is a tensor that every path from input to output passes through, so what lies behind it
can be computed from it alone. Each is named by the layer that produces it; the last is "top",
the pooled output.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from headstart.tasks.backbones.layer_graph import LayerCall, LayerGraph

TOP = "top"
PIXELS = "pixels"
"""Not a cut: the start of a network that is trained end to end, on views."""
_HEAD_CLASSES = 10  # the classes of a usual task; matters only where the tail is empty


@dataclass(frozen=True)
class Cut:
    """A tensor of the backbone that every path from input to output passes through.

    FLOPs are of one image and count products and convolutions; 1 MAC is 2 FLOPs.

    Attributes:
        name: What `BottleneckConfig.cut` calls it: "top", or the layer's name.
        layer: Name of the layer that produces it.
        activation_shape: Shape of one image's activation.
        num_features: Width of the backbone's pooled top, which a head sees.
        flops_before: Forward FLOPs from the input to the cut.
        flops_after: Forward FLOPs from the cut to the pooled top.
        flops_backward_after: FLOPs of one backward pass through the tail. Each layer needs the
            gradient of its weights and, unless nothing trains between the cut and it, that of
            its input, each as costly as its forward pass.
    """

    name: str
    layer: str
    activation_shape: tuple[int, ...]
    num_features: int
    flops_before: int
    flops_after: int
    flops_backward_after: int

    def bytes_per_image(self, dtype: Literal["float16", "float32"] = "float16") -> int:
        """Return the bytes that one image's activation takes in the cache."""
        return math.prod(self.activation_shape) * np.dtype(dtype).itemsize

    @property
    def speedup_limit(self) -> float:
        """How many times faster a training step could be from the cache, by FLOPs.

        A step through the frozen backbone costs one forward pass of all of it, and forward and
        backward of the tail and of a dense head (of 10 classes); a step from the cache costs
        the latter alone. At "top", where only that small head is left, the number is huge, and
        reading the rows and starting the step, which FLOPs do not show, will set the pace.
        """
        return self.speedup_limit_for(_HEAD_CLASSES)

    def speedup_limit_for(self, num_classes: int) -> float:
        """Return `speedup_limit` for a dense head of another size.

        Args:
            num_classes: Classes of the head, at least 1.
        """
        head = 2 * self.num_features * num_classes
        # forward, gradient of the weights and, if a tail trains below it, of the head's input
        head *= 3 if self.flops_backward_after else 2
        cached = self.flops_after + self.flops_backward_after + head
        return (self.flops_before + cached) / cached


def find_cuts(model: Any, graph: LayerGraph) -> tuple[Cut, ...]:
    """Find the cuts of a backbone, in order from the input to the pooled top.

    Left out: the input itself, and layers that are called more than once, give several tensors
    or are named "top", since their name alone would not say which activation is meant.

    Args:
        model: A functional model with one input and one pooled output [N, C].
        graph: Of this model, from `read_layer_graph`.

    Returns:
        The cuts; the last one is "top".
    """
    from headstart.tasks.backbones.flops import count_flops

    flops = [count_flops(call.operation, call.input_shapes) for call in graph.calls]
    total = sum(flops)
    last = len(graph.calls) - 1
    num_features = int(model.outputs[0].shape[-1])
    cuts = []
    for position in graph.bottlenecks():
        call = graph.calls[position]
        if position != last and not _has_clear_name(call):
            continue
        before = sum(flops[: position + 1])  # no edge leaps over a cut: all before it is needed
        output = model.outputs[0] if position == last else call.operation.output
        cuts.append(
            Cut(
                name=TOP if position == last else call.name,
                layer=call.name,
                activation_shape=tuple(int(size) for size in output.shape[1:]),
                num_features=num_features,
                flops_before=before,
                flops_after=total - before,
                flops_backward_after=_count_backward(graph, flops, position),
            )
        )
    return tuple(cuts)


def _has_clear_name(call: LayerCall) -> bool:
    if call.is_input or call.is_shared or call.name == TOP:
        return False
    output = call.operation.output
    return hasattr(output, "shape") and None not in output.shape[1:]


def _count_backward(graph: LayerGraph, flops: list[int], cut: int) -> int:
    """Count one backward pass from the output to the weights behind a cut."""
    depends_on_weights = [False] * len(graph.calls)
    total = 0
    for position in range(cut + 1, len(graph.calls)):
        call = graph.calls[position]
        input_gradient = any(depends_on_weights[parent] for parent in call.parents)
        trains = _trains(call.operation)
        depends_on_weights[position] = input_gradient or trains
        total += flops[position] * (input_gradient + trains)
    return total


def _trains(operation: Any) -> bool:
    """Whether a layer trains in a tail, where batch normalisation stays frozen."""
    import keras

    is_frozen = isinstance(operation, keras.layers.BatchNormalization)
    return bool(getattr(operation, "weights", ())) and not is_frozen

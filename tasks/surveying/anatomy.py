"""The anatomy of a network, from its graph alone: parameters, FLOPs, depth, activation memory.

Networks are built without values for their weights, so the 144 million of a VGG19 take neither
memory nor time. Keras would make up for that with the next model it builds, so this is done in a
process of its own (`headstart.tasks.surveying.child`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from pydantic import BaseModel

from headstart.config import BackboneConfig
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.backbones.classic import build_classic_classifier
from headstart.tasks.backbones.efficientnet_lite import build_efficientnet_lite
from headstart.tasks.backbones.layer_graph import LayerGraph, Shape, read_layer_graph
from headstart.tasks.backbones.natural_cuts import natural_cuts
from headstart.tasks.backbones.table import BACKBONES, BackboneEntry

FLOAT_BYTES = 4
IN_PLACE = frozenset(
    {"Activation", "BatchNormalization", "Dropout", "Flatten", "ReLU", "Relu", "Reshape", "Softmax"}
)
"""Layers that a frozen graph computes where their input lies, or folds into the layer before."""
_PUBLISHED_SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "lenet5": ((32, 32, 1), 10),
    "alexnet": ((227, 227, 3), 1000),
    "resnet9": ((32, 32, 3), 10),
}


class CutSize(BaseModel, frozen=True):
    """What a bottleneck at a natural cut takes."""

    name: str
    activation_shape: tuple[int, ...]
    bytes_per_image: int
    """In the cache, as float16."""
    flops_before: int


class Anatomy(BaseModel, frozen=True):
    """What a network is made of."""

    name: str
    family: str
    image_size: int
    num_parameters: int
    """Of the network as published, with its classifier."""
    num_backbone_parameters: int
    """Up to the pooled top."""
    flops: int
    """One image forward to the pooled top; 1 MAC = 2 FLOPs."""
    depth: int
    """Layers with a kernel on the longest path, as the published network counts them."""
    num_features: int
    inference_bytes: int
    """Largest sum of the activations that are alive at one time, an image, float32."""
    training_bytes: int
    """Sum of all activations, which backpropagation keeps, an image, float32."""
    cuts: tuple[CutSize, ...]


def dissect(name: str) -> Anatomy:
    """Describe a backbone of the table. Call it in a process that ends afterwards."""
    entry = BACKBONES[name]
    with keras.StatelessScope(initialize_variables=False):
        published = build_published(entry)
        backbone = load_backbone(BackboneConfig(name=name, weights="random"))
        graph = read_layer_graph(backbone.model)
        return Anatomy(
            name=name,
            family=entry.family,
            image_size=backbone.image_size,
            num_parameters=published.count_params(),
            num_backbone_parameters=backbone.model.count_params(),
            flops=backbone.cuts[-1].flops_before,
            depth=count_depth(read_layer_graph(published)),
            num_features=backbone.cuts[-1].num_features,
            inference_bytes=FLOAT_BYTES * count_live(graph, backbone.model.output_shape),
            training_bytes=FLOAT_BYTES * sum(_sizes(graph, backbone.model.output_shape)),
            cuts=tuple(
                CutSize(
                    name=cut.name,
                    activation_shape=cut.activation_shape,
                    bytes_per_image=cut.bytes_per_image(),
                    flops_before=cut.flops_before,
                )
                for cut in natural_cuts(backbone)
            ),
        )


def build_published(entry: BackboneEntry) -> Any:
    """Build a network of the table as it was published, with its classifier.

    Returns:
        A functional Keras model.
    """
    if entry.family == "efficientnet_lite":
        return build_efficientnet_lite(entry.builder, entry.image_size, classifier=True)
    if entry.family == "classic":
        return build_classic_classifier(entry.name, *_PUBLISHED_SHAPES[entry.name])
    return getattr(keras.applications, entry.builder)(weights=None)


def count_depth(graph: LayerGraph) -> int:
    """Count the layers with a kernel on the longest path through a network.

    Returns:
        Such as 16 for VGG16.
    """
    depths: list[int] = []
    for call in graph.calls:
        above = max((depths[parent] for parent in call.parents), default=0)
        depths.append(above + _num_kernels(call.operation))
    return depths[-1]


def _num_kernels(operation: Any) -> int:
    if hasattr(operation, "operations"):  # a model within the model
        return count_depth(read_layer_graph(operation))
    return int(any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ())))


def count_live(graph: LayerGraph, output_shape: Shape) -> int:
    """Count the most values that are alive at one time in a forward pass.

    A result is alive until its last consumer has run; while a layer runs, its inputs and its
    result are. Layers of `IN_PLACE` write their result where their input lies.

    Args:
        graph: Layers of the network, in the order in which they compute.
        output_shape: Shape of its result, with the batch dimension.
    """
    sizes = _sizes(graph, output_shape)
    owner = _owners(graph)
    last_use = {owner[position]: position for position in range(len(graph.calls))}
    for position, call in enumerate(graph.calls):
        for parent in call.parents:
            last_use[owner[parent]] = max(last_use[owner[parent]], position)
    alive: dict[int, int] = {}
    most = 0
    for position in range(len(graph.calls)):
        alive[owner[position]] = max(alive.get(owner[position], 0), sizes[position])
        most = max(most, sum(alive.values()))
        alive = {one: size for one, size in alive.items() if last_use[one] > position}
    return most


def _owners(graph: LayerGraph) -> list[int]:
    """Say for each call in whose memory its result lies: its own, or a predecessor's."""
    uses = [0] * len(graph.calls)
    for call in graph.calls:
        for parent in call.parents:
            uses[parent] += 1
    owner: list[int] = []
    for position, call in enumerate(graph.calls):
        reuses = (
            type(call.operation).__name__ in IN_PLACE
            and len(call.parents) == 1
            and uses[call.parents[0]] == 1
        )
        owner.append(owner[call.parents[0]] if reuses else position)
    return owner


def _sizes(graph: LayerGraph, output_shape: Shape) -> list[int]:
    """Return the number of values an image of each call's result."""
    shapes: list[Shape] = [output_shape] * len(graph.calls)
    for call in graph.calls:
        for parent, shape in zip(call.parents, call.input_shapes, strict=True):
            shapes[parent] = shape
    sizes = []
    for shape in shapes:
        size = 1
        for dimension in shape[1:]:
            size *= dimension or 1
        sizes.append(size)
    return sizes


def dissect_all(names: Sequence[str], tell: Callable[[Anatomy], None]) -> None:
    """Describe several backbones, each told of as soon as it is done."""
    for name in names:
        tell(dissect(name))

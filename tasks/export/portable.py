"""The joined model as ONNX and as OpenVINO's own format, with the resizing inside if wanted.

TensorFlow's antialiased resize is an operation that no other engine has. As two products with
matrices of weights, made from the image's sides when it comes, it is a few that all of them have.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from headstart.errors import BackboneError, ExportError
from headstart.tasks.backbones.converting import to_onnx
from headstart.tasks.backbones.frozen_graph import fold_variables
from headstart.tasks.export.joining import LOGITS
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.runtimes import needs_package
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.views.recipes import Resize

BATCH = "batch"
"""Name of the open dimension in front of inputs and outputs."""


def write_onnx(card: ModelCard, network: Any, path: Path) -> None:
    """Write an .onnx file.

    Args:
        card: Says what the model takes, and how an image becomes a view.
        network: A concrete function, from `headstart.tasks.export.model_files.freeze`.
        path: File to write, ending in .onnx.

    Raises:
        ExportError: The converter is not installed, or does not know an operation.
    """
    function = network if card.input == "views" else _with_resizing(card, network)
    # Keras' Normalization layer, for one, holds its statistics as tensors of its own.
    function = fold_variables(function)
    try:
        data = to_onnx(function)
    except BackboneError as error:
        raise ExportError(
            error.problem,
            error.received,
            error.next_step or "leave onnx and openvino out of export.formats",
        ) from error
    path.write_bytes(_with_names(data, [card.input], [LOGITS, TARGETS[card.target].answer_name]))


def write_openvino(card: ModelCard, network: Any, path: Path) -> None:
    """Write an .xml file with the weights beside it; as for `write_onnx`."""
    with needs_package("OpenVINO", "headstart[openvino]"):
        import openvino
    aside = path.with_suffix(".part.onnx")
    write_onnx(card, network, aside)
    try:
        # The engine's own reader; the converter of the package reports its use over the network.
        openvino.save_model(openvino.Core().read_model(aside), path, compress_to_fp16=False)
    finally:
        aside.unlink()


def matrix_views(images: Any, image_size: int, resize: Resize) -> Any:
    """Resize images of one size as `headstart.tasks.views.augment.plain_view` does one.

    Args:
        images: uint8 or float32 ``[N, H, W, 3]``.
        image_size: Side of a view in pixels.
        resize: How an image becomes square, as for `plain_view`.

    Returns:
        float32 ``[N, image_size, image_size, 3]``, not rounded.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    sides = {"squash": None, "crop": tf.minimum(height, width), "pad": tf.maximum(height, width)}
    planes = tf.transpose(tf.cast(images, tf.float32), [0, 3, 1, 2])
    rows = _weights(height, sides[resize], image_size)
    columns = tf.transpose(_weights(width, sides[resize], image_size))
    views = tf.transpose(tf.matmul(tf.matmul(rows, planes), columns), [0, 2, 3, 1])
    return tf.ensure_shape(views, [None, image_size, image_size, 3])


def _with_names(data: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Give a model's inputs and outputs names, wherever they are used, and the batch its own."""
    import onnx

    model = onnx.load_from_string(data)
    graph = model.graph
    values = [*graph.input, *graph.output]
    wanted = [*inputs, *outputs]
    names = {value.name: name for value, name in zip(values, wanted, strict=True)}
    for node in graph.node:
        for listed in (node.input, node.output):
            for place, name in enumerate(listed):
                listed[place] = names.get(name, name)
    for value, name in zip(values, wanted, strict=True):
        value.name = name
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    named: bytes = model.SerializeToString()
    return named


def _weights(length: Any, side: Any, size: int) -> Any:
    """Weigh the pixels of one side of an image for each of a view: float32 [size, length].

    Args:
        length: Length of the image's side, in pixels.
        side: Side of the square that it is cropped or padded to; None where it is neither.
        size: Length of the view's side, in pixels.
    """
    side = length if side is None else side
    # Whole numbers, the crop as well as the padding, which is the same on both sides.
    before = tf.where(side > length, (side - length) // 2, -((length - side) // 2))
    side = tf.where(side > length, length + 2 * before, side)
    scale = tf.cast(side, tf.float32) / size
    centres = (tf.range(size, dtype=tf.float32)[:, tf.newaxis] + 0.5) * scale
    reach = tf.maximum(scale, 1.0)

    def triangle(places: Any) -> Any:
        return tf.nn.relu(1.0 - tf.abs(tf.cast(places, tf.float32) + 0.5 - centres) / reach)

    places = tf.range(length) + before
    inside = tf.cast((places >= 0) & (places < side), tf.float32)
    total = tf.reduce_sum(triangle(tf.range(side)), axis=1, keepdims=True)
    return triangle(places) * inside / total


def _with_resizing(card: ModelCard, network: Any) -> Any:
    def answer(images: Any) -> Any:
        views = tf.round(matrix_views(images, card.image_size, card.resize))
        return network(tf.cast(tf.clip_by_value(views, 0.0, 255.0), tf.uint8))

    spec = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    return tf.function(answer, input_signature=[spec], autograph=False).get_concrete_function()

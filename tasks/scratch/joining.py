"""The trained network as the model that is exported: images of any size in, probabilities out."""

from typing import Any

import keras

from headstart.tasks.export.joining import join
from headstart.tasks.scratch.network import FEATURES

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray. Source: ITU-R BT.601-7, section 2.5.1; Pillow's
conversion to gray uses the same. Of a gray image's equal channels they make that channel."""


def join_network(
    model: Any, image_shape: tuple[int, int, int], answer: keras.layers.Layer | None = None
) -> Any:
    """Join resizing, conversion to the network's channels, and the network.

    Args:
        model: A trained network, pixels float32 [N, h, w, c] -> logits [N, num_classes].
        image_shape: Height, width (equal to it) and channels of its input.
        answer: The layer that makes the answer of the logits; a softmax where not given.

    Returns:
        A flat model of stock layers, images uint8 [N, H, W, 3] -> probabilities (or
        numbers) float32 [N, num_classes].
    """
    side, channels = image_shape[0], image_shape[2]
    images = keras.Input((side, side, 3), name="rgb")
    pixels = keras.ops.cast(images, "float32")
    if channels == 1:
        pixels = keras.ops.sum(pixels * keras.ops.array(LUMA), axis=-1, keepdims=True)
    features = keras.Model(model.inputs[0], model.get_layer(FEATURES).output)
    # Called as one layer, which `join` takes apart: names in it may be those of the ops above.
    extractor = keras.Model(images, features(pixels))
    feature = keras.Input(model.get_layer(FEATURES).output.shape[1:], name="bottleneck")
    head = feature
    for layer in model.layers[model.layers.index(model.get_layer(FEATURES)) + 1 :]:
        head = layer(head)
    return join(extractor, keras.Model(feature, head), side, "squash", "float32", answer)

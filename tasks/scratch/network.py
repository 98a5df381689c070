"""The network that is trained from scratch: pixels in, logits out."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import keras
import tensorflow as tf

from headstart.config import NetworkConfig
from headstart.tasks.backbones.builders import seeded_initializers
from headstart.tasks.backbones.classic import build_classic, classify
from headstart.tasks.dataset.pixels import PixelsManifest

FEATURES = "features"
"""Name of the layer between the features and the classifier."""
TENSOR_CORES = (7, 0)
"""Least compute capability of a GPU that computes float16 on tensor cores. Source: NVIDIA, "Train
With Mixed Precision", section 2."""
BFLOAT16 = (8, 0)
"""Least one that also does bfloat16, which needs no loss scaling. Source: the same."""


def build_network(
    config: NetworkConfig, width: float, pixels: PixelsManifest, seed: int, policy: str = "float32"
) -> Any:
    """Build the network with new weights.

    Args:
        config: Name of the network and its options.
        width: Factor of its numbers of channels.
        pixels: The data set: image shape, classes, and the mean and deviation that its pixels are
            normalised by, inside the network.
        seed: Seed of the initial weights.
        policy: Keras dtype policy of all layers but normalisation of the input and the logits.

    Returns:
        A flat functional model, pixels float32 [N, h, w, c] in [0, 255] -> logits float32
        [N, num_classes]; its layers "features" and "logits" can be looked up.
    """
    with dtype_policy(policy), seeded_initializers(seed):
        images = keras.Input(pixels.image_shape, name="pixels")
        features = build_classic(config.name, pixels.image_shape, width, config.pool_first)
        # call, not __call__: the layers stand in the model one by one, where Grad-CAM, the
        # debugger and TensorBoard can see them.
        x = features.call(normalise(images, pixels.mean, pixels.std))
        x = keras.layers.Identity(name=FEATURES, dtype="float32")(x)
        return keras.Model(images, classify(config.name, x, len(pixels.class_names)))


def normalise(images: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """Give pixels in [0, 255] zero mean and unit deviation over the training images."""
    scale = [1.0 / value for value in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    return keras.layers.Rescaling(scale, offset, name="normalise", dtype="float32")(images)


@contextlib.contextmanager
def dtype_policy(policy: str) -> Iterator[None]:
    """Build layers under a dtype policy, for the length of a with block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def choose_policy(wanted: bool | Literal["auto"]) -> str:
    """Choose the precision that this machine computes in.

    Args:
        wanted: auto takes 16 bits where a GPU has tensor cores; True takes them in any case.
    """
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    least = min(capabilities, default=(0, 0))
    if not wanted or (wanted == "auto" and least < TENSOR_CORES):
        return "float32"
    # On a CPU bfloat16 is the one that oneDNN knows.
    return "mixed_float16" if TENSOR_CORES <= least < BFLOAT16 else "mixed_bfloat16"

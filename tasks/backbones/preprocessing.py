"""Preprocessing: from RGB pixels to what a backbone's weights expect.

Only stock Keras layers and operations are used, so that an exported model holds its own
preprocessing and loads without headstart.
"""

from dataclasses import dataclass
from typing import Any

import keras

from headstart.tasks.backbones.table import PreprocessingMode

# Channel statistics of ImageNet in RGB order, as keras.applications has them.
# Source: Krizhevsky et al. 2012 / Caffe's ilsvrc_2012_mean (caffe, pixels of 0 to 255, BGR);
# torchvision's normalisation (torch, pixels of 0 to 1, RGB).
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """A map from RGB pixels to network input.

    Attributes:
        mode: none: pixels as they are; tf: x / 127.5 - 1; torch: zero mean and unit variance
            over ImageNet; caffe: BGR with ImageNet's mean taken off; lite: (x - 127) / 128.
    """

    mode: PreprocessingMode = "none"

    def __call__(self, images: Any) -> Any:
        """Preprocess images.

        Args:
            images: RGB [N, height, width, 3] of any number type with values in [0, 255]: an
                array, a TensorFlow tensor or a KerasTensor.

        Returns:
            float32 [N, height, width, 3]; a KerasTensor where one was given.
        """
        pixels = keras.ops.cast(images, "float32")
        match self.mode:
            case "none":
                return pixels
            case "tf":
                return _rescale(pixels, 1 / 127.5, -1.0)
            case "lite":
                return _rescale(pixels, 1 / 128, -127 / 128)
            case "torch":
                return _rescale(
                    pixels,
                    [1 / (255 * std) for std in _TORCH_STD],
                    [-mean / std for mean, std in zip(_TORCH_MEAN, _TORCH_STD, strict=True)],
                )
            case "caffe":
                bgr = keras.ops.flip(pixels, axis=-1)
                return _rescale(bgr, 1.0, [-mean for mean in _CAFFE_MEAN_BGR])


def _rescale(pixels: Any, scale: Any, offset: Any) -> Any:
    # float32 even under a mixed-precision policy: half precision would round the pixels.
    return keras.layers.Rescaling(scale, offset, dtype="float32")(pixels)

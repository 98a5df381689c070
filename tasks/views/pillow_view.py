"""The plain view without TensorFlow, for models that another engine computes."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.tasks.views.recipes import MAX_PADDED_PIXELS, Resize


def pillow_view(
    pixels: npt.NDArray[np.uint8], image_size: int, resize: Resize
) -> npt.NDArray[np.uint8]:
    """Resize an image as `headstart.tasks.views.augment.plain_view` does.

    Both weigh neighbours by a triangle as wide as the reduction. Of float32 pixels Pillow's sums
    differ from TensorFlow's by less than 1e-3 of a gray level, so that a view's pixel is another
    one, by 1, only where it lies that near to the middle between two levels.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        image_size: Side of the view in pixels.
        resize: How an image becomes square, as for `plain_view`.

    Returns:
        uint8 ``[image_size, image_size, 3]``.
    """
    return np.rint(resized(pixels, image_size, resize)).clip(0, 255).astype(np.uint8)


def resized(
    pixels: npt.NDArray[np.uint8], image_size: int, resize: Resize
) -> npt.NDArray[np.float32]:
    """Resize an image, but do not round: float32 ``[image_size, image_size, 3]``."""
    height, width = pixels.shape[:2]
    size = (image_size, image_size)
    if resize == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _scaled(pixels[top : top + side, left : left + side], size)
    if resize == "squash":
        return _scaled(pixels, size)
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    reduced: npt.NDArray[np.generic] = pixels
    if side**2 > MAX_PADDED_PIXELS:  # as plain_view: its long side before it becomes a square
        reduced = _scaled(pixels, (image_size, width) if height >= width else (height, image_size))
    return _scaled(np.pad(reduced, ((top, top), (left, left), (0, 0))), size)


def _scaled(pixels: npt.NDArray[np.generic], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    planes = [
        Image.fromarray(np.ascontiguousarray(pixels[..., channel]))
        .convert("F")
        .resize(size[::-1], Image.Resampling.BILINEAR)
        for channel in range(3)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)

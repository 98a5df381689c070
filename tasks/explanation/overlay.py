"""Heatmaps laid over the views that they are of."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

OPACITY = 0.55
"""Of the map where it is strongest; where it is 0 the view shows as it is."""


def overlay(view: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay a heatmap over its view.

    Args:
        view: RGB, uint8 [H, W, 3].
        heat: float32 [h, w] in [0, 1]; resized to the view bilinearly.

    Returns:
        RGB, uint8 [H, W, 3]: blue where there is some evidence, red where there is most.
    """
    from matplotlib import colormaps

    height, width = view.shape[:2]
    # Pillow resizes floats as they are, with half-pixel centres: a map's cell covers its patch.
    resized = Image.fromarray(heat.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    strength = np.clip(np.asarray(resized, np.float32), 0, 1)
    color = np.asarray(colormaps["jet"](strength), np.float32)[..., :3] * 255
    # Faint places stay clear, so that the picture can be seen under a map that is mostly noise.
    opacity = OPACITY * np.sqrt(strength)[..., np.newaxis]
    mixed: NDArray[np.uint8] = np.round(view * (1 - opacity) + color * opacity).astype(np.uint8)
    return mixed

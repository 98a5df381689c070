"""The first two convolutions' kernels before and after a training, and a picture of them."""

import io
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.layer_graph import read_layer_graph
from headstart.tasks.evaluation.figures import PNG_DPI

NUM_CONVOLUTIONS = 2
NUM_TILES = 32
"""Kernels of a layer that are shown."""
TILES_A_ROW = 16
WIDTH_IN, TITLE_IN = 10.0, 0.3
"""Inches of the picture, and of the line above each row of it."""
GREY = "#7c8794"
"""Of letters that are read on a light page as on a dark one."""

Array = npt.NDArray[np.float32]


class KernelChange(NamedTuple):
    """One convolution's kernels.

    Attributes:
        start: float32 [height, width, channels in, channels out] before the training.
        end: The same kernels after it.
    """

    layer: str
    start: Array
    end: Array

    @property
    def largest_change(self) -> float:
        """Largest absolute difference of any weight; 0 where the layer was frozen."""
        return float(np.abs(self.end - self.start).max())


def first_convolutions(backbone: Backbone) -> list[str]:
    """Name the first two convolutions of a backbone, in the order of its graph."""
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    graph = read_layer_graph(backbone.model)
    found = [call.name for call in graph.calls if isinstance(call.operation, kinds)]
    return found[:NUM_CONVOLUTIONS]


def kernel_of(layer: str, model: Any, backbone: Backbone) -> Array:
    """Read a convolution's kernel from a model, or from the frozen backbone where it lies there.

    Args:
        layer: Name of the convolution.
        model: The trained part; the kernel is taken from it where it has this layer.
        backbone: The part before it.

    Returns:
        A copy, float32 [height, width, channels in, channels out].
    """
    owner = model if any(one.name == layer for one in model.layers) else backbone.model
    return np.array(owner.get_layer(layer).kernel, np.float32)


def kernels_png(changes: list[KernelChange]) -> bytes:
    """Draw kernels at the start, at the end, and their difference.

    Args:
        changes: One row of the picture a convolution.

    Returns:
        A PNG file's bytes. Start and end share one scale of grey or colour a layer; the
        difference has its own, and is even grey where nothing changed.
    """
    from matplotlib.figure import Figure

    heights = [_height_in(change.start) for change in changes]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), layout="constrained")
    rows = figure.subplots(len(changes), 3, squeeze=False, height_ratios=heights)
    for axes, change in zip(rows, changes, strict=True):
        scale = float(np.abs([change.start, change.end]).max())
        difference = change.end - change.start
        pictures = (
            (f"{change.layer}: start", change.start, scale),
            ("end", change.end, scale),
            (f"difference, at most {change.largest_change:.2g}", difference,
             change.largest_change),
        )  # fmt: skip
        for one, (title, kernels, limit) in zip(axes, pictures, strict=True):
            one.imshow(_tiles(kernels, limit), interpolation="nearest")
            one.set_title(title, fontsize=8, color=GREY, loc="left", parse_math=False)
            one.set_axis_off()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=PNG_DPI, facecolor="none")
    return file.getvalue()


def _tiles(kernels: Array, limit: float) -> Array:
    """Lay out kernels as tiles, [rows, columns, 3], grey where a weight is 0."""
    height, width, channels, _ = kernels.shape
    if channels == 3:  # the first layer of a network for RGB
        tiles = kernels.transpose(3, 0, 1, 2)[:NUM_TILES]
    else:
        flat = kernels.reshape(height, width, -1).transpose(2, 0, 1)[:NUM_TILES]
        tiles = np.repeat(flat[..., np.newaxis], 3, axis=-1)
    tiles = np.clip(0.5 + 0.5 * tiles / (limit or 1.0), 0.0, 1.0)
    columns = min(TILES_A_ROW, len(tiles))
    sheet = np.ones((-(-len(tiles) // columns) * (height + 1), columns * (width + 1), 3))
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        sheet[top : top + height, left : left + width] = tile
    return sheet.astype(np.float32)


def _height_in(kernels: Array) -> float:
    """Return how high a row of the picture is, in inches, so that its tiles fill it."""
    height, width = _tiles(kernels, 1.0).shape[:2]
    return TITLE_IN + float(WIDTH_IN / 3 * height / width)

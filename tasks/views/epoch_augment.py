"""The views of an epoch, a block of images at a time: pad and crop, flip, cutout.

Each operation takes and gives uint8 and only moves or replaces bytes, so there is nothing to
round: a view is the same bytes whatever the number of workers, the order, the block it was
computed in, and whether eagerly or in a graph.
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from headstart.tasks.views.epoch_draws import draw_integers

_TOP, _LEFT, _FLIP, _CUT_TOP, _CUT_LEFT = range(5)
"""Purposes of the draws; a new operation takes new numbers, or old views would change."""


@dataclass(frozen=True)
class EpochRecipe:
    """What is done to each image.

    Attributes:
        padding: Pixels of reflection on each side before the crop; 0 for no crop.
        flip: Whether half of the views are mirrored.
        cutout: Side in pixels of the square that is painted over; 0 for none.
        fill: Value of each channel that it is painted with, in [0, 255].
    """

    padding: int
    flip: bool
    cutout: int
    fill: tuple[int, ...]


def epoch_views(images: Any, keys: Any, view: Any, recipe: EpochRecipe) -> Any:
    """Make one view of each image of a block.

    Args:
        images: uint8 [n, h, w, c], the plain images.
        keys: uint64 [n], from `headstart.tasks.views.epoch_draws.image_keys`.
        view: uint64 scalar, from `headstart.tasks.views.epoch_draws.view_key`.
        recipe: Which operations, and how strong.

    Returns:
        uint8 [n, h, w, c].
    """
    if recipe.padding:
        images = pad_and_crop(images, keys, view, recipe.padding)
    if recipe.flip:
        images = flip(images, keys, view)
    if recipe.cutout:
        images = cutout(images, keys, view, recipe.cutout, recipe.fill)
    return images


def pad_and_crop(images: Any, keys: Any, view: Any, padding: int) -> Any:
    """Shift each image by up to ``padding`` pixels both ways; reflection fills the edges.

    Args:
        images: uint8 [n, h, w, c], sides longer than ``padding``.
        keys: uint64 [n], one an image.
        view: uint64 scalar, key of the view.
        padding: Greatest shift, in pixels.

    Returns:
        uint8 [n, h, w, c].

    Source: He et al., "Deep Residual Learning for Image Recognition", 2015 (4 pixels at 32);
    reflection as in Page, https://github.com/davidcpage/cifar10-fast.
    """
    height, width = images.shape[1:3]
    sides = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    padded = tf.pad(images, sides, mode="REFLECT")
    top = draw_integers(keys, view, _TOP, 2 * padding + 1)
    left = draw_integers(keys, view, _LEFT, 2 * padding + 1)
    rows = tf.gather(padded, top[:, tf.newaxis] + tf.range(height), batch_dims=1, axis=1)
    return tf.gather(rows, left[:, tf.newaxis] + tf.range(width), batch_dims=1, axis=2)


def flip(images: Any, keys: Any, view: Any) -> Any:
    """Mirror half of the images left to right.

    Args:
        images: uint8 [n, h, w, c].
        keys: uint64 [n], one an image.
        view: uint64 scalar, key of the view.

    Returns:
        uint8 [n, h, w, c].
    """
    mirrored = draw_integers(keys, view, _FLIP, 2) == 1
    return tf.where(mirrored[:, tf.newaxis, tf.newaxis, tf.newaxis], images[:, :, ::-1], images)


def cutout(images: Any, keys: Any, view: Any, side: int, fill: tuple[int, ...]) -> Any:
    """Paint a square inside each image over.

    Args:
        images: uint8 [n, h, w, c].
        keys: uint64 [n], one an image.
        view: uint64 scalar, key of the view.
        side: Side of the square in pixels; cut to the image's sides where it is longer.
        fill: Value of each channel, in [0, 255].

    Returns:
        uint8 [n, h, w, c].

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", 2017; whole inside the image and 8 pixels as in Page, cifar10-fast.
    """
    height, width = images.shape[1:3]
    rows = _covered(draw_integers(keys, view, _CUT_TOP, max(1, height - side + 1)), height, side)
    columns = _covered(draw_integers(keys, view, _CUT_LEFT, max(1, width - side + 1)), width, side)
    covered = (rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :])[..., tf.newaxis]
    return tf.where(covered, tf.constant(fill, tf.uint8), images)


def _covered(start: Any, length: int, side: int) -> Any:
    """Mark the positions of a line that a square covers: bool [n, length]."""
    place = tf.range(length) - start[:, tf.newaxis]
    return (place >= 0) & (place < side)

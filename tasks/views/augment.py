"""Pixels of a view: the plain one evaluation uses, and augmented ones for training.

Every random number is a pure function of a seed that comes from the image's content, the view's
number and the recipe, so a view has the same bytes whatever the order, the number of workers or
the machine. Three rules keep it that way:

- draws use Philox by name, because TensorFlow's automatic choice differs between devices;
- an operation on all pixels never sums floats, whose order depends on the number of threads;
- powers and angles are computed in float64 and rounded to float32, so that the last bit does not
  depend on the vector unit.

Between the operations pixels are float32 in [0, 255]; they are rounded to uint8 once, at the end.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import assert_never

import tensorflow as tf

from headstart.config import (
    Augmentation,
    ColorJitter,
    Cutout,
    Flip,
    PadAndRandomCrop,
    RandomResizedCrop,
    Rotation,
)
from headstart.errors import ConfigError
from headstart.tasks.views.recipes import MAX_PADDED_PIXELS, Resize

NUM_CROP_ATTEMPTS = 10
"""Draws of a crop before the whole image is taken.
Source: the Inception preprocessing draws again likewise; 10 is torchvision's number."""
MAX_CUTOUT_ASPECT_RATIO = 1 / 0.3
"""Rectangles are drawn with an aspect ratio in [1 / this, this].
Source: Zhong et al., Random Erasing Data Augmentation, 2017 (r1 = 0.3)."""
GRAY = 128.0
"""Pixel value of a gray cutout: the middle of [0, 255], about what an input layer maps to 0."""
FIXED_POINT = 256
"""Steps a gray level when pixels are summed as integers."""


def plain_view(image: tf.Tensor, image_size: int, resize: Resize) -> tf.Tensor:
    """Resize an image to the view that evaluation and the exported model use (view 0).

    It is what the stock layer ``keras.layers.Resizing(image_size, image_size, "bilinear",
    antialias=True, crop_to_aspect_ratio=..., pad_to_aspect_ratio=...)`` makes of the float32
    image, rounded half to even. An image that has the size already comes back as it is.

    Args:
        image: Pixels, uint8 ``[H, W, 3]``.
        image_size: Side of the view in pixels.
        resize: ``squash`` changes the aspect ratio, ``crop`` fills and cuts the middle, ``pad``
            fits and adds black.

    Returns:
        uint8 ``[image_size, image_size, 3]``.
    """
    return _to_uint8(_resized(image, image_size, resize))


def augmented_view(
    image: tf.Tensor,
    image_size: int,
    resize: Resize,
    augmentations: Sequence[Augmentation],
    seed: tf.Tensor,
) -> tf.Tensor:
    """Resize an image and apply augmentations in their order.

    A random-resized crop that comes first crops the full-resolution image, which keeps detail;
    otherwise the image is resized as for the plain view first. Operation ``i`` draws from
    ``fold_in(seed, i)``.

    Args:
        image: Pixels, uint8 ``[H, W, 3]``.
        image_size: Side of the view in pixels.
        resize: As for `plain_view`; also how a crop becomes square.
        augmentations: Operations, in the order they are applied.
        seed: int32 ``[2]``, from `view_seed`.

    Returns:
        uint8 ``[image_size, image_size, 3]``.

    Raises:
        ConfigError: Padding is not smaller than the view.
    """
    check_augmentations(augmentations, image_size)
    pixels = image
    if not (augmentations and isinstance(augmentations[0], RandomResizedCrop)):
        pixels = _resized(pixels, image_size, resize)
    for position, augmentation in enumerate(augmentations):
        own_seed = tf.random.fold_in(seed, position, alg="philox")
        pixels = _apply(augmentation, pixels, image_size, resize, own_seed)
    return _to_uint8(pixels)


def view_seed(image_digest: str, view: int, views_digest: str) -> tuple[int, int]:
    """Derive the seed of one view of one image.

    SHA-256, because its output is the same on every platform and version; another function would
    change every augmented view.

    Args:
        image_digest: Digest of the image file's bytes, hexadecimal.
        view: Number of the view, from 1.
        views_digest: Digest of the recipe of the augmented views; it covers the run's seed.

    Returns:
        Two integers in [-2**31, 2**31), the form of a stateless seed.
    """
    digest = hashlib.sha256(f"{image_digest}/{view}/{views_digest}".encode("ascii")).digest()
    return (
        int.from_bytes(digest[:4], "big", signed=True),
        int.from_bytes(digest[4:8], "big", signed=True),
    )


def check_augmentations(augmentations: Sequence[Augmentation], image_size: int) -> None:
    """Refuse augmentations that cannot be applied to views of this size.

    Args:
        augmentations: Operations in their order.
        image_size: Side of the view in pixels.

    Raises:
        ConfigError: Padding is not smaller than the view, so it cannot be a reflection.
    """
    for augmentation in augmentations:
        if isinstance(augmentation, PadAndRandomCrop) and augmentation.padding >= image_size:
            raise ConfigError(
                "the padding of pad_and_random_crop must be smaller than the view "
                f"({image_size} px)",
                f"padding={augmentation.padding}",
                f"set padding below {image_size}, or a larger views.image_size",
            )


def _apply(
    augmentation: Augmentation,
    pixels: tf.Tensor,
    image_size: int,
    resize: Resize,
    seed: tf.Tensor,
) -> tf.Tensor:
    # No match statement: AutoGraph, which tf.data applies to what it maps, cannot read one.
    if isinstance(augmentation, Flip):
        return _flip(pixels, augmentation, seed)
    if isinstance(augmentation, PadAndRandomCrop):
        return _pad_and_random_crop(pixels, augmentation, seed)
    if isinstance(augmentation, RandomResizedCrop):
        return _random_resized_crop(pixels, augmentation, image_size, resize, seed)
    if isinstance(augmentation, ColorJitter):
        return _color_jitter(pixels, augmentation, seed)
    if isinstance(augmentation, Rotation):
        return _rotation(pixels, augmentation, seed)
    if isinstance(augmentation, Cutout):
        return _cutout(pixels, augmentation, seed)
    assert_never(augmentation)


def _flip(pixels: tf.Tensor, flip: Flip, seed: tf.Tensor) -> tf.Tensor:
    """Mirror left and right with the given probability. Float32 ``[H, W, 3]`` in and out."""
    draw = _uniform(seed, 1)[0]
    return tf.where(draw < flip.probability, tf.reverse(pixels, axis=[1]), pixels)


def _pad_and_random_crop(
    pixels: tf.Tensor, pad_and_crop: PadAndRandomCrop, seed: tf.Tensor
) -> tf.Tensor:
    """Shift by up to ``padding`` pixels each way; float32 ``[S, S, 3]`` in and out.

    Source: He et al., Deep Residual Learning for Image Recognition, 2015 (CIFAR-10: 4 pixels);
    reflection in place of zeros as in David Page's cifar10-fast.
    """
    padding = pad_and_crop.padding
    size = pixels.shape[0]
    padded = tf.pad(pixels, [[padding, padding], [padding, padding], [0, 0]], mode="REFLECT")
    top, left = tf.unstack(_integers(_uniform(seed, 2), 2 * padding + 1))
    return tf.ensure_shape(padded[top : top + size, left : left + size], pixels.shape)


def _random_resized_crop(
    pixels: tf.Tensor, crop: RandomResizedCrop, image_size: int, resize: Resize, seed: tf.Tensor
) -> tf.Tensor:
    """Crop float32 ``[H, W, 3]`` at random and resize it to ``[image_size, image_size, 3]``.

    The aspect ratio is relative to the image's own, so a panorama is cropped as freely as a
    square. The first of `NUM_CROP_ATTEMPTS` draws that fits is taken, else the whole image.

    Source: Szegedy et al., Going Deeper with Convolutions, 2015, section 6 (area uniform, aspect
    ratio in [3/4, 4/3]).
    """
    draws = _uniform(seed, 2 * NUM_CROP_ATTEMPTS + 2)
    area = _between(draws[:NUM_CROP_ATTEMPTS], crop.min_area, 1.0)
    log_limit = math.log(crop.max_aspect_ratio)
    log_ratio = _between(draws[NUM_CROP_ATTEMPTS:-2], -log_limit, log_limit)
    shares = _sides(area, log_ratio)  # [attempts, 2]: height and width as shares of the image's
    fits = tf.reduce_all(shares <= 1.0, axis=1)
    share = tf.where(tf.reduce_any(fits), shares[tf.argmax(fits)], 1.0)

    sides = tf.shape(pixels)[:2]
    crop_sides = _rounded_sides(share, sides)
    top, left = tf.unstack(_integers(draws[-2:], sides - crop_sides + 1))
    height, width = tf.unstack(crop_sides)
    return _resized(pixels[top : top + height, left : left + width], image_size, resize)


def _color_jitter(pixels: tf.Tensor, jitter: ColorJitter, seed: tf.Tensor) -> tf.Tensor:
    """Scale brightness, contrast and saturation of float32 ``[S, S, 3]`` in [0, 255].

    Each factor is uniform in [1 - strength, 1 + strength]; pixels are clipped to [0, 255] after
    each step. Contrast is taken about each channel's mean and saturation in HSV, as in tf.image.

    Source: Howard, Some Improvements on Deep Convolutional Neural Network Based Image
    Classification, 2013.
    """
    draws = _uniform(seed, 3)
    if jitter.brightness:
        pixels = _clip(pixels * _factor(draws[0], jitter.brightness))
    if jitter.contrast:
        mean = _channel_mean(pixels)
        pixels = _clip((pixels - mean) * _factor(draws[1], jitter.contrast) + mean)
    if jitter.saturation:
        # AdjustSaturation is scale-free, so pixels may stay in [0, 255].
        factor = _factor(draws[2], jitter.saturation)
        pixels = _clip(tf.image.adjust_saturation(pixels, factor))
    return pixels


def _rotation(pixels: tf.Tensor, rotation: Rotation, seed: tf.Tensor) -> tf.Tensor:
    """Rotate float32 ``[S, S, 3]`` about its centre, bilinear, reflected outside."""
    if not rotation.max_degrees:
        return pixels
    limit = math.radians(rotation.max_degrees)
    angle = tf.cast(_between(_uniform(seed, 1)[0], -limit, limit), tf.float64)
    cos, sin = tf.cos(angle), tf.sin(angle)
    center = (pixels.shape[0] - 1) / 2
    # Output (x, y) reads input (a0 x + a1 y + a2, b0 x + b1 y + b2); the centre stays in place.
    shift_x, shift_y = center * (1.0 - cos + sin), center * (1.0 - cos - sin)
    zero = tf.zeros([], tf.float64)
    transform = tf.stack([cos, -sin, shift_x, sin, cos, shift_y, zero, zero])
    rotated = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[tf.newaxis],
        transforms=tf.cast(transform, tf.float32)[tf.newaxis],
        output_shape=pixels.shape[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(rotated[0], pixels.shape)


def _cutout(pixels: tf.Tensor, cutout: Cutout, seed: tf.Tensor) -> tf.Tensor:
    """Overwrite a rectangle of float32 ``[S, S, 3]`` with gray or with uniform noise.

    The area is uniform in [min_area, max_area] of the view, the aspect ratio log-uniform within
    `MAX_CUTOUT_ASPECT_RATIO` as far as the rectangle fits, the place uniform.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with
    Cutout, 2017; Zhong et al., Random Erasing Data Augmentation, 2017.
    """
    size = pixels.shape[0]
    draws = _uniform(seed, 5)
    area = _between(draws[1], cutout.min_area, cutout.max_area)
    widest = tf.minimum(-tf.math.log(tf.cast(area, tf.float64)), math.log(MAX_CUTOUT_ASPECT_RATIO))
    log_ratio = (2.0 * tf.cast(draws[2], tf.float64) - 1.0) * widest
    sides = _rounded_sides(_sides(area, log_ratio), tf.constant([size, size]))
    top, left = tf.unstack(_integers(draws[3:], size - sides + 1))
    height, width = tf.unstack(sides)

    place = tf.range(size)
    rows = (place >= top) & (place < top + height)
    columns = (place >= left) & (place < left + width)
    erased = (rows[:, tf.newaxis] & columns)[..., tf.newaxis] & (draws[0] < cutout.probability)
    return tf.where(erased, _filling(cutout, pixels.shape, seed), pixels)


def _filling(cutout: Cutout, shape: tf.TensorShape, seed: tf.Tensor) -> tf.Tensor:
    if cutout.fill == "gray":
        return tf.constant(GRAY)
    noise_seed = tf.random.fold_in(seed, 0, alg="philox")
    return tf.random.stateless_uniform(shape, noise_seed, maxval=255.0, alg="philox")


def _resized(pixels: tf.Tensor, image_size: int, resize: Resize) -> tf.Tensor:
    """Resize uint8 or float32 ``[H, W, 3]`` to float32 ``[image_size, image_size, 3]``.

    uint8 is not cast before it is small: TensorFlow reads it as it is, to the same result, and a
    large photo would take four times its memory.

    The crop and the padding are whole numbers here. The stock layer gets the same ones through a
    float division, except in graphs with unknown image sides, where TensorFlow multiplies by the
    reciprocal and is one pixel off for a few view sizes (227 is one; none of the powers of two,
    224, 299, 380 and the like).
    """
    height, width = tf.unstack(tf.shape(pixels)[:2])
    if resize == "crop":
        side = tf.minimum(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    elif resize == "pad":
        side = tf.maximum(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        padding = [[top, top], [left, left], [0, 0]]
        size = (image_size, image_size)

        def strip() -> tf.Tensor:
            # Along its long side, on which the padding adds nothing, before it becomes a square.
            is_tall = height >= width
            shorter = (
                tf.where(is_tall, image_size, height),
                tf.where(is_tall, width, image_size),
            )
            reduced = tf.image.resize(pixels, shorter, antialias=True)
            padded = tf.pad(tf.cast(reduced, tf.float32), padding)
            return tf.cast(tf.image.resize(padded, size, antialias=True), tf.float32)

        def square() -> tf.Tensor:
            padded = tf.pad(pixels, padding)
            return tf.cast(tf.image.resize(padded, size, antialias=True), tf.float32)

        return tf.cond(tf.cast(side, tf.int64) ** 2 > MAX_PADDED_PIXELS, strip, square)
    return tf.cast(tf.image.resize(pixels, (image_size, image_size), antialias=True), tf.float32)


def _to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(_clip(tf.round(pixels)), tf.uint8)


def _clip(pixels: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(pixels, 0.0, 255.0)


def _channel_mean(pixels: tf.Tensor) -> tf.Tensor:
    """Mean of each channel, float32 ``[3]``; summed as integers, so exact in any order."""
    steps = tf.cast(tf.round(pixels * FIXED_POINT), tf.int64)
    num_steps = tf.cast(tf.size(pixels[..., 0], out_type=tf.int64) * FIXED_POINT, tf.float64)
    total = tf.cast(tf.reduce_sum(steps, axis=[0, 1]), tf.float64)
    return tf.cast(total / num_steps, tf.float32)


def _uniform(seed: tf.Tensor, num_draws: int) -> tf.Tensor:
    """Draw float32 ``[num_draws]``, uniform in [0, 1)."""
    return tf.random.stateless_uniform([num_draws], seed, alg="philox")


def _between(draws: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return draws * (high - low) + low


def _factor(draw: tf.Tensor, strength: float) -> tf.Tensor:
    return _between(draw, 1.0 - strength, 1.0 + strength)


def _integers(draws: tf.Tensor, num_values: int | tf.Tensor) -> tf.Tensor:
    """Turn draws in [0, 1) into int32 in [0, num_values); the product may round up to its end."""
    values = tf.cast(draws * tf.cast(num_values, tf.float32), tf.int32)
    return tf.minimum(values, num_values - 1)


def _sides(area: tf.Tensor, log_ratio: tf.Tensor) -> tf.Tensor:
    """Height and width ``[..., 2]`` of rectangles of an area and a log aspect ratio (w / h)."""
    area, half = tf.cast(area, tf.float64), 0.5 * tf.cast(log_ratio, tf.float64)
    root = tf.sqrt(area)
    return tf.cast(tf.stack([root * tf.exp(-half), root * tf.exp(half)], axis=-1), tf.float32)


def _rounded_sides(shares: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Whole pixels, int32 ``[2]``, of shares of two sides: at least one, at most all."""
    pixels = tf.cast(tf.round(shares * tf.cast(sides, tf.float32)), tf.int32)
    return tf.clip_by_value(pixels, 1, sides)

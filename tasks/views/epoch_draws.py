"""Random numbers for whole blocks of images, each a pure function of image, view and purpose.

TensorFlow's stateless generators take one seed for a whole tensor; here every image has its own,
so that its views do not depend on which images stand beside it. A number is SplitMix64's output
function applied to (image key, view key, purpose): integer arithmetic alone, so eagerly, in a
graph, on one thread or many it is the same.

Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014, figure 17
(the mixing function and the constant); as in Vigna's splitmix64.c.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def image_keys(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return a key for each image, from its pixels alone.

    Args:
        images: uint8 [n, h, w, c].

    Returns:
        uint64 [n]; equal images have equal keys, and so equal views.
    """
    digests = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def view_key(view: int, recipe_digest: str) -> int:
    """Return the key of a view of a recipe, which covers the run's seed.

    Args:
        view: Number of the view, from 1.
        recipe_digest: SHA-256 of the recipe, hexadecimal.

    Returns:
        An integer in [0, 2**64).
    """
    data = hashlib.sha256(f"{view}/{recipe_digest}".encode("ascii")).digest()
    return int.from_bytes(data[:8], "big")


def draw_integers(keys: Any, view: Any, purpose: int, num_values: int) -> Any:
    """Draw one integer an image.

    Args:
        keys: uint64 [n], of the images.
        view: uint64 scalar, from `view_key`.
        purpose: Which draw of the view this is; each must have its own number.
        num_values: The integers are in [0, num_values), at most 2**31.

    Returns:
        int32 [n], uniform to within num_values / 2**32.
    """
    state = keys ^ _mix(view + _constant(purpose * _GOLDEN_GAMMA))
    high = tf.bitwise.right_shift(_mix(state + _constant(_GOLDEN_GAMMA)), _constant(32))
    # The product of a 32-bit fraction and the range, without floats.
    scaled = tf.bitwise.right_shift(high * _constant(num_values), _constant(32))
    return tf.cast(scaled, tf.int32)


def block_order(num_images: int, view: int, recipe_digest: str) -> npt.NDArray[np.int64]:
    """Return the order in which a view's images are written, and so read.

    It is drawn over the whole set, so that reading in order is as good a shuffle as there is.

    Args:
        num_images: Images in the set.
        view: Number of the view, from 1.
        recipe_digest: SHA-256 of the recipe, hexadecimal.

    Returns:
        int64 [num_images], a permutation.
    """
    generator = np.random.default_rng(view_key(view, f"order/{recipe_digest}"))
    order: npt.NDArray[np.int64] = generator.permutation(num_images)
    return order


def _mix(state: Any) -> Any:
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        state = (state ^ tf.bitwise.right_shift(state, _constant(shift))) * _constant(factor)
    return state ^ tf.bitwise.right_shift(state, _constant(31))


def _constant(value: int) -> Any:
    return tf.constant(value % 2**64, tf.uint64)


def as_uint64(values: Sequence[int] | npt.NDArray[np.uint64]) -> Any:
    """Return keys as a tensor, uint64 of the same shape."""
    return tf.constant(np.asarray(values, np.uint64))

"""Perceptual hashes: 64 bits that resizing and compressing an image hardly change."""

from typing import Any

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint8]

HASH_SIDE = 8
"""Frequencies a side: 64 bits in all."""
REDUCED_SIDE = 32
"""Side in pixels that an image is reduced to first; details do not matter to the eye's verdict."""


def perceptual_hashes(luminance: npt.NDArray[np.floating[Any]]) -> Bits:
    """Hash images by the signs of their lowest frequencies.

    Each bit says whether one of the 8 x 8 lowest frequencies of the discrete cosine transform,
    the constant one aside, is above their median.

    Args:
        luminance: [n, 32, 32], reduced images.

    Returns:
        uint8 [n, 64] of 0 and 1.

    Source:
        Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010,
        section 3.2.1 (pHash).
    """
    from scipy.fft import dctn

    frequencies = dctn(np.asarray(luminance, np.float64), axes=(1, 2), norm="ortho")
    lowest = frequencies[:, :HASH_SIDE, :HASH_SIDE].reshape(len(frequencies), -1)
    middle = np.median(lowest[:, 1:], axis=1, keepdims=True)
    bits: Bits = (lowest > middle).astype(np.uint8)
    return bits


def hash_distances(first: Bits, second: Bits) -> npt.NDArray[np.int32]:
    """Count the bits in which hashes differ.

    Args:
        first: uint8 [n, 64].
        second: uint8 [m, 64].

    Returns:
        int32 [n, m], 0 to 64.
    """
    a = 1.0 - 2.0 * first.astype(np.float32)
    b = 1.0 - 2.0 * second.astype(np.float32)
    distances: npt.NDArray[np.int32] = ((a.shape[1] - a @ b.T) / 2).astype(np.int32)
    return distances

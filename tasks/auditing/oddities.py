"""Images that stand out: outliers, blurred, dark and odd-sized ones, and classes that are thin."""

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.tasks.ranking.probes import nearest_neighbours

Values = npt.NDArray[np.float64]

MAD_TO_DEVIATION = 1.4826
"""A normal distribution's standard deviation in units of its median absolute deviation.
Source: Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", 1993."""


def robust_deviations(values: Values) -> Values:
    """Say how many standard deviations each value lies from the median of all.

    Args:
        values: float64 [n].

    Returns:
        float64 [n]; both median and deviation are taken so that outliers do not move them. 0
        throughout where more than half of the values are equal.

    Source:
        Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993 (modified z-score).
    """
    centred = values - np.median(values)
    deviation = MAD_TO_DEVIATION * float(np.median(np.abs(centred)))
    result: Values = centred / deviation if deviation > 0 else np.zeros_like(values)
    return result


def isolation(features: npt.NDArray[np.floating[Any]], num_neighbours: int) -> Values:
    """Measure how far each image is from those nearest to it.

    Args:
        features: float [n, d].
        num_neighbours: Nearest others looked at.

    Returns:
        float64 [n]: 1 less the mean cosine similarity of the nearest others.

    Source:
        Ramaswamy et al., "Efficient Algorithms for Mining Outliers from Large Data Sets", 2000,
        with the mean of the distances as in Angiulli and Pizzuti, 2002.
    """
    _, similarities = nearest_neighbours(features, num_neighbours)
    far: Values = 1.0 - similarities.astype(np.float64).mean(axis=1)
    return far


def blur(sharpness: Values) -> Values:
    """Say how many robust deviations each image is blurrier than the median, on a log scale."""
    return -robust_deviations(np.log(np.maximum(sharpness, 1e-3)))


def size_ratios(widths: npt.NDArray[np.int64], heights: npt.NDArray[np.int64]) -> Values:
    """Say how many times an image's side or aspect ratio differs from the median image's.

    Args:
        widths: int64 [n], pixels.
        heights: int64 [n], pixels.

    Returns:
        float64 [n], at least 1: the larger of both, in either direction. The side is the root of
        the area.
    """
    side = np.sqrt(widths * heights.astype(np.float64))
    aspect = widths / heights.astype(np.float64)
    ratios = [np.maximum(one / np.median(one), np.median(one) / one) for one in (side, aspect)]
    larger: Values = np.maximum(*ratios)
    return larger


def thin_classes(counts: npt.NDArray[np.int64], max_imbalance: float) -> list[tuple[int, float]]:
    """Find the classes that the largest outnumbers by too much.

    Args:
        counts: int64 [K]: training images a class.
        max_imbalance: Times that the largest class may have a class's images.

    Returns:
        (class, times), the thinnest first; times is infinite for a class without images.
    """
    largest = int(counts.max())
    times = [largest / count if count else float("inf") for count in counts.tolist()]
    thin = [(number, value) for number, value in enumerate(times) if value > max_imbalance]
    return sorted(thin, key=lambda pair: (-pair[1], pair[0]))

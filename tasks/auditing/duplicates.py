"""Near-duplicates: the same picture resized, compressed anew, mirrored or cropped a little."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.config import ChecksConfig
from headstart.tasks.auditing.hashing import Bits, close_pairs


class Pair(NamedTuple):
    """Two images that show the same.

    Attributes:
        first: Position of the one.
        second: Position of the other, larger.
        similarity: Cosine of their features.
        distance: Bits of 64 in which their hashes differ, the one mirrored where that is closer.
        is_mirrored: Whether it is.
    """

    first: int
    second: int
    similarity: float
    distance: int
    is_mirrored: bool


def find_pairs(
    features: npt.NDArray[np.floating[Any]],
    hashes: Bits,
    mirrored_hashes: Bits,
    config: ChecksConfig,
) -> list[Pair]:
    """Find near-duplicates by two witnesses: perceptual hash and the backbone's features.

    Hashes alone take pictures of one composition for duplicates, features alone pictures of one
    thing; a pair needs both, and the more of the one, the less of the other.

    Args:
        features: [n, d], one row a distinct image.
        hashes: uint8 [n, 64].
        mirrored_hashes: uint8 [n, 64].
        config: Thresholds.

    Returns:
        The pairs, the most similar first.
    """
    unit = np.asarray(features, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    found = []
    for first, second, distance, is_mirrored in close_pairs(
        hashes, mirrored_hashes, 2 * config.max_hash_distance
    ).tolist():
        similarity = float(unit[first] @ unit[second])
        if similarity >= _least_similarity(distance, config):
            found.append(Pair(first, second, similarity, distance, bool(is_mirrored)))
    return sorted(found, key=lambda pair: (-pair.similarity, pair))


def _least_similarity(distance: int, config: ChecksConfig) -> float:
    """Return how alike the features must be, the more so the less the hashes agree."""
    if distance <= config.sure_hash_distance:
        return config.min_similarity_if_sure
    if distance <= config.max_hash_distance:
        return config.min_similarity
    return config.min_similarity_of_crops


def group_pairs(pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
    """Join pairs that share an image into groups.

    Args:
        pairs: In any order.

    Returns:
        Positions of each group, ascending; the largest groups first.
    """
    leader: dict[int, int] = {}

    def find(image: int) -> int:
        while leader.setdefault(image, image) != image:
            leader[image] = leader[leader[image]]
            image = leader[image]
        return image

    for pair in pairs:
        leader[find(pair.second)] = find(pair.first)
    groups: dict[int, list[int]] = {}
    for image in sorted(leader):
        groups.setdefault(find(image), []).append(image)
    return sorted((tuple(group) for group in groups.values()), key=lambda one: (-len(one), one))

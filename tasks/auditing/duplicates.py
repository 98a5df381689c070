"""Near-duplicates: the same picture resized, compressed anew, mirrored or cropped a little."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.config import ChecksConfig
from headstart.tasks.auditing.hashing import Bits, hash_distances

MAX_PAIRS = 8
"""Duplicates of one image that are reported in each split: all of an ordinary group."""
CHUNK_VALUES = 2**22
"""Pairs of images compared at a time; some ten arrays of 4 bytes each."""


class Pair(NamedTuple):
    """Two images that show the same.

    Attributes:
        first: Position of the image that comes first.
        second: Position of the other image; larger than `first`.
        similarity: Cosine of their features.
        distance: Bits of 64 in which their hashes differ, the one mirrored where that is closer.
        is_mirrored: Whether the hashes are closer with one image mirrored.
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
    splits: npt.NDArray[np.integer[Any]] | None = None,
) -> list[Pair]:
    """Find near-duplicates by two witnesses: perceptual hash and the backbone's features.

    Hashes alone take pictures of one composition for duplicates, features alone pictures of one
    thing; a pair needs both, and the more of the one, the less of the other. Where an image has
    many duplicates, the `MAX_PAIRS` most similar in each split are kept, so that neither time nor
    memory is quadratic in them.

    Args:
        features: [n, d], one row a distinct image.
        hashes: uint8 [n, 64], perceptual hash, one bit an element.
        mirrored_hashes: uint8 [n, 64], the same of the mirrored images.
        config: Thresholds of similarity and distance.
        splits: [n], a number for each split; all one where not given.
    """
    unit = np.asarray(features, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    split_of = np.zeros(len(unit), np.int64) if splits is None else np.asarray(splits)
    found: dict[tuple[int, int], Pair] = {}
    num_rows = max(1, CHUNK_VALUES // max(1, len(unit)))
    for start in range(0, len(unit), num_rows):
        rows = slice(start, start + num_rows)
        straight = hash_distances(hashes[rows], hashes)
        turned = hash_distances(hashes[rows], mirrored_hashes)
        # Mirrored the other way round as well, so that both images of a pair see the same.
        turned = np.minimum(turned, hash_distances(mirrored_hashes[rows], hashes))
        distances = np.minimum(straight, turned)
        near = distances <= 2 * config.max_hash_distance
        near[np.arange(len(near)), np.arange(start, start + len(near))] = False
        if not near.any():
            continue
        similar = unit[rows] @ unit.T
        near &= similar >= _least_similarity(distances, config)
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            for other in _closest(np.flatnonzero(near[row]), similar[row], split_of):
                first, second = sorted((start + row, other))
                is_mirrored = bool(turned[row, other] < straight[row, other])
                pair = Pair(
                    first,
                    second,
                    float(similar[row, other]),
                    int(distances[row, other]),
                    is_mirrored,
                )
                found.setdefault((first, second), pair)
    return sorted(found.values(), key=lambda pair: (-pair.similarity, pair))


def _closest(
    others: npt.NDArray[np.int64],
    similar: npt.NDArray[np.float32],
    split_of: npt.NDArray[np.integer[Any]],
) -> Iterator[int]:
    """Yield the most similar images of each split, so that no leak hides behind another."""
    for split in np.unique(split_of[others]):
        inside = others[split_of[others] == split]
        order = np.argsort(-similar[inside], kind="stable")[:MAX_PAIRS]
        yield from inside[order].tolist()


def _least_similarity(
    distances: npt.NDArray[np.int32], config: ChecksConfig
) -> npt.NDArray[np.float32]:
    """Return how alike the features must be, the more so the less the hashes agree."""
    least = np.full(distances.shape, config.min_similarity_of_crops, np.float32)
    least[distances <= config.max_hash_distance] = config.min_similarity
    least[distances <= config.sure_hash_distance] = config.min_similarity_if_sure
    return least


def group_pairs(pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
    """Join pairs that share an image into groups.

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

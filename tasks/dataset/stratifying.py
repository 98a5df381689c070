"""Splits that keep each label's share, or the spread of numbers.

Labels come together in ways that a draw for each image alone does not keep: of a label that one
image in a hundred has, a held-out split may get none. So images are dealt out, label by label,
the rarest first. Numbers are dealt out likewise, by the tenth of all values that they lie in.

The order in which images are dealt out is that of their contents, so names, folders and lines do
not matter, and copies of one content are dealt out as one. Other than with classes, images that
are added may move some of the others.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from headstart.config import DatasetConfig, Split, TargetKind
from headstart.tasks.dataset.inspection import InspectedImage
from headstart.tasks.dataset.splits import is_drawn, split_position, units_of

NUM_QUANTILES = 10
MIN_STRATUM = 7
"""Images of a stratum of numbers, at the least: dealt out by two, three or four all would fall to
the train split, whose share of them is the largest each time."""
P = TypeVar("P", bound=Hashable)


def stratify_images(
    images: Sequence[InspectedImage], config: DatasetConfig, kind: TargetKind
) -> list[Split]:
    """Decide the split of each image that has labels or numbers.

    Splits that the data gives hold; a train split without a val split gives up part of itself.

    Args:
        images: All usable images.
        config: Fractions of val and test, and the seed.
        kind: "labels" or "number": what is spread evenly.

    Source:
        Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011,
        algorithm 1.
    """
    given = {image.listed.split for image in images}
    units = units_of(images)
    drawn: defaultdict[str, list[InspectedImage]] = defaultdict(list)
    for image, unit in zip(images, units, strict=True):
        if is_drawn(image, given):
            drawn[unit].append(image)
    shares: dict[Split, float] = {"train": 0.0, "val": config.val_fraction}
    if None in given:
        shares["test"] = config.test_fraction
    shares["train"] = 1.0 - sum(shares.values())
    order = sorted(drawn, key=lambda unit: (split_position(unit, config.split_seed), unit))
    dealt = _deal(
        [_strata_of(drawn[unit]) for unit in order]
        if kind == "labels"
        else _quantiles([_mean_of(drawn[unit]) for unit in order]),
        [len(drawn[unit]) for unit in order],
        shares,
    )
    split_of = dict(zip(order, dealt, strict=True))
    return [
        image.listed.split or "train" if not is_drawn(image, given) else split_of[unit]
        for image, unit in zip(images, units, strict=True)
    ]


def deal_into_folds(
    values: Mapping[str, tuple[float, ...]], kind: TargetKind, num_folds: int, seed: int
) -> dict[str, int]:
    """Deal images out to the parts of a cross-validation.

    Args:
        values: By the image's digest: its labels, or its numbers.
        kind: "labels" or "number".
        num_folds: Number of folds to deal the images into.
        seed: Seed of the random order.

    Returns:
        By digest, the number of its part, 0 for the first.
    """
    order = sorted(values, key=lambda digest: (split_position(digest, seed), digest))
    own = [values[digest] for digest in order]
    strata = [set[Hashable](one) for one in own] if kind == "labels" else _quantiles(own)
    shares = dict.fromkeys(range(num_folds), 1 / num_folds)
    return dict(zip(order, _deal(strata, [1] * len(order), shares), strict=True))


def _strata_of(images: Sequence[InspectedImage]) -> set[Hashable]:
    return {value for image in images for value in image.listed.values}


def _mean_of(images: Sequence[InspectedImage]) -> tuple[float, ...]:
    return tuple(np.mean([image.listed.values for image in images], axis=0))


def _quantiles(values: Sequence[tuple[float, ...]]) -> list[set[Hashable]]:
    """Say of each row in which tenth of each column it lies."""
    table = np.array(values, np.float64)
    strata: list[set[Hashable]] = [set() for _ in values]
    if not table.size:
        return strata
    num_quantiles = max(1, min(NUM_QUANTILES, len(table) // MIN_STRATUM))
    inner = np.linspace(0.0, 1.0, num_quantiles + 1)[1:-1]
    for column in range(table.shape[1]):
        edges = np.quantile(table[:, column], inner)
        for row, place in enumerate(np.searchsorted(edges, table[:, column])):
            strata[row].add((column, int(place)))
    return strata


def _deal(
    strata: Sequence[set[Hashable]], weights: Sequence[int], shares: Mapping[P, float]
) -> list[P]:
    """Deal rows out to parts, those of the rarest stratum first; of equals, to the first part."""
    places = {part: -place for place, part in enumerate(shares)}
    rows_of: defaultdict[Hashable, list[int]] = defaultdict(list)
    left: Counter[Hashable] = Counter()
    for row, own in enumerate(strata):
        for stratum in own:
            rows_of[stratum].append(row)
            left[stratum] += 1
    wanted = {split: share * sum(weights) for split, share in shares.items()}
    wanted_of = {
        stratum: {
            split: share * sum(weights[row] for row in rows) for split, share in shares.items()
        }
        for stratum, rows in rows_of.items()
    }
    dealt: dict[int, P] = {}

    def give(row: int, need: dict[P, float]) -> None:
        # Rounded, so that sums that differ in their last bit alone are equal.
        split = max(
            shares, key=lambda one: (round(need[one], 9), round(wanted[one], 9), places[one])
        )
        dealt[row] = split
        wanted[split] -= weights[row]
        for stratum in strata[row]:
            wanted_of[stratum][split] -= weights[row]
            left[stratum] -= 1

    def rarest() -> Hashable:
        open_ones = (one for one in left if left[one] > 0)
        return min(open_ones, key=lambda one: (left[one], str(one)), default=None)

    while (stratum := rarest()) is not None:  # 0 is one, too
        for row in rows_of[stratum]:
            if row not in dealt:
                give(row, wanted_of[stratum])
    for row in range(len(strata)):
        if row not in dealt:
            give(row, wanted)
    return [dealt[row] for row in range(len(strata))]

"""Splits that keep each label's share, or the spread of numbers.

Labels come together in ways that a draw for each image alone does not keep: of a label that one
image in a hundred has, a held-out split may get none. So images are dealt out, label by label,
the rarest first. Numbers are dealt out likewise, by the tenth of all values that they lie in.

The order in which images are dealt out is that of their contents, so names, folders and lines do
not matter, and copies of one content are dealt out as one. Other than with classes, images that
are added may move some of the others.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from headstart.config import SPLITS, DatasetConfig, Split, TargetKind
from headstart.tasks.dataset.inspection import InspectedImage
from headstart.tasks.dataset.splits import is_drawn, split_position

NUM_QUANTILES = 10


def stratify_images(
    images: Sequence[InspectedImage], config: DatasetConfig, kind: TargetKind
) -> list[Split]:
    """Decide the split of each image that has labels or numbers.

    Splits that the data gives hold; a train split without a val split gives up part of itself.

    Args:
        images: All usable images.
        config: Fractions and seed.
        kind: "labels" or "number".

    Returns:
        The split of each.

    Source:
        Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011,
        algorithm 1.
    """
    given = {image.listed.split for image in images}
    drawn = {image.digest: image for image in images if is_drawn(image, given)}
    shares: dict[Split, float] = {"train": 0.0, "val": config.val_fraction}
    if None in given:
        shares["test"] = config.test_fraction
    shares["train"] = 1.0 - sum(shares.values())
    order = sorted(drawn, key=lambda digest: (split_position(digest, config.split_seed), digest))
    copies = Counter(image.digest for image in images)
    dealt = _deal(
        [_strata_of(drawn[digest]) for digest in order]
        if kind == "labels"
        else _quantiles([drawn[digest].listed.values for digest in order]),
        [copies[digest] for digest in order],
        shares,
    )
    split_of = dict(zip(order, dealt, strict=True))
    return [split_of.get(image.digest) or image.listed.split or "train" for image in images]


def _strata_of(image: InspectedImage) -> set[Hashable]:
    return set(image.listed.values)


def _quantiles(values: Sequence[tuple[float, ...]]) -> list[set[Hashable]]:
    """Say of each row in which tenth of each column it lies."""
    table = np.array(values, np.float64)
    strata: list[set[Hashable]] = [set() for _ in values]
    if not table.size:
        return strata
    inner = np.linspace(0.0, 1.0, NUM_QUANTILES + 1)[1:-1]
    for column in range(table.shape[1]):
        edges = np.quantile(table[:, column], inner)
        for row, place in enumerate(np.searchsorted(edges, table[:, column])):
            strata[row].add((column, int(place)))
    return strata


def _deal(
    strata: Sequence[set[Hashable]], weights: Sequence[int], shares: dict[Split, float]
) -> list[Split]:
    """Deal rows out to splits, those of the rarest stratum first."""
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
    dealt: dict[int, Split] = {}

    def give(row: int, need: dict[Split, float]) -> None:
        # Rounded, so that sums that differ in their last bit alone are equal.
        split = max(
            shares, key=lambda one: (round(need[one], 9), round(wanted[one], 9), -SPLITS.index(one))
        )
        dealt[row] = split
        wanted[split] -= weights[row]
        for stratum in strata[row]:
            wanted_of[stratum][split] -= weights[row]
            left[stratum] -= 1

    while stratum := min(
        (one for one in left if left[one] > 0), key=lambda one: (left[one], str(one)), default=None
    ):
        for row in rows_of[stratum]:
            if row not in dealt:
                give(row, wanted_of[stratum])
    for row in range(len(strata)):
        if row not in dealt:
            give(row, wanted)
    return [dealt[row] for row in range(len(strata))]

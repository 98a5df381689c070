"""Which split an image belongs to, and which of its copies stay.

u = SHA-256("{split_seed}:{digest}"), read as a fraction in [0, 1),
depends on the seed and the image's own bytes alone, and the split is read off fixed
thresholds. So adding, removing, renaming or relabelling images moves no other image. The same
thresholds hold in every class, which stratifies in expectation; exact shares for each class
would need ranks within the class, and then every added image could move others. The price is
chance: among n images a share p varies by about sqrt(p (1 - p) / n), and a class of a few images
may miss a split altogether, which is told as a warning. A class that would be left without an
image to train on keeps one, so that it can be learned: the one nearest to the train split.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from headstart.config import SPLITS, DatasetConfig, Split
from headstart.tasks.dataset.inspection import InspectedImage
from headstart.tasks.dataset.problems import Problem

_HELD_OUT_FIRST = {split: rank for rank, split in enumerate(reversed(SPLITS))}


def split_position(digest: str, split_seed: int) -> float:
    """Place an image in [0, 1), uniformly over images and for ever.

    Args:
        digest: SHA-256 of the image's bytes, in hexadecimal; or the name of its group.
        split_seed: Seed of the split.

    Returns:
        u in [0, 1): its test, then its val, then its train share.
    """
    hashed = hashlib.sha256(f"{split_seed}:{digest}".encode()).digest()
    return int.from_bytes(hashed[:6], "big") / 2**48  # 53 bits at most are exact in a float


def split_images(
    images: Sequence[InspectedImage], config: DatasetConfig
) -> tuple[list[Split], list[Problem]]:
    """Decide the split of each image.

    Splits that the data gives hold. A train split without a val split gives up part of itself:
    early stopping and tuning look at val; taken from test, they would spoil the test. Where chance
    would hold out all images of a class, one content of it stays in train.

    Returns:
        The split of each, and a warning for each class that chance would have emptied.
    """
    given = {image.listed.split for image in images}
    units = units_of(images)
    splits = [
        _split_of(image, unit, given, config) for image, unit in zip(images, units, strict=True)
    ]
    by_class: defaultdict[str, list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        by_class[image.listed.label].append(number)
    of_unit: defaultdict[str, list[int]] = defaultdict(list)
    for number, unit in enumerate(units):
        of_unit[unit].append(number)
    problems = []
    for label, numbers in by_class.items():
        drawn = [number for number in numbers if is_drawn(images[number], given)]
        if not drawn or any(splits[number] == "train" for number in numbers):
            continue
        nearest = max((split_position(units[number], config.split_seed), units[number])
                      for number in drawn)[1]  # fmt: skip
        kept = [number for number in drawn if units[number] == nearest]
        for number in of_unit[nearest]:
            if is_drawn(images[number], given):
                splits[number] = "train"
        reason = (
            f"{images[kept[0]].listed.path} is kept in train: otherwise chance would have "
            "held out all images of this class"
        )
        problems.append(Problem(label, "few_images", reason, left_out=False))
    return splits, problems


def units_of(images: Sequence[InspectedImage]) -> list[str]:
    """Say of each image what it stays in one split with.

    Returns:
        A name each: the image's digest, or that of its group. Groups that share an image are one.
    """
    group_of: dict[str, str] = {}  # by digest
    joined: dict[str, str] = {}  # by group, one of the same unit that sorts before it

    def first(group: str) -> str:
        while (other := joined.get(group, group)) != group:
            group = other
        return group

    for image in images:
        if group := image.listed.group:
            one, other = sorted((first(group), first(group_of.get(image.digest, group))))
            joined[other] = one
            group_of[image.digest] = one
    return [
        f"group {first(group_of[image.digest])}" if image.digest in group_of else image.digest
        for image in images
    ]


def divided_groups(images: Sequence[InspectedImage], splits: Sequence[Split]) -> Iterator[Problem]:
    """Warn of groups that given splits have divided; nothing is left out."""
    found: defaultdict[str, set[Split]] = defaultdict(set)
    for image, split in zip(images, splits, strict=True):
        if image.listed.group:
            found[image.listed.group].add(split)
    for group, own in found.items():
        if len(own) > 1:
            reason = f"images of this group are in {' and '.join(sorted(own))}, as the splits are "
            reason += "given: the model is trained on some of them and evaluated on others"
            yield Problem(group, "divided_group", reason, left_out=False)


def is_drawn(image: InspectedImage, given: set[Split | None]) -> bool:
    """Tell whether chance decides between train and a held-out split."""
    split = image.listed.split
    return split is None or (split == "train" and "val" not in given)


def _split_of(
    image: InspectedImage, unit: str, given: set[Split | None], config: DatasetConfig
) -> Split:
    split = image.listed.split
    if split is None:
        position = split_position(unit, config.split_seed)
        if position < config.test_fraction:
            return "test"
        return "val" if position < config.test_fraction + config.val_fraction else "train"
    if split == "train" and "val" not in given:
        position = split_position(unit, config.split_seed)
        return "val" if position < config.val_fraction else "train"
    return split


def resolve_duplicates(
    images: list[InspectedImage],
) -> tuple[list[InspectedImage], list[Problem]]:
    """Leave out copies that would make labels or the judgement wrong.

    Copies in one class and one split all stay. The same bytes under two labels all go, as
    neither label can be told to be the right one. Of copies in several given splits, those in
    one split stay: test before val before train.

    Returns:
        The images that stay, and a problem for each of the others.
    """
    by_digest: defaultdict[str, list[InspectedImage]] = defaultdict(list)
    for image in images:
        by_digest[image.digest].append(image)
    kept: list[InspectedImage] = []
    problems: list[Problem] = []
    for copies in by_digest.values():
        if len({copy.listed.label for copy in copies}) > 1:
            problems += _conflicts(copies)
        else:
            staying, straddling = _keep_held_out(copies)
            kept += staying
            problems += straddling
    return kept, problems


def _conflicts(copies: list[InspectedImage]) -> Iterable[Problem]:
    by_path = sorted((copy.listed for copy in copies), key=lambda listed: listed.path)
    first = by_path[0]
    # The first of another label than the first's: what copies of the first's label are told.
    second = next(listed for listed in by_path if listed.label != first.label)
    for copy in copies:
        other = second if copy.listed.label == first.label else first
        reason = f"labelled {copy.listed.label}, but {other.path} has the same bytes and is "
        yield Problem(copy.listed.path, "label_conflict", f"{reason}labelled {other.label}")


def _keep_held_out(
    copies: list[InspectedImage],
) -> tuple[list[InspectedImage], list[Problem]]:
    """Keep one content on one side of given splits: test before val before train.

    An image that is both trained and judged on makes the judgement too good. Leaving out the
    training copy keeps the held-out splits as given, and comparable with others' figures.
    """
    splits = {copy.listed.split for copy in copies}
    if len(splits) == 1:
        return copies, []
    keep = min((split for split in splits if split), key=_HELD_OUT_FIRST.__getitem__)
    staying = [copy for copy in copies if copy.listed.split == keep]
    held = min(copy.listed.path for copy in staying)
    problems = [
        Problem(
            copy.listed.path,
            "straddling_duplicate",
            f"in {copy.listed.split}, but {held} in {keep} has the same bytes; only that one stays",
        )
        for copy in copies
        if copy.listed.split != keep
    ]
    return staying, problems

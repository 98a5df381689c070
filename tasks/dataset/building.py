"""The data set stage: a folder or manifest becomes an index of usable, labelled, split images.

Building is always run and is itself incremental: with a `FileCache`, a file whose stat has not
changed is not read, and bytes that were decoded once are not decoded again.
"""

import difflib
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from headstart.config import DatasetConfig, Split, TargetKind
from headstart.errors import DatasetError
from headstart.tasks.dataset.class_names import doubtful_names
from headstart.tasks.dataset.exclusion import read_exclusions
from headstart.tasks.dataset.file_cache import FileCache
from headstart.tasks.dataset.image_manifest import MANIFEST_SUFFIXES, list_manifest
from headstart.tasks.dataset.index import DatasetIndex, ImageRow, natural_key
from headstart.tasks.dataset.inspection import InspectedImage, inspect_files
from headstart.tasks.dataset.layout import Place, has_folders
from headstart.tasks.dataset.listing import ListedImage, Listing, list_folder
from headstart.tasks.dataset.other_tables import conversion
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.problems import (
    PROBLEM_KINDS,
    Problem,
    links_first,
    refuse_passing,
)
from headstart.tasks.dataset.splits import (
    divided_groups,
    resolve_duplicates,
    split_images,
    split_position,
    units_of,
)
from headstart.tasks.dataset.stratifying import stratify_images

__all__ = [
    "DatasetIndex",
    "FileCache",
    "ImageRow",
    "Problem",
    "build_index",
    "dataset_root",
    "split_position",
]

_OF_MANIFESTS = (
    *("root", "path_column", "label_column", "split_column", "group_column", "path_suffix"),
    *("label_separator", "label_columns", "no_label", "target_columns", "strip_prefix"),
    *("number_unit", "thousands_sign", "missing_values"),
)
_MAX_CLASSES_IN_A_WARNING = 5
_MAX_PROBLEMS_IN_AN_ERROR = 20


def dataset_root(config: DatasetConfig) -> Path:
    """Give the folder that the paths of the index's rows start at.

    Args:
        config: The data set's configuration.

    Returns:
        The image folder itself; of a manifest, ``config.root`` or the folder that it lies in.
    """
    images = config.images.expanduser()
    if images.is_dir():
        return images
    return images.parent if config.root is None else config.root.expanduser()


def build_index(
    config: DatasetConfig,
    cache: FileCache | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    for_training: bool = True,
) -> DatasetIndex:
    """Find, hash, decode, de-duplicate and split the images of a data set.

    Args:
        config: Where the images are and how they are split.
        cache: What earlier runs found out; None looks into every file.
        on_progress: Called with (files done, files in all) now and then.
        for_training: Ask for what training needs: two classes, images to train on, and a
            warning where a split lacks a class. Else any usable image will do.

    Returns:
        The index. Whatever is not in it has a line in its problems.

    Raises:
        DatasetError: If there is no such folder or manifest, no image is usable, there are fewer
            than two classes or nothing to train on, or, where `config.strict`, if anything had
            to be left out.
    """
    listing = _list(config, min_classes=2 if for_training else 1)
    inspection = inspect_files(listing.images, config.max_pixels, cache, on_progress)
    problems = listing.problems + inspection.problems
    if not inspection.images:
        raise _no_usable_image(config, problems, listing.advice)
    usable = inspection.images
    if config.exclude is not None:
        usable, excluded = read_exclusions(config.exclude).apply(usable)
        problems += excluded
    images, duplicates = resolve_duplicates(usable)
    problems += duplicates
    kind, class_names = listing.kind, _names(listing, images)
    problems += _empty_classes(listing, class_names)
    if for_training and kind == "class" and len(class_names) < 2:
        raise _too_few_classes(config, listing, class_names, problems)
    if for_training and kind == "labels" and not any(one.listed.values for one in images):
        raise DatasetError(
            "no image has a label",
            f"{config.images}: {len(images):,} images, none of {len(class_names):,} labels"
            if class_names
            else f"{config.images}: {len(images):,} images, whose cells are all empty",
            "name the columns that hold the labels, and their values for yes and no: "
            "dataset.label_column, dataset.label_columns, dataset.label_values",
        )
    if kind != "number":
        problems += doubtful_names(class_names)
    if kind == "class":
        splits, kept = split_images(images, config)
        problems += kept
    else:
        splits = stratify_images(images, config, kind)
    problems += divided_groups(images, splits)
    rows = _make_rows(images, splits, class_names, kind)
    if for_training:
        drawn = any(image.listed.split is None for image in images)
        problems += _thin_splits(rows, class_names, config, kind, drawn)
    index = DatasetIndex(
        kind=kind,
        class_names=class_names,
        rows=rows,
        problems=tuple(sorted(problems, key=_problem_key)),
        num_files_seen=listing.num_files_seen,
        num_ignored=listing.num_ignored,
        num_hashed=inspection.num_hashed,
        num_decoded=inspection.num_decoded,
    )
    if for_training and not index.rows_of("train"):
        raise _nothing_to_train_on(config, index)
    if for_training and kind == "class":
        _refuse_other_classes(config, index)
    if config.strict and any(problem.kind != "excluded" for problem in index.left_out):
        raise _refused(config, index)
    return index


def _list(config: DatasetConfig, min_classes: int) -> Listing:
    images = config.images.expanduser()
    if address := re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):/", str(images)):
        raise DatasetError(
            "images must be a folder or a manifest on this machine",
            f"{images}, a URL",
            f"download what lies there first (from {address[1]}), and give the local folder; only "
            "the store may be in a bucket: --store",
        )
    try:
        mode = images.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError("there is no such image folder or manifest", *_missing(images)) from None
    except OSError as error:
        refuse_passing(error, str(images))
        reason = f"{images}: {(error.strerror or type(error).__name__).lower()}"
        raise DatasetError(
            "the image folder or manifest cannot be read",
            reason,
            "check the path, and who may read it",
        ) from None
    if stat.S_ISDIR(mode):
        _refuse_settings_of_manifests(config)
        return list_folder(config, min_classes)
    if images.suffix.lower() in MANIFEST_SUFFIXES and stat.S_ISREG(mode):
        return list_manifest(images, config)
    raise DatasetError(
        "this is neither a folder of images nor a manifest in CSV or Parquet",
        str(images),
        f"give a folder, or a file whose name ends in {', '.join(MANIFEST_SUFFIXES)}"
        f"{conversion(images)}",
    )


def _refuse_settings_of_manifests(config: DatasetConfig) -> None:
    told = [f"dataset.{name}" for name in _OF_MANIFESTS if getattr(config, name)]
    if config.target in ("labels", "number"):
        told.append(f"dataset.target={config.target}")
    if told:
        raise DatasetError(
            f"{', '.join(told)} {'is' if len(told) == 1 else 'are'} only for manifests",
            f"{config.images}, a folder",
            "leave it out, or give the manifest",
        )


def _missing(images: Path) -> tuple[str, str]:
    parent = images.absolute()
    while not parent.is_dir() and parent != parent.parent:
        parent, name = parent.parent, parent.name
    received = f"{images}, which does not exist"
    try:
        names = [entry.name for entry in parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        names = []
    if close := difflib.get_close_matches(name, names, n=1):
        return received, f"did you mean {printable(str(parent / close[0]))}?"
    return received, f"check the path; {parent} is the nearest folder that exists"


def _names(listing: Listing, images: list[InspectedImage]) -> tuple[str, ...]:
    """Name the classes, labels or numbers, in their order."""
    if listing.names:
        return listing.names
    if listing.kind == "labels":
        found = {value for image in images for value in image.listed.values}
    else:
        found = {image.listed.label for image in images}
    return tuple(sorted(found, key=natural_key))


def _make_rows(
    images: list[InspectedImage],
    splits: list[Split],
    class_names: tuple[str, ...],
    kind: TargetKind,
) -> tuple[ImageRow, ...]:
    label_of = {name: label for label, name in enumerate(class_names)}

    def values(listed: ListedImage) -> tuple[float, ...]:
        if kind == "labels":
            return tuple(sorted(label_of[name] for name in listed.values))
        return listed.values

    rows = [
        ImageRow(
            path=image.listed.path,
            digest=image.digest,
            label=label_of[image.listed.label] if kind == "class" else 0,
            split=split,
            width=image.verdict.width,
            height=image.verdict.height,
            format=image.verdict.format,
            values=values(image.listed),
            group="" if unit == image.digest else unit,
        )
        for image, split, unit in zip(images, splits, units_of(images), strict=True)
    ]
    return tuple(sorted(rows))


def _empty_classes(listing: Listing, class_names: tuple[str, ...]) -> Iterable[Problem]:
    present = set(class_names)
    for name, place in listing.class_places.items():
        if name not in present:
            reason = f"the class {name} has no usable image, so it is not a class"
            yield Problem(place, "empty_class", reason)


def _thin_splits(
    rows: tuple[ImageRow, ...],
    class_names: tuple[str, ...],
    config: DatasetConfig,
    kind: TargetKind,
    drawn: bool,
) -> Iterable[Problem]:
    index = DatasetIndex(class_names, rows, kind=kind)
    counts = index.split_counts
    if kind == "labels":
        sizes = index.split_sizes
        everywhere = [
            name
            for number, name in enumerate(class_names)
            if counts.get("train", ())[number:][:1] == (sizes.get("train"),)
        ]
        if everywhere:
            reason = "all train images have it, so the model cannot learn when it is absent"
            yield from _thin(everywhere, reason)
    if "val" not in counts and len(rows) > 0:
        reason = f"no image was assigned to it (dataset.val_fraction is {config.val_fraction})"
        yield Problem("val", "few_images", f"{reason}; add images or raise it", left_out=False)
    warnings = {"train": "so it cannot be learned", "val": "so validation says nothing about it"}
    for split, of_class in counts.items():
        missing = [name for name, number in zip(class_names, of_class, strict=True) if not number]
        if missing and split in warnings:
            reason = f"no {split} image, {warnings[split]}; add images"
            reason += " or change dataset.split_seed" if drawn else ""
            yield from _thin(missing, reason)


def _thin(names: list[str], reason: str) -> Iterable[Problem]:
    """Warn of some classes at once, of many one by one: each is named where all is listed."""
    together = len(names) <= _MAX_CLASSES_IN_A_WARNING
    for told in [", ".join(names)] if together else names:
        yield Problem(told, "few_images", reason, left_out=False)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_CLASSES_IN_A_WARNING])
    num_more = len(names) - _MAX_CLASSES_IN_A_WARNING
    return f"{shown} and {num_more:,} more classes" if num_more > 0 else shown


def _problem_key(problem: Problem) -> tuple[int, str, str]:
    return PROBLEM_KINDS.index(problem.kind), problem.path, problem.reason


def _no_usable_image(config: DatasetConfig, problems: list[Problem], advice: str) -> DatasetError:
    if problems and all(problem.kind == "missing" for problem in problems if problem.left_out):
        start = "check the paths, which are relative to the manifest's folder or to dataset.root"
        return DatasetError(
            "none of the images in the manifest exists",
            f"{config.images}: none{_told(problems)}",
            f"{advice} finds them"
            if advice
            else f"{start}; see also dataset.strip_prefix and dataset.path_suffix",
        )
    if not config.images.expanduser().is_dir():
        return DatasetError(
            "no usable image was found",
            f"{config.images}: none{_told(problems)}",
            "fix these lines or files, or give another manifest; the dataset settings say how it "
            "is read (`headstart config train`)",
        )
    return DatasetError(
        "no usable image was found",
        f"{config.images}: none{_told(problems)}",
        links_first(
            problems,
            "put the images of each class into a sub-folder of its own, or give a manifest",
        ),
    )


def _too_few_classes(
    config: DatasetConfig,
    listing: Listing,
    class_names: tuple[str, ...],
    problems: list[Problem],
) -> DatasetError:
    found = f"only the class {class_names[0]}" if class_names else "no class"
    cure = "add images of another class"
    place = listing.class_places[class_names[0]] if class_names else ""
    folder = config.images.expanduser() / place
    if folder.is_dir() and has_folders(Place(folder.name, str(folder), place)):
        inner = printable(str(config.images / place))
        cure = f"if the classes are the folders inside it, give {inner} as the path; else {cure}"
    return DatasetError(
        "at least two classes with usable images are needed",
        f"{config.images}: {found}{_told(problems)}",
        links_first(problems, cure),
    )


def _refuse_other_classes(config: DatasetConfig, index: DatasetIndex) -> None:
    """Refuse a held-out split that has none of the classes that are trained on."""
    counts = index.split_counts
    trained = {label for label, number in enumerate(counts["train"]) if number}
    for split in ("val", "test"):
        there = {label for label, number in enumerate(counts.get(split, ())) if number}
        if not there or there & trained:
            continue
        of_split = _some([index.class_names[label] for label in sorted(there)])
        of_train = _some([index.class_names[label] for label in sorted(trained)])
        raise DatasetError(
            "a held-out split has none of the classes that are trained on",
            f"{config.images}: {split} has {printable(of_split)}, train has {printable(of_train)}",
            f"name the classes of {split} as those of train, with the images of each in a folder "
            f"of its own; or leave {split} out (dataset.split_names, with ignore)",
        )


def _nothing_to_train_on(config: DatasetConfig, index: DatasetIndex) -> DatasetError:
    found = " / ".join(f"{split} {number:,}" for split, number in index.split_sizes.items())
    return DatasetError(
        "there are no images to train on",
        f"{config.images}: {found}{_told(index.problems)}",
        links_first(
            index.problems,
            "add a train split or more images, or lower dataset.val_fraction and "
            "dataset.test_fraction",
        ),
    )


def _refused(config: DatasetConfig, index: DatasetIndex) -> DatasetError:
    lines = "\n".join(f"  {problem}" for problem in index.left_out)
    return DatasetError(
        "the data set has problems, and dataset.strict is true",
        f"{config.images}: {len(index.left_out):,} left out\n{lines}",
        "fix or remove these, or set dataset.strict to false to continue without them",
    )


def _told(problems: Iterable[Problem]) -> str:
    left_out = sorted((p for p in problems if p.left_out), key=_problem_key)
    lines = [f"\n  {problem}" for problem in left_out[:_MAX_PROBLEMS_IN_AN_ERROR]]
    if (num_more := len(left_out) - _MAX_PROBLEMS_IN_AN_ERROR) > 0:
        lines.append(f"\n  … and {num_more:,} more")
    return "".join(lines)

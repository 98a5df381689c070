"""How a folder of images is laid out: which folders are splits, which classes, and which neither.

Split folders are known by their names: one word for a split (``train``, ``validation``,
``test`` and the like), alone or beside words that say nothing (``Training_Set``, ``val2017``,
``seg_test``). A tree that may be read in two ways is refused, with the setting that settles it.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

from headstart.config import SPLITS, DatasetConfig, Split
from headstart.errors import DatasetError
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.problems import refuse_passing

Meaning = Split | Literal["ignore"]

EXACT: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Names, in lower case, that mean a split beyond doubt."""

_WORDS: dict[str, Split] = {
    **EXACT,
    **dict.fromkeys(("training", "trn"), "train"),
    **dict.fromkeys(("validate", "dev", "devel", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("testing", "tst"), "test"),
}
_FILLERS = {
    *("set", "sets", "data", "dataset", "datasets", "split", "splits", "part", "folder", "dir"),
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pics"),
    *("file", "files", "sample", "samples", "seg", "my", "the", "all", "full", "final", "new"),
    *("original", "cropped", "resized", "augmented", "aug", "clean", "raw", "small", "mini"),
}
"""Words beside a split's that say nothing."""

_JUNK = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "recycler", "lost+found"),
    *("system volume information", "__pycache__", "network trash folder", "temporary items"),
    *("node_modules", "cvs"),
}
_JUNK_ENDINGS = (":zone.identifier", ":encryptable")
"""What systems and tools leave in a folder, in lower case; all that begins with a dot besides. The
endings are of Windows' streams, which became files when they were copied."""
_OF_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "jpg", "jpeg", "photos", "pictures"}
_BESIDE_IMAGES = {
    *("annotations", "annotation", "labels", "label", "masks", "mask", "trimaps", "xmls", "xml"),
    *("segmentations", "segmentation", "segmentationclass", "groundtruth", "ground_truth", "gt"),
    *("attributes", "parts", "boxes", "bboxes", "imagesets"),
}
"""Folders that data sets have beside a folder of images, for what belongs to each image."""
_NUMBERED = re.compile(r"(fold|split|part|batch|chunk|shard)s?[ _-]?\d+")
"""Names of parts of a data set, in lower case."""
_NUM_LOOKED_INTO = 6
"""Folders whose inner folders are looked at: of more, hardly any data set's are splits."""


class Place(NamedTuple):
    """A folder or regular file met on the walk."""

    name: str
    file: str
    path: str


class Layout(NamedTuple):
    """What the folders in a root are.

    Attributes:
        splits: Split folders, and the split of each; none where the root holds the classes.
        ignored: Folders that are passed over, as the user said.
        guessed: Split folders whose names are not those beyond doubt.
    """

    splits: list[tuple[Place, Split]]
    classes: list[Place]
    ignored: list[Place]
    guessed: list[tuple[Place, Split]]


def is_junk(name: str) -> bool:
    """Tell whether a name is hidden, or one that systems and tools leave in a folder."""
    lowered = name.casefold()
    return name.startswith(".") or lowered in _JUNK or lowered.endswith(_JUNK_ENDINGS)


def split_meant(name: str, given: Mapping[str, Meaning]) -> Meaning | None:
    """Say which split a folder's name, or a value of a manifest, means.

    Args:
        name: Compared without regard to case.
        given: What the user says that names mean.

    Returns:
        The split, "ignore" where the user says so, or None where it means no split.
    """
    told = {key.strip().casefold(): meaning for key, meaning in given.items()}
    text = name.strip()
    if text.casefold() in told:
        return told[text.casefold()]
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))
    lowered = [word.casefold() for word in words]
    found = {_word_split(word) for word in lowered if word not in _FILLERS}
    return found.pop() if len(found) == 1 else None


def _word_split(word: str) -> Split | None:
    """Look a word up, also with "set" or "data" written on to it."""
    return _WORDS.get(word) or _WORDS.get(re.sub(r"(sets?|data|images?|imgs?)$", "", word))


def decide_layout(root: Path, folders: Sequence[Place], config: DatasetConfig) -> Layout:
    """Say what the folders in a root are.

    Args:
        root: As the user named it.
        folders: Those in it that are not junk.
        config: What the user says of them.

    Raises:
        DatasetError: They may be read in two ways, or the user names one that is not there.
    """
    given = config.split_names
    _refuse_unmet(root, folders, given)
    meant = {folder: split_meant(folder.name, given) for folder in folders}
    ignored = [folder for folder in folders if meant[folder] == "ignore"]
    folders = [folder for folder in folders if meant[folder] != "ignore"]
    if config.layout == "classes":
        return Layout([], list(folders), ignored, [])
    told = {key.strip().casefold() for key in given}
    splits = [(folder, split) for folder in folders if (split := meant[folder]) in SPLITS]
    is_told = any(folder.name.casefold() in told for folder, _ in splits)
    others = [folder for folder in folders if meant[folder] is None]
    if splits and others and not is_told and not any(has_folders(place) for place, _ in splits):
        if len({split for _, split in splits}) > 1:
            raise _refuse_flat(root, [folder for folder, _ in splits])
        splits, others = [], list(folders)  # a class that happens to be called "train"
    if splits and others:
        raise _refuse_mixed(root, [folder for folder, _ in splits], others)
    if splits:
        sure = told | set(EXACT)
        guessed = [pair for pair in splits if pair[0].name.casefold() not in sure]
        return Layout(splits, [], ignored, guessed)
    _refuse_doubtful(root, folders)
    return Layout([], list(folders), ignored, [])


def refuse_parts(root: Path, folders: Sequence[Place]) -> None:
    """Refuse folders of which one holds the images, and another what belongs to each image.

    Args:
        root: As the user named it.
        folders: Those that would be classes side by side.

    Raises:
        DatasetError: Their names say so.
    """
    images = [place for place in folders if place.name.casefold() in _OF_IMAGES]
    beside = [place for place in folders if place.name.casefold() in _BESIDE_IMAGES]
    if not images or not beside:
        return
    first = images[0]
    cure = "name the images and their classes in a manifest, a CSV file with the columns path and "
    cure += "label; or --set dataset.layout=classes, where each of these folders is a class"
    if has_folders(first):
        inner = printable(str(root / first.path))
        cure = f"if the classes are the folders inside it, give {inner} as the path; {cure}"
    raise DatasetError(
        "these folders are images and their annotations, not classes",
        f"{root}: {some([place.path for place in [*images, *beside]])}",
        cure,
    )


def has_folders(place: Place) -> bool:
    """Tell whether a folder holds at least one folder that is not junk."""
    return bool(_inner(place)[0])


def _within(place: Place, names: Iterable[str]) -> list[Place]:
    return [Place(one, f"{place.file}/{one}", f"{place.path}/{one}") for one in names]


def _inner(place: Place) -> tuple[set[str], bool]:
    """Give the names of the folders in a folder, and whether files lie beside them."""
    names: set[str] = set()
    has_files = False
    try:
        with os.scandir(place.file) as entries:
            for entry in entries:
                if is_junk(entry.name):
                    continue
                if entry.is_dir():
                    names.add(entry.name)
                else:
                    has_files = True
    except OSError as error:
        refuse_passing(error, place.file)
    return names, has_files


def _refuse_unmet(root: Path, folders: Sequence[Place], given: Mapping[str, Meaning]) -> None:
    there = {folder.name.strip().casefold() for folder in folders}
    unmet = [name for name in given if name.strip().casefold() not in there]
    if unmet:
        raise DatasetError(
            "dataset.split_names names a folder that is not there",
            f"{root}: there is no {', '.join(map(printable, unmet))} among "
            f"{some([folder.path for folder in folders]) or 'its folders'}",
            "write the names exactly as they are, or remove these",
        )


def _refuse_mixed(root: Path, splits: list[Place], others: list[Place]) -> DatasetError:
    names = yaml.safe_dump(
        {folder.name: "ignore" for folder in others[:4]}, default_flow_style=True, width=1000
    ).strip()
    return DatasetError(
        "the folder mixes split folders (train/, val/, test/) with class folders",
        f"{root}: {some([place.path for place in splits])} beside "
        f"{some([place.path for place in others])}",
        "move the class folders into a split folder, or the other folders out of the root; or say "
        f"what they are: --set 'dataset.split_names={names}' (train, val, test or ignore), or "
        "--set dataset.layout=classes where each folder in the root is a class",
    )


def _refuse_flat(root: Path, splits: list[Place]) -> DatasetError:
    return DatasetError(
        "the split folders hold no class folders",
        f"{root}: {some([place.path for place in splits])} hold only files",
        "put the images of each class into a folder of its own, in each split; or name them and "
        "their classes in a manifest, a CSV file with the columns path and label (and split); or "
        "--set dataset.layout=classes where each folder in the root is a class",
    )


def _refuse_doubtful(root: Path, folders: Sequence[Place]) -> None:
    """Refuse what look like class folders but may well be something else."""
    looked = [(place, *_inner(place)) for place in folders[:_NUM_LOOKED_INTO]]
    for place, names, _ in looked:
        splits = {name: meant for name in names if (meant := EXACT.get(name.casefold()))}
        if len(set(splits.values())) > 1 or any(map(has_folders, _within(place, splits))):
            found = some([f"{place.path}/{name}" for name in sorted(names)])
            raise DatasetError(
                "the split folders do not lie directly in the given folder",
                f"{root}: split folders lie one level deeper ({found})",
                f"give {printable(str(root / place.name))} as the path; where the folders in the "
                "root are the classes, move the splits above them, or make one of all splits with "
                "--set dataset.layout=classes",
            )
    refuse_parts(root, folders)
    if len(folders) > 1 and all(_NUMBERED.fullmatch(place.name.casefold()) for place in folders):
        raise DatasetError(
            "these folders are numbered, like parts of a data set and not like classes",
            f"{root}: {some([place.path for place in folders])}",
            "put the images of each class into a folder of its own; or --set "
            "dataset.layout=classes where each of these folders is a class",
        )
    if not 2 <= len(looked) == len(folders):
        return
    shared = set.intersection(*(names for _, names, _ in looked))
    together = set.union(*(names for _, names, _ in looked))
    if len(shared) < 2 or 2 * len(shared) < len(together) or any(files for *_, files in looked):
        return
    paths = [place.path for place, *_ in looked]
    example = f"{{{looked[0][0].name}: train, {looked[1][0].name}: test}}"
    raise DatasetError(
        "it is unclear whether these folders are classes or splits",
        f"{root}: {some(paths)} hold folders with the same names ({some(sorted(shared))}), as the "
        "splits of a data set do",
        f"say what they are: --set 'dataset.split_names={example}' (train, val, test or ignore), "
        "or --set dataset.layout=classes",
    )


def some(paths: Sequence[str]) -> str:
    """Name a few folders of many."""
    shown = ", ".join(f"{printable(path)}/" for path in paths[:4])
    return f"{shown} and {len(paths) - 4} more" if len(paths) > 4 else shown

"""Which image files a folder holds, and what stands in the way of the others.

Two layouts: ``root/<class>/**`` and ``root/<split>/<class>/**``; `headstart.tasks.dataset.layout`
tells one from the other. Nothing but names and stats is read here, except the signatures of files
that lie beside the class folders.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from headstart.config import DatasetConfig, Split, TargetKind
from headstart.errors import DatasetError
from headstart.tasks.dataset.class_names import class_name, merged_names
from headstart.tasks.dataset.decode import PREFIX_BYTES, looks_like_image
from headstart.tasks.dataset.layout import (
    Place,
    decide_layout,
    has_folders,
    is_junk,
    refuse_parts,
    some,
)
from headstart.tasks.dataset.manifest_table import MANIFEST_SUFFIXES
from headstart.tasks.dataset.own_outputs import own_output
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.problems import Problem, ProblemKind, links_first, refuse_passing
from headstart.tasks.dataset.walking import FolderWalk

_MAX_PROBLEMS_SHOWN = 5
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
"""File name endings, in lower case, of what must be unpacked first."""


class ListedImage(NamedTuple):
    """A file that is to be looked into.

    Attributes:
        path: Path relative to the root, POSIX style.
        file: Path to open, as text.
        split: The split the data gives it, if any.
        values: Names of its labels, or its numbers; empty where it has a class.
        group: Group of images that stay in one split; empty where it stands for itself.
    """

    path: str
    file: str
    label: str
    split: Split | None
    values: tuple[Any, ...] = ()
    group: str = ""


@dataclass
class Listing:
    """What was found by name.

    Attributes:
        images: Files to look into, in the order found.
        problems: What stood in the way of others.
        class_places: Class name to the folder or manifest that declares it.
        num_files_seen: Files (or manifest lines) met, hidden and junk ones not counted.
        num_ignored: Hidden and junk files and folders passed over.
        kind: What is learned of the images.
        names: Of labels or numbers, where the manifest's columns are called by them.
        advice: The settings that would find images which a manifest names and are not there.
    """

    images: list[ListedImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    class_places: dict[str, str] = field(default_factory=dict)
    num_files_seen: int = 0
    num_ignored: int = 0
    kind: TargetKind = "class"
    names: tuple[str, ...] = ()
    advice: str = ""


def list_folder(config: DatasetConfig, min_classes: int = 2) -> Listing:
    """List the images of a class folder tree.

    Symbolic links that stay inside the root are followed, others where the user says so; no
    folder is entered twice.

    Args:
        config: Names the root, an existing folder, and says how it is to be read.
        min_classes: Fewer class folders than this are refused.

    Returns:
        Every file below a class folder, whatever its extension.

    Raises:
        DatasetError: If it cannot be told which folders are classes, or there are too few.
    """
    root = config.images.expanduser()
    walk = _Walk(root, config.allow_outside)
    folders, files = walk.folders.entries(os.path.realpath(root), "")
    folders = walk.without_own_outputs(folders)
    layout = decide_layout(root, folders, config)
    walk.note_guesses(layout.guessed)
    walk.note_same(layout.splits, config.split_names)
    walk.note_stray(files, "lies beside the class folders, so it has no class")
    found: list[tuple[list[Place], Split | None]] = [(layout.classes, None)]
    for folder, split in layout.splits:
        classes, files = walk.folders.entries(folder.file, folder.path)
        walk.note_stray(files, "lies in no class folder, so it has no class")
        if not classes:
            walk.note_empty(folder, split)
        found.append((walk.without_own_outputs(classes), split))
    everything = [(place.name, place.path) for places, _ in found for place in places]
    walk.listing.problems.extend(merged_names(everything))
    for places, split_or_none in found:
        if split_or_none is not None:
            refuse_parts(root, places)
        walk.list_classes(places, split_or_none)
    walk.listing.num_ignored = walk.folders.num_ignored + len(layout.ignored)
    walk.listing.num_files_seen = walk.folders.num_files
    if len(walk.listing.class_places) < min_classes:
        _refuse_too_few(root, walk, layout.classes, min_classes)
    return walk.listing


def _refuse_too_few(root: Path, walk: "_Walk", folders: list[Place], min_classes: int) -> NoReturn:
    """Refuse a tree without classes, before any file is read."""
    classes = walk.listing.class_places
    next_step = "make one sub-folder for each class, with the images of that class in it; or list "
    next_step += "each image and its class in a CSV file with the columns path and label"
    stray = [problem.path for problem in walk.listing.problems if problem.kind == "stray_file"]
    endings = {path: Path(path).suffix.lower() for path in stray}
    if tables := [path for path in stray if endings[path] in MANIFEST_SUFFIXES]:
        next_step += f"; if {printable(tables[0])} is that, give it as the path"
    if archives := [path for path in stray if endings[path] in ARCHIVES]:
        name = printable(archives[0])
        next_step = f"if the images are in archives ({name}), unpack these first; {next_step}"
    if len(folders) == 1 and has_folders(folders[0]):
        inner = printable(str(root / folders[0].name))
        next_step = f"if the classes are the folders inside it, give {inner} as the path"
    found = f"only {some(list(classes.values()))}" if classes else "no class folder"
    num_files = walk.listing.num_files_seen
    found += f" ({num_files:,} {'file' if num_files == 1 else 'files'})"
    found += "".join(f"\n  {problem}" for problem in walk.listing.problems[:_MAX_PROBLEMS_SHOWN])
    wanted = "two class folders with images are" if min_classes > 1 else "one class folder is"
    next_step = links_first(walk.listing.problems, next_step)
    raise DatasetError(f"at least {wanted} needed", f"{root}: {found}", next_step)


class _Walk:
    """The state of one walk: where it started and what it has found."""

    def __init__(self, root: Path, allow_outside: bool) -> None:
        self.listing = Listing()
        self.folders = FolderWalk(str(root), self.listing.problems.append, allow_outside)
        self._own: set[str] = set()

    def list_classes(self, folders: list[Place], split: Split | None) -> None:
        """List class folders that lie side by side."""
        for folder in folders:
            self._list_class(folder, split)

    def without_own_outputs(self, folders: list[Place]) -> list[Place]:
        """Take out, and report, the folders that hold nothing but what headstart wrote."""
        return [folder for folder in folders if not self._is_own(folder, depth=1)]

    def note_guesses(self, guessed: list[tuple[Place, Split]]) -> None:
        """Say which folders were taken for splits by names that are not beyond doubt."""
        for folder, split in guessed:
            reason = (
                f"used as the {split} split because of its name; dataset.split_names changes that"
            )
            self._report(folder.path, "split_name", reason, left_out=False)

    def note_same(self, splits: list[tuple[Place, Split]], told: Collection[str]) -> None:
        """Say which folders were taken for a split that another folder is, too."""
        first: dict[Split, Place] = {}
        for folder, split in splits:
            other = first.setdefault(split, folder)
            if other != folder and folder.name not in told:
                reason = f"used as the {split} split, like {printable(other.path)} is"
                self._report(folder.path, "split_name", reason, left_out=False)

    def note_empty(self, folder: Place, split: Split) -> None:
        """Say that a split folder gives no split."""
        reason = f"holds no class folder, so it adds no {split} images"
        self._report(folder.path, "split_name", reason, left_out=False)

    def _is_own(self, folder: Place, depth: int) -> bool:
        """Tell whether headstart wrote a folder, or all folders in it and no file lies there."""
        try:
            with os.scandir(folder.file) as scan:
                entries = [entry for entry in scan if not is_junk(entry.name)]
                inner = [
                    Place(entry.name, entry.path, f"{folder.path}/{entry.name}")
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
        except OSError as error:
            refuse_passing(error, folder.file)
            return False
        if words := own_output(folder.file, {entry.name for entry in entries}):
            reason = f"{words}, so it is skipped; keep results outside the image folder"
            if folder.path not in self._own:
                self._report(folder.path, "own_output", reason, left_out=False)
            self._own.add(folder.path)
            return True
        if not depth or not inner or len(inner) < len(entries):
            return False
        return all(self._is_own(place, depth - 1) for place in inner)

    def _list_class(self, folder: Place, split: Split | None) -> None:
        """List all files below one class folder, folders behind links last."""
        label = class_name(folder.name)
        if not label:
            reason = "the name is blank, so it is not a class; everything in it is left out"
            self._report(folder.path, "bad_name", reason)
            return
        self.listing.class_places.setdefault(label, folder.path)
        self.listing.images += [
            ListedImage(path=file.path, file=file.file, label=label, split=split)
            for file in self.folders.files_below(folder, self._without_marked)
        ]

    def _without_marked(self, folders: list[Place]) -> list[Place]:
        return [folder for folder in folders if not self._is_own(folder, depth=0)]

    def note_stray(self, files: list[Place], reason: str) -> None:
        """Report files outside the class folders; only images count as left out."""
        for file in files:
            try:
                with Path(file.file).open("rb") as stream:
                    is_image = looks_like_image(stream.read(PREFIX_BYTES))
            except OSError as error:
                refuse_passing(error, file.file)
                is_image = True  # it may be one
            self._report(file.path, "stray_file", reason, is_image)

    def _report(self, path: str, kind: ProblemKind, reason: str, left_out: bool = True) -> None:
        self.listing.problems.append(Problem(path, kind, reason, left_out))

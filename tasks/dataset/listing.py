"""Which image files a folder holds, and what stands in the way of the others.

Two layouts: ``root/<class>/**`` and ``root/{train,val,test}/<class>/**`` (``validation`` and
``valid`` also mean val; case does not matter). Nothing but names and stats is read here, except
the signatures of files that lie beside the class folders.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from headstart.config import Split
from headstart.errors import DatasetError
from headstart.tasks.dataset.decode import PREFIX_BYTES, looks_like_image
from headstart.tasks.dataset.problems import Problem, ProblemKind, printable, refuse_passing

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Folder names (and manifest values), in lower case, that mean a split."""

_MAX_PROBLEMS_SHOWN = 5
_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}


class ListedImage(NamedTuple):
    """A file that is to be looked into.

    Attributes:
        path: Path relative to the root, POSIX style.
        file: Path to open.
        label: Name of its class.
        split: The split the data gives it, if any.
    """

    path: str
    file: str
    label: str
    split: Split | None


@dataclass
class Listing:
    """What was found by name.

    Attributes:
        images: Files to look into, in the order found.
        problems: What stood in the way of others.
        class_places: Class name to the folder or manifest that declares it.
        num_files_seen: Files (or manifest lines) met, hidden and junk ones not counted.
        num_ignored: Hidden and junk files and folders passed over.
    """

    images: list[ListedImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    class_places: dict[str, str] = field(default_factory=dict)
    num_files_seen: int = 0
    num_ignored: int = 0


def class_name(text: str) -> str:
    """Give a label its one spelling.

    Args:
        text: A folder name or a manifest's label.

    Returns:
        The text without outer white space, in Unicode's composed form: macOS may write the same
        folder name decomposed, which would make two classes of one.
    """
    return unicodedata.normalize("NFC", text.strip())


def list_folder(root: Path, min_classes: int = 2) -> Listing:
    """List the images of a class folder tree.

    Symbolic links that stay inside the root are followed; no folder is entered twice.

    Args:
        root: An existing folder.
        min_classes: Fewer class folders than this are refused.

    Returns:
        Every file below a class folder, whatever its extension.

    Raises:
        DatasetError: If split folders and class folders stand side by side, or there are too few
            class folders.
    """
    walk = _Walk(os.path.realpath(root))
    folders, files = walk.entries(walk.root, "")
    split_folders = [folder for folder in folders if folder.name.casefold() in SPLIT_FOLDERS]
    if len(split_folders) < len(folders) and not any(map(walk.has_folders, split_folders)):
        split_folders = []  # a class that happens to be called "train", between bus and car
    if split_folders and len(split_folders) < len(folders):
        others = [folder.path for folder in folders if folder not in split_folders]
        raise DatasetError(
            "Either split folders (train/, val/, test/) or class folders were expected in the "
            "root, not both.",
            f"{root}: {_some([folder.path for folder in split_folders])} beside {_some(others)}",
            "move the class folders into a split folder, or the other folders out of the root",
        )
    walk.note_stray(files, "lies beside the class folders, so it has no class")
    if split_folders:
        for folder in split_folders:
            classes, files = walk.entries(folder.file, folder.path)
            walk.note_stray(files, "lies in no class folder, so it has no class")
            for inner in classes:
                walk.list_class(inner, SPLIT_FOLDERS[folder.name.casefold()])
    else:
        for folder in folders:
            walk.list_class(folder, None)
    if len(walk.listing.class_places) < min_classes:
        _refuse_too_few(root, walk, [] if split_folders else folders)
    return walk.listing


def _refuse_too_few(root: Path, walk: "_Walk", folders: list["_Place"]) -> NoReturn:
    """Refuse a tree without classes, before any file is read."""
    classes = walk.listing.class_places
    next_step = "make one sub-folder for each class, with the images of that class in it"
    if len(folders) == 1 and walk.has_folders(folders[0]):
        inner = printable(str(root / folders[0].name))
        next_step = f"if the classes are the folders inside it, give {inner} as the path"
    found = f"only {_some(list(classes.values()))}" if classes else "no class folder"
    num_files = walk.listing.num_files_seen
    found += f" ({num_files:,} {'file' if num_files == 1 else 'files'})"
    found += "".join(f"\n  {problem}" for problem in walk.listing.problems[:_MAX_PROBLEMS_SHOWN])
    raise DatasetError(
        "At least two class folders with images were expected.", f"{root}: {found}", next_step
    )


class _Place(NamedTuple):
    """A folder or regular file met on the walk."""

    name: str
    file: str
    path: str


class _Walk:
    """The state of one walk: where it started and what it has found."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.listing = Listing()

    def list_class(self, folder: _Place, split: Split | None) -> None:
        """List all files below one class folder, folders behind links last."""
        label = class_name(folder.name)
        self.listing.class_places.setdefault(label, folder.path)
        entered: set[str] = set()
        pending, linked = [folder], list[_Place]()
        while pending or linked:
            place = pending.pop() if pending else linked.pop()
            real = os.path.realpath(place.file)
            if real in entered or _contains_itself(place, real):
                reason = "leads to a folder that is listed already, so it is not followed"
                self._report(place.path, "symlink", reason, left_out=False)
                continue
            entered.add(real)
            folders, files = self.entries(place.file, place.path)
            for inner in reversed(folders):
                (linked if Path(inner.file).is_symlink() else pending).append(inner)
            self.listing.images += [
                ListedImage(path=file.path, file=file.file, label=label, split=split)
                for file in files
            ]

    def entries(self, folder: str, path: str) -> tuple[list[_Place], list[_Place]]:
        """Give the folders and regular files in a folder, by name; report everything else."""
        folders: list[_Place] = []
        files: list[_Place] = []
        for entry in self._scan(folder, path):
            place = _Place(entry.name, entry.path, f"{path}/{entry.name}" if path else entry.name)
            mode = self._mode(entry, place)
            if stat.S_ISDIR(mode):
                folders.append(place)
                continue
            self.listing.num_files_seen += 1
            if stat.S_ISREG(mode):
                files.append(place)
            elif mode:
                self._report(
                    place.path, "special_file", "a FIFO, socket or device, so it is not opened"
                )
        return folders, files

    def has_folders(self, place: _Place) -> bool:
        """Tell whether a folder holds at least one visible folder."""
        try:
            with os.scandir(place.file) as entries:
                return any(entry.is_dir() and not _is_ignored(entry.name) for entry in entries)
        except OSError:
            return False

    def note_stray(self, files: list[_Place], reason: str) -> None:
        """Report files outside the class folders; only images count as left out."""
        for file in files:
            try:
                with Path(file.file).open("rb") as stream:
                    is_image = looks_like_image(stream.read(PREFIX_BYTES))
            except OSError:
                is_image = True  # it may be one
            self._report(file.path, "stray_file", reason, is_image)

    def _scan(self, folder: str, path: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            refuse_passing(error, folder)
            self._report(path or ".", "unreadable", f"the folder cannot be read ({_why(error)})")
            return
        for entry in entries:
            if _is_ignored(entry.name):
                self.listing.num_ignored += 1
            else:
                yield entry

    def _mode(self, entry: os.DirEntry[str], place: _Place) -> int:
        """Give the mode of what an entry leads to; 0 where it was reported instead."""
        try:
            if entry.is_symlink() and not self._stays_inside(place):
                return 0
            mode = entry.stat().st_mode
            place.path.encode("utf-8")
        except UnicodeEncodeError:
            loss = "; all that is in it is left out" if stat.S_ISDIR(mode) else ""
            self._report(printable(place.path), "bad_name", f"the name is not UTF-8{loss}")
            return 0
        except OSError as error:
            refuse_passing(error, place.file)
            self._report(printable(place.path), "unreadable", _why(error))
            return 0
        return mode

    def _stays_inside(self, place: _Place) -> bool:
        try:
            real = os.path.realpath(place.file, strict=True)
        except OSError as error:
            self._report(printable(place.path), "symlink", f"leads nowhere ({_why(error)})")
            return False
        if os.path.commonpath([self.root, real]) != self.root:
            self._report(
                printable(place.path), "symlink", "leads out of the folder, so it is not followed"
            )
            return False
        return True

    def _report(self, path: str, kind: ProblemKind, reason: str, left_out: bool = True) -> None:
        self.listing.problems.append(Problem(path, kind, reason, left_out))


def _contains_itself(place: _Place, real: str) -> bool:
    parent = os.path.realpath(Path(place.file).parent)
    return Path(place.file).is_symlink() and os.path.commonpath([parent, real]) == real


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _JUNK or name == "Icon\r"


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()  # str(error) holds absolute paths


def _some(paths: list[str]) -> str:
    shown = ", ".join(f"{printable(path)}/" for path in paths[:4])
    return f"{shown} and {len(paths) - 4} more" if len(paths) > 4 else shown

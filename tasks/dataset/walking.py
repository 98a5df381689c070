"""The one way in which folders of images are walked: what is entered, what is passed over and told.

Names that systems and tools leave are passed over; links are followed as far as the caller says;
no folder is entered twice; FIFOs, sockets and devices are never opened.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from headstart.tasks.dataset.layout import Place, is_junk
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.problems import (
    FOLLOWING_LINKS,
    Problem,
    ProblemKind,
    refuse_passing,
)


class FolderWalk:
    """A walk below a folder.

    Args:
        root: Folder where the walk begins.
        report: Told of each thing in the way; its paths are relative to the root.
        allow_outside: Whether links that leave the root are followed.
        once: The files are looked at once, and nothing is made of which there are: links to files
            are followed wherever they lead, names need not be UTF-8, and a file server that fails
            for the moment is reported; of a data set that ends the walk.

    Attributes:
        num_ignored: Hidden and junk entries passed over.
        num_files: Others that are no folders.
    """

    def __init__(
        self,
        root: str,
        report: Callable[[Problem], None],
        allow_outside: bool = False,
        once: bool = False,
    ) -> None:
        self.num_ignored = self.num_files = 0
        self._root = os.path.realpath(root)
        self._tell = report
        self._allow_outside = allow_outside
        self._once = once

    def files_below(
        self, top: Place, choose: Callable[[list[Place]], list[Place]] = lambda folders: folders
    ) -> Iterator[Place]:
        """Yield the files below a folder: its own, then those of each folder in it, links last.

        Args:
            top: Folder where to begin; the root or one below it.
            choose: Says which of the folders in a folder are entered.
        """
        entered: set[str] = set()
        pending, linked = [top], list[Place]()
        while pending or linked:
            place = pending.pop() if pending else linked.pop()
            real = os.path.realpath(place.file)
            if real in entered or _contains_itself(place, real):
                reason = "points to a folder that is already listed, so it is not followed"
                self._report(place.path, "symlink", reason, left_out=False)
                continue
            entered.add(real)
            folders, files = self.entries(place.file, place.path)
            yield from files
            for inner in reversed(choose(folders)):
                (linked if Path(inner.file).is_symlink() else pending).append(inner)

    def entries(self, folder: str, path: str) -> tuple[list[Place], list[Place]]:
        """Give the folders and regular files in a folder, by name; report everything else.

        Args:
            folder: The path to open.
            path: The same, relative to the root.
        """
        folders: list[Place] = []
        files: list[Place] = []
        for entry in self._scan(folder, path):
            place = Place(entry.name, entry.path, f"{path}/{entry.name}" if path else entry.name)
            mode = self._mode(entry, place)
            if stat.S_ISDIR(mode):
                folders.append(place)
                continue
            self.num_files += 1
            if stat.S_ISREG(mode):
                files.append(place)
            elif mode:
                reason = "a FIFO, socket or device, so it is not opened"
                self._report(place.path, "special_file", reason)
        return folders, files

    def _scan(self, folder: str, path: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            self._refuse_passing(error, folder)
            self._report(path or ".", "unreadable", f"the folder cannot be read ({_why(error)})")
            return
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(".icloud"):
                place = f"{path}/{entry.name}" if path else entry.name
                self._report(printable(place), "missing", "its content is in iCloud; download it")
            elif is_junk(entry.name):
                self.num_ignored += 1
            else:
                yield entry

    def _mode(self, entry: os.DirEntry[str], place: Place) -> int:
        """Give the mode of what an entry leads to; 0 where it was reported instead."""
        try:
            if entry.is_symlink() and not self._may_follow(place):
                return 0
            mode = entry.stat().st_mode
            if not self._once:
                place.path.encode("utf-8")
        except UnicodeEncodeError:
            loss = "; everything in it is left out" if stat.S_ISDIR(mode) else ""
            self._report(printable(place.path), "bad_name", f"the name is not UTF-8{loss}")
            return 0
        except OSError as error:
            self._refuse_passing(error, place.file)
            self._report(printable(place.path), "unreadable", _why(error))
            return 0
        return mode

    def _may_follow(self, place: Place) -> bool:
        try:
            real = os.path.realpath(place.file, strict=True)
        except OSError as error:
            self._refuse_passing(error, place.file)
            self._report(printable(place.path), "symlink", f"points to nothing ({_why(error)})")
            return False
        is_free = self._allow_outside or (self._once and not Path(real).is_dir())
        if not is_free and os.path.commonpath([self._root, real]) != self._root:
            reason = "points outside the folder, so it is not followed "
            reason += (
                "(give its path to read it)"
                if self._once
                else f"({FOLLOWING_LINKS} follows such links)"
            )
            self._report(printable(place.path), "symlink", reason)
            return False
        return True

    def _refuse_passing(self, error: OSError, path: str) -> None:
        if not self._once:
            refuse_passing(error, path)

    def _report(self, path: str, kind: ProblemKind, reason: str, left_out: bool = True) -> None:
        self._tell(Problem(path, kind, reason, left_out))


def _contains_itself(place: Place, real: str) -> bool:
    parent = os.path.realpath(Path(place.file).parent)
    return Path(place.file).is_symlink() and os.path.commonpath([parent, real]) == real


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()  # str(error) holds absolute paths

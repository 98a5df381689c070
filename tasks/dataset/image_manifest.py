"""Images named by a table: a CSV or Parquet file with the columns path, label and maybe split.

Relative paths start at the table's folder, or at ``dataset.root``: the root of the data set. An
absolute path inside it becomes relative. One outside is left out with a line, unless
``dataset.allow_outside`` takes it; the index keeps it relative to the root even so. A relative
path may lead out of the root (``../photos/1.jpg``): it says so itself.
"""

import errno
import os
import posixpath
import re
import stat
import unicodedata
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from headstart.config import DatasetConfig, Split, TargetKind
from headstart.errors import DatasetError
from headstart.tasks.dataset.class_names import class_name
from headstart.tasks.dataset.layout import EXACT, split_meant
from headstart.tasks.dataset.listing import ListedImage, Listing
from headstart.tasks.dataset.manifest_cells import labelled
from headstart.tasks.dataset.manifest_columns import IMAGE_ENDINGS
from headstart.tasks.dataset.manifest_table import MANIFEST_SUFFIXES, Line, read_table
from headstart.tasks.dataset.missing_files import advise
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.problems import Problem, ProblemKind, refuse_passing

__all__ = ["MANIFEST_SUFFIXES", "list_manifest"]

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_MAX_ASKED = 50
"""Missing paths that are kept, to look for their files elsewhere."""
_NUMBERED = re.compile(r"([0-9]{1,18})(?:\.0)?(\.[A-Za-z]\w*)?")
"""A name that is a number, as of a table that took it for one: 8.jpg, 8.0.jpg."""
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)


class _Fault(NamedTuple):
    """Why a line names no image that can be used."""

    kind: ProblemKind
    reason: str
    outside: str = ""


class _Named(NamedTuple):
    """The file that a line names, and what was done to its path to find it."""

    path: str
    mode: int
    repair: str = ""


def list_manifest(file: Path, config: DatasetConfig) -> Listing:
    """List the images that a manifest names.

    Args:
        file: An existing table; see `headstart.tasks.dataset.manifest_table.read_table`.
        config: Names the columns, the root, and what splits are called.

    Returns:
        One entry a path. Lines that cannot be used are problems that give their number: the line
        of a CSV file, the row of a Parquet file (from 1).

    Raises:
        DatasetError: If the file cannot be read as a table, or all its paths lead elsewhere.
    """
    lines, notes, targets = read_table(file, config)
    listing = Listing(num_files_seen=len(lines), kind=targets.kind)
    if targets.kind != "class" and not targets.is_list:
        listing.names = tuple(name.strip() for name in targets.names)
    root = file.parent if config.root is None else config.root.expanduser()
    finder = _Finder(root, config, targets.kind)
    has_splits = any(line.split for line in lines)
    by_path: dict[str, list[tuple[Line, ListedImage]]] = {}
    outside: list[str] = []
    for line in lines:
        if has_splits and split_meant(line.split, config.split_names) == "ignore":
            listing.num_ignored += 1
            continue
        found = finder.look(line, has_splits)
        if isinstance(found, ListedImage):
            by_path.setdefault(found.path, []).append((line, found))
            if targets.kind == "class":
                listing.class_places.setdefault(found.label, file.name)
        else:
            place = f"{file.name} line {line.number}"
            listing.problems.append(Problem(place, found.kind, found.reason))
            outside += [found.outside] if found.outside else []
    if not by_path and outside:
        raise _all_outside(file, finder, outside, len(lines))
    if not by_path:
        listing.advice = finder.advise()
    for entries in by_path.values():
        _add_once(listing, entries, config)
    notes += finder.told()
    listing.problems += [
        Problem(file.name, "repaired_path", note, left_out=False) for note in notes
    ]
    return listing


def _all_outside(file: Path, finder: "_Finder", outside: list[str], num_lines: int) -> DatasetError:
    root = finder.root
    try:
        common = os.path.commonpath([str(Path(path).parent) for path in outside])
    except ValueError:
        common = str(Path(outside[0]).parent)
    cure = (
        f"--set dataset.root={printable(common)} names the folder that holds them; "
        "--set dataset.allow_outside=true accepts them anywhere"
    )
    if not Path(common).is_dir():
        found = advise(root, outside, finder.suffix)
        cure = f"{found} finds them here"
        if not found:
            cure = "check that they are on this machine; dataset.strip_prefix removes a prefix "
            cure += "from another machine"
    return DatasetError(
        "the manifest has paths outside its folder",
        f"{file}: {len(outside):,} of {num_lines:,} are absolute and lead out of {root}, as "
        f"{printable(outside[0])}",
        cure,
    )


def _add_once(
    listing: Listing, entries: list[tuple[Line, ListedImage]], config: DatasetConfig
) -> None:
    if listing.kind == "labels" and config.repeated_paths == "merge":
        values = tuple(sorted({value for _, image in entries for value in image.values}))
        entries = [
            (line, image._replace(label=labelled(values).label, values=values))
            for line, image in entries
        ]
    first = entries[0][1]
    numbers = ", ".join(str(line.number) for line, _ in entries)
    labels = sorted({image.label for _, image in entries})
    if len(labels) > 1:
        joined = (" and " if listing.kind == "class" else " or ").join(labels)
        reason = f"labelled {joined} (lines {numbers}); left out, as any of them may be right"
        if listing.kind == "labels":
            reason += " (dataset.repeated_paths=merge takes all)"
        listing.problems.append(Problem(first.path, "label_conflict", reason))
        return
    # One copy a given split: which of them stays is decided with all other duplicates.
    listing.images += {image.split: image for _, image in entries}.values()
    if len(entries) > 1:
        reason = f"listed more than once (lines {numbers}); used once"
        listing.problems.append(Problem(first.path, "listed_twice", reason, left_out=False))


class _Finder:
    """Finds the files that lines name, and counts what it did to their paths."""

    def __init__(self, root: Path, config: DatasetConfig, kind: TargetKind) -> None:
        if not root.is_dir():
            raise DatasetError(
                "dataset.root is not a folder",
                f"{root}, which is not a folder",
                "check the path, which starts at the working folder, not at the manifest's "
                "(dataset.root)",
            )
        self.root = root
        self._absolute, self._real = root.absolute(), root.resolve()
        self._kind = kind
        self.suffix, self._prefix = config.path_suffix, config.strip_prefix
        self._missing: list[str] = []
        self._names: dict[Path, dict[str, list[str]]] = {}
        self._numbered: dict[Path, dict[tuple[int, str], str]] = {}
        self._allow_outside = config.allow_outside
        self._split_names = config.split_names
        self._repairs: dict[str, int] = {}

    def look(self, line: Line, has_splits: bool) -> ListedImage | _Fault:
        """Find the image of a line."""
        if line.fault:
            return _Fault("manifest_line", line.fault)
        if not line.path.strip():
            return _Fault("manifest_line", "the path is empty")
        if "\0" in line.path:
            return _Fault("manifest_line", "the path holds a NUL character")
        label = line.label if self._kind != "class" else class_name(line.label)
        if not label:
            return _Fault("manifest_line", f"the label of {Path(line.path.strip()).name} is empty")
        split: Split | None = None
        if has_splits:
            meant = split_meant(line.split, self._split_names)
            if meant is None or meant == "ignore":
                received = (
                    repr(line.split) if line.split else "empty, although other lines have one"
                )
                words = f"the split must be train, val or test, but here it is {received}"
                cure = f'--set "dataset.split_names={{{line.split!r}: val}}" says what it means'
                return _Fault("manifest_line", f"{words}; {cure}")
            split = meant
            if line.split.casefold() not in {*EXACT, *map(str.casefold, self._split_names)}:
                self._count(f"the split {line.split!r} is used as {split}")
        path = line.path.strip() if self.suffix or self._prefix else line.path
        named = self._find(path.removeprefix(self._prefix) + self.suffix)
        if isinstance(named, _Fault):
            if named.kind == "missing" and len(self._missing) < _MAX_ASKED:
                self._missing.append(path.removeprefix(self._prefix))
            return named
        if not stat.S_ISREG(named.mode):
            return _Fault("special_file", f"{named.path} is a folder or device, not a file")
        if named.repair:
            self._count(named.repair)
        file = str(self._absolute / named.path)
        return ListedImage(named.path, file, label, split, line.values, line.group)

    def told(self) -> list[str]:
        """Say what was done to how many lines."""
        return [f"{text} ({count:,} lines)" for text, count in self._repairs.items()]

    def advise(self) -> str:
        """Say which settings would find the images that are not there."""
        return advise(self.root, self._missing, self.suffix)

    def _count(self, repair: str) -> None:
        self._repairs[repair] = self._repairs.get(repair, 0) + 1

    def _find(self, raw: str) -> _Named | _Fault:
        """Find a file under its path as it stands, or under what that path must mean."""
        first: _Fault | None = None
        for text, repair in _spellings(raw):
            path = self._relative(text)
            fault = path if isinstance(path, _Fault) else None
            if isinstance(path, str):
                try:
                    return _Named(path, (self._absolute / path).stat().st_mode, repair)
                except OSError as error:
                    refuse_passing(error, str(self._absolute / path))
                    fault = _Fault(
                        "missing",
                        f"{path}: {_why(error)}{_hint(raw)}{_suffix_hint(path)}{self._zeros(path)}",
                    )
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                        return fault
                    if other := self._in_another_case(path):
                        mode = (self._absolute / other).stat().st_mode
                        return _Named(other, mode, "names were found in another case")
            first = first or fault
        assert first is not None
        return first

    def _in_another_case(self, path: str) -> str | None:
        """Find the one file that is called so but for the case of letters, as Windows would."""
        found: list[str] = []
        for part in path.split("/"):
            names = self._names_in(self._absolute / "/".join(found)).get(part.casefold(), [])
            if part != ".." and part not in names and len(names) != 1:
                return None
            found.append(part if part == ".." or part in names else names[0])
        return "/".join(found)

    def _zeros(self, path: str) -> str:
        """Say which file is called so but for zeros, which spreadsheets and pandas take off."""
        named = _NUMBERED.fullmatch(path.rpartition("/")[2])
        if named is None:
            return ""
        folder = (self._absolute / path).parent
        if folder not in self._numbered:
            found = (
                (match, name)
                for names in self._names_in(folder).values()
                for name in names
                if (match := _NUMBERED.fullmatch(name))
            )
            self._numbered[folder] = {(int(match[1]), match[2]): name for match, name in found}
        other = self._numbered[folder].get((int(named[1]), named[2]))
        return f"; {other} exists: read the names as text, to keep their zeros" if other else ""

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):  # noqa: PTH208 - names are all it takes
                    names.setdefault(name.casefold(), []).append(name)
            except OSError:
                pass  # the path leads nowhere, which is said already
            self._names[folder] = names
        return self._names[folder]

    def _relative(self, text: str) -> str | _Fault:
        """Give a path relative to the root in one spelling, unless it may not be used."""
        if address := _ADDRESS.match(text):
            if address[1].casefold() != "file":
                reason = f"{Path(text).name} is a URL ({address[1]}://): download the images, "
                return _Fault("manifest_line", f"{reason}and name the local files")
            text = urllib.parse.unquote(urllib.parse.urlsplit(text).path)
        if not Path(text).is_absolute():
            return posixpath.normpath(Path(text).as_posix())
        inside = Path(os.path.normpath(text))
        for base in (self._absolute, self._real):
            if inside.is_relative_to(base):
                return inside.relative_to(base).as_posix()
        if self._allow_outside:
            return Path(os.path.relpath(inside, self._real)).as_posix()
        reason = f"the path of {inside.name} is absolute and leads out of this folder "
        reason += "(dataset.root names another, dataset.allow_outside=true accepts it)"
        return _Fault("manifest_line", reason, outside=str(inside))


def _spellings(raw: str) -> Iterator[tuple[str, str]]:
    """Yield a path as it stands, and then what it must mean where there is no such file."""
    text = raw.strip()
    yield text, ""
    if raw != text:
        yield raw, ""
    if text.startswith("~/"):
        yield os.path.expanduser(text), ""  # noqa: PTH111 - Path's raises where there is no home
    if "\\" in text and not _DRIVE.match(text):
        yield text.replace("\\", "/"), "paths with backslashes were read with slashes"
    for form in ("NFC", "NFD"):
        if (other := unicodedata.normalize(form, text)) != text:
            yield other, "names were found in another Unicode normalisation"
    if text.startswith("/") and not Path(text).exists():
        yield text.lstrip("/"), "paths that begin with a slash were read as relative to the folder"
    if (other := urllib.parse.unquote(text)) != text and "\0" not in other:
        yield other, "%20 and similar codes in paths were decoded"


def _hint(raw: str) -> str:
    if _DRIVE.match(raw.strip()):
        return "; it is a Windows path: write it relative to this folder, with forward slashes"
    return "; write forward slashes in place of backslashes" if "\\" in raw else ""


def _suffix_hint(path: str) -> str:
    if path.casefold().endswith(IMAGE_ENDINGS):
        return ""
    return "; if the files have such a suffix, dataset.path_suffix=.jpg adds it"


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()

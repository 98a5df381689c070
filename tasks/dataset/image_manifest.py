"""Images named by a table: a CSV or Parquet file with the columns path, label and maybe split.

Relative paths start at the table's folder, which is the root of the data set. An absolute path
inside that folder becomes relative; one outside it is left out with a line, because the index
must stay true when the store is moved to another machine. A relative path may lead out of the
folder (``../photos/1.jpg``): it says so itself.
"""

import csv
import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from headstart.config import Split
from headstart.errors import DatasetError
from headstart.tasks.dataset.listing import SPLIT_FOLDERS, ListedImage, Listing, class_name
from headstart.tasks.dataset.problems import Problem, ProblemKind

MANIFEST_SUFFIXES = (".csv", ".parquet", ".pq")
"""File name endings, in lower case, of what is read as a manifest."""

_COLUMNS = ("path", "label", "split")


class _Line(NamedTuple):
    """One row of the table, as text."""

    number: int
    path: str
    label: str
    split: str


def list_manifest(file: Path) -> Listing:
    """List the images that a manifest names.

    Args:
        file: An existing CSV file (UTF-8, with a header; commas, semicolons or tabs between the
            cells) or Parquet file.

    Returns:
        One entry a path. Lines that cannot be used are problems that give their number: the line
        of a CSV file (the header is line 1), the row of a Parquet file (from 1).

    Raises:
        DatasetError: If the file cannot be read as a table or lacks a column.
    """
    reader = _read_csv if file.suffix.lower() == ".csv" else _read_parquet
    lines = list(reader(file))
    listing = Listing(num_files_seen=len(lines))
    has_splits = any(line.split for line in lines)
    by_path: dict[str, list[tuple[_Line, ListedImage]]] = {}
    for line in lines:
        found = _list_line(line, file.parent, has_splits)
        if isinstance(found, ListedImage):
            by_path.setdefault(found.path, []).append((line, found))
            listing.class_places.setdefault(found.label, file.name)
        else:
            kind, reason = found
            place = f"{file.name} line {line.number}"
            listing.problems.append(Problem(place, kind, reason))
    for entries in by_path.values():
        _add_once(listing, entries)
    return listing


def _add_once(listing: Listing, entries: list[tuple[_Line, ListedImage]]) -> None:
    first = entries[0][1]
    numbers = ", ".join(str(line.number) for line, _ in entries)
    labels = sorted({image.label for _, image in entries})
    if len(labels) > 1:
        reason = f"labelled {' and '.join(labels)} (lines {numbers}); left out, as either may hold"
        listing.problems.append(Problem(first.path, "label_conflict", reason))
        return
    # One copy a given split: which of them stays is decided with all other duplicates.
    listing.images += {image.split: image for _, image in entries}.values()
    if len(entries) > 1:
        reason = f"listed more than once (lines {numbers}); used once"
        listing.problems.append(Problem(first.path, "listed_twice", reason, left_out=False))


def _list_line(line: _Line, root: Path, has_splits: bool) -> ListedImage | tuple[ProblemKind, str]:
    split: Split | None = None
    if not line.path:
        return "manifest_line", "the path is empty"
    if "\0" in line.path:
        return "manifest_line", "the path holds a NUL character"
    label = class_name(line.label)
    if not label:
        return "manifest_line", f"the label of {Path(line.path).name} is empty"
    if has_splits:
        split = SPLIT_FOLDERS.get(line.split.casefold())
        if split is None:
            received = repr(line.split) if line.split else "empty, though other lines give one"
            return "manifest_line", f"the split is train, val or test, but here it is {received}"
    path = _relative(line.path, root)
    if path is None:
        name = Path(line.path).name
        return "manifest_line", f"the path of {name} is absolute and leads out of this folder"
    absolute = root / path
    try:
        mode = absolute.stat().st_mode
    except OSError as error:
        return "missing", f"{path}: {(error.strerror or type(error).__name__).lower()}"
    if not stat.S_ISREG(mode):
        return "special_file", f"{path} is a folder or device, not a file"
    return ListedImage(path=path, file=str(absolute.absolute()), label=label, split=split)


def _relative(text: str, root: Path) -> str | None:
    """Give a path relative to the root in one spelling; None where it lies outside."""
    if not Path(text).is_absolute():
        return posixpath.normpath(Path(text).as_posix())
    inside = Path(os.path.normpath(text))
    for base in (root.absolute(), root.resolve()):
        if inside.is_relative_to(base):
            return inside.relative_to(base).as_posix()
    return None


def _read_csv(file: Path) -> Iterator[_Line]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            stream.seek(0)
            # The header has no cell with a comma in it, or the columns would not be found.
            delimiter = max(",;\t", key=header.count)
            reader = csv.DictReader(stream, strict=True, delimiter=delimiter)
            names = _columns(file, list(reader.fieldnames or ()))
            for row in reader:
                path, label, split = (row.get(name) if name else "" for name in names)
                yield _Line(reader.line_num, *map(_text, (path, label, split)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(file, "CSV file in UTF-8", error) from None


def _read_parquet(file: Path) -> Iterator[_Line]:
    import pyarrow as pa  # slow to import, and most data sets are folders
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        names = _columns(file, list(schema.names))
        table = pq.read_table(file, columns=[name for name in names if name])
        columns = [table.column(name).to_pylist() if name else [""] * len(table) for name in names]
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, "Parquet file", error) from None
    for number, values in enumerate(zip(*columns, strict=True), start=1):
        yield _Line(number, *map(_text, values))


def _columns(file: Path, names: list[str]) -> tuple[str, str, str | None]:
    found = {name.strip().casefold(): name for name in reversed(names)}
    path, label, split = (found.get(name) for name in _COLUMNS)
    if path is None or label is None:
        raise DatasetError(
            "A manifest has the columns path and label, and if wanted split.",
            f"{file}: the columns {', '.join(names) or '(none)'}",
            "name them in the first line of the file, with commas, semicolons or tabs between",
        )
    return path, label, split


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _unreadable(file: Path, form: str, error: Exception) -> DatasetError:
    reason = " ".join(str(error).split())
    return DatasetError(f"A readable {form} was expected.", f"{file}: {reason}", "mend the file")

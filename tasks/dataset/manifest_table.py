"""Tables that name images: CSV in Unicode, or Parquet, as lines of text.

Nothing is guessed where a table is odd: columns are found by name alone, values that are neither
names nor whole numbers are no labels, and what is read otherwise than it stands gets a line.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headstart.config import DatasetConfig
from headstart.errors import DatasetError
from headstart.reading import MAX_TABLE_BYTES, read_regular
from headstart.tasks.dataset.manifest_cells import Said, missing_test
from headstart.tasks.dataset.manifest_columns import Columns, find_columns
from headstart.tasks.dataset.manifest_targets import (
    TargetColumns,
    cell_reader,
    check_classes,
    check_separator,
)
from headstart.tasks.dataset.parquet import read_columns
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.problems import refuse_passing
from headstart.tasks.dataset.thousands import doubtful_thousands

PARQUET_SUFFIXES = (".parquet", ".pq")
MANIFEST_SUFFIXES = (".csv", ".tsv", *PARQUET_SUFFIXES)
"""File name endings, in lower case, of what is read as a manifest."""

DELIMITERS = ",;\t|"
"""What may stand between the cells of a table."""
_UNICODE_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""What a file of that encoding begins with; UTF-32's mark begins like UTF-16's."""
_OTHER_FORMS = (
    (b"\x1f\x8b", "one packed by gzip", "unpack it first (gunzip)"),
    (b"PAR1", "a Parquet file", "call it so: its name has to end in .parquet"),
    (
        b"PK\x03\x04",
        "an Excel workbook or another zip archive",
        "save the sheet as CSV (in Excel: CSV UTF-8), or unpack the archive",
    ),
)
"""What a file begins with that is something else than its name says."""


class Line(NamedTuple):
    """One row of a table, as text.

    Attributes:
        number: Line of a CSV file (the header has its own), or row of a Parquet file, from 1.
        path: As written in the manifest.
        label: Text of the class, without white space around it; empty where there is none. Of
            labels and numbers, their values in words.
        split: Text of the split, without white space around it; empty where there is none.
        fault: Why the row cannot be used; empty where it may be.
        values: Names of labels, or numbers; empty of a class.
        group: Which images it belongs to; empty where nobody has said.
    """

    number: int
    path: str
    label: str
    split: str
    fault: str = ""
    values: tuple[Any, ...] = ()
    group: str = ""


class Table(NamedTuple):
    """A manifest, read.

    Attributes:
        lines: Its rows, in order.
        notes: What was read otherwise than it stands, or not at all.
    """

    lines: list[Line]
    notes: list[str]
    targets: TargetColumns


def read_table(file: Path, config: DatasetConfig) -> Table:
    """Read a manifest.

    Args:
        file: A CSV file (UTF-8, or any Unicode with a byte order mark; with a header; commas,
            semicolons, tabs or bars between the cells) or a Parquet file.
        config: May name the columns.

    Raises:
        DatasetError: It cannot be read as a table, a column is not there or there twice, or the
            labels are of a type that names no classes.
    """
    notes: list[str] = []
    is_missing = missing_test(config)
    found: list[TargetColumns] = []  # one, once the header has been read
    try:
        if not file.is_file():
            read_regular(file, MAX_TABLE_BYTES)  # pyarrow would wait for a FIFO; says what it is
        if file.suffix.lower() in PARQUET_SUFFIXES:
            lines = list(_read_parquet(file, config, notes, found))
        else:
            lines = list(_read_csv(file, config, notes, found))
    except OSError as error:
        refuse_passing(error, str(file))
        raise _unreadable(file, "manifest", error.strerror or error) from None
    lines = [line._replace(group="") if is_missing(line.group) else line for line in lines]
    if found[0].kind == "class":
        lines = [line._replace(label="") if is_missing(line.label) else line for line in lines]
    if found[0].kind == "class" and config.target is None:
        check_classes(file, found[0].names[0], [(line.number, line.label) for line in lines])
    return Table(lines, notes, found[0])


def _read_csv(
    file: Path, config: DatasetConfig, notes: list[str], found: list[TargetColumns]
) -> Iterator[Line]:
    stream = io.StringIO(_decode(file, read_regular(file, MAX_TABLE_BYTES)), newline="")
    delimiter, num_skipped = _find_header(stream)
    csv.field_size_limit(MAX_TABLE_BYTES)  # of a column that is not read: masks, texts
    # Of quoted cells behind a space, which is no part of them.
    end = re.escape(delimiter)
    spaced = bool(re.search(rf'{end} +"[^"\r\n]*"\s*(?:{end}|$)', stream.getvalue(), re.MULTILINE))
    reader = csv.reader(stream, strict=True, delimiter=delimiter, skipinitialspace=spaced)
    try:
        names = [name.strip() for name in next(reader, [])]
        columns = find_columns(file, names, config, notes)
        found.append(columns.targets)
        read = cell_reader(file, columns.targets, config)
        texts: list[tuple[int, str]] = []
        targets: list[Sequence[str]] = []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            number = reader.line_num + num_skipped
            if any(cell.strip() for cell in row[len(names) :]):
                fault = (
                    f"it has {len(row)} cells, the header {len(names)}; put text that contains a "
                )
                yield Line(number, "", "", "", f"{fault}{delimiter!r} between double quotes")
                continue
            cells = row + [""] * (len(names) - len(row))
            if any("\n" in cells[place].strip() for place in columns.read):
                raise _open_quote(file, number, "a name, label or split spans several lines")
            split = "" if columns.split is None else cells[columns.split].strip()
            group = "" if columns.group is None else cells[columns.group].strip()
            if columns.targets.kind == "class":
                label = cells[columns.label].strip()
                yield Line(number, cells[columns.path], label, split, group=group)
                continue
            said = [cells[place] for place in columns.places]
            texts.append((number, said[0].strip()))
            targets.append(said)
            yield _line(number, cells[columns.path], read(said, f"line {number}"), split, group)
        _check_texts(file, columns.targets, texts, config)
        notes += _doubts(columns.targets, targets, config)
    except csv.Error as error:
        line = reader.line_num + num_skipped
        raise _open_quote(file, line, str(error)) from None


def _line(number: int, path: str, said: Said, split: str, group: str) -> Line:
    fault = f"{Path(path.strip()).name}: {said.fault}" if said.fault else ""
    return Line(number, path, said.label, split, fault, said.values, group)


def _check_texts(
    file: Path, columns: TargetColumns, texts: list[tuple[int, str]], config: DatasetConfig
) -> None:
    if columns.is_list and config.repeated_paths == "refuse":
        check_separator(file, columns.names[0], texts, config)


def _doubts(
    columns: TargetColumns, rows: Sequence[Sequence[Any]], config: DatasetConfig
) -> list[str]:
    return doubtful_thousands(columns.names, rows, config) if columns.kind == "number" else []


def _decode(file: Path, data: bytes) -> str:
    for mark, form, cure in _OTHER_FORMS:
        if data.startswith(mark):
            raise DatasetError(f"the manifest is not a CSV file but {form}", f"{file}", cure)
    encoding = next((name for mark, name in _UNICODE_MARKS if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        byte = f"byte 0x{data[error.start]:02x} in line {line}"
        form = encoding.upper().removesuffix("-SIG")
        raise _no_utf8(file, f"{byte} is no {form}", "WINDOWS-1252") from None
    if "\0" in text:
        place = f"NUL characters, as in line {text[: text.index(chr(0))].count(chr(10)) + 1}"
        if text.count("\0") < len(text) // 10:
            cure = "remove them: tr -d '\\000' < FILE > OTHER"
            raise DatasetError("the CSV file is damaged", f"{file}: it holds {place}", cure)
        raise _no_utf8(file, f"it holds {place}", "UTF-16LE")
    return text.lstrip("\ufeff")  # a second mark, of a tool that put one before another's


def _no_utf8(file: Path, reason: str, encoding: str) -> DatasetError:
    fixed = f"{file.stem}-utf8{file.suffix}"
    return DatasetError(
        "the CSV file is not in UTF-8",
        f"{file}: {reason}",
        f"save it as UTF-8 (in Excel: CSV UTF-8); if it is in {encoding}, as from many programs on "
        f"Windows: iconv -f {encoding} -t UTF-8 {printable(file.name)} > {printable(fixed)}",
    )


def _find_header(stream: io.StringIO) -> tuple[str, int]:
    """Go to the header, past comments and Excel's ``sep=;``; give delimiter and lines passed."""
    delimiter, num_skipped = "", 0
    while True:
        start = stream.tell()
        line = stream.readline()
        text = line.strip()
        if text.casefold().startswith("sep=") and len(text) <= 5 and not delimiter:
            delimiter = line[4] if line[4:5] not in ("\r", "\n", "") else ","
        elif line and (not text or text.startswith("#")):
            pass
        else:
            stream.seek(start)
            # A header has no cell with a comma in it, or the columns would not be found.
            return delimiter or max(DELIMITERS, key=line.count), num_skipped
        num_skipped += 1


def _read_parquet(
    file: Path, config: DatasetConfig, notes: list[str], columns: list[TargetColumns]
) -> Iterator[Line]:
    import pyarrow as pa  # slow to import, and most data sets are folders
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        found = find_columns(file, list(schema.names), config, notes)
        columns.append(found.targets)
        places = (found.path, found.split, found.group, *found.places)
        wanted = sorted({number for number in places if number is not None})
        table = read_columns(file, [schema.names[number] for number in wanted])
    except pa.ArrowException as error:
        raise _unreadable(file, "Parquet file", error) from None
    as_path = _path_reader(file, schema, found.path)
    paths = map(as_path, table.column(schema.names[found.path]).to_pylist())
    labels = table.column(schema.names[found.label]).to_pylist()
    splits: Sequence[Any] = [None] * len(labels)
    if found.split is not None:
        splits = table.column(schema.names[found.split]).to_pylist()
    groups: Sequence[Any] = [None] * len(labels)
    if found.group is not None:
        groups = table.column(schema.names[found.group]).to_pylist()
    rows = zip(paths, splits, map(_text, groups), strict=True)
    if found.targets.kind != "class":
        cells = list(
            zip(
                *(table.column(schema.names[place]).to_pylist() for place in found.places),
                strict=True,
            )
        )
        notes += _doubts(found.targets, cells, config)
        read = cell_reader(file, found.targets, config)
        for number, ((path, split, group), said) in enumerate(zip(rows, cells, strict=True), 1):
            yield _line(number, path, read(said, f"row {number}"), _text(split), group)
        if not any(isinstance(one, list) for one in labels):
            texts = [(number, _text(one)) for number, one in enumerate(labels, 1)]
            _check_texts(file, found.targets, texts, config)
        return
    as_label = _label_reader(file, schema, found)
    for number, ((path, split, group), label) in enumerate(zip(rows, labels, strict=True), 1):
        yield Line(number, path, as_label(label, number, notes), _text(split), group=group)


def _path_reader(file: Path, schema: Any, column: int) -> Callable[[Any], str]:
    import pyarrow.types as kinds

    kind = _value_type(schema.field(column).type)
    if not (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_null(kind)):
        raise DatasetError(
            "the manifest's paths are not text",
            f"{file}: the column {schema.names[column]} holds {kind}",
            "write the files' paths into a column of text (dataset.path_column names it)",
        )
    return lambda value: "" if value is None else str(value)


def _label_reader(
    file: Path, schema: Any, columns: Columns
) -> Callable[[Any, int, list[str]], str]:
    import pyarrow.types as kinds

    name = schema.names[columns.label]
    kind = _value_type(schema.field(columns.label).type)
    if kinds.is_floating(kind):

        def read_float(value: Any, row: int, notes: list[str]) -> str:
            if value is None or math.isnan(value):
                return ""
            if not float(value).is_integer():
                raise _no_label(file, name, f"{value!r} in row {row}")
            _note(notes, f"{name} holds {kind}: 1.0 is read as the class 1, and NaN as no label")
            return str(int(value))

        return read_float
    if kinds.is_boolean(kind):

        def read_bool(value: Any, row: int, notes: list[str]) -> str:
            _note(notes, f"{name} holds {kind}: the classes are called False and True")
            return _text(value)

        return read_bool
    known = (kinds.is_string, kinds.is_large_string, kinds.is_integer, kinds.is_null)
    if not any(is_kind(kind) for is_kind in known):
        raise _no_label(file, name, f"{kind}")
    return lambda value, row, notes: _text(value)


def _value_type(kind: Any) -> Any:
    import pyarrow.types as kinds

    return kind.value_type if kinds.is_dictionary(kind) else kind  # pandas' categories


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)


def _no_label(file: Path, column: str, received: str) -> DatasetError:
    return DatasetError(
        "the labels are neither names nor whole numbers",
        f"{file}: the column {column} holds {received}",
        "write the name of each image's class as text (dataset.label_column names the column)",
    )


def _text(value: Any) -> str:
    is_nan = isinstance(value, float) and math.isnan(value)
    return "" if value is None or is_nan else str(value).strip()


def _open_quote(file: Path, line: int, reason: str) -> DatasetError:
    """Make the error of a quote that took in what comes after its cell."""
    return DatasetError(
        "the CSV file cannot be read",
        f"{file}: line {line}: {reason}",
        "close the double quote that is open there or on an earlier line, and double each one that "
        "is part of a name",
    )


def _unreadable(file: Path, form: str, reason: object) -> DatasetError:
    text = " ".join(str(reason).split())
    return DatasetError(f"the {form} cannot be read", f"{file}: {text}", "mend the file")

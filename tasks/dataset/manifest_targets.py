"""The targets of a manifest: which columns hold them, and what their cells say.

Nothing is guessed from values: the names of the columns, or settings, say which kind of target it
is, and a cell that does not fit is an error that names the row and the setting.
"""

import math
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from headstart.config import DatasetConfig, TargetKind
from headstart.errors import DatasetError
from headstart.tasks.dataset.class_names import class_name
from headstart.tasks.dataset.problems import printable

LABELS_COLUMN = "labels"
DEFAULT_SEPARATOR = ";"
MAX_DECIMAL_CLASSES = 20
"""More different decimals than these in a label column are no classes: nobody has named them."""
MAX_NUMBER = 1e30
"""Beyond, the squares that a training sums up end in infinity."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_OTHER_SEPARATORS = ";|,/ "
_NO, _YES = ("0", "0.0", "false", "no"), ("1", "1.0", "true", "yes")
_SYNONYMS = {**dict.fromkeys(_NO, "0"), **dict.fromkeys(_YES, "1")}


class TargetColumns(NamedTuple):
    """Where the targets stand.

    Attributes:
        kind: What they are.
        names: Of the columns.
        is_list: One column holds all labels of an image.
    """

    kind: TargetKind
    names: tuple[str, ...]
    is_list: bool = False


class Said(NamedTuple):
    """What a row says of an image.

    Attributes:
        label: In words, for messages and to compare rows by; of a class its name.
        values: Names of labels, sorted, or numbers; empty of a class.
        fault: Why it says nothing; empty where it does.
    """

    label: str
    values: tuple[Any, ...] = ()
    fault: str = ""


def choose_columns(file: Path, names: Sequence[str], config: DatasetConfig) -> TargetColumns:
    """Say which kind of target a manifest has, by its columns and the settings alone.

    Args:
        file: The manifest.
        names: Of its columns.
        config: May name them.

    Returns:
        The columns; of a class and of a list of labels one, which may not be there.

    Raises:
        DatasetError: The settings contradict each other, or the columns may be meant two ways.
    """
    _check_settings(file, config)
    if config.label_columns:
        return TargetColumns("labels", _matching(file, names, config))
    if config.target_columns:
        return TargetColumns("number", config.target_columns)
    lowered = {name.strip().casefold() for name in names}
    if config.target == "number":
        raise DatasetError(
            "dataset.target=number needs the columns that hold the numbers",
            f"{file}: the columns {_listed(names)}",
            "name one or several: --set dataset.target_columns=[COLUMN]",
        )
    if config.target == "labels" or config.label_separator is not None:
        default = LABELS_COLUMN if LABELS_COLUMN in lowered else "label"
        return TargetColumns("labels", (config.label_column or default,), is_list=True)
    if config.target is None and config.label_column is None and LABELS_COLUMN in lowered:
        if "label" in lowered:
            raise DatasetError(
                "the manifest has a column label and a column labels",
                f"{file}: the columns {_listed(names)}",
                "say which counts: --set dataset.target=class or --set dataset.target=labels",
            )
        return TargetColumns("labels", (LABELS_COLUMN,), is_list=True)
    return TargetColumns("class", (config.label_column or "label",))


def _check_settings(file: Path, config: DatasetConfig) -> None:
    wanted: dict[str, TargetKind] = {
        "label_columns": "labels", "label_separator": "labels", "no_label": "labels",
        "target_columns": "number",
    }  # fmt: skip
    told = {name: kind for name, kind in wanted.items() if getattr(config, name)}
    kinds = {*told.values(), *([config.target] if config.target else [])}
    if len(kinds) > 1:
        shown = [f"dataset.{name}" for name in told]
        shown += [f"dataset.target={config.target}"] if config.target else []
        raise DatasetError(
            "the settings ask for two kinds of targets",
            f"{', '.join(shown)}, for {file}",
            "dataset.label_columns, label_separator and no_label are for labels, "
            "dataset.target_columns for numbers; leave one out",
        )


def _matching(file: Path, names: Sequence[str], config: DatasetConfig) -> tuple[str, ...]:
    """Give the columns that are named, or match a pattern such as ``is_*``; ``*`` is the rest."""
    own = {config.path_column or "path", config.split_column or "split"}
    found: dict[str, None] = {}
    for pattern in config.label_columns:
        exact = [name for name in names if name.strip() == pattern]
        matching = exact or [
            name for name in names if name not in own and fnmatchcase(name.strip(), pattern)
        ]
        if not matching:
            raise DatasetError(
                f"the manifest has no column {printable(pattern)}",
                f"{file}: the columns {_listed(names)}",
                "name columns of 0 and 1 in dataset.label_columns; * stands for any letters",
            )
        found |= dict.fromkeys(matching)
    return tuple(found)


def cell_reader(
    file: Path, columns: TargetColumns, config: DatasetConfig
) -> Callable[[Sequence[Any], str], Said]:
    """Make what reads the target cells of a row, of labels or numbers.

    Args:
        file: The manifest.
        columns: From `choose_columns`.
        config: Says how labels are written.

    Returns:
        A function of the cells, text or values of Parquet, and of the row's place in words.
    """
    if columns.kind == "number":
        return lambda cells, place: _numbers(file, columns.names, cells, place)
    if columns.is_list:
        separator = config.label_separator or DEFAULT_SEPARATOR
        return lambda cells, place: _label_list(
            file, columns.names[0], cells[0], place, separator, config.no_label
        )
    return lambda cells, place: _label_cells(file, columns.names, cells, place, config.label_values)


def check_separator(
    file: Path, column: str, rows: Sequence[tuple[int, str]], config: DatasetConfig
) -> None:
    """Refuse a column of labels in which the separator never stands.

    Args:
        file: The manifest.
        column: Name of the column.
        rows: Number and cell of each row.
        config: Says what separates labels.

    Raises:
        DatasetError: It does not, and nobody said that each image has one label at most.
    """
    separator = config.label_separator or DEFAULT_SEPARATOR
    filled = [(number, text) for number, text in rows if text]
    if not filled or any(separator in text for _, text in filled):
        return
    row, sign = next(
        ((row, sign) for sign in _OTHER_SEPARATORS for row in filled if sign in row[1]),
        (filled[0], ""),
    )
    if config.label_separator is not None and not sign:
        return  # one label an image at most, as somebody has said
    hint = f"--set 'dataset.label_separator={sign}' if {sign!r} does; " if sign else ""
    raise DatasetError(
        f"no cell of the labels has the separator {separator!r} in it",
        f"{file}: the column {column}, as {row[1]!r} in row {row[0]}",
        f"say what separates labels: {hint}one class an image: --set dataset.target=class "
        f"--set dataset.label_column={column}; at most one label each: "
        f"--set 'dataset.label_separator={DEFAULT_SEPARATOR}'; one label a line: "
        "--set dataset.repeated_paths=merge",
    )


def check_classes(file: Path, column: str, rows: Sequence[tuple[int, str]]) -> None:
    """Refuse a column of labels that holds numbers of all sizes.

    Args:
        file: The manifest.
        column: Name of the column.
        rows: Number and cell of each row.

    Raises:
        DatasetError: It does.
    """
    filled = [(number, text) for number, text in rows if text]
    different = {text for _, text in filled}
    if len(different) <= MAX_DECIMAL_CLASSES:
        return
    decimal = next(((number, text) for number, text in filled if "." in text), None)
    if decimal is None or not all(_NUMBER.fullmatch(text) for text in different):
        return
    raise DatasetError(
        "the labels are decimal numbers, too many different ones to be classes",
        f"{file}: the column {column} holds {len(different):,} different ones, as "
        f"{decimal[1]} in row {decimal[0]}",
        f"to learn a number: --set dataset.target_columns=[{column}]; if each is the name of a "
        "class: --set dataset.target=class",
    )


def _numbers(file: Path, names: Sequence[str], cells: Sequence[Any], place: str) -> Said:
    missing = [name for name, cell in zip(names, cells, strict=True) if _is_missing(cell)]
    if missing:
        return Said("", fault=f"no number in {', '.join(missing)}")
    values = tuple(
        _number(file, name, cell, place) for name, cell in zip(names, cells, strict=True)
    )
    return Said(", ".join(f"{value:g}" for value in values), values)


def _number(file: Path, name: str, cell: Any, place: str) -> float:
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    text = str(cell).strip()
    value = float(text) if is_number or _NUMBER.fullmatch(text) else math.nan
    if math.isfinite(value) and abs(value) <= MAX_NUMBER:
        return value
    raise DatasetError(
        f"a target of {printable(name)} is not a finite number",
        f"{file}: {printable(text)!r} in {place}",
        "write bare numbers, with a point for decimals and no unit, and leave the cell empty "
        "where there is none; dataset.target_columns names the columns",
    )


def _label_list(
    file: Path, name: str, cell: Any, place: str, separator: str, no_label: str | None
) -> Said:
    pieces: Sequence[Any]
    if isinstance(cell, list | tuple):
        pieces = cell
    else:
        text = "" if cell is None else str(cell).strip()
        if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
            raise DatasetError(
                "the labels are written as a list of a programming language",
                f"{file}: {printable(text[:60])!r} in the column {name}, {place}",
                f"write them with {separator!r} between, as a{separator}b, and without brackets "
                "and quotes (dataset.label_separator)",
            )
        pieces = text.split() if separator == " " else text.split(separator)
    found = {class_name(str(piece)) for piece in pieces if piece is not None} - {"", no_label}
    return _labelled(sorted(found))


def _label_cells(
    file: Path, names: Sequence[str], cells: Sequence[Any], place: str, told: tuple[str, str]
) -> Said:
    no, yes = (_plain(word) for word in told)
    found, missing = [], []
    for name, cell in zip(names, cells, strict=True):
        value = _plain("" if cell is None else cell)
        if value == yes:
            found.append(class_name(name))
        elif value == "" and no != "":
            missing.append(name)
        elif value != no:
            raise DatasetError(
                f"the column {printable(name)} says neither {told[0]} nor {told[1]}",
                f"{file}: {printable(str(cell))!r} in {place}",
                f"leave it out of dataset.label_columns, or say what stands for no and for yes: "
                f"--set 'dataset.label_values=[{told[0]}, {told[1]}]'",
            )
    if missing:
        return Said("", fault=f"nothing in {', '.join(missing)} (dataset.label_columns)")
    return _labelled(found)


def _labelled(found: Sequence[str]) -> Said:
    return Said(" and ".join(found) or "nothing", tuple(found))


def _plain(cell: Any) -> str:
    """Give one spelling to what says yes or no: 1, 1.0, true and yes are one."""
    text = str(cell).strip().casefold()
    if text in _SYNONYMS:
        return _SYNONYMS[text]
    return f"{float(text):g}" if _NUMBER.fullmatch(text) else text


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:40]))
    return (shown or "(none)") + (f" and {len(names) - 40} more" if len(names) > 40 else "")

"""The targets of a manifest: which columns hold them, and what their cells say.

Nothing is guessed from values: the names of the columns, or settings, say which kind of target it
is, and a cell that does not fit is an error that names the row and the setting.
"""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from headstart.config import DatasetConfig, TargetKind
from headstart.errors import DatasetError
from headstart.tasks.dataset.manifest_cells import (
    DEFAULT_SEPARATOR,
    NUMBER,
    Said,
    flag_reader,
    is_list,
    list_reader,
    number_reader,
)
from headstart.tasks.dataset.printable import printable

LABELS_COLUMN = "labels"
MAX_DECIMAL_CLASSES = 20
"""More different decimals than these in a label column are no classes: nobody has named them."""
_OTHER_SEPARATORS = ";|,/ "
_UNNAMED = re.compile(r"(Unnamed: \d+)?")
"""What pandas calls the column of its index, in a file and where it has read one."""


class TargetColumns(NamedTuple):
    """Where the targets stand.

    Attributes:
        kind: Whether they are classes, labels or numbers.
        names: Names of the columns.
        is_list: One column holds all labels of an image.
    """

    kind: TargetKind
    names: tuple[str, ...]
    is_list: bool = False


def choose_columns(file: Path, names: Sequence[str], config: DatasetConfig) -> TargetColumns:
    """Say which kind of target a manifest has, by its columns and the settings alone.

    Returns:
        The columns; of a class and of a list of labels one, which may not be there.

    Raises:
        DatasetError: The settings contradict each other, or the columns may be meant two ways.
    """
    _check_settings(file, config)
    if config.label_columns:
        return TargetColumns("labels", _matching(file, names, config, config.label_columns))
    if config.target_columns:
        return TargetColumns("number", _matching(file, names, config, config.target_columns))
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
    if config.thousands_sign == config.decimal_sign:
        raise DatasetError(
            "dataset.thousands_sign and dataset.decimal_sign are the same",
            f"{config.thousands_sign!r}, for {file}",
            "give each its own; without thousands separators, leave dataset.thousands_sign out",
        )
    told = {name: kind for name, kind in wanted.items() if getattr(config, name)}
    kinds = {*told.values(), *([config.target] if config.target else [])}
    if len(kinds) > 1:
        shown = [f"dataset.{name}" for name in told]
        shown += [f"dataset.target={config.target}"] if config.target else []
        raise DatasetError(
            "the settings name two kinds of targets",
            f"{', '.join(shown)}, for {file}",
            "dataset.label_columns, label_separator and no_label are for labels, "
            "dataset.target_columns for numbers; leave one out",
        )


def _matching(
    file: Path, names: Sequence[str], config: DatasetConfig, patterns: Sequence[str]
) -> tuple[str, ...]:
    """Give the columns that are named, or match a pattern such as ``is_*``; ``*`` is the rest."""
    own = {config.path_column or "path", config.split_column or "split", config.group_column}
    if twice := next((one for one in patterns if patterns.count(one) > 1), None):
        raise asked_twice(file, twice)
    found: dict[str, None] = {}
    for pattern in patterns:
        lowered = pattern.casefold()
        named = [name for name in names if name.strip() == pattern]
        named = named or [name for name in names if name.strip().casefold() == lowered]
        matching = named or [
            name
            for name in names
            if name not in own
            and not _UNNAMED.fullmatch(name.strip())
            and fnmatchcase(name.strip(), pattern)
        ]
        if not matching:
            raise DatasetError(
                f"the manifest has no column {printable(pattern)}",
                f"{file}: the columns {_listed(names)}",
                "name columns of 0 and 1 in dataset.label_columns, of numbers in "
                "dataset.target_columns; * stands for any letters",
            )
        found |= dict.fromkeys(matching)
    return tuple(found)


def asked_twice(file: Path, name: str) -> DatasetError:
    """Make the error of a column that settings name twice."""
    return DatasetError(
        "a column of the manifest is named twice in the settings",
        f"{file}: {printable(name)}",
        "name each column once, and not that of the paths or the splits",
    )


def cell_reader(
    file: Path, columns: TargetColumns, config: DatasetConfig
) -> Callable[[Sequence[Any], str], Said]:
    """Make what reads the target cells of a row, of labels or numbers.

    Args:
        file: Path of the manifest, for errors.
        columns: As `choose_columns` gives them.
        config: Says how labels and numbers are written.

    Returns:
        A function of the cells, text or values of Parquet, and of the row's place in words.
    """
    if columns.kind == "number":
        return number_reader(file, columns.names, config)
    if columns.is_list:
        return list_reader(file, columns.names[0], config)
    return flag_reader(file, columns.names, config)


def check_separator(
    file: Path, column: str, rows: Sequence[tuple[int, str]], config: DatasetConfig
) -> None:
    """Refuse a column of labels in which the separator never stands.

    Raises:
        DatasetError: No cell has the separator, and nobody said that each image has one label at
            most.
    """
    separator = config.label_separator or DEFAULT_SEPARATOR
    filled = [(number, text) for number, text in rows if text]
    lists = [is_list(text) for _, text in filled]
    if any(lists):
        _refuse_mixed(file, column, filled, lists)
        return
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
        f"no label cell contains the separator {separator!r}",
        f"{file}: the column {column}, as {row[1]!r} in row {row[0]}",
        f"say what separates labels: {hint}one class an image: --set dataset.target=class "
        f"--set dataset.label_column={column}; at most one label each: "
        f"--set 'dataset.label_separator={DEFAULT_SEPARATOR}'; one label a line: "
        "--set dataset.repeated_paths=merge",
    )


def _refuse_mixed(
    file: Path, column: str, filled: Sequence[tuple[int, str]], lists: Sequence[bool]
) -> None:
    if all(lists):
        return
    other = filled[lists.index(False)]
    raise DatasetError(
        "the labels of some images are written as a list, those of others are not",
        f"{file}: the column {column}, as {other[1]!r} in row {other[0]} and "
        f"{filled[lists.index(True)][1]!r} in row {filled[lists.index(True)][0]}",
        "write all in one way: as ['a', 'b'], or with dataset.label_separator between",
    )


def check_classes(file: Path, column: str, rows: Sequence[tuple[int, str]]) -> None:
    """Refuse a column of classes that holds numbers of all sizes, or several labels in a cell.

    Raises:
        DatasetError: The column holds such numbers, or such cells.
    """
    filled = [(number, text) for number, text in rows if text]
    different = {text for _, text in filled}
    _refuse_several(file, column, filled, different)
    if len(different) <= MAX_DECIMAL_CLASSES:
        return
    decimal = next(((number, text) for number, text in filled if "." in text), None)
    is_each_another = len(different) == len(filled)
    if not (decimal or is_each_another) or not all(NUMBER.fullmatch(text) for text in different):
        return
    row, text = decimal or filled[0]
    raise DatasetError(
        "the labels are decimal numbers with too many different values to be classes"
        if decimal
        else "the labels are numbers, a different one in each row, so no class has two images",
        f"{file}: the column {column} holds {len(different):,} different ones, as {text} in row "
        f"{row}",
        f"to learn a number: --set dataset.target_columns=[{column}]; if each is the name of a "
        "class: --set dataset.target=class",
    )


def _refuse_several(
    file: Path, column: str, filled: Sequence[tuple[int, str]], different: set[str]
) -> None:
    listed = next(((row, text) for row, text in filled if is_list(text)), None)
    if listed is not None:
        raise _several(file, column, listed, "")
    for sign in _OTHER_SEPARATORS:
        cells = {text: _pieces(text, sign) for text in different if sign in text}
        if cells and _are_labels(cells, different, sign):
            found = next((row, text) for row, text in filled if text in cells)
            raise _several(file, column, found, sign)


def _are_labels(cells: dict[str, tuple[str, ...]], different: set[str], sign: str) -> bool:
    """Tell labels from names that have the sign in them: labels are put together anew each time."""
    pieces = set().union(*cells.values())
    num_uses = sum(map(len, cells.values())) + len(pieces & different)
    if sign in ";|":  # hardly ever in a name
        return num_uses > len(pieces)
    is_shuffled = len(set(map(frozenset, cells.values()))) < len(set(cells.values()))
    return is_shuffled or (len(cells) > len(pieces) and bool(pieces & different))


def _pieces(text: str, sign: str) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in text.split(sign) if piece.strip())


def _several(file: Path, column: str, found: tuple[int, str], sign: str) -> DatasetError:
    separator = f" --set 'dataset.label_separator={sign}'" if sign else ""
    return DatasetError(
        "the column of classes seems to hold several labels in a cell",
        f"{file}: the column {column}, as {printable(found[1][:80])!r} in row {found[0]}",
        f"if an image can have several labels: --set dataset.target=labels --set "
        f"'dataset.label_column={column}'{separator}; if each cell names one class: "
        "--set dataset.target=class",
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:40]))
    return (shown or "(none)") + (f" and {len(names) - 40} more" if len(names) > 40 else "")

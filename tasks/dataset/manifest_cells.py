"""The target cells of a manifest's row: labels, flags and numbers, as text or values of Parquet.

A cell that does not fit is an error that names the row and the setting that settles it.
"""

import ast
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headstart.config import DatasetConfig
from headstart.errors import DatasetError
from headstart.tasks.dataset.class_names import class_name
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.thousands import settings_of_thousands, without_thousands

DEFAULT_SEPARATOR = ";"
MAX_NUMBER = 1e30
"""Beyond, the squares that a training sums up end in infinity."""

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ITEM = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|0|[1-9][0-9]*)"""
_ITEMS = rf"{_ITEM}(?:\s*,\s*{_ITEM})*"
_LIST = re.compile(
    rf"\[\s*(?:{_ITEMS})?\s*,?\s*\]|\(\s*\)|\(\s*{_ITEM}\s*,\s*(?:{_ITEMS}\s*,?)?\s*\)"
)
"""A list or a tuple of texts or whole numbers, as Python and JSON write it."""
_CODE = re.compile(r"""[\w.]*\(?[\[({]\s*['"]""")
"""What begins like a list of texts in some programming language."""
_AFFIXED = re.compile(r"([^\w\s.,+-]{0,3})\s*([+-]?\d(?:.*\d)?)\s*(\D{0,12})")
"""A number between a sign of a currency and a unit."""
_NO, _YES = ("0", "0.0", "false", "no", "n"), ("1", "1.0", "true", "yes", "y")
_SYNONYMS = {**dict.fromkeys(_NO, "0"), **dict.fromkeys(_YES, "1")}


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


def is_list(text: str) -> bool:
    """Tell whether a cell is a list or tuple of texts or whole numbers: ``['cat', 'dog']``."""
    return _LIST.fullmatch(text) is not None


def missing_test(config: DatasetConfig) -> Callable[[Any], bool]:
    """Make what tells a cell that says nothing: an empty one, or one of the words for that."""
    words = {_written(word) for word in config.missing_values}

    def is_missing(cell: Any) -> bool:
        is_empty = cell is None or (isinstance(cell, str) and not cell.strip())
        return is_empty or _written(cell) in words

    return is_missing


def number_reader(
    file: Path, names: Sequence[str], config: DatasetConfig
) -> Callable[[Sequence[Any], str], Said]:
    """Make what reads a row's numbers.

    Returns:
        A function of the cells and of the row's place in words.
    """
    is_missing = missing_test(config)

    def read(cells: Sequence[Any], place: str) -> Said:
        missing = [name for name, cell in zip(names, cells, strict=True) if is_missing(cell)]
        if missing:
            return Said("", fault=f"no number in {', '.join(missing)}")
        values = tuple(
            _number(file, name, cell, place, config)
            for name, cell in zip(names, cells, strict=True)
        )
        return Said(", ".join(f"{value:.15g}" for value in values), values)

    return read


def _number(file: Path, name: str, cell: Any, place: str, config: DatasetConfig) -> float:
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    text = str(cell).strip()
    bare = text if is_number else _bare(text, config)
    value = float(bare) if is_number or NUMBER.fullmatch(bare) else math.nan
    if math.isfinite(value) and abs(value) <= MAX_NUMBER:
        return value
    if math.isfinite(value):
        raise DatasetError(
            f"a target of {printable(name)} is too large to be learned in float32",
            f"{file}: {printable(text)!r} in {place}, beyond {MAX_NUMBER:g}",
            "write it in a larger unit",
        )
    raise DatasetError(
        f"a target of {printable(name)} is not a finite number",
        f"{file}: {printable(text)!r} in {place}",
        _number_cure(text, config) + "; dataset.target_columns names the columns",
    )


def _bare(text: str, config: DatasetConfig) -> str:
    """Write a number as Python does, without its unit; what is none stays none."""
    unit = config.number_unit.strip()
    bare = text.removesuffix(unit).rstrip() if unit else text
    bare = without_thousands(bare, config.thousands_sign)
    if config.decimal_sign == ",":
        bare = "" if "." in bare else bare.replace(",", ".")
    return bare


def _number_cure(text: str, config: DatasetConfig) -> str:
    """Say which settings read what is no bare number."""
    found = _AFFIXED.fullmatch(text)
    before, number, unit = found.groups() if found else ("", text, "")
    separators = _separator_cure(number, config)
    has_unit = bool(unit) and unit.rstrip() != config.number_unit.strip()
    if (
        has_unit
        and not config.number_unit
        and (separators or NUMBER.fullmatch(_bare(number, config)))
    ):
        cure = f"--set 'dataset.number_unit={printable(unit)}' if each number ends with that"
        separators = f"{cure}; {separators}" if separators else cure
    elif has_unit:
        separators = ""
    if separators and before:
        return f"write the numbers without {printable(before)!r}; {separators}"
    if separators:
        return f"{separators}; otherwise write bare numbers"
    if not re.search(r"\d", text) or text == "-1":
        return (
            f"--set 'dataset.missing_values=[{_in_yaml(text)}]' if that means a missing value, "
            "which leaves the image out; otherwise write bare numbers"
        )
    sign = "comma" if config.decimal_sign == "," else "point"
    return (
        f"write bare numbers, with a {sign} for decimals, no thousands separator and no unit, and "
        "leave the cell empty if there is no value"
    )


def _separator_cure(number: str, config: DatasetConfig) -> str:
    """Say which settings read the separators of a number; empty where none do, or they are set."""
    if NUMBER.fullmatch(_bare(number, config)):
        return ""
    grouped = settings_of_thousands(number, config.decimal_sign)
    decimal = re.fullmatch(r"[+-]?\d+([.,])\d+", number)
    if decimal and decimal[1] != config.decimal_sign and (decimal[1] == "," or not grouped):
        also = " --set dataset.thousands_sign=" if decimal[1] == config.thousands_sign else ""
        word = "comma" if decimal[1] == "," else "point"
        cure = (
            f"--set 'dataset.decimal_sign={decimal[1]}'{also} if the {word} is a decimal separator"
        )
        return cure + (f"; {grouped} if it separates thousands" if grouped else "")
    return f"{grouped} if that is a thousands separator" if grouped else ""


def list_reader(
    file: Path, name: str, config: DatasetConfig
) -> Callable[[Sequence[Any], str], Said]:
    """Make what reads a cell that holds all labels of an image.

    Returns:
        A function of the cells, of which the first counts, and of the row's place in words.
    """
    separator = config.label_separator or DEFAULT_SEPARATOR
    words = {_written(word) for word in config.missing_values}

    def read(cells: Sequence[Any], place: str) -> Said:
        cell = cells[0]
        if not isinstance(cell, list | tuple) and cell is not None and _written(cell) in words:
            return Said("", fault=f"nothing in {name} (dataset.missing_values)")
        pieces = _pieces(file, name, cell, place, separator)
        found = {class_name(str(piece)) for piece in pieces if piece is not None}
        return labelled(sorted(found - {"", config.no_label}))

    return read


def _literal(text: str) -> Sequence[Any] | None:
    """Read a list as Python and JSON write it; None where an escape in it is none."""
    try:
        read: Sequence[Any] = ast.literal_eval(text)
    except SyntaxError:
        return None
    return read


def _pieces(file: Path, name: str, cell: Any, place: str, separator: str) -> Sequence[Any]:
    if isinstance(cell, list | tuple):
        return cell
    text = "" if cell is None else str(cell).strip()
    pieces = _literal(text) if is_list(text) else None
    if pieces is not None:
        if len(set(pieces)) == len(pieces) or any(isinstance(piece, str) for piece in pieces):
            return pieces
        raise DatasetError(
            "the labels are lists of flags that do not say which labels they stand for",
            f"{file}: {printable(text[:60])!r} in the column {name}, {place}",
            "write a column of 0 and 1 for each label, and name them in dataset.label_columns",
        )
    if _CODE.match(text) or (text[:1] in ("[", "{") and text[-1:] in ("]", "}")):
        raise DatasetError(
            "the labels are written in an unsupported syntax of a programming language",
            f"{file}: {printable(text[:60])!r} in the column {name}, {place}",
            f"write them with {separator!r} between, as a{separator}b (dataset.label_separator), "
            "or as ['a', 'b']",
        )
    return text.split() if separator == " " else text.split(separator)


def flag_reader(
    file: Path, names: Sequence[str], config: DatasetConfig
) -> Callable[[Sequence[Any], str], Said]:
    """Make what reads a column a label, each of which says yes or no.

    Returns:
        A function of the cells and of the row's place in words.
    """
    no, yes = (
        {_plain(word) for word in ((told,) if isinstance(told, str) else told)}
        for told in config.label_values
    )
    missing_words = {_written(word) for word in config.missing_values} | {""}

    def read(cells: Sequence[Any], place: str) -> Said:
        found, missing = [], []
        for name, cell in zip(names, cells, strict=True):
            value = _plain("" if cell is None else cell)
            if value in yes:
                found.append(class_name(name))
            elif value not in no and _written("" if cell is None else cell) in missing_words:
                missing.append(name)
            elif value not in no:
                raise _neither(file, name, cell, place, config)
        if missing:
            hint = 'dataset.label_values=[[0, ""], 1] reads an empty cell as no'
            return Said("", fault=f"nothing in {', '.join(missing)} ({hint})")
        return labelled(found)

    return read


def _neither(file: Path, name: str, cell: Any, place: str, config: DatasetConfig) -> DatasetError:
    told = [(one,) if isinstance(one, str) else one for one in config.label_values]
    words = [" or ".join(word or "nothing" for word in one) for one in told]
    text = str(cell).strip()
    no, yes = (_in_yaml(one[0]) for one in told)
    shown = _in_yaml(text)
    number = "; a number to learn goes into dataset.target_columns" if _is_fraction(text) else ""
    return DatasetError(
        f"the column {printable(name)} says neither {words[0]} nor {words[1]}",
        f"{file}: {printable(text)!r} in {place}",
        f"--set 'dataset.label_values=[[{no}, {shown}], {yes}]' reads it as no, "
        f"'[{no}, [{yes}, {shown}]]' for yes; --set 'dataset.missing_values=[{shown}]' leaves such "
        f"images out{number}; if this is not a column of labels, name the label columns in "
        "dataset.label_columns",
    )


def _is_fraction(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None and not float(text).is_integer()


def _in_yaml(text: str) -> str:
    """Write a cell's text as an item of a list of the command line."""
    return text if re.fullmatch(r"-?\w[\w./-]*", text) else f'"{printable(text)}"'


def labelled(found: Sequence[str]) -> Said:
    """Say that an image has labels."""
    # Quoted where one name reads like two: else they would count as equal.
    shown = [repr(name) if " and " in name else name for name in found]
    return Said(" and ".join(shown) or "nothing", tuple(found))


def _plain(cell: Any) -> str:
    """Give one spelling to what says the same: 1, 1.0, true and yes are one."""
    text = _written(cell)
    return _SYNONYMS.get(text, text)


def _written(cell: Any) -> str:
    """Give one spelling to one word, or number: 1 and 1.0 are one, but 0 says more than "no"."""
    text = str(cell).strip().casefold()
    return f"{float(text):.15g}" if NUMBER.fullmatch(text) else text

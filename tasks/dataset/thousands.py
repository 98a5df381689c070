"""Numbers in groups of three digits: 1.020 may be a little more than one, or a thousand and twenty.

The setting decides; where most cells of a column can be read in both ways, a remark says so.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

from headstart.config import DatasetConfig
from headstart.tasks.dataset.printable import printable

_SPELLINGS = {" ": " \u00a0\u202f", "'": "'\u2019"}
"""Other characters that are the same separator: spaces that do not break, a typographic quote."""
_FIRST = r"[+-]?[1-9]\d{0,2}"
"""The first group: nobody writes 0.125 for 125, so that such a number is a decimal."""
_GROUPS = re.compile(
    rf"{_FIRST}([.,'\u2019_ \u00a0\u202f])\d{{3}}(?:\1\d{{3}})*([.,]\d+)?", re.ASCII
)
_WORDS = {".": "a point", ",": "a comma"}


def without_thousands(text: str, sign: str) -> str:
    """Take the separators out of a number that is written in groups of three digits.

    Args:
        text: A cell, of any content.
        sign: The separator; nothing is taken out where it is empty.
    """
    if not sign:
        return text
    signs = f"[{_SPELLINGS.get(sign, sign)}]"
    found = re.match(rf"{_FIRST}(?:{signs}\d{{3}})+(?!\d)", text, re.ASCII)
    return re.sub(signs, "", found[0]) + text[found.end() :] if found else text


def settings_of_thousands(text: str, decimal_sign: str) -> str:
    """Give the settings that read a number in groups of three digits; empty where it is none."""
    found = _GROUPS.fullmatch(text)
    if found is None:
        return ""
    sign = next((own for own, other in _SPELLINGS.items() if found[1] in other), found[1])
    wanted = (found[2] or "")[:1] or decimal_sign
    if wanted == sign:
        if found[2]:  # as 1.020.30
            return ""
        wanted = "," if sign == "." else "."
    return _settings(sign, wanted, decimal_sign)


def _settings(sign: str, wanted: str, decimal_sign: str) -> str:
    other = "" if wanted == decimal_sign else f" --set dataset.decimal_sign={wanted}"
    return f'--set "dataset.thousands_sign={sign}"{other}'


def doubtful_thousands(
    names: Sequence[str], rows: Sequence[Sequence[Any]], config: DatasetConfig
) -> list[str]:
    """Tell of columns whose decimals may be whole numbers in groups of three digits.

    These are columns of which most cells have the decimal sign before exactly three digits, and
    none has a decimal that cannot be meant so, such as 0.125 or 1.5.

    Args:
        names: Of the columns of numbers.
        rows: Their cells; those that are no text are numbers without a doubt.
        config: Says how numbers are written.
    """
    if config.thousands_sign:
        return []
    sign: Literal[".", ","] = config.decimal_sign
    whole = re.compile(rf"{_FIRST}{re.escape(sign)}\d{{3}}", re.ASCII)
    notes = []
    for name, column in zip(names, zip(*rows, strict=True), strict=False):
        cells = [cell.strip() for cell in column if isinstance(cell, str)]
        texts = [cell.removesuffix(config.number_unit.strip()).rstrip() for cell in cells if cell]
        doubtful = [text for text in texts if whole.fullmatch(text)]
        are_decimals = any(sign in text and not whole.fullmatch(text) for text in texts)
        if are_decimals or 2 * len(doubtful) <= len(column):
            continue
        settings = _settings(sign, "," if sign == "." else ".", sign)
        notes.append(
            f"{len(doubtful):,} of {len(column):,} cells of {printable(name)} have {_WORDS[sign]} "
            f"before exactly three digits, as {doubtful[0]}, which is read as a decimal; if it "
            f"separates thousands: {settings}"
        )
    return notes

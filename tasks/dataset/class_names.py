"""Names of classes: their one spelling, and which of them are probably meant to be one."""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from headstart.tasks.dataset.problems import Problem

_MISSING = {
    *("nan", "none", "null", "na", "n/a", "<na>", "nat", "undefined", "?", "-"),
    *("unlabeled", "unlabelled", "_unlabeled", "no_label", "no label", "unsup", "todo"),
}
"""How tools write that there is no value or no label, in lower case."""


def class_name(text: str) -> str:
    """Give a label its one spelling.

    Returns:
        The text without outer white space, in Unicode's composed form: macOS may write the same
        folder name decomposed, which would make two classes of one. Empty where nothing is left
        that could be seen.
    """
    name = unicodedata.normalize("NFC", text.strip())
    return name if any(unicodedata.category(c) not in ("Cf", "Cc", "Zs") for c in name) else ""


def doubtful_names(names: Sequence[str]) -> Iterator[Problem]:
    """Warn of classes that look like one another, or like a missing value.

    Yields:
        Warnings; nothing is left out.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_likeness(name), []).append(name)
    for group in (group for group in alike.values() if len(group) > 1):
        written = " and ".join(map(repr, group))
        reason = (
            f"{written} are {len(group)} separate classes; if they are meant as one, spell "
            "them the same way"
        )
        yield Problem(", ".join(group), "doubtful_name", reason, left_out=False)
    for name in names:
        if name.casefold() in _MISSING:
            reason = "is used as the name of a class; if it means that there is no label, "
            reason += "remove those images"
            yield Problem(name, "doubtful_name", reason, left_out=False)
    yield from _mixed_kinds(names)


def merged_names(places: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    """Warn of folders that differ in their spelling alone, and so are one class.

    Args:
        places: Folder names that make one class, and where they lie.

    Yields:
        A warning for each spelling after the first.
    """
    seen: dict[str, str] = {}
    for spelling, place in places:
        name = class_name(spelling)
        first = seen.setdefault(name, spelling)
        if first != spelling:
            reason = f"{spelling!r} and {first!r} are one class: white space around a name, and "
            reason += "how Unicode composes it, do not count"
            yield Problem(place, "doubtful_name", reason, left_out=False)


def _mixed_kinds(names: Sequence[str]) -> Iterator[Problem]:
    """Warn of yes-or-no words beside numbers, as a table of mixed cells has them."""
    words = [name for name in names if name.casefold() in ("true", "false", "yes", "no")]
    numbers = [name for name in names if _number(name) is not None]
    if words and numbers:
        reason = f"{words[0]!r} and {numbers[0]!r} are classes side by side; the labels may be of "
        reason += "mixed kinds"
        yield Problem(f"{words[0]}, {numbers[0]}", "doubtful_name", reason, left_out=False)


def _likeness(name: str) -> str:
    """Give what names that probably mean one class have in common."""
    number = _number(name)
    if number is not None:
        return f"number {number!r}"
    text = unicodedata.normalize("NFKC", name).casefold()
    # Windows drops dots and spaces at the end of a name.
    return re.sub(r"[\s_\-\u200b-\u200f\ufeff]+", " ", text).strip(" .")


def _number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) else None

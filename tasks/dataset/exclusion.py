"""Files that the user leaves out by a list, such as the one that `headstart audit` writes."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import DatasetError
from headstart.reading import MAX_TABLE_BYTES, read_regular
from headstart.tasks.dataset.inspection import InspectedImage
from headstart.tasks.dataset.manifest_table import DELIMITERS
from headstart.tasks.dataset.problems import Problem

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COLUMNS = {"digest", "path"}
MOST_UNMET = 1_000
"""Lines without an image that are listed: a list may be of another, much larger data set."""


@dataclass(frozen=True)
class Exclusions:
    """What a list names.

    Attributes:
        name: Name of the list's file.
        digests: SHA-256 of images' bytes, which stay right when files are moved or renamed.
        paths: Relative to the root, POSIX style, from lines without a digest.
    """

    name: str
    digests: frozenset[str]
    paths: frozenset[str]

    def apply(self, images: Iterable[InspectedImage]) -> tuple[list[InspectedImage], list[Problem]]:
        """Leave images out.

        Returns:
            Those that stay, a problem for each of the others, and a warning for each line that
            names no image that is there, up to `MOST_UNMET` and one that counts them.
        """
        kept, problems = [], []
        named = self.digests | self.paths
        unmet = set(named)
        for image in images:
            names = {image.digest, image.listed.path} & named
            if names:
                unmet -= names
                problems.append(Problem(image.listed.path, "excluded", f"excluded by {self.name}"))
            else:
                kept.append(image)
        listed = sorted(unmet)[:MOST_UNMET]
        reasons = [f"it names {one}, which is no image of this data set" for one in listed]
        if len(listed) < len(unmet):
            reasons.append(
                f"{len(unmet):,} of its lines name no image of this data set; the first "
                f"{MOST_UNMET:,} are listed"
            )
        if not named:
            reasons.append("it names no image")
        problems += [
            Problem(self.name, "unmet_exclusion", reason, left_out=False) for reason in reasons
        ]
        return kept, problems


def read_exclusions(path: Path) -> Exclusions:
    """Read a list of images to leave out.

    Args:
        path: CSV, delimited as manifests may be, with the column digest or path (where a line has
            both, the digest counts), or plain text with one digest or path a line.

    Raises:
        DatasetError: The file cannot be read.
    """
    try:
        text = read_regular(path.expanduser(), MAX_TABLE_BYTES).decode("utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        delimiter = max(DELIMITERS, key=first.count)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            "the list of images to leave out is not a CSV or text file in UTF-8",
            f"{path}: {error}",
            "give a file with one path or digest a line, as `headstart audit` writes it",
        ) from None
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if _COLUMNS & set(header):
        lines = [dict(zip(header, row, strict=False)) for row in rows[1:]]
        entries = [(line.get("digest") or line.get("path") or "").strip() for line in lines]
    else:
        entries = [line.strip() for line in text.splitlines()]
    entries = [entry for entry in entries if entry]
    digests = frozenset(entry.lower() for entry in entries if _DIGEST.fullmatch(entry.lower()))
    paths = frozenset(
        entry.replace("\\", "/").removeprefix("./")
        for entry in entries
        if not _DIGEST.fullmatch(entry.lower())
    )
    return Exclusions(path.name, digests, paths)

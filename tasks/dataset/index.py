"""The data set's index: one row an image, and everything that was wrong, as portable JSON."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from headstart.config import SPLITS, Split, TargetKind
from headstart.errors import DatasetError
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.problems import KIND_WORDS, PROBLEM_KINDS, Problem

SCHEMA_VERSION = 1
"""Bump by hand when the JSON changes shape."""

_MAX_CLASSES_SHOWN = 6


class ImageRow(NamedTuple):
    """One usable image.

    Attributes:
        path: Path relative to the root, POSIX style; unique within a split.
        digest: SHA-256 of the file's bytes, in hexadecimal. Several rows of one class may share
            one; they then share the split too.
        label: Index into the class names, int >= 0; 0 where targets are no classes.
        split: "train", "val" or "test".
        width: Pixels across, after EXIF orientation.
        height: Pixels down, after EXIF orientation.
        format: Pillow's name of the format, such as "JPEG".
        values: Of labels, the indices of those that the image has, ascending; of numbers, the
            numbers. Empty where the target is a class.
        group: What it stays in one split with, besides its copies; empty where nothing says so.
    """

    path: str
    digest: str
    label: int
    split: Split
    width: int
    height: int
    format: str
    values: tuple[float, ...] = ()
    group: str = ""

    @property
    def unit(self) -> str:
        """What stays together: the image's group, or else its digest."""
        return self.group or self.digest


@dataclass(frozen=True)
class DatasetIndex:
    """Which images there are, in which class and split, and what was left out.

    Attributes:
        class_names: The classes in natural order; a label is an index into them. Of other kinds
            of targets, the names of the labels or of the numbers.
        rows: The usable images, sorted by path.
        problems: Everything left out or worth a warning, sorted by kind and path.
        num_files_seen: Files (or manifest lines) met; hidden and junk ones are not counted.
        num_ignored: Hidden and junk files and folders passed over.
        num_hashed: Files read when the index was built; the others were known unchanged.
        num_decoded: Files decoded when the index was built.
    """

    class_names: tuple[str, ...]
    rows: tuple[ImageRow, ...]
    problems: tuple[Problem, ...] = ()
    num_files_seen: int = 0
    num_ignored: int = 0
    num_hashed: int = 0
    num_decoded: int = 0
    kind: TargetKind = "class"

    def rows_of(self, split: Split) -> tuple[ImageRow, ...]:
        """Give the rows of one split, in the order that trainings and draws number them by.

        It is that of the images' contents: what a file is called decides no result.

        Args:
            split: "train", "val" or "test".

        Returns:
            Its rows; empty where the data has no such split.
        """
        rows = [row for row in self.rows if row.split == split]
        return tuple(sorted(rows, key=lambda row: (row.digest, row.label, row.values, row.path)))

    @property
    def by_split(self) -> dict[Split, tuple[ImageRow, ...]]:
        """The rows of each split; see `rows_of`."""
        return {split: self.rows_of(split) for split in SPLITS}

    def only(self, digests: Collection[str]) -> "DatasetIndex":
        """Narrow the index to some images.

        Returns:
            An index of their rows alone.
        """
        kept = set(digests)
        return replace(self, rows=tuple(row for row in self.rows if row.digest in kept))

    @property
    def left_out(self) -> tuple[Problem, ...]:
        """The problems because of which something is not in the data set."""
        return tuple(problem for problem in self.problems if problem.left_out)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """The distinct image digests, sorted: what features are computed for."""
        return tuple(sorted({row.digest for row in self.rows}))

    @cached_property
    def images_digest(self) -> str:
        """SHA-256 over the distinct image digests alone: labels, splits and paths do not matter."""
        return hashlib.sha256("\n".join(self.digests).encode()).hexdigest()

    @cached_property
    def labels_digest(self) -> str:
        """SHA-256 over the labels of all splits; see `labels_digest_of`."""
        return self.labels_digest_of(SPLITS)

    def labels_digest_of(self, splits: Collection[Split]) -> str:
        """Digest all that work on some splits depends on, besides the features.

        These are the class names in their order, and digest, label and split of every row; a row
        that occurs twice counts twice. Paths and their order do not matter.

        Returns:
            SHA-256, in hexadecimal.
        """
        lines = sorted(
            f"{row.digest} {row.label if self.kind == 'class' else list(row.values)} {row.split}"
            for row in self.rows
            if row.split in splits
        )
        told = [self.class_names, lines] + ([] if self.kind == "class" else [self.kind])
        text = json.dumps(told, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def unit_fields(self, *splits: Split) -> dict[str, str]:
        """Say what a cross-validation of some splits depends on, besides their labels.

        Returns:
            Key fields: none where every image stands alone.
        """
        rows = [row for row in self.rows if row.split in splits]
        if len({row.unit for row in rows}) == len(rows):
            return {}
        lines = sorted(f"{row.digest} {row.unit}" for row in rows)
        return {"units": hashlib.sha256("\n".join(lines).encode()).hexdigest()}

    @cached_property
    def split_counts(self) -> dict[Split, tuple[int, ...]]:
        """Images of each class in each split that has any, in the order of the class names.

        Of labels, the images that have each; of numbers, all images for each.
        """
        counts: Counter[tuple[Split, int]] = Counter()
        for row in self.rows:
            counts.update((row.split, name) for name in self._names_of(row))
        table = {
            split: tuple(counts[split, label] for label in range(len(self.class_names)))
            for split in SPLITS
        }
        return {split: table[split] for split in self.split_sizes}

    @cached_property
    def split_sizes(self) -> dict[Split, int]:
        """Images in each split that has any."""
        sizes = Counter(row.split for row in self.rows)
        return {split: sizes[split] for split in SPLITS if sizes[split]}

    def _names_of(self, row: ImageRow) -> Iterable[int]:
        """Give the indices of the names that say something of an image."""
        if self.kind == "class":
            return (row.label,)
        return map(int, row.values) if self.kind == "labels" else range(len(self.class_names))

    def to_json(self) -> str:
        """Write the index as JSON: no absolute path, one line a row.

        Returns:
            The text; `from_json` reads it back.
        """
        width = len(ImageRow._fields)
        if not any(row.group for row in self.rows):
            width -= 1 + (self.kind == "class")  # classes have no values
        fields: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            **({} if self.kind == "class" else {"kind": self.kind}),
            "class_names": self.class_names,
            "num_files_seen": self.num_files_seen,
            "num_ignored": self.num_ignored,
            "num_hashed": self.num_hashed,
            "num_decoded": self.num_decoded,
            "problem_fields": Problem._fields,
            "row_fields": ImageRow._fields[:width],
        }
        parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
        parts += [
            f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, entries)) + "\n]"
            for name, entries in (
                ("problems", self.problems),
                ("rows", [row[:width] for row in self.rows]),
            )
        ]
        return "{\n" + ",\n".join(parts) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> "DatasetIndex":
        """Read an index back.

        Raises:
            DatasetError: If the text is not such an index, or of another schema version.
        """
        try:
            fields = json.loads(text)
            version = fields["schema_version"]
            if version != SCHEMA_VERSION:
                raise ValueError(f"schema version {version}, not {SCHEMA_VERSION}")
            return cls(
                class_names=tuple(fields["class_names"]),
                rows=tuple(_read_row(row) for row in fields["rows"]),
                problems=tuple(Problem(*problem) for problem in fields["problems"]),
                num_files_seen=fields["num_files_seen"],
                num_ignored=fields["num_ignored"],
                num_hashed=fields["num_hashed"],
                num_decoded=fields["num_decoded"],
                kind=fields.get("kind", "class"),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(
                "this is not the JSON of a data set index",
                f"{type(error).__name__}: {error}",
                "build the index again",
            ) from None

    def summary_lines(self, max_per_kind: int = 3, listed_in: str = "") -> tuple[str, ...]:
        """Tell a person what the data set is and what is not in it.

        Args:
            max_per_kind: Problems shown of each kind before the rest is counted only.
            listed_in: Where all problems can be read, such as the path of the index's JSON.

        Returns:
            Lines of text, the first one complete in itself.
        """
        lines = [_headline(self)]
        for kind in PROBLEM_KINDS:
            problems = [problem for problem in self.problems if problem.kind == kind]
            lines += [f"  {problem}" for problem in problems[:max_per_kind]]
            if (num_more := len(problems) - max_per_kind) > 0:
                lines.append(f"  … and {num_more:,} more: {KIND_WORDS[kind]}")
        if len(lines) > 1 and listed_in:
            lines.append(f"  All of them: {listed_in}")
        return tuple(lines)


def _read_row(fields: list[Any]) -> ImageRow:
    row = ImageRow(*fields)
    return row._replace(values=tuple(row.values))


def natural_key(name: str) -> tuple[Any, ...]:
    """Sort key that puts "class 2" before "class 10" and ignores case, but is total.

    Returns:
        A key; different names never compare equal.
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    return (tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts), name)


def _headline(index: DatasetIndex) -> str:
    names = [printable(name) for name in index.class_names]
    if len(names) > _MAX_CLASSES_SHOWN:
        names = [*names[: _MAX_CLASSES_SHOWN - 1], "…"]
    splits = " / ".join(f"{split} {number:,}" for split, number in index.split_sizes.items())
    number = len(index.class_names)
    if index.kind == "class":
        named = f"{number:,} {'class' if number == 1 else 'classes'}"
    else:
        named = _count(number, index.kind.removesuffix("s"))
    line = f"{_count(len(index.rows), 'image')}, {named} ({', '.join(names)}), {splits}"
    if not (left_out := index.left_out):
        return line
    kinds = Counter(problem.kind for problem in left_out)
    told = ", ".join(f"{kinds[kind]:,} {KIND_WORDS[kind]}" for kind in PROBLEM_KINDS if kinds[kind])
    return f"{line}; {len(left_out):,} left out: {told}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

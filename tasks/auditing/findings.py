"""Findings: one line for each thing that may be wrong, and what to leave out because of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from headstart.config import ChecksConfig
from headstart.tasks.auditing.duplicates import MAX_PAIRS, Pair, group_pairs
from headstart.tasks.auditing.labels import LabelQuality
from headstart.tasks.auditing.oddities import thin_classes
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.dataset.units import units_among

Kind = Literal[
    "label_error", "leak", "near_duplicate", "outlier", "blurred", "dark", "odd_size", "thin_class"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they are told: by what they cost a model, and how sure they are."""
TITLES: dict[Kind, str] = {
    "label_error": "Likely label errors",
    "leak": "Leaks: near-duplicates across splits",
    "near_duplicate": "Near-duplicates within a split",
    "outlier": "Outliers",
    "blurred": "Blurred",
    "dark": "Dark",
    "odd_size": "Odd-sized",
    "thin_class": "Thin classes",
}
_NOUNS: dict[str, str] = {
    "label_error": "label error",
    "leak": "leak",
    "near_duplicate": "near-duplicate",
    "outlier": "outlier",
    "blurred": "blurred image",
    "dark": "dark image",
    "odd_size": "odd-sized image",
    "thin_class": "thin class",
}
_HELD_OUT_FIRST = ("test", "val", "train")


class Finding(BaseModel, frozen=True):
    """One thing that may be wrong."""

    kind: Kind
    path: str
    """Of the image, relative to the root; the class's name for a thin class."""
    digest: str = ""
    split: str = ""
    label: str = ""
    score: float
    """Higher is more suspicious; comparable within a kind."""
    detail: str
    suggested_label: str = ""
    other: str = ""
    """Path of the image that this one duplicates."""
    exclude: bool = False
    """Whether the audit suggests to leave the image out."""


class Images:
    """The distinct images of a data set, in the order of its digests.

    Attributes:
        rows: The first row of each distinct image.
        class_names: Names of the data set's classes.
        labels: int32 [n]; 0 where images have no classes.
        kind: What the targets are: classes, labels or numbers.
        units: int64 [n]: images of one group have one number; None where each stands alone.
    """

    def __init__(self, index: DatasetIndex) -> None:
        first: dict[str, ImageRow] = {}
        for row in index.rows:
            first.setdefault(row.digest, row)
        self.rows = [first[digest] for digest in index.digests]
        self.class_names = index.class_names
        self.kind = index.kind
        self.labels: npt.NDArray[np.int32] = np.array([row.label for row in self.rows], np.int32)
        self.units = units_among(self.rows)

    def __len__(self) -> int:
        """Return the number of distinct images."""
        return len(self.rows)

    def told(self, row: ImageRow) -> str:
        """Say what an image is labelled as."""
        if self.kind == "class":
            return self.class_names[row.label]
        if self.kind == "labels":
            return ", ".join(self.class_names[int(label)] for label in row.values) or "no label"
        pairs = zip(self.class_names, row.values, strict=True)
        return ", ".join(f"{name} {value:.6g}" for name, value in pairs)

    def finding(self, position: int, kind: Kind, score: float, detail: str) -> Finding:
        """Begin a finding about an image."""
        row = self.rows[position]
        return Finding(
            kind=kind,
            path=row.path,
            digest=row.digest,
            split=row.split,
            label=self.told(row),
            score=round(float(score), 6),
            detail=detail,
        )


def label_findings(images: Images, quality: LabelQuality) -> Iterator[Finding]:
    """Report the labels that confident learning counts as errors, the worst first."""
    for position in np.argsort(quality.margin, kind="stable").tolist():
        if not quality.is_error[position]:
            continue
        suggested = images.class_names[int(quality.suggested[position])]
        margin = float(quality.margin[position])
        text = f"predicted as {suggested}, ahead of its own label by {-margin:.0%}"
        found = images.finding(position, "label_error", -margin, text)
        yield found.model_copy(update={"suggested_label": suggested, "exclude": True})


def duplicate_findings(images: Images, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Report near-duplicates; one of two that lie in different splits should go."""
    size_of = {image: len(group) for group in group_pairs(pairs) for image in group}
    told: Counter[tuple[int, bool]] = Counter()
    for pair in pairs:
        kept, gone = sorted(
            (pair.first, pair.second),
            key=lambda image: (_HELD_OUT_FIRST.index(images.rows[image].split), image),
        )
        stays, goes = images.rows[kept], images.rows[gone]
        is_leak = stays.split != goes.split
        told[gone, is_leak] += 1
        if told[gone, is_leak] > MAX_PAIRS:
            continue  # one of very many: it is told already, with the most similar ones
        text = f"similarity {pair.similarity:.3f}, {pair.distance} of 64 bits differ"
        text += ", mirrored" if pair.is_mirrored else ""
        text += f"; the other is in {stays.split}" if is_leak else ""
        if images.told(stays) != images.told(goes):
            text += f"; the other is labelled {images.told(stays)}"
        if size_of[gone] > 2:
            text += f"; one of a group of {size_of[gone]}"
        kind: Kind = "leak" if is_leak else "near_duplicate"
        found = images.finding(gone, kind, pair.similarity, text)
        yield found.model_copy(update={"other": stays.path, "exclude": is_leak})


def measured_findings(
    images: Images, kind: Kind, values: npt.NDArray[np.float64], limit: float, wording: str
) -> Iterator[Finding]:
    """Report the images whose value exceeds a limit, the largest first.

    Args:
        images: The distinct images, in the order of `values`.
        kind: Kind of the findings made.
        values: float64 [n], one an image.
        limit: Largest value that is in order.
        wording: Text of a finding, with ``{value}`` where the value goes.
    """
    for position in np.argsort(-values, kind="stable").tolist():
        value = float(values[position])
        if value <= limit:
            return
        yield images.finding(position, kind, value, wording.format(value=value))


def class_findings(index: DatasetIndex, config: ChecksConfig) -> Iterator[Finding]:
    """Report the classes that have too few training images beside the largest."""
    if index.kind == "number":
        return
    counts = np.array(index.split_counts["train"], np.int64)
    for number, times in thin_classes(counts, config.max_imbalance):
        name = index.class_names[number]
        text = f"{counts[number]:,} training images; the largest class has {int(counts.max()):,}"
        yield Finding(kind="thin_class", path=name, label=name, score=min(times, 1e9), detail=text)


def counted(kind: str, count: int) -> str:
    """Return what stands behind a count of findings."""
    noun = _NOUNS[kind]
    return noun if count == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"

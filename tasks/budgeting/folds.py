"""The stage that holds out a part of the training images, or all images but those.

What it makes is a data set like any other, of which the part is the test split: heads, sweeps and
rungs train on it and are evaluated as ever, and no image that judges them was trained on. Rows lie
outside of data sets, so it costs an index.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.config import TargetKind
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.dataset.stratifying import deal_into_folds
from headstart.tasks.head.folds import stratified_folds
from headstart.tasks.running.stage import Made, Stage


def hold_out(index: DatasetIndex, number: int | None, num_folds: int, seed: int) -> DatasetIndex:
    """Keep the training images alone, and make a part of them the test split.

    Args:
        index: Index of a data set.
        number: Number of the part, 0 for the first; None to hold out none.
        num_folds: Number of parts that the training images are divided into.
        seed: Seed of the random division.

    Returns:
        The index; the one image of a class, or of a label, is always trained on.
    """
    rows = [row for row in index.rows if row.split == "train"]
    if number is not None:
        chosen = _part(rows, index.kind, number, num_folds, seed)
        rows = [row._replace(split="test") if row.unit in chosen else row for row in rows]
    return replace(index, rows=tuple(rows), problems=())


def _part(
    rows: Sequence[ImageRow], kind: TargetKind, number: int, num_folds: int, seed: int
) -> set[str]:
    """Draw a part of the images, by their units: copies and groups stay together."""
    if kind == "class":
        label_of = {row.unit: row.label for row in rows}
        names = sorted(label_of)
        labels = np.array([label_of[name] for name in names])
        folds = stratified_folds(labels, num_folds, seed)
        chosen = {names[place] for place in np.flatnonzero(folds == number)}
        # A group may hold all images of a class besides those of its own.
        left = {row.label for row in rows if row.unit not in chosen}
        return chosen - {row.unit for row in rows if row.label not in left}
    values = {row.unit: row.values for row in rows}
    if kind == "labels":  # a group has what any of its images has
        has = defaultdict[str, set[float]](set)
        for row in rows:
            has[row.unit].update(row.values)
        values = {unit: tuple(sorted(own)) for unit, own in has.items()}
    dealt = deal_into_folds(values, kind, num_folds, seed)
    having = Counter(label for own in values.values() for label in own)
    return {
        unit
        for unit, part in dealt.items()
        if part == number and (kind == "number" or all(having[label] > 1 for label in values[unit]))
    }


def _fold_key(
    dataset: DatasetManifest, number: int | None, num_folds: int, seed: int
) -> dict[str, Any]:
    drawn = {} if number is None else {"number": number, "num_folds": num_folds, "seed": seed}
    return {"dataset": dataset.key, **drawn}


def _make_fold(
    folder: Path, dataset: DatasetManifest, number: int | None, num_folds: int, seed: int
) -> Made:
    index = hold_out(index_of(dataset), number, num_folds, seed)
    (folder / "index.json").write_text(index.to_json(), encoding="utf-8")
    count = len(index.rows)
    told = {
        "class_names": index.class_names,
        "kind": index.kind,
        "images_digest": index.images_digest,
        "labels_digest": index.labels_digest,
        "headline": index.summary_lines()[0],
    }
    return Made(count, count, fields=told)


stage = Stage(
    "fold", 1, DatasetManifest, _make_fold, _fold_key, describe=lambda made: made.headline
)

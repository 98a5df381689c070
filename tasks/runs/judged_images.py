"""What a run said of each held-out image: a CSV file in its folder, and its comparison."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from headstart.config import Split, TargetKind
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.store.artifacts import artefact
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import NO_FIT, Fit

PREDICTIONS_FILE = "predictions.csv"
SEPARATOR = ";"
"""Between labels, and between numbers."""
COLUMNS = ("split", "path", "digest", "label", "predicted", "probability")


def write_judged(
    folder: Path,
    evaluation: EvaluationManifest,
    class_names: Sequence[str],
    index: DatasetIndex | None,
    fit: Fit = NO_FIT,
    kind: TargetKind | None = None,
) -> None:
    """Write each held-out image, its target and what was predicted, split by split.

    Args:
        folder: The run's folder.
        evaluation: Manifest of the evaluation stage.
        class_names: Name of each class, in the order of the logits.
        index: The data set, for paths and digests; numbers stand for both where it has no files.
        fit: What was found out about the targets.
        kind: Of the targets; the index's where not given.
    """
    kind = kind or (index.kind if index else "class")
    with (
        np.load(artefact(evaluation, "predictions.npz"), allow_pickle=False) as arrays,
        (folder / PREDICTIONS_FILE).open("w", encoding="utf-8", newline="", errors="replace") as to,
    ):
        writer = csv.writer(to, lineterminator="\n")
        writer.writerow(COLUMNS)
        for split in evaluation.metrics:
            outputs, targets = arrays[f"{split}_logits"], arrays[f"{split}_labels"]
            rows = index.rows_of(cast(Split, split)) if index else ()
            if outputs.ndim != 2 or len(rows) not in (0, len(targets)):
                continue
            for number, told in enumerate(_in_words(kind, outputs, targets, class_names, fit)):
                known = (rows[number].path, rows[number].digest) if rows else (f"{number}", "")
                writer.writerow((split, *known, *told))


def _in_words(
    kind: TargetKind, outputs: Any, targets: Any, names: Sequence[str], fit: Fit
) -> Iterator[tuple[str, str, str]]:
    """Yield of each image its target, what was predicted, and the probability of a class."""
    answers = TARGETS[kind].answers(outputs, fit)
    for row, said, true in zip(answers, TARGETS[kind].told(answers, fit), targets, strict=True):
        if kind == "class":
            yield names[true], names[said], f"{row.max():.4f}"
        elif kind == "labels":
            yield _named(names, true > 0), _named(names, said), ""
        else:
            yield _written(true), _written(said), ""


def _named(names: Sequence[str], having: Any) -> str:
    return SEPARATOR.join(name for name, has in zip(names, having, strict=True) if has)


def _written(numbers: Any) -> str:
    return SEPARATOR.join(f"{number:.9g}" for number in numbers)


def read_numbers(text: str) -> list[float]:
    """Read the numbers of a row's target or prediction."""
    return [float(part) for part in text.split(SEPARATOR)]


def read_judged(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Read the file that `write_judged` wrote.

    Returns:
        A row an image, by its digest and split, or by its path and split where it has none; {}
        where the run has no such file.
    """
    try:
        with (folder / PREDICTIONS_FILE).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {(row["digest"] or row["path"], row["split"]): row for row in rows}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError):
        return {}

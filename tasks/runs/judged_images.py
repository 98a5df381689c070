"""What a run said of each held-out image: a CSV file in its folder, and its comparison."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from headstart.config import Split
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.store.artifacts import artefact

PREDICTIONS_FILE = "predictions.csv"
COLUMNS = ("split", "path", "digest", "label", "predicted", "probability")


def write_judged(
    folder: Path,
    evaluation: EvaluationManifest,
    class_names: Sequence[str],
    index: DatasetIndex | None,
) -> None:
    """Write each held-out image, its class and what was predicted, split by split.

    Args:
        folder: Of the run.
        evaluation: Manifest of the stage.
        class_names: In the order of the logits.
        index: The data set, for paths and digests; numbers stand for both where it has no files.
    """
    with (
        np.load(artefact(evaluation, "predictions.npz"), allow_pickle=False) as arrays,
        (folder / PREDICTIONS_FILE).open("w", encoding="utf-8", newline="", errors="replace") as to,
    ):
        writer = csv.writer(to, lineterminator="\n")
        writer.writerow(COLUMNS)
        for split in evaluation.metrics:
            logits, labels = arrays[f"{split}_logits"], arrays[f"{split}_labels"]
            rows = index.rows_of(cast(Split, split)) if index else ()
            if labels.ndim != 1 or logits.ndim != 2 or len(rows) not in (0, len(labels)):
                continue  # not one class an image
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            chosen = logits.argmax(axis=1)
            shares = shifted.max(axis=1) / shifted.sum(axis=1)
            for number, (label, one, share) in enumerate(zip(labels, chosen, shares, strict=True)):
                known = (rows[number].path, rows[number].digest) if rows else (f"{number}", "")
                writer.writerow(
                    (split, *known, class_names[label], class_names[one], f"{share:.4f}")
                )


def read_judged(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Read the file that `write_judged` wrote.

    Args:
        folder: Of the run.

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

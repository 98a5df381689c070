"""Judging an exported model on labelled images, without the store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headstart.config import DatasetConfig, EvaluationConfig, Split
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import build_index, dataset_root
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.evaluation.metrics import SplitMetrics, evaluate
from headstart.tasks.export.predict import Predictor
from headstart.tasks.progress import reporter

TINY = 1e-30
"""Keeps the logarithm of a probability that underflowed to 0 finite."""


def judge(model: Path, images: Path) -> SplitMetrics:
    """Compare a model's predictions with the labels of a folder or manifest.

    Args:
        model: A run's folder or an exported model.
        images: Labelled images; all of them are judged, whatever split they are in.

    Returns:
        The figures.

    Raises:
        DatasetError: A class of the images is none of the model's.
    """
    predictor = Predictor.load(model)
    names = predictor.card.class_names
    source = DatasetConfig(images=images, val_fraction=0.0, test_fraction=0.0)
    with reporter().track_to("reading images", "files") as on_progress:
        index = build_index(source, None, on_progress, for_training=False)
    for line in index.summary_lines():
        reporter().note(line)
    if unknown := sorted(set(index.class_names) - set(names)):
        raise DatasetError(
            f"the images have classes that the model does not know (it has {len(names)})",
            f"{', '.join(unknown)} in {images}",
            f"rename the folders to the model's classes: {', '.join(names)}",
        )
    labels = [index.class_names[row.label] for row in index.rows]
    paths = [dataset_root(source) / row.path for row in index.rows]
    return _judge_files(predictor, paths, labels, names)


def judge_split(model: Path, source: DatasetConfig, index: DatasetIndex, split: Split) -> float:
    """Say how often a model is right on one split of a data set.

    Args:
        model: A run's folder or an exported model, maybe of another data set or an earlier state
            of this one.
        source: Where the images are.
        index: The data set.
        split: Which of its splits.

    Returns:
        The accuracy, in [0, 1]; images of a class that the model does not know count as wrong.
    """
    predictor = Predictor.load(model)
    rows = index.rows_of(split)
    labels = [index.class_names[row.label] for row in rows]
    names = tuple(dict.fromkeys((*predictor.card.class_names, *index.class_names)))
    paths = [dataset_root(source) / row.path for row in rows]
    accuracy = _judge_files(predictor, paths, labels, names).accuracy
    assert accuracy is not None  # a split that exists has images
    return accuracy


def _judge_files(
    predictor: Predictor, paths: Sequence[Path], labels: Sequence[str], names: Sequence[str]
) -> SplitMetrics:
    number = {name: position for position, name in enumerate(names)}
    logits = np.full((len(paths), len(names)), np.log(TINY), np.float32)
    with reporter().track("predicting", len(paths), "images") as advance:
        for row, prediction in enumerate(predictor.stream(paths, _refuse, top_k=len(names))):
            for name, probability in prediction.top:
                # Logits up to a constant: the figures only need their softmax.
                logits[row, number[name]] = np.log(max(probability, TINY))
            advance(1)
    wanted = np.array([number[label] for label in labels], np.int32)
    return evaluate(logits, wanted, tuple(names), EvaluationConfig())


def _refuse(path: str, reason: str) -> None:
    raise DatasetError(
        "an image that was indexed a moment ago can no longer be read",
        f"{path}: {reason}",
        "run the command again when nothing changes the folder",
    )

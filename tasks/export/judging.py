"""Judging an exported model on labelled images, without the store."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.config import Config, DatasetConfig, EvaluationConfig, Split, build_config
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import build_index, dataset_root
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.metrics import evaluate
from headstart.tasks.export.predict import Predictor
from headstart.tasks.export.seen_images import seen_splits
from headstart.tasks.progress import reporter
from headstart.tasks.targets.choice import TARGETS

TINY = 1e-30
"""Keeps the logarithm of a probability that underflowed to 0 finite."""


NEW, TRAINED_ON = "new", "train"
"""What `judge` calls images that the model has never met, and those that it learned from."""


class Judgement(NamedTuple):
    """How good a model is on labelled images.

    Attributes:
        name: Which of them the headline is about.
        metrics: Of those; the ``model`` of `headstart.tasks.evaluation.judges` for the target.
        groups: Figures by group: ``new`` images, and those of the model's own train, val and test
            splits; only groups that have images.
    """

    name: str
    metrics: Any
    groups: Mapping[str, Any]


class JudgedImages(Config):
    """What `judge` can be told of the images."""

    dataset: DatasetConfig


def judge(model: Path, images: Path, settings: Iterable[str] | str = ()) -> Judgement:
    """Compare a model's predictions with the labels of a folder or manifest.

    Args:
        model: A run's folder or an exported model.
        images: Labelled images, whatever split they are in.
        settings: ``dataset.field=value`` strings: how they are read, where it is not as the
            model's card says.

    Returns:
        The figures. The headline is about images that the model has never met, where there are
        any; then of those that it was tested by, or chosen by, and only then of all.

    Raises:
        DatasetError: A class of the images is none of the model's.
    """
    predictor = Predictor.load(model)
    names = predictor.card.class_names
    told = {**predictor.card.columns, "images": images, "val_fraction": 0.0, "test_fraction": 0.0}
    as_trained = JudgedImages(dataset=DatasetConfig(**told))
    source = build_config(JudgedImages, images, None, settings, base=as_trained).dataset
    with reporter().track_to("reading images", "files") as on_progress:
        index = build_index(source, None, on_progress, for_training=False)
    for line in index.summary_lines():
        reporter().note(line)
    if index.kind != predictor.card.target:
        raise DatasetError(
            "the images have another kind of targets than the model",
            f"{index.kind} in {images}, and the model says {predictor.card.target}",
            "give a manifest with the columns that the model was trained on",
        )
    if unknown := sorted(set(index.class_names) - set(names)):
        raise DatasetError(
            f"the images have classes that the model does not know (it has {len(names)})",
            f"{', '.join(unknown)} in {images}",
            f"rename the folders to the model's classes: {', '.join(names)}",
        )
    paths = [dataset_root(source) / row.path for row in index.rows]
    outputs, wanted = _predict_rows(predictor, paths, index)
    judge, fit = JUDGES[index.kind], predictor.card.fit

    def figures(chosen: npt.NDArray[np.bool_]) -> Any:
        return judge.evaluate(outputs[chosen], wanted[chosen], names, fit, EvaluationConfig())

    seen = np.array([one or NEW for one in seen_splits(model, [row.digest for row in index.rows])])
    groups = {
        name: figures(seen == name)
        for name in (NEW, "test", "val", TRAINED_ON)
        if (seen == name).any()
    }
    name = next(iter(groups), NEW)
    if TRAINED_ON in groups:
        count = groups[TRAINED_ON].num_images
        reporter().note(
            f"warning: the model was trained on {count:,} of these {len(seen):,} images; "
            + ("its figures on them say nothing of others" if name == TRAINED_ON
               else f"the figures are of the {name} images")
        )  # fmt: skip
    return Judgement(name, groups.get(name) or figures(np.ones(len(seen), np.bool_)), groups)


def _predict_rows(
    predictor: Predictor, paths: Sequence[Path], index: DatasetIndex
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what a head would put out for the images, and their targets."""
    card = predictor.card
    names = card.class_names
    if card.target == "class":
        labels = [index.class_names[row.label] for row in index.rows]
        return _predict_files(predictor, paths, labels, names)
    answers = np.zeros((len(paths), len(names)))
    with reporter().track("predicting", len(paths), "images") as advance:
        stream: Iterator[Any] = predictor.stream(paths, _refuse, top_k=len(names))
        for row, prediction in enumerate(stream):
            said = prediction.values if card.target == "number" else dict(prediction.top)
            answers[row] = [said[name] for name in names]
            advance(1)
    targets = TARGETS[card.target].to_array(index.rows, len(index.class_names))
    wanted = np.zeros((len(paths), len(names)), targets.dtype)
    wanted[:, [names.index(name) for name in index.class_names]] = targets
    return TARGETS[card.target].outputs(answers, card.fit), wanted


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
    logits, wanted = _predict_files(predictor, paths, labels, names)
    accuracy = evaluate(logits, wanted, names, EvaluationConfig()).accuracy
    assert accuracy is not None  # a split that exists has images
    return accuracy


def _predict_files(
    predictor: Predictor, paths: Sequence[Path], labels: Sequence[str], names: Sequence[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return logits [n, len(names)], and the number of each label among the names."""
    number = {name: position for position, name in enumerate(names)}
    logits = np.full((len(paths), len(names)), np.log(TINY), np.float32)
    with reporter().track("predicting", len(paths), "images") as advance:
        for row, prediction in enumerate(predictor.stream(paths, _refuse, top_k=len(names))):
            for name, probability in prediction.top:
                # Logits up to a constant: the figures only need their softmax.
                logits[row, number[name]] = np.log(max(probability, TINY))
            advance(1)
    return logits, np.array([number[label] for label in labels], np.int32)


def _refuse(path: str, reason: str) -> None:
    raise DatasetError(
        "an image that was indexed a moment ago can no longer be read",
        f"{path}: {reason}",
        "run the command again when nothing changes the folder",
    )

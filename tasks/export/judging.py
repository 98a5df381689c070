"""Judging an exported model on labelled images, without the store."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.config import (
    Config,
    DatasetConfig,
    EvaluationConfig,
    Split,
    TargetKind,
    build_config,
)
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import build_index, dataset_root
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.problems import Problem
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.predict import Predictor
from headstart.tasks.export.seen_images import SEEN_FILE, seen_file, seen_splits
from headstart.tasks.progress import reporter
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import Fit

TINY = 1e-30
"""Keeps the logarithm of a probability that underflowed to 0 finite."""


NEW, TRAINED_ON = "new", "train"
"""What `judge` calls images that the model has never met, and those that it learned from."""


class Judgement(NamedTuple):
    """How good a model is on labelled images.

    Attributes:
        name: Which of them the headline is about.
        metrics: Figures of those; the ``model`` of `headstart.tasks.evaluation.judges` for the
            target.
        groups: Figures by group: ``new`` images, and those of the model's own train, val and test
            splits; only groups that have images.
        problems: Of the images, what is left out and then what is worth a warning.
    """

    name: str
    metrics: Any
    groups: Mapping[str, Any]
    problems: Sequence[Problem] = ()


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
    told = {
        **predictor.card.columns,
        "images": images,
        "val_fraction": 0.0,
        "test_fraction": 0.0,
        "max_pixels": predictor.max_pixels,
    }
    as_trained = JudgedImages(dataset=DatasetConfig(**told))
    source = build_config(JudgedImages, images, None, settings, base=as_trained).dataset
    predictor.max_pixels = source.max_pixels
    if predictor.card.target != "class" and source.images.is_dir():
        raise _other_target(images, "class", predictor.card)
    with reporter().track_to("reading images", "files") as on_progress:
        index = build_index(source, None, on_progress, for_training=False)
    for line in index.summary_lines(listed_in='under "left_out" in what --json prints'):
        reporter().note(line)
    if index.kind != predictor.card.target:
        raise _other_target(images, index.kind, predictor.card)
    if unknown := sorted(set(index.class_names) - set(names)):
        raise DatasetError(
            f"the images have classes that the model does not have (it has {len(names)})",
            f"{', '.join(unknown)} in {images}",
            f"name the classes as the model does: {', '.join(names)}",
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
    if seen_file(model) is None:
        reporter().note(
            "warning: it is not known which of these images the model was trained on: there is no "
            f"{SEEN_FILE} beside it, as in the run's folder"
        )
    if TRAINED_ON in groups:
        count = groups[TRAINED_ON].num_images
        reporter().note(
            f"warning: the model was trained on {count:,} of these {len(seen):,} images; "
            + ("its figures on them say nothing about other images" if name == TRAINED_ON
               else f"the figures are for the {name} images")
        )  # fmt: skip
    metrics = groups.get(name) or figures(np.ones(len(seen), np.bool_))
    problems = sorted(index.problems, key=lambda problem: not problem.left_out)
    return Judgement(name, metrics, groups, problems)


def _other_target(images: Path, kind: TargetKind, card: ModelCard) -> DatasetError:
    return DatasetError(
        "the images have a different kind of target than the model",
        f"{kind} in {images}; the model answers with {card.target}: {', '.join(card.class_names)}",
        "give a manifest with the columns that the model was trained on",
    )


def _predict_rows(
    predictor: Predictor, paths: Sequence[Path], index: DatasetIndex
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what a head would put out for the images, and their targets."""
    card = predictor.card
    names = card.class_names
    if card.target == "class":
        labels = [index.class_names[row.label] for row in index.rows]
        return _predict_files(predictor, paths, labels, names)
    answers = _answers(predictor, paths, names)
    targets = TARGETS[card.target].to_array(index.rows, len(index.class_names))
    wanted = np.zeros((len(paths), len(names)), targets.dtype)
    wanted[:, [names.index(name) for name in index.class_names]] = targets
    return TARGETS[card.target].outputs(answers, card.fit), wanted


def judge_split(
    model: Path, source: DatasetConfig, index: DatasetIndex, split: Split, metric: str | None = None
) -> float:
    """Say how good a model is on one split of a data set.

    Args:
        model: A run's folder or an exported model, maybe of another data set or an earlier state
            of this one.
        source: Where the images are.
        index: Index of the data set, as it is now.
        split: Which of its splits.
        metric: One of `headstart.tasks.evaluation.judges.Judge.comparable`; the first where not
            given.

    Returns:
        That figure; images of a class that the model does not know count as wrong, and a label
        that it does not know is never said.

    Raises:
        DatasetError: These images have no such figure.
    """
    predictor = Predictor.load(model)
    predictor.max_pixels = source.max_pixels  # by which these images were taken for usable
    rows = index.rows_of(split)
    card, judge, target = predictor.card, JUDGES[index.kind], TARGETS[index.kind]
    metric = metric or judge.comparable[0]
    paths = [dataset_root(source) / row.path for row in rows]
    names, fit = index.class_names, card.fit
    if index.kind == "class":
        names = tuple(dict.fromkeys((*card.class_names, *names)))
        labels = [index.class_names[row.label] for row in rows]
        outputs, wanted = _predict_files(predictor, paths, labels, names)
    else:
        places = [card.class_names.index(name) if name in card.class_names else None
                  for name in names]  # fmt: skip
        fit = _fit_for(card.fit, places)
        answers = _answers(predictor, paths, names)
        outputs = target.outputs(answers, fit).astype(np.float32)
        wanted = target.to_array(rows, len(names))
    value = getattr(judge.evaluate(outputs, wanted, names, fit, EvaluationConfig()), metric)
    if value is None:
        raise DatasetError(
            f"these images have no {metric}",
            f"the {len(rows):,} {split} images of {source.images}",
            f"choose another of {', '.join(judge.comparable)} (promotion.metric)",
        )
    return float(value)


def _answers(
    predictor: Predictor, paths: Sequence[Path], names: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Return what a model says of labels or numbers; 0 for those that it does not know."""
    answers = np.zeros((len(paths), len(names)))
    count = len(predictor.card.class_names)
    with reporter().track("predicting", len(paths), "images") as advance:
        stream: Iterator[Any] = predictor.stream(paths, _refuse, top_k=count)
        for row, prediction in enumerate(stream):
            is_number = predictor.card.target == "number"
            said = prediction.values if is_number else dict(prediction.top)
            answers[row] = [said.get(name, 0.0) for name in names]
            advance(1)
    return answers


def _fit_for(fit: Fit, places: Sequence[int | None]) -> Fit:
    """Put what a training found out about its targets into another order."""
    unknown = {"offset": 0.0, "scale": 1.0, "thresholds": 0.5, "radius": 0.0}
    told = {
        name: tuple(unknown[name] if place is None else values[place] for place in places)
        for name in unknown
        if (values := getattr(fit, name))
    }
    return Fit(**told)


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

"""The scores stage: one candidate's transferability, from its cached bottlenecks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import ScoringConfig, TargetKind
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import TOP
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.pooled import pooled_features
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.units import Units
from headstart.tasks.head.solvers import LABELS_VERSION
from headstart.tasks.progress import reporter
from headstart.tasks.ranking.features import draw_images
from headstart.tasks.ranking.probes import (
    explained,
    knn_accuracy,
    mean_average_precision,
    mean_of_neighbours,
    nearest_mean_accuracy,
    nearest_neighbours,
    probe_accuracy,
    probe_labels,
    probe_numbers,
)
from headstart.tasks.ranking.transferability import h_score, leep, logme, nce, regularised_h_score
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest
from headstart.tasks.store.versions import arithmetic_versions, solver_versions

SCORES = ("logme", "h_score", "regularised_h_score", "leep", "nce", "nearest_mean", "knn", "probe")
"""The scores of a candidate, in the order of the tables. Higher is better for each."""


class ScoresManifest(Manifest):
    """What one candidate's features are worth by each score."""

    scores: dict[str, float | None]
    """By name of `SCORES`; None where the backbone has no source head, or not behind this cut."""


def _scores_key(features: Features, config: ScoringConfig) -> dict[str, Any]:
    return {
        "labels": features.dataset.labels_digest,
        "bottlenecks": features.collections.plain.recipe,
        # Of two networks that are one up to the top, one may know more: its own classifier.
        "classifier": features.network.has_classifier and features.start == TOP,
        "scoring": config,
        **index_of(features.dataset).unit_fields("train"),
        **({"probe_version": LABELS_VERSION} if features.target.kind == "labels" else {}),
        **arithmetic_versions(),
        **solver_versions(),
    }


def _score(folder: Path, features: Features, config: ScoringConfig) -> Made:
    rows = features.open(("train",))["train"]
    images = draw_images(len(rows), config.max_images, config.seed)
    values, labels = pooled_features(rows, images), rows.labels[images]
    units = None if rows.units is None else rows.units[images]
    if rows.kind != "class":
        rows.target.check(rows.labels, None, len(features.class_names))
        scores = score_targets(values, labels, rows.kind, config, units)
        return Made(len(images), len(images), fields={"scores": scores})
    source_head = _source_head(features.network, features.start)
    scores = score_features(values, labels, config, source_head, units)
    return Made(len(images), len(images), fields={"scores": scores})


Head = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]


def score_features(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    config: ScoringConfig,
    source_head: Head | None = None,
    units: Units = None,
) -> dict[str, float | None]:
    """Compute all scores of some features.

    Args:
        features: float32 [n, d].
        labels: int32 [n], class of each row.
        config: Folds, neighbours and seed of the probes.
        source_head: From features to the source classifier's probabilities [n, num_classes].
        units: See `headstart.tasks.dataset.units.Units`.

    Returns:
        A value for each name of `SCORES`; None where there is no source head.
    """
    doubles = features.astype(np.float64)
    theta = None if source_head is None else source_head(features)
    compute: dict[str, Callable[[], float | None]] = {
        "logme": lambda: logme(doubles, labels),
        "h_score": lambda: h_score(doubles, labels),
        "regularised_h_score": lambda: regularised_h_score(doubles, labels),
        "leep": lambda: None if theta is None else leep(theta, labels),
        "nce": lambda: None if theta is None else nce(theta.argmax(axis=1), labels),
        "nearest_mean": lambda: nearest_mean_accuracy(features, labels, units),
        "knn": lambda: knn_accuracy(features, labels, config.num_neighbours, units),
        "probe": lambda: probe_accuracy(features, labels, config.num_folds, config.seed, units),
    }
    scores: dict[str, float | None] = {}
    with reporter().track("scoring", len(SCORES), "scores") as advance:
        for name in SCORES:
            scores[name] = compute[name]()
            advance(1)
    return scores


def score_targets(
    features: npt.NDArray[np.float32],
    targets: npt.NDArray[Any],
    kind: TargetKind,
    config: ScoringConfig,
    units: Units = None,
) -> dict[str, float | None]:
    """Compute the scores that labels or numbers have: the others are of classes.

    Args:
        features: float32 [n, d].
        targets: [n, num_outputs], as `Target.to_array` says.
        kind: Labels or numbers.
        config: Folds, neighbours and seed of the probes.
        units: See `headstart.tasks.dataset.units.Units`.

    Returns:
        A value for each name of `SCORES`: of labels k-NN and probe are mean average precisions,
        of numbers R².
    """
    neighbours, similarities = nearest_neighbours(features, config.num_neighbours, units)
    near = mean_of_neighbours(targets, neighbours, similarities)
    scores: dict[str, float | None] = dict.fromkeys(SCORES)
    folds, seed = config.num_folds, config.seed
    if kind == "labels":
        varying = targets[:, targets.std(axis=0) > 0]
        scores["knn"] = mean_average_precision(near, targets)
        scores["probe"] = probe_labels(features, targets, folds, seed, units)
    else:
        spread = targets.std(axis=0)
        varying = ((targets - targets.mean(axis=0)) / np.where(spread > 0, spread, 1.0))[
            :, spread > 0
        ]
        scores["knn"] = explained(near, targets)
        scores["probe"] = probe_numbers(features, varying, folds, seed, units)
    scores["logme"] = logme(features.astype(np.float64), varying)
    return scores


def _source_head(network: Backbone, cut: str) -> Head | None:
    """Return the layer that the backbone was trained with, as a function of the pooled top."""
    if cut != TOP:
        return None
    classifier = network.classifier()
    if classifier is None:
        return None
    kernel, bias = classifier.layers[-1].get_layer("logits").get_weights()

    def probabilities(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        logits = (features @ kernel + bias).astype(np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return shares

    return probabilities


def _describe_scores(made: ScoresManifest) -> str:
    logme_score, probe = made.scores["logme"], made.scores["probe"]
    return f"LogME {logme_score:.4f}, linear probe {probe:.4f}"


stage = Stage("scores", 3, ScoresManifest, _score, _scores_key, _describe_scores)

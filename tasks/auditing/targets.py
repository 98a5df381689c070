"""Labels and numbers that may be wrong: held against what heads predict that never saw them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.config import ChecksConfig
from headstart.tasks.auditing.findings import Finding, Images
from headstart.tasks.auditing.labels import judge_labels
from headstart.tasks.auditing.oddities import robust_deviations
from headstart.tasks.ranking.probes import predict_numbers, probe_shares
from headstart.tasks.targets.choice import TARGETS

Array = npt.NDArray[Any]

SURE_TIMES = 2.0
"""A number so many times farther off than what counts as suspicious is to be left out: errors that
are large by chance alone hardly get there."""


MIN_SHARE = 0.5
"""Of a number's standard deviation: what is nearer to its prediction is no error."""


class Suspicions(NamedTuple):
    """How believable the targets of each image are.

    Attributes:
        findings: What counts as an error, the worst first.
        margin: float64 [n]: the lower, the more suspicious an image's worst label or number.
        suggested: What is predicted in its place.
        is_error: bool [n]: whether the image is among `findings`.
    """

    findings: list[Finding]
    margin: npt.NDArray[np.float64]
    suggested: list[str]
    is_error: npt.NDArray[np.bool_]


def judge_targets(images: Images, features: Array, config: ChecksConfig) -> Suspicions:
    """Judge labels or numbers by cross-validated heads.

    Args:
        images: Distinct images of a data set of labels or numbers.
        features: float [n, d], one row a distinct image.
        config: Folds and thresholds of the checks.
    """
    targets = TARGETS[images.kind].to_array(images.rows, len(images.class_names))
    if images.kind == "number":
        return _judge_numbers(images, features, targets, config)
    return _judge_labels(images, features, targets, config)


def _judge_labels(
    images: Images, features: Array, targets: Array, config: ChecksConfig
) -> Suspicions:
    """Judge each label by itself, by confident learning between with and without it."""
    margins = np.full(targets.shape, np.inf)
    errors = np.zeros(targets.shape, np.bool_)
    probabilities = targets.astype(np.float64)
    shares = probe_shares(features, targets, config.num_folds, config.seed, images.units)
    for label in range(targets.shape[1]):
        having = targets[:, label].astype(np.int64)
        if having.min() < having.max():  # else there is nothing that tells it apart
            probe = np.stack([1 - shares[:, label], shares[:, label]], axis=1)
            quality = judge_labels(probe, having)
            margins[:, label], errors[:, label] = quality.margin, quality.is_error
            probabilities[:, label] = shares[:, label]

    def suggest(position: int, label: int) -> str:
        word = "without" if targets[position, label] else "with"
        return f"{word} {images.class_names[label]}"

    def findings() -> Iterator[Finding]:
        for flat in np.argsort(margins, axis=None, kind="stable").tolist():
            position, label = divmod(flat, targets.shape[1])
            if not errors[position, label]:
                continue
            name, share = images.class_names[label], probabilities[position, label]
            has = "has" if targets[position, label] else "has no"
            text = f"{has} {name}, and is predicted to have it with {share:.0%}"
            made = images.finding(position, "label_error", -margins[position, label], text)
            update = {"suggested_label": suggest(position, label), "exclude": True}
            yield made.model_copy(update=update)

    worst = margins.argmin(axis=1)
    suggested = [suggest(position, int(label)) for position, label in enumerate(worst)]
    least = margins.min(axis=1)
    is_error: npt.NDArray[np.bool_] = np.asarray(errors.any(axis=1))
    return Suspicions(
        list(findings()), np.where(np.isfinite(least), least, 1.0), suggested, is_error
    )


def _judge_numbers(
    images: Images, features: Array, targets: Array, config: ChecksConfig
) -> Suspicions:
    """Judge numbers by how far they are from a ridge regression that did not see them."""
    spread = np.where(targets.std(axis=0) > 0, targets.std(axis=0), 1.0)
    standard = (targets - targets.mean(axis=0)) / spread
    said = predict_numbers(features, standard, config.num_folds, config.seed, images.units)
    if said is None:  # one image, or one group: nothing to predict it from
        return Suspicions(
            [], np.ones(len(targets)), [""] * len(targets), np.zeros(len(targets), bool)
        )
    off = np.stack([np.abs(robust_deviations(one)) for one in (standard - said).T], axis=1)
    predicted = said * spread + targets.mean(axis=0)
    worst = off.argmax(axis=1)
    deviations = off.max(axis=1)
    suggested = [
        f"{images.class_names[number]} {predicted[position, number]:.4g}"
        for position, number in enumerate(worst)
    ]
    # A number that is nearly always the same is predicted so closely that all else is far off.
    large = (np.abs(standard - said) > MIN_SHARE).max(axis=1)
    is_error = (deviations > config.max_deviations) & large
    findings = []
    for position in np.argsort(-deviations, kind="stable").tolist():
        if not is_error[position]:
            continue
        number = int(worst[position])
        text = (
            f"{images.class_names[number]} is {targets[position, number]:.4g}, predicted "
            f"{predicted[position, number]:.4g}: {deviations[position]:.1f} robust standard "
            "deviations off"
        )
        made = images.finding(position, "label_error", deviations[position], text)
        sure = bool(deviations[position] > SURE_TIMES * config.max_deviations)
        update = {"suggested_label": suggested[position], "exclude": sure}
        findings.append(made.model_copy(update=update))
    return Suspicions(findings, -deviations, suggested, is_error)

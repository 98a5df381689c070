"""Small classifiers on features, judged out of sample: k nearest neighbours and a linear probe.

They train for a second, so they are what cheaper scores are held to; and their predictions for
images that they were not trained on are what the audit looks for wrong labels with.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import HeadConfig
from headstart.tasks.dataset.units import Units
from headstart.tasks.evaluation.label_metrics import average_precision
from headstart.tasks.head.folds import number_folds, stratified_folds
from headstart.tasks.head.solvers import fit_together, label_folds, solve_numbers

Features = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

INVERSE_PENALTY = 2.5
"""scikit-learn's C of the probe, times the number of images. Standardised features of a deep
network separate most training sets by themselves, and a weak penalty fits wrong labels as well:
with 5 % of the labels of 3,117 photos wrong, 0.9 % more of the images were predicted right with
this than with ten times as much."""
PROBE_ITERATIONS = 60
"""Steps of the probe's solver (L-BFGS) at the most."""


def probe_probabilities(
    features: Features, labels: Labels, num_folds: int, seed: int, units: Units = None
) -> npt.NDArray[np.float64]:
    """Predict each image with a linear probe that was trained on the other folds.

    Args:
        features: float [n, d].
        labels: Integers [n], 0 to K - 1.
        num_folds: Folds, at least 2.
        seed: Seed of the division into folds.
        units: See `Units`.

    Returns:
        float64 [n, K], rows that sum to 1. A class that is missing from a fold's training
        images gets probability 0 there.
    """
    from sklearn.linear_model import LogisticRegression

    folds = stratified_folds(labels, num_folds, seed, units)
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    for fold in range(num_folds):
        held_out = folds == fold
        if not held_out.any():
            continue
        train, test = _standardise(features[~held_out], features[held_out])
        present = np.unique(labels[~held_out])
        if len(present) == 1:
            probabilities[held_out, present[0]] = 1.0
            continue
        probe = LogisticRegression(C=INVERSE_PENALTY / len(train), max_iter=PROBE_ITERATIONS)
        _fit_quietly(probe, train, labels[~held_out])
        probabilities[np.ix_(held_out, probe.classes_)] = probe.predict_proba(test)
    return probabilities


def probe_accuracy(
    features: Features, labels: Labels, num_folds: int, seed: int, units: Units = None
) -> float:
    """Return the share of images that a linear probe trained on the other folds gets right."""
    probabilities = probe_probabilities(features, labels, num_folds, seed, units)
    return float((probabilities.argmax(axis=1) == labels).mean())


def knn_accuracy(
    features: Features, labels: Labels, num_neighbours: int, units: Units = None
) -> float:
    """Return the share of images whose nearest neighbours vote for their own class.

    Each image is left out in its turn, with its unit; neighbours are those of the largest cosine
    similarity, and vote with equal weight.

    Args:
        features: float [n, d].
        labels: Integers [n], 0 to K - 1.
        num_neighbours: How many of the nearest images vote.
        units: See `Units`.

    Returns:
        Share in [0, 1]. A tie goes to the tied class whose voter is the nearest.
    """
    neighbours, similarities = nearest_neighbours(features, num_neighbours, units)
    votes = labels[neighbours]
    num_classes = int(labels.max()) + 1
    # A little more weight to the nearer, so little that it only ever decides a tie.
    weights = np.isfinite(similarities) * (1 - np.arange(votes.shape[1]) * 1e-6)
    tally = np.zeros((len(labels), num_classes))
    for rank in range(votes.shape[1]):
        tally[np.arange(len(labels)), votes[:, rank]] += weights[:, rank]
    return float((tally.argmax(axis=1) == labels).mean())


def nearest_mean_accuracy(features: Features, labels: Labels, units: Units = None) -> float:
    """Return the share of images whose own class has the nearest mean direction.

    Each image, with its unit, is left out of its class's mean in its turn. What a training adds
    to this is what it is worth: the floor of a ranking.

    Args:
        features: float [n, d].
        labels: Integers [n], 0 to K - 1.
        units: See `Units`.

    Returns:
        Share in [0, 1]; the only image, or unit, of a class is wrong.
    """
    centred = np.asarray(features, np.float64) - features.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((int(labels.max()) + 1, unit.shape[1]))
    np.add.at(sums, labels, unit)
    rows = np.arange(len(labels))
    cosines = unit @ (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).T
    # All of the image's own unit that is of its class.
    pairs = np.stack([labels, np.arange(len(labels)) if units is None else units], axis=1)
    _, own_unit = np.unique(pairs, axis=0, return_inverse=True)
    parts = np.zeros((int(own_unit.max()) + 1, unit.shape[1]))
    np.add.at(parts, own_unit, unit)
    others = sums[labels] - parts[own_unit]
    lengths = np.linalg.norm(others, axis=1)
    own = (unit * others).sum(axis=1) / np.maximum(lengths, 1e-12)
    cosines[rows, labels] = np.where(lengths > 1e-9, own, -1.0)
    return float((cosines.argmax(axis=1) == labels).mean())


def probe_labels(
    features: Features, targets: Labels, num_folds: int, seed: int, units: Units = None
) -> float:
    """Return the mean average precision of linear probes that were trained on the other folds.

    Args:
        features: float [n, d].
        targets: 0 and 1 [n, num_labels].
        num_folds: Folds, at least 2.
        seed: Seed of the division into folds.
        units: See `Units`.
    """
    shares = probe_shares(features, targets, num_folds, seed, units)
    return mean_average_precision(shares, targets)


def probe_shares(
    features: Features, targets: Labels, num_folds: int, seed: int, units: Units = None
) -> npt.NDArray[np.float64]:
    """Predict each image's labels with linear probes that were trained on the other folds.

    All labels are solved together, on the same folds, so that they share the features.

    Args:
        features: float [n, d].
        targets: 0 and 1 [n, num_labels].
        num_folds: Folds, at least 2.
        seed: Seed of the division into folds.
        units: See `Units`.

    Returns:
        float64 [n, num_labels]; 0 or 1 where a fold's training images never or always have it.
    """
    alone = np.arange(len(targets))
    folds = label_folds(targets, alone if units is None else units, num_folds, seed)
    shares = np.zeros(targets.shape)
    for fold in range(num_folds):
        held_out = folds == fold
        if not held_out.any() or held_out.all():
            continue
        having = targets[~held_out] > 0
        shares[held_out] = having.all(axis=0)
        varying = np.flatnonzero(having.any(axis=0) & ~having.all(axis=0))
        if not len(varying):
            continue
        train, test = _standardise(features[~held_out], features[held_out])
        known, penalties = having[:, varying], np.full(len(varying), 1 / INVERSE_PENALTY)
        found = fit_together(train, known, np.ones(known.shape), penalties, PROBE_ITERATIONS)
        logits = test @ found[:-1] + found[-1]
        shares[np.ix_(held_out, varying)] = 0.5 * (1.0 + np.tanh(logits / 2))
    return shares


def mean_average_precision(shares: npt.NDArray[Any], targets: Labels) -> float:
    """Return the mean over the labels that some images have, not all; 0 where there are none."""
    precisions = [
        average_precision(shares[:, label], targets[:, label] > 0)
        for label in range(targets.shape[1])
        if 0 < targets[:, label].sum() < len(targets)
    ]
    return float(np.mean([one for one in precisions if one is not None] or [0.0]))


def probe_numbers(
    features: Features, targets: Features, num_folds: int, seed: int, units: Units = None
) -> float:
    """Return the R² of ridge regressions that were trained on the other folds."""
    said = predict_numbers(features, targets, num_folds, seed, units)
    return 0.0 if said is None else explained(said, targets)


def predict_numbers(
    features: Features, targets: Features, num_folds: int, seed: int, units: Units = None
) -> npt.NDArray[np.float64] | None:
    """Predict each image's numbers with ridge regressions that were trained on the other folds.

    Args:
        features: float [n, d].
        targets: float [n, num_numbers].
        num_folds: Folds, at least 2; fewer where there are fewer units.
        seed: Seed of the division into folds.
        units: See `Units`.

    Returns:
        float64 [n, num_numbers]; None of a single unit, which nothing can be predicted from.
    """
    from sklearn.model_selection import KFold

    if units is None:
        units = np.arange(len(targets))
        num_folds = min(num_folds, len(targets))
        if num_folds < 2:
            return None
        folds = list(KFold(num_folds, shuffle=True, random_state=seed).split(features))
    else:
        folds = number_folds(units, num_folds, seed)
    said = np.empty(targets.shape)
    for kept, held_out in folds:
        train, test = _standardise(features[kept], features[held_out])
        kernel, bias, _ = solve_numbers(train, targets[kept], units[kept], HeadConfig(seed=seed))
        said[held_out] = test @ kernel + bias
    return said if folds else None


def explained(said: npt.NDArray[Any], targets: Features) -> float:
    """Return R², the mean over the numbers that vary; 0 where none does."""
    total = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    left = ((said - targets) ** 2).sum(axis=0)
    shares = 1.0 - left[total > 0] / total[total > 0]
    return float(shares.mean()) if shares.size else 0.0


CHUNK_ROWS = 1024
"""Rows compared with all others at a time: 100 MB of float32 similarities at 25,000 images."""


def nearest_neighbours(
    features: Features, num_neighbours: int, units: Units = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Find each row's nearest other rows by cosine similarity.

    Args:
        features: float [n, d].
        num_neighbours: At most this many; fewer where there are fewer other rows.
        units: See `headstart.tasks.dataset.units.Units`: no row of its unit is a neighbour.

    Returns:
        Positions int64 [n, k], the nearest first, and their similarities float32 [n, k]: -inf
        where there are not so many outside of the unit.
    """
    unit = np.asarray(features, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    num_rows = len(unit)
    count = min(num_neighbours, num_rows - 1)
    positions = np.empty((num_rows, count), np.int64)
    similarities = np.empty((num_rows, count), np.float32)
    for start in range(0, num_rows, CHUNK_ROWS):
        rows = np.arange(start, min(start + CHUNK_ROWS, num_rows))
        cosine = unit[rows] @ unit.T
        cosine[np.arange(len(rows)), rows] = -np.inf
        if units is not None:
            cosine[units[rows, None] == units] = -np.inf
        best = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(cosine, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        positions[rows] = np.take_along_axis(best, order, axis=1)
        similarities[rows] = np.take_along_axis(found, order, axis=1)
    return positions, similarities


def mean_of_neighbours(
    targets: npt.NDArray[Any],
    neighbours: npt.NDArray[np.int64],
    similarities: npt.NDArray[np.float32],
) -> npt.NDArray[Any]:
    """Average the targets [n, num_outputs] of `nearest_neighbours`; of all where there is none."""
    weights = np.isfinite(similarities)[:, :, None].astype(np.float64)
    count = weights.sum(axis=1)
    near = (targets[neighbours] * weights).sum(axis=1) / np.maximum(count, 1.0)
    mean: npt.NDArray[Any] = np.where(count > 0, near, targets.mean(axis=0))
    return mean


def _standardise(train: Features, test: Features) -> tuple[Features, Features]:
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return (train - mean) / deviation, (test - mean) / deviation


def _fit_quietly(probe: Any, features: Features, labels: Labels) -> None:
    """Fit without the warning of a solver that used all its steps: they are limited on purpose."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features, labels)

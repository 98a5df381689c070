"""Linear heads for labels and numbers by a solver: the optimum itself, no epochs.

Each label is a logistic regression of its own, by L-BFGS, at the weight penalty that
cross-validation takes; numbers are a ridge regression, whose penalty has the smallest error of
images that are left out. The val split chooses no weights.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import HeadConfig
from headstart.tasks.dataset.stratifying import deal_into_folds
from headstart.tasks.head.folds import number_folds
from headstart.tasks.progress import reporter

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Weight penalties that are tried, strong to weak: what is minimised is the mean cross-entropy of
the images, in nats, + penalty / 2 * the squared weights of the scaled features."""
RIDGE_PENALTIES = tuple(np.logspace(-2, 7, 37))
"""Of numbers: what is minimised is the sum of the squared errors of the standardised numbers
+ penalty * the squared weights of the features, each at a deviation of 1."""
NUM_FOLDS = 4
MAX_ITERATIONS = 200
"""Of the last solution; those that only compare penalties stop at `COMPARED_ITERATIONS`, each
starting from the one before."""
COMPARED_ITERATIONS = 40
DEFAULT_PENALTY = 1.0
"""Where there is nothing to compare penalties by."""
NUM_DECIDING = 3
"""Labels by which the scaling of the features is chosen."""
MIN_VALUES_FOR_THREADS = 2**18
"""Features times rows from which a product is worth more than one thread."""
MAX_WORSE = 2
"""A loss that has risen so often in a row does not fall again: weaker penalties are not tried."""
LABELS_VERSION = 3
"""Bump by hand when `fit_together` finds other weights; a part of the keys of what uses it."""
GRADIENT_TOLERANCE = 1e-4
"""Largest gradient of the mean loss by a weight at which a solution is taken for one: that of
scikit-learn's logistic regression."""

Array = npt.NDArray[Any]


def quick_threads(features: Array) -> AbstractContextManager[Any]:
    """Keep small products on one thread: many threads would wait for one another at each of them.

    On two cores that were busy, fits of 25 rows took a tenth of the time so.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(
        1 if features.size < MIN_VALUES_FOR_THREADS else None
    )
    return limits


def logistic_model(config: HeadConfig, max_iterations: int) -> Any:
    """Make scikit-learn's logistic regression, which goes on from where it was."""
    from sklearn.linear_model import LogisticRegression

    weight = "balanced" if config.class_weights == "balanced" else None
    return LogisticRegression(class_weight=weight, max_iter=max_iterations, warm_start=True)


def fit_logistic(model: Any, features: Array, labels: Array, penalty: float) -> None:
    """Fit it at a weight penalty; its steps are limited on purpose."""
    from sklearn.exceptions import ConvergenceWarning

    model.C = 1.0 / (penalty * len(features))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)


def solve_labels(
    features: Array, scales: Sequence[Array], targets: Array, units: Array, config: HeadConfig
) -> tuple[Array, Array, float]:
    """Find a logistic regression a label, all of them at once: they share the features.

    Args:
        features: float32 [n, d], at means of 0.
        scales: What the features may be divided by, each [d]. The labels that are the most evenly
            on and off decide: a cross-validation of all under each would take as many times longer.
        targets: 0 and 1 [n, num_labels].
        units: int64 [n]: rows of one number stay in one fold: an image's views, or a group's.
        config: Class weights, and the seed of the folds.

    Returns:
        Weights [d, num_labels] of the features as they are given, biases [num_labels], and the
        median of the labels' penalties.
    """
    folds = label_folds(targets, units, NUM_FOLDS, config.seed)
    order = np.argsort(np.abs(targets.mean(axis=0) - 0.5), kind="stable")
    deciding = targets[:, order[:NUM_DECIDING]]
    # The best is scaled once more: all scalings in memory at once would be copies of the features.
    totals = [
        _penalties_of(_reduced(features / scale)[0], deciding, units, folds, config)[1]
        for scale in scales
    ]
    scale = scales[int(np.argmin(totals))]
    rows, directions = _reduced(features / scale)
    share = (targets.sum(axis=0) + 0.5) / (len(targets) + 1)
    kernel = np.zeros((features.shape[1], targets.shape[1]))
    bias = np.log(share) - np.log1p(-share)  # of a label that is always on or never
    varying = np.flatnonzero(targets.min(axis=0) < targets.max(axis=0))
    if not len(varying):
        return kernel, bias, DEFAULT_PENALTY
    having = targets[:, varying]
    penalties, _ = _penalties_of(rows, having, units, folds, config)
    found = fit_together(rows, having, _weights(having, config), penalties, MAX_ITERATIONS)
    kernel[:, varying], bias[varying] = directions @ found[:-1], found[-1]
    return kernel / scale[:, None], bias, float(np.median(penalties))


def _reduced(features: Array) -> tuple[Array, Array]:
    """Turn features so that there are no more than rows; a penalty of squares does not see it.

    Args:
        features: [n, d].

    Returns:
        float64 [n, k], k the smaller of n and d, and the directions [d, k] that weights of them
        are multiplied by to be weights of the features.
    """
    features = features.astype(np.float64, copy=False)
    if len(features) >= features.shape[1]:
        return features, np.eye(features.shape[1])
    left, lengths, directions = np.linalg.svd(features, full_matrices=False)
    return left * lengths, directions.T


def fit_together(
    features: Array,
    having: Array,
    weights: Array,
    penalties: Array,
    max_iterations: int,
    start: Array | None = None,
) -> Array:
    """Fit a logistic regression a label by one L-BFGS over all of them.

    What is minimised falls apart into the labels, so its minimum is theirs; a step costs two
    products of matrices, where label by label each would read all features again.

    Args:
        features: [n, d]; computed with in float64.
        having: 0 and 1 [n, num_labels].
        weights: Weight of each row for each label, [n, num_labels]; 0 leaves a row out.
        penalties: Penalty of each label, [num_labels]; see `PENALTIES`.
        max_iterations: Steps at the most.
        start: Where to begin, as returned.

    Returns:
        float64 [d + 1, num_labels]: the weights of the features, and the biases in the last row.
    """
    from scipy.optimize import minimize

    features = np.asarray(features, np.float64)
    shape = features.shape[1] + 1, having.shape[1]
    shares = weights / weights.sum(axis=0)

    def loss_and_gradient(flat: Array) -> tuple[float, Array]:
        kernel, bias = flat.reshape(shape)[:-1], flat.reshape(shape)[-1]
        logits = features @ kernel + bias
        loss = (shares * (np.logaddexp(0.0, logits) - having * logits)).sum()
        off = shares * (0.5 * (1.0 + np.tanh(logits / 2)) - having)
        gradient = np.vstack([features.T @ off + penalties * kernel, off.sum(axis=0)])
        return float(loss + (penalties * kernel**2).sum() / 2), gradient.ravel()

    begin = np.zeros(shape) if start is None else start
    options = {"maxiter": max_iterations, "gtol": GRADIENT_TOLERANCE, "ftol": 0.0, "maxls": 50}
    made = minimize(loss_and_gradient, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(made.x).reshape(shape)


def _weights(having: Array, config: HeadConfig) -> Array:
    if config.class_weights != "balanced":
        return np.ones(having.shape)
    share = np.clip(having.mean(axis=0), 1e-12, 1 - 1e-12)
    return np.asarray(np.where(having > 0, 0.5 / share, 0.5 / (1 - share)))


def label_folds(targets: Array, units: Array, num_folds: int, seed: int) -> Array:
    """Assign each row to a fold, so that each label is spread evenly.

    Args:
        targets: 0 and 1 [n, num_labels].
        units: int64 [n]: rows of one number stay together; each label of any of them counts.
        num_folds: Folds, at least 2.
        seed: Seed of the shuffle.

    Returns:
        int64 [n], 0 to num_folds - 1.
    """
    labels_of: defaultdict[str, set[int]] = defaultdict(set)
    for unit, row in zip(units, targets, strict=True):
        labels_of[f"{unit:012}"].update(np.flatnonzero(row).tolist())
    sets = {unit: tuple(sorted(own)) for unit, own in labels_of.items()}
    dealt = deal_into_folds(sets, "labels", num_folds, seed)
    return np.array([dealt[f"{unit:012}"] for unit in units])


def _penalties_of(
    features: Array, having: Array, units: Array, folds: Array, config: HeadConfig
) -> tuple[Array, float]:
    """Return each label's penalty of the smallest loss of held-out rows, and these losses' sum."""
    weights = _weights(having, config)
    num_labels = having.shape[1]
    losses = np.full((len(PENALTIES), num_labels), np.inf)
    starts: dict[int, Array] = {}
    active = np.arange(num_labels)
    with reporter().track("cross-validation", len(PENALTIES), "penalties") as advance:
        for place, penalty in enumerate(PENALTIES):
            if len(active):
                losses[place, active] = 0.0
            for fold in range(NUM_FOLDS) if len(active) else ():
                kept = folds != fold
                own = having[:, active]
                # A label that the others never or always have cannot be learned from them.
                can = (own[kept].min(axis=0) < own[kept].max(axis=0)) & (~kept).any()
                labels = active[can]
                if not len(labels):
                    continue
                known = starts.setdefault(fold, np.zeros((features.shape[1] + 1, num_labels)))
                found = fit_together(
                    features,
                    having[:, labels],
                    weights[:, labels] * kept[:, None],
                    np.full(len(labels), penalty),
                    COMPARED_ITERATIONS,
                    known[:, labels],
                )
                known[:, labels] = found
                logits = features[~kept] @ found[:-1] + found[-1]
                held = np.logaddexp(0.0, logits) - having[np.ix_(~kept, labels)] * logits
                losses[place, labels] += held.sum(axis=0)
            best = losses[: place + 1].argmin(axis=0)
            active = active[place - best[active] < MAX_WORSE]
            advance(1)
    # With one unit that has a label, or one that has not, some fold has nothing to learn it from.
    with_it, without = (
        np.array([len(np.unique(units[column > 0])) for column in sign.T])
        for sign in (having, 1 - having)
    )
    few = np.minimum(with_it, without) < 2
    chosen = np.array(PENALTIES)[losses.argmin(axis=0)]
    return np.where(few, DEFAULT_PENALTY, chosen), float(losses.min(axis=0)[~few].sum())


def solve_numbers(
    features: Array, targets: Array, units: Array, config: HeadConfig
) -> tuple[Array, Array, float]:
    """Find a ridge regression.

    Args:
        features: [n, d], each at a mean of 0 and a deviation of 1.
        targets: Standardised numbers [n, num_numbers].
        units: int64 [n]: rows of one number stay in one fold: an image's views, or a group's.
        config: The seed of the folds.

    Returns:
        Weights [d, num_numbers], biases [num_numbers], and the penalty, which is that of the
        smallest squared error of images left out: one at a time, exactly, or fold by fold where
        there are several views or images that belong together.
    """
    from sklearn.linear_model import RidgeCV

    how: Any = {}
    if len(np.unique(units)) < len(units):
        folds = number_folds(units, NUM_FOLDS, config.seed)
        how = {"cv": folds, "scoring": "neg_mean_squared_error"} if folds else {}
    model = RidgeCV(RIDGE_PENALTIES, **how).fit(features, targets)
    kernel = np.atleast_2d(model.coef_).T
    return kernel, np.atleast_1d(model.intercept_), float(model.alpha_)

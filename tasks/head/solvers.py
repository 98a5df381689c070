"""Linear heads for labels and numbers by a solver: the optimum itself, no epochs.

Each label is a logistic regression of its own, by L-BFGS, at the weight penalty that
cross-validation takes; numbers are a ridge regression, whose penalty has the smallest error of
images that are left out. The val split chooses no weights.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import HeadConfig
from headstart.tasks.head.folds import stratified_folds
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
    features: Array, scales: Sequence[Array], targets: Array, images: Array, config: HeadConfig
) -> tuple[Array, Array, float]:
    """Find a logistic regression a label.

    Args:
        features: float32 [n, d], at means of 0.
        scales: What the features may be divided by, each [d]. The labels that are the most evenly
            on and off decide: a cross-validation of all under each would take as many times longer.
        targets: 0 and 1 [n, num_labels].
        images: int64 [n], the image of each row: views of one stay in one fold.
        config: Class weights, and the seed of the folds.

    Returns:
        Weights [d, num_labels] of the features as they are given, biases [num_labels], and the
        median of the labels' penalties.
    """
    num_labels = targets.shape[1]
    order = np.argsort(np.abs(targets.mean(axis=0) - 0.5), kind="stable")
    deciding = [targets[:, label].astype(np.int32) for label in order[:NUM_DECIDING]]
    totals = [
        sum(_penalty_of(features / scale, having, images, config)[1] for having in deciding)
        for scale in scales
    ]
    scale = scales[int(np.argmin(totals))]
    features = features / scale
    kernel, bias = np.zeros((features.shape[1], num_labels)), np.zeros(num_labels)
    penalties = []
    with reporter().track("labels", num_labels, "labels") as advance:
        for label in range(num_labels):
            having = targets[:, label].astype(np.int32)
            if having.min() == having.max():  # always on or never: there is nothing to tell apart
                share = (having.sum() + 0.5) / (len(having) + 1)
                bias[label] = np.log(share) - np.log1p(-share)
            else:
                penalty, _ = _penalty_of(features, having, images, config)
                model = logistic_model(config, MAX_ITERATIONS)
                fit_logistic(model, features, having, penalty)
                kernel[:, label], bias[label] = model.coef_[0], model.intercept_[0]
                penalties.append(penalty)
            advance(1)
    median = float(np.median(penalties)) if penalties else DEFAULT_PENALTY
    return kernel / scale[:, None], bias, median


def _penalty_of(
    features: Array, having: Array, images: Array, config: HeadConfig
) -> tuple[float, float]:
    """Return the penalty of the smallest loss of held-out images, and that loss."""
    of_image = np.zeros(images.max() + 1, np.int32)
    of_image[images] = having
    if np.bincount(of_image, minlength=2).min() < 2:
        return DEFAULT_PENALTY, 0.0  # one image cannot be held out and learned from
    folds = stratified_folds(of_image, NUM_FOLDS, config.seed)[images]
    losses: list[float] = []
    for loss in _losses(features, having, folds, config):
        losses.append(loss)
        if len(losses) > MAX_WORSE and min(losses) < min(losses[-MAX_WORSE:]):
            break
    return PENALTIES[int(np.argmin(losses))], min(losses)


def _losses(features: Array, having: Array, folds: Array, config: HeadConfig) -> Iterator[float]:
    """Yield the summed loss of held-out rows at each penalty."""
    parts = [
        (features[folds != fold], having[folds != fold], features[folds == fold], folds == fold)
        for fold in range(NUM_FOLDS)
        if len(np.unique(having[folds != fold])) == 2 and (folds == fold).any()
    ]
    models = [logistic_model(config, COMPARED_ITERATIONS) for _ in parts]
    for penalty in PENALTIES:
        total = 0.0
        for model, (kept, kept_labels, held, rows) in zip(models, parts, strict=True):
            fit_logistic(model, kept, kept_labels, penalty)
            logs = model.predict_log_proba(held)
            total -= float(logs[np.arange(len(logs)), having[rows]].sum())
        yield total


def solve_numbers(
    features: Array, targets: Array, images: Array, config: HeadConfig
) -> tuple[Array, Array, float]:
    """Find a ridge regression.

    Args:
        features: [n, d], each at a mean of 0 and a deviation of 1.
        targets: Standardised numbers [n, num_numbers].
        images: int64 [n], the image of each row.
        config: The seed of the folds.

    Returns:
        Weights [d, num_numbers], biases [num_numbers], and the penalty, which is that of the
        smallest squared error of images left out: one at a time, exactly, or fold by fold where
        there are several views of each.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold

    folds: Any = {}
    if len(np.unique(images)) < len(images):
        groups = GroupKFold(NUM_FOLDS, shuffle=True, random_state=config.seed)
        folds = {
            "cv": list(groups.split(features, groups=images)),
            "scoring": "neg_mean_squared_error",
        }
    model = RidgeCV(RIDGE_PENALTIES, **folds).fit(features, targets)
    kernel = np.atleast_2d(model.coef_).T
    return kernel, np.atleast_1d(model.intercept_), float(model.alpha_)

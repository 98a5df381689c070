"""How well features would transfer, from one look at them: LogME, H-score, LEEP and NCE.

None of them trains anything. Each is a proxy, and a proxy is only worth what its agreement with
measured accuracy says: the ranking's report shows none of them without it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]

MAX_ITERATIONS = 100
"""Steps of LogME's fixed point; it usually settles within ten."""
MAX_RATIO = 1e100
"""Of alpha and beta."""
TOLERANCE = 1e-6
"""Relative change of the ratio alpha / beta at which the fixed point has settled."""
NULL_SHARE = 1e-12
"""A principal variance below this share of the largest is a rounding error, and counts as zero."""


def logme(features: Features, labels: Labels) -> float:
    """Compute the logarithm of maximum evidence of a linear model on the features.

    For each class k its one-hot column y is modelled as F w + noise, with w ~ N(0, 1/alpha) and
    noise ~ N(0, 1/beta). The evidence p(y | F, alpha, beta) is maximised over both by a fixed
    point; with singular values s_i of F [n, d], z_i the projections of y on its left singular
    vectors and gamma = sum beta s_i^2 / (alpha + beta s_i^2),

        alpha <- gamma / |m|^2,   beta <- (n - gamma) / |F m - y|^2,
        log p = n/2 log beta + d/2 log alpha - n/2 log 2 pi - beta/2 |F m - y|^2
                - alpha/2 |m|^2 - 1/2 sum log(alpha + beta s_i^2),

    where m is the posterior mean of w. LogME is the mean over the classes of log p / n.

    Args:
        features: float64 [n, d], as the head sees them.
        labels: Integers [n], 0 to K - 1; or the columns themselves, [n, K]: labels of 0 and 1, or
            standardised numbers.

    Returns:
        Nats an image; higher is better. Comparable between features of any width on the same
        labels.

    Source:
        You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning",
        ICML 2021, https://arxiv.org/abs/2102.11005, algorithm 1 and its appendix; the iteration
        in terms of singular values is that of You et al., "Ranking and Tuning Pre-trained
        Models", JMLR 2022, https://arxiv.org/abs/2110.10545.
    """
    features = np.asarray(features, np.float64)
    vectors, variances = _left_singular(features)
    if np.ndim(labels) == 2:
        targets = np.asarray(labels, np.float64)
    else:
        targets = (np.asarray(labels)[:, None] == np.unique(labels)).astype(np.float64)
    projections = (vectors.T @ targets) ** 2
    residuals = np.maximum((targets**2).sum(0) - projections.sum(0), 0.0)
    evidence = [
        _log_evidence(variances, projections[:, k], float(residuals[k]), *features.shape)
        for k in range(targets.shape[1])
    ]
    return float(np.mean(evidence)) / len(features)


def _left_singular(features: Features) -> tuple[Features, Features]:
    """Return the left singular vectors [n, r] and squared singular values [r] above zero.

    From the smaller of the two Gram matrices, which takes a tenth of the time of a decomposition
    of the features themselves.
    """
    num_rows, width = features.shape
    if width <= num_rows:
        variances, right = np.linalg.eigh(features.T @ features)
        kept = variances > NULL_SHARE * max(float(variances[-1]), 0.0)
        variances = variances[kept]
        return features @ right[:, kept] / np.sqrt(variances), variances
    variances, left = np.linalg.eigh(features @ features.T)
    kept = variances > NULL_SHARE * max(float(variances[-1]), 0.0)
    return left[:, kept], variances[kept]


def _log_evidence(
    variances: Features, projections: Features, residual: float, num_rows: int, width: int
) -> float:
    """Maximise one class's evidence.

    Args:
        variances: Squared singular values [r].
        projections: Squared projections of the targets on the left singular vectors [r].
        residual: Squared length of the targets outside their span.
        num_rows: Number of images, n.
        width: Number of features, d.
    """
    alpha = beta = 1.0
    tiny = np.finfo(np.float64).tiny
    for _ in range(MAX_ITERATIONS):
        ratio = _bounded(alpha / beta)
        gamma = float((variances / (variances + ratio)).sum())
        mean_square = float((variances * projections / (variances + ratio) ** 2).sum())
        error = float((projections / (1 + variances / ratio) ** 2).sum()) + residual
        alpha = max(gamma, tiny) / max(mean_square, tiny)
        beta = max(num_rows - gamma, tiny) / max(error, tiny)
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    ratio = _bounded(alpha / beta)
    mean_square = float((variances * projections / (variances + ratio) ** 2).sum())
    error = float((projections / (1 + variances / ratio) ** 2).sum()) + residual
    log_determinant = float(np.log(alpha + beta * variances).sum())
    log_determinant += (width - len(variances)) * np.log(alpha)
    return float(
        num_rows / 2 * np.log(beta)
        + width / 2 * np.log(alpha)
        - num_rows / 2 * np.log(2 * np.pi)
        - beta / 2 * error
        - alpha / 2 * mean_square
        - log_determinant / 2
    )


def _bounded(ratio: float) -> float:
    """Keep a ratio whose square is finite: of targets that features say nothing of it runs away."""
    return min(max(ratio, 1.0 / MAX_RATIO), MAX_RATIO)


def h_score(features: Features, labels: Labels) -> float:
    """Compute the H-score: the variance between classes in units of the variance within all.

    H = tr(cov(f)^-1 cov(E[f | y])).

    Args:
        features: float64 [n, d].
        labels: Integers [n], 0 to K - 1.

    Returns:
        0 to min(d, K - 1); higher is better. With fewer images than features the covariance
        cannot be inverted, its pseudo-inverse stands in, and the score is near its maximum
        whatever the features are worth: `regularised_h_score` is for that case.

    Source:
        Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer
        Learning", ICIP 2019, https://arxiv.org/abs/2212.10082, definition 2.
    """
    centred, between = _between_classes(features, labels)
    covariance = centred.T @ centred / len(centred)
    variances, axes = np.linalg.eigh(covariance)
    kept = variances > NULL_SHARE * max(float(variances[-1]), 0.0)
    scaled = axes[:, kept] / np.sqrt(variances[kept])
    return float(((between @ scaled) ** 2).sum()) / len(centred)


def regularised_h_score(features: Features, labels: Labels) -> float:
    """Compute the H-score with a shrunk covariance, which also holds where images are few.

    H = tr(S^-1 (1 - a) cov(E[f | y])) with S = (1 - a) cov(f) + a tr(cov(f))/d I and the
    shrinkage a of Ledoit and Wolf.

    Args:
        features: float64 [n, d].
        labels: Integers [n], 0 to K - 1.

    Returns:
        0 to min(d, K - 1); higher is better.

    Source:
        Ibrahim et al., "Newer is not always better: Rethinking transferability metrics, their
        peculiarities, stability and performance", ECML-PKDD 2022,
        https://arxiv.org/abs/2110.06893, equations 4 and 5; Ledoit and Wolf, "A well-conditioned
        estimator for large-dimensional covariance matrices", 2004, as scikit-learn has it.
    """
    from sklearn.covariance import ledoit_wolf

    centred, between = _between_classes(features, labels)
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    variances, axes = np.linalg.eigh(covariance)
    kept = variances > NULL_SHARE * max(float(variances[-1]), 0.0)
    scaled = axes[:, kept] / np.sqrt(variances[kept])
    total = float(((between @ scaled) ** 2).sum()) / len(centred)
    return (1 - float(shrinkage)) * total


def _between_classes(features: Features, labels: Labels) -> tuple[Features, Features]:
    """Return centred features and, for each row, the mean of its class, both [n, d]."""
    features = np.asarray(features, np.float64)
    centred = features - features.mean(axis=0)
    _, position = np.unique(labels, return_inverse=True)
    sums = np.zeros((int(position.max()) + 1, features.shape[1]))
    np.add.at(sums, position, centred)
    means = sums / np.bincount(position)[:, None]
    return centred, means[position]


def leep(source_probabilities: Features, labels: Labels) -> float:
    """Compute the log expected empirical prediction of a source classifier.

    With theta(x)_z the source's probability of its class z and P(y | z) the empirical
    conditional of the target's labels, LEEP = mean_i log sum_z P(y_i | z) theta(x_i)_z.

    Args:
        source_probabilities: float64 [n, num_source_classes], rows that sum to 1.
        labels: Integers [n] of the target.

    Returns:
        Nats an image, at most 0; higher is better.

    Source:
        Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned
        Representations", ICML 2020, https://arxiv.org/abs/2002.12462, equations 1 and 2.
    """
    theta = np.asarray(source_probabilities, np.float64)
    classes, position = np.unique(labels, return_inverse=True)
    joint = np.zeros((len(classes), theta.shape[1]))
    np.add.at(joint, position, theta)
    conditional = joint / np.maximum(joint.sum(axis=0), np.finfo(np.float64).tiny)
    expected = (theta * conditional[position]).sum(axis=1)
    return float(np.log(expected).mean())


def nce(source_labels: Labels, labels: Labels) -> float:
    """Compute the negative conditional entropy of the labels given the source's labels.

    NCE = -H(Y | Z) = sum_yz P(y, z) log(P(y, z) / P(z)).

    Args:
        source_labels: Integers [n]: the class that the source's classifier predicts.
        labels: Integers [n] of the target.

    Returns:
        Nats an image, -log K to 0; higher is better.

    Source:
        Tran et al., "Transferability and Hardness of Supervised Classification Tasks", ICCV
        2019, https://arxiv.org/abs/1908.08142, definition 1 and theorem 1.
    """
    _, source = np.unique(source_labels, return_inverse=True)
    _, target = np.unique(labels, return_inverse=True)
    counts = np.zeros((int(target.max()) + 1, int(source.max()) + 1))
    np.add.at(counts, (target, source), 1.0)
    joint = counts / counts.sum()
    conditional = joint / joint.sum(axis=0)
    seen = joint > 0
    return float((joint[seen] * np.log(conditional[seen])).sum())

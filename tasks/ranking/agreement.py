"""Whether a score can be believed here: how well its order agrees with measured accuracy."""

import math
from collections.abc import Sequence

import numpy as np

MIN_COMPARED = 3
"""Of two candidates any score gets the order right half of the time."""


def weighted_tau(scores: Sequence[float | None], accuracies: Sequence[float]) -> float | None:
    """Compute the weighted Kendall rank correlation of a score and measured accuracy.

    A pair of candidates counts as agreement where both order it alike; pairs among the best
    count for more, 1/(r + 1) + 1/(s + 1) for ranks r and s from 0, since it matters little in
    which order the hopeless are.

    Args:
        scores: One a candidate; None where the score has no value for it.
        accuracies: Measured, one a candidate.

    Returns:
        -1 to 1; None where fewer than `MIN_COMPARED` candidates have the score, or all are equal.

    Source:
        Vigna, "A Weighted Correlation Index for Rankings with Ties", WWW 2015, as
        `scipy.stats.weightedtau` has it: additive hyperbolic weights, the mean of ranking by
        either side. You et al. 2021 judge LogME by the same.
    """
    from scipy.stats import weightedtau

    pairs = [(s, a) for s, a in zip(scores, accuracies, strict=True) if s is not None]
    if len(pairs) < MIN_COMPARED:
        return None
    tau = float(weightedtau(*np.array(pairs).T).statistic)
    return tau if math.isfinite(tau) else None

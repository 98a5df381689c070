"""Likely label errors: confident learning on out-of-sample predictions.

Written out here rather than taken from cleanlab, whose licence (AGPL-3.0) is not compatible with
this project's, for what are thirty lines of NumPy.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer[Any]]


class LabelQuality(NamedTuple):
    """How believable each label is.

    Attributes:
        margin: float64 [n] in [-1, 1]: probability of the label less that of the likeliest other
            class. The lowest are the most suspicious.
        suggested: int64 [n]: the likeliest class.
        is_error: bool [n]: counted as an error by confident learning.
    """

    margin: npt.NDArray[np.float64]
    suggested: npt.NDArray[np.int64]
    is_error: npt.NDArray[np.bool_]


def judge_labels(probabilities: npt.NDArray[np.float64], labels: Labels) -> LabelQuality:
    """Judge labels by what heads that never saw them predict.

    A class's threshold is the mean probability that its own images get for it. An image is
    confidently of class j where its probability of j reaches that threshold, the likeliest of
    such classes where there are several; where that is not its label, the label is counted as an
    error, unless it is the likeliest of all classes even so. The only image of its class is
    never counted: no head that did not see it knows the class.

    Args:
        probabilities: float64 [n, K], out of sample.
        labels: Integers [n], 0 to K - 1.

    Source:
        Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR
        2021, https://arxiv.org/abs/1911.00068, equations 1 and 2 (the confident joint), with the
        off-diagonal counts taken as the errors, and its normalised margin for the order. That a
        label which is predicted is no error is a step of the authors' cleanlab beside the paper.
    """
    num_images, num_classes = probabilities.shape
    images = np.arange(num_images)
    own = probabilities[images, labels]
    others = probabilities.copy()
    others[images, labels] = -np.inf
    thresholds = np.array(
        [
            probabilities[labels == k, k].mean() if (labels == k).any() else np.inf
            for k in range(num_classes)
        ]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -np.inf)
    confident_class = confident.argmax(axis=1)
    is_confident = np.isfinite(confident).any(axis=1)
    likeliest = probabilities.argmax(axis=1)
    is_alone = np.bincount(labels, minlength=num_classes)[labels] == 1
    return LabelQuality(
        margin=own - others.max(axis=1),
        suggested=likeliest,
        is_error=is_confident & (confident_class != labels) & (likeliest != labels) & ~is_alone,
    )

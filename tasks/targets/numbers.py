"""One number an image or several: standardised to learn, answered with in the user's unit."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.targets.target import COVERAGE, Array, Fit, Outputs, Target

MIN_SPREAD = 1e-4
"""Least standard deviation beside the mean's size. A model computes in float32, whose steps are
6e-8 of a number: here they are 6e-4 of the spread, and below they would be seen in the answers."""


class Numbers(Target):
    """Targets are float64 [n, num_numbers], in the user's unit."""

    kind = "number"
    metric = "mae"
    unread = ("label_smoothing", "class_weights", "min_precision")
    own_settings = ("number_loss",)
    answer_name = "numbers"

    def to_array(self, rows: Sequence[Any], num_outputs: int) -> Array:
        """Gather the numbers."""
        return np.array([row.values for row in rows], np.float64).reshape(len(rows), num_outputs)

    def check(
        self, train: Array, val: Array | None, num_outputs: int, names: Sequence[str] = ()
    ) -> None:
        """Refuse data without images, and numbers that do not vary, or too little."""
        if len(train) == 0:
            raise TrainingError("numbers can only be learned from training images", "none of them")
        for column, (mean, spread) in enumerate(
            zip(train.mean(axis=0), train.std(axis=0), strict=True)
        ):
            name = names[column] if names else f"number {column} (counted from 0)"
            if np.ptp(train[:, column]) == 0:
                raise TrainingError(
                    "a number is the same in all training images, so there is nothing to learn",
                    f"{name} is {mean:g} {len(train):,} times",
                    "leave it out of dataset.target_columns, or add images where it differs",
                )
            if spread < MIN_SPREAD * abs(mean):
                raise TrainingError(
                    "a number varies less than a model that computes in float32 can tell apart",
                    f"{name}: {mean:g}, give or take {spread:g}",
                    "subtract a constant in the manifest: learn the difference from it",
                )

    def fit(self, train: Array) -> Fit:
        """Find mean and deviation of the training images alone."""
        return Fit(offset=tuple(train.mean(axis=0)), scale=tuple(train.std(axis=0)))

    def to_match(self, targets: Any, num_outputs: int, smoothing: float, fit: Fit) -> Any:
        """Standardise, in float64: the numbers may be large."""
        import tensorflow as tf

        standard = (targets - np.array(fit.offset)) / np.array(fit.scale)
        return tf.cast(standard, tf.float32)

    def balance(self, train: Array, num_outputs: int) -> Any:
        """Give none: numbers have no classes."""
        return None

    def loss(self, config: HeadConfig) -> Any:
        """Make the squared error, or Huber's, of standardised numbers."""
        import keras

        if config.number_loss == "huber":
            return keras.losses.Huber()
        return keras.losses.MeanSquaredError()

    def make_metric(self, fit: Fit) -> Any:
        """Make the mean absolute error in the user's unit, over all numbers of an image."""
        import keras

        scale = np.array(fit.scale, np.float32)

        def absolute_error(y_true: Any, y_pred: Any) -> Any:
            return keras.ops.mean(keras.ops.abs(y_true - y_pred) * scale, axis=-1)

        return keras.metrics.MeanMetricWrapper(absolute_error, name=self.metric)

    def decide(self, fit: Fit, outputs: Outputs, val: Array, config: HeadConfig) -> Fit:
        """Find the intervals that hold `COVERAGE` of new images."""
        errors = np.abs(self.answers(outputs, fit) - val)
        return fit.model_copy(update={"radius": conformal_radius(errors)})

    def answers(self, outputs: Outputs, fit: Fit) -> Array:
        """Unscale."""
        return np.asarray(outputs.astype(np.float64) * fit.scale + np.array(fit.offset))

    def errors(self, outputs: Outputs, targets: Array, fit: Fit) -> npt.NDArray[np.float64]:
        """Give the mean error, in deviations of the training images."""
        off = np.abs(self.answers(outputs, fit) - targets) / np.array(fit.scale)
        return np.asarray(off.mean(axis=1))

    def outputs(self, answers: Array, fit: Fit) -> Array:
        """Standardise."""
        return np.asarray((answers - np.array(fit.offset)) / np.array(fit.scale))

    def words(self, target: Any, names: Sequence[str]) -> str:
        """Write its numbers."""
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(names, target, strict=True))

    def shown_output(self, target: Any) -> int:
        """Pick the first number."""
        return 0

    def answer_layer(self, fit: Fit, name: str) -> Any:
        """Make the unscaling."""
        import keras

        return keras.layers.Rescaling(list(fit.scale), list(fit.offset), name=name, dtype="float32")

    def answer_unit(self, fit: Fit) -> Array:
        """Return the deviations of the training images."""
        return np.array(fit.scale)


def conformal_radius(errors: Array, coverage: float = COVERAGE) -> tuple[float, ...]:
    """Return half the width of intervals that hold a share of new images, whatever the model.

    Args:
        errors: Absolute errors [n, numbers] of images that the model was not trained on.
        coverage: Share of new images in [0, 1] whose interval shall hold the truth.

    Returns:
        One a number; none where there are too few images for such a share (19 for 95 %).

    Source:
        Lei et al., "Distribution-Free Predictive Inference for Regression", 2018, algorithm 2,
        https://arxiv.org/abs/1604.04173
    """
    rank = math.ceil((len(errors) + 1) * coverage)
    if rank > len(errors):
        return ()
    return tuple(float(radius) for radius in np.sort(errors, axis=0)[rank - 1])

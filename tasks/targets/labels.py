"""Any number of labels an image, none among them: a sigmoid and binary cross-entropy each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.targets.target import NO_FIT, TINY, Array, Fit, Outputs, Target

DEFAULT_THRESHOLD = 0.5
"""Where the validation images cannot say better."""


class Labels(Target):
    """Targets are uint8 [n, num_labels]: 1 where the image has the label."""

    kind = "labels"
    metric = "f1_micro"
    unread = ("number_loss",)
    own_settings = ("min_precision",)

    def to_array(self, rows: Sequence[Any], num_outputs: int) -> Array:
        """Set a 1 for each label of each row."""
        targets = np.zeros((len(rows), num_outputs), np.uint8)
        for number, row in enumerate(rows):
            targets[number, [int(label) for label in row.values]] = 1
        return targets

    def check(
        self, train: Array, val: Array | None, num_outputs: int, names: Sequence[str] = ()
    ) -> None:
        """Refuse data without images or labels."""
        if num_outputs < 1 or len(train) == 0 or not train.any():
            raise TrainingError(
                "no training image has a label",
                f"{len(train)} training images, {num_outputs} labels, "
                f"{int(train.sum()) if len(train) else 0} of them set",
                "add images that have labels",
            )

    def fit(self, train: Array) -> Fit:
        """Find nothing before the first step."""
        return NO_FIT

    def to_match(self, targets: Any, num_outputs: int, smoothing: float, fit: Fit) -> Any:
        """Give a 1 or a 0 for each label, each moved towards one half by smoothing."""
        import tensorflow as tf

        return tf.cast(targets, tf.float32) * (1.0 - smoothing) + smoothing / 2

    def balance(self, train: Array, num_outputs: int) -> Any:
        """Weigh each label's images with it against those without, mean 1 over the images."""
        import tensorflow as tf

        having = train.sum(axis=0, dtype=np.float64)
        halves = np.stack([len(train) - having, having])
        # Of a label that all images have, or none, one side is empty and the other weighs 1.
        weights = np.where(halves.min(axis=0) > 0, len(train) / (2 * np.maximum(halves, 1.0)), 1.0)
        off, on = (tf.constant(side, tf.float32) for side in weights)
        return lambda targets: tf.where(tf.cast(targets, tf.bool), on, off)

    def loss(self, config: HeadConfig) -> Any:
        """Make the mean binary cross-entropy over images and labels."""
        import keras

        if config.class_weights == "none":
            return keras.losses.BinaryCrossentropy(from_logits=True)

        class EachBinaryCrossentropy(keras.losses.Loss):  # type: ignore[misc]
            """Binary cross-entropy of each label by itself, so that each takes a weight."""

            def call(self, y_true: Any, y_pred: Any) -> Any:
                return keras.ops.softplus(y_pred) - y_true * y_pred

        return EachBinaryCrossentropy(name="binary_crossentropy")

    def make_metric(self, fit: Fit) -> Any:
        """Make the micro F1 at a probability of one half."""
        import keras

        class MicroF1(keras.metrics.F1Score):  # type: ignore[misc]
            """F1 over all decisions; takes logits and smoothed targets."""

            def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
                wanted = keras.ops.cast(y_true > 0.5, "float32")
                return super().update_state(wanted, keras.ops.sigmoid(y_pred))

        return MicroF1(average="micro", threshold=DEFAULT_THRESHOLD, name=self.metric)

    def decide(self, fit: Fit, outputs: Outputs, val: Array, config: HeadConfig) -> Fit:
        """Choose each label's threshold."""
        probabilities = self.answers(outputs, fit)
        thresholds = tuple(
            choose_threshold(probabilities[:, label], val[:, label], config.min_precision)
            for label in range(val.shape[1])
        )
        return fit.model_copy(update={"thresholds": thresholds})

    def answers(self, outputs: Outputs, fit: Fit) -> Array:
        """Compute the sigmoid."""
        return np.asarray(0.5 * (1.0 + np.tanh(outputs.astype(np.float64) / 2)))

    def outputs(self, answers: Array, fit: Fit) -> Array:
        """Take the logit; a probability that was rounded to 1 counts as float32's next below."""
        held = np.clip(answers.astype(np.float64), TINY, 1.0 - 2.0**-24)
        return np.asarray(np.log(held) - np.log1p(-held))

    def errors(self, outputs: Outputs, targets: Array, fit: Fit) -> npt.NDArray[np.float64]:
        """Count the labels that are wrong at a probability of one half."""
        return np.asarray(((outputs > 0) != (targets > 0)).sum(axis=1), np.float64)

    def agree(self, answers: Array, others: Array, fit: Fit) -> npt.NDArray[np.bool_]:
        """Compare the labels that are said."""
        return np.asarray((self.told(answers, fit) == self.told(others, fit)).all(axis=1))

    def told(self, answers: Array, fit: Fit) -> Array:
        """Take the labels that reach their thresholds."""
        return np.asarray(answers >= np.array(fit.thresholds or DEFAULT_THRESHOLD))

    def words(self, target: Any, names: Sequence[str]) -> str:
        """Name the labels that it has."""
        return ", ".join(names[int(place)] for place in np.flatnonzero(target)) or "no label"

    def shown_output(self, target: Any) -> int:
        """Pick the first label that it has; the first of all where it has none."""
        return int(np.argmax(target))

    def answer_layer(self, fit: Fit, name: str) -> Any:
        """Make the sigmoid."""
        import keras

        return keras.layers.Activation("sigmoid", name=name, dtype="float32")


def choose_threshold(probabilities: Array, truth: Array, min_precision: float | None) -> float:
    """Choose the probability from which a label is said.

    Args:
        probabilities: [n], of the label.
        truth: [n], 1 where the image has it.
        min_precision: Say it as often as this precision allows; None for the best F1.

    Returns:
        In (0, 1); halfway between two probabilities that were seen, so that neither rounding nor
        another format of the model moves an image across. One half where no image has the label.
        Where no threshold reaches the precision, the one that comes nearest.
    """
    if not truth.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(truth[order] > 0)
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # images said at each
    precision, said = hits[ends] / (ends + 1), ends + 1
    if min_precision is None:
        best = int(np.argmax(2 * hits[ends] / (said + hits[-1])))
    elif (reached := np.flatnonzero(precision >= min_precision)).size:
        best = int(reached[-1])
    else:
        best = int(np.argmax(precision))
    end = int(ends[best])
    below = float(ranked[end + 1]) if end + 1 < len(ranked) else 0.0
    return float(np.clip((float(ranked[end]) + below) / 2, 1e-6, 1 - 1e-6))

"""One class an image: softmax with cross-entropy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.targets.target import NO_FIT, TINY, Array, Fit, Outputs, Target


class Classes(Target):
    """Targets are int32 [n], each the number of a class."""

    kind = "class"
    metric = "accuracy"
    unread = ("number_loss", "min_precision")

    def to_array(self, rows: Sequence[Any], num_outputs: int) -> Array:
        """Gather the classes' numbers."""
        return np.array([row.label for row in rows], np.int32)

    def check(
        self, train: Array, val: Array | None, num_outputs: int, names: Sequence[str] = ()
    ) -> None:
        """Refuse fewer than two classes, a class without training images, strange labels."""
        if num_outputs < 2 or len(train) == 0:
            raise TrainingError(
                "a classifier needs training images of at least two classes",
                f"{len(train)} training images, {num_outputs} classes",
                "add images of another class, one folder a class",
            )
        for labels in (train, val):
            if (
                labels is not None
                and len(labels)
                and not 0 <= labels.min() <= labels.max() < num_outputs
            ):
                raise TrainingError(
                    f"labels must be 0 to {num_outputs - 1}",
                    f"labels from {labels.min()} to {labels.max()}",
                )
        counts = np.bincount(train, minlength=num_outputs)
        if empty := np.flatnonzero(counts == 0).tolist():
            raise TrainingError(
                "a class has no training image",
                f"none of class {', '.join(map(str, empty[:10]))} (counted from 0)",
                "add images of these classes, hold out fewer for validation and test "
                "(--set dataset.val_fraction=0.1), or remove the classes",
            )

    def fit(self, train: Array) -> Fit:
        """Find nothing: classes are what they are."""
        return NO_FIT

    def to_match(self, targets: Any, num_outputs: int, smoothing: float, fit: Fit) -> Any:
        """Spread each class's number into a distribution."""
        return smooth_targets(targets, num_outputs, smoothing)

    def balance(self, train: Array, num_outputs: int) -> Any:
        """Weigh each image by its class."""
        import tensorflow as tf

        weights = tf.constant(class_weights(train, num_outputs))
        return lambda labels: tf.gather(weights, labels)

    def loss(self, config: HeadConfig) -> Any:
        """Make the cross-entropy.

        Smoothing is in the training targets, so that the validation loss that Keras computes with
        the same function is the plain cross-entropy.
        """
        import keras

        return keras.losses.CategoricalCrossentropy(from_logits=True)

    def make_metric(self, fit: Fit) -> Any:
        """Make the share of images that are right."""
        import keras

        return keras.metrics.CategoricalAccuracy(name=self.metric)

    def decide(self, fit: Fit, outputs: Outputs, val: Array, config: HeadConfig) -> Fit:
        """Add nothing: the likeliest class is the answer."""
        return fit

    def answers(self, outputs: Outputs, fit: Fit) -> Array:
        """Compute the softmax."""
        powers = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def outputs(self, answers: Array, fit: Fit) -> Array:
        """Take the logarithm: logits up to a constant, which the softmax does not see."""
        return np.log(np.maximum(answers, TINY))

    def errors(self, outputs: Outputs, targets: Array, fit: Fit) -> npt.NDArray[np.float64]:
        """Give 1 where another class is likelier than the right one."""
        return np.asarray(outputs.argmax(axis=1) != targets, np.float64)

    def agree(self, answers: Array, others: Array, fit: Fit) -> npt.NDArray[np.bool_]:
        """Compare the likeliest classes."""
        return np.asarray(answers.argmax(axis=1) == others.argmax(axis=1))

    def told(self, answers: Array, fit: Fit) -> Array:
        """Take the likeliest class."""
        return np.asarray(answers.argmax(axis=1))

    def words(self, target: Any, names: Sequence[str]) -> str:
        """Name the class."""
        return names[int(target)]

    def shown_output(self, target: Any) -> int:
        """Pick its class."""
        return int(target)

    def answer_layer(self, fit: Fit, name: str) -> Any:
        """Make the softmax."""
        import keras

        return keras.layers.Softmax(name=name, dtype="float32")


def class_weights(labels: npt.NDArray[np.int32], num_classes: int) -> npt.NDArray[np.float32]:
    """Return balanced class weights: their mean over the images is 1.

    Args:
        labels: int32 [n], 0 to num_classes - 1; each class at least once.
        num_classes: Length of the result.

    Returns:
        float32 [num_classes]: n / (num_classes * images of the class).

    Source:
        King and Zeng, "Logistic Regression in Rare Events Data", 2001, as scikit-learn's
        class_weight="balanced".
    """
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (num_classes * counts)).astype(np.float32)


def smooth_targets(labels: Any, num_classes: int, label_smoothing: float) -> Any:
    """Return the distribution that the logits are to match.

    Args:
        labels: Integer tensor [n], classes 0 to K - 1.
        num_classes: Number of classes K.
        label_smoothing: Share s of the weight that is spread over all classes.

    Returns:
        float32 [n, K]: 1 - s + s/K at the label, s/K elsewhere.

    Source:
        Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7,
        https://arxiv.org/abs/1512.00567
    """
    import tensorflow as tf

    off = label_smoothing / num_classes
    return tf.one_hot(labels, num_classes, on_value=1.0 - label_smoothing + off, off_value=off)

"""What heads that are trained at once minimise and are judged by, for each kind of targets.

Outputs are [b, H, K], of a batch, the heads and their outputs. The losses are those of
`headstart.tasks.targets`, which train a head alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from headstart.config import HeadConfig
from headstart.tasks.sweeping.pooled import PooledRows
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.classes import class_weights
from headstart.tasks.targets.target import NO_FIT, Fit


class ManyLosses:
    """Targets, losses and figures of heads that see the same batches.

    Args:
        configs: Configurations of the heads; alike in class weights and in the loss of numbers.
        fit: What they learn from.
        num_outputs: Classes, labels or numbers.
    """

    def __init__(self, configs: Sequence[HeadConfig], fit: PooledRows, num_outputs: int) -> None:
        self._kind, self._num_outputs = fit.kind, num_outputs
        target = TARGETS[fit.kind]
        self._fit: Fit = target.fit(fit.labels) if fit.kind == "number" else NO_FIT
        self._smoothing = np.array([config.label_smoothing for config in configs], np.float32)
        self._is_huber = configs[0].number_loss == "huber"
        self._balance: Any = None
        if configs[0].class_weights == "balanced" and fit.kind == "class":
            self._balance = tf.constant(class_weights(fit.labels, num_outputs))
        elif configs[0].class_weights == "balanced":
            self._balance = target.balance(fit.labels, num_outputs)

    def losses(self, labels: Any, outputs: Any) -> Any:
        """Return what a training minimises of each row and head, [b, H]."""
        if self._kind == "number":
            return self._errors(self._matched(labels), outputs)
        smoothing = self._smoothing[:, None]
        if self._kind == "class":
            sure = tf.one_hot(labels, self._num_outputs)[:, None]
            losses = cross_entropy(sure * (1 - smoothing) + smoothing / self._num_outputs, outputs)
            if self._balance is not None:
                losses *= tf.gather(self._balance, labels)[:, None]
            return losses
        wanted = self._matched(labels) * (1 - smoothing) + smoothing / 2
        weights = None if self._balance is None else self._balance(labels)[:, None]
        return _binary_cross_entropy(wanted, outputs, weights)

    def judge(self, labels: Any, outputs: Any) -> tuple[Any, Any]:
        """Return the loss, neither smoothed nor weighted, and the figure of each head, [H]."""
        if self._kind == "class":
            losses = cross_entropy(tf.one_hot(labels, self._num_outputs)[:, None], outputs)
            answers = tf.argmax(outputs, axis=-1, output_type=tf.int32)
            right = tf.cast(answers == labels[:, None], tf.float32)
            return tf.reduce_mean(losses, axis=0), tf.reduce_mean(right, axis=0)
        wanted = self._matched(labels)
        if self._kind == "labels":
            losses = _binary_cross_entropy(wanted, outputs, None)
            said = tf.cast(outputs > 0, tf.float32)
            hits = tf.reduce_sum(said * wanted, axis=(0, 2))
            total = tf.reduce_sum(said, axis=(0, 2)) + tf.reduce_sum(wanted)
            return tf.reduce_mean(losses, axis=0), tf.math.divide_no_nan(2 * hits, total)
        scale = tf.constant(self._fit.scale, tf.float32)
        off = tf.reduce_mean(tf.abs(wanted - outputs) * scale, axis=(0, 2))
        return tf.reduce_mean(self._errors(wanted, outputs), axis=0), off

    def _matched(self, labels: Any) -> Any:
        """Return what outputs are to match, [b, 1, K]."""
        target = TARGETS[self._kind]
        return target.to_match(labels, self._num_outputs, 0.0, self._fit)[:, None]

    def _errors(self, wanted: Any, outputs: Any) -> Any:
        off = tf.abs(wanted - outputs)
        each = off**2
        if self._is_huber:
            each = tf.where(off <= 1.0, off**2 / 2, off - 0.5)
        return tf.reduce_mean(each, axis=-1)


def cross_entropy(targets: Any, logits: Any) -> Any:
    """Return the loss [b, H] of logits [b, H, K], whose targets may be the same for all heads."""
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)


def _binary_cross_entropy(wanted: Any, logits: Any, weights: Any) -> Any:
    each = tf.nn.softplus(logits) - wanted * logits
    return tf.reduce_mean(each if weights is None else each * weights, axis=-1)

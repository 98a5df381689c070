"""Many heads trained at once: every weight has an axis for the head that it belongs to.

All heads see the same batches, so the first layer of all of them is one matrix product, and an
epoch is one call of TensorFlow. Each head comes out as `train_head` would train it alone: the same
initial weights, order, dropout and Keras optimizer, from its own seed; only sums are rounded in
another order.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import HeadConfig
from headstart.tasks.head.batches import epoch_order, epoch_view
from headstart.tasks.head.optimizer import make_many_optimizers_in_one
from headstart.tasks.head.training import build_head
from headstart.tasks.progress import reporter
from headstart.tasks.sweeping.losses import ManyLosses
from headstart.tasks.sweeping.pooled import PooledRows

MAX_GROUP_BYTES = 2**30
"""Of the weights and the optimizer's moments of heads that are trained at once."""
COPIES = 4
"""Of each weight: itself, two moments, the gradient."""

Scores = npt.NDArray[np.float64]


@dataclass
class HeadCurve:
    """What a head's training came to, epoch by epoch.

    Attributes:
        train_losses: Mean over the images learned from of what is minimised.
        losses: Of the images that were held out: cross-entropy, or the squared error of numbers.
        accuracies: Share of these that are right; of labels the micro F1, of numbers the mean
            absolute error.
        best_epoch: The epoch of the lowest loss, 1 for the first; 0 where no loss was a number.
    """

    config: HeadConfig
    train_losses: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    best_epoch: int = 0
    has_stopped: bool = False

    @property
    def loss(self) -> float:
        """The lowest; infinity where none was a number."""
        return self.losses[self.best_epoch - 1] if self.best_epoch else float("inf")

    @property
    def accuracy(self) -> float:
        """At the lowest loss."""
        return self.accuracies[self.best_epoch - 1] if self.best_epoch else 0.0

    def add(self, train_loss: float, loss: float, accuracy: float) -> None:
        """Take an epoch's figures, unless this head has stopped."""
        if self.has_stopped:
            return
        self.train_losses.append(train_loss)
        self.losses.append(loss)
        self.accuracies.append(accuracy)
        epoch = len(self.losses)
        if loss < self.loss:
            self.best_epoch = epoch
        patience = self.config.patience or self.config.epochs
        self.has_stopped = (
            epoch - self.best_epoch >= patience
            or epoch == self.config.epochs
            or not np.isfinite(train_loss)
        )


def train_heads(
    fit: PooledRows, held_out: PooledRows, configs: Sequence[HeadConfig], num_classes: int
) -> list[HeadCurve]:
    """Train heads, as many at once as are alike in what an epoch does.

    Args:
        fit: What they learn from.
        held_out: What each is judged by after every epoch, and stopped by.
        configs: Configurations of linear and MLP heads.
        num_classes: Number of classes, labels or numbers.

    Returns:
        A curve for each, in their order.
    """
    curves = [HeadCurve(config) for config in configs]
    groups: dict[Any, list[HeadCurve]] = {}
    for curve in curves:
        groups.setdefault(_alike(curve.config), []).append(curve)
    with reporter().track("sweep", len(curves), "heads") as advance:
        for group in groups.values():
            size = _group_size(group[0].config, fit.views[0].shape[1], num_classes)
            for start in range(0, len(group), size):
                part = group[start : start + size]
                _train_group(fit, held_out, part, num_classes)
                advance(len(part))
    return curves


def _alike(config: HeadConfig) -> tuple[Any, ...]:
    """Return what has to be the same for heads to share their batches and their operations."""
    return (
        config.hidden_units if config.kind == "mlp" else (),
        "sgd" if config.optimizer == "sgd" else "adam",
        config.momentum if config.optimizer == "sgd" else None,
        config.schedule,
        config.epochs,
        config.batch_size,
        config.class_weights,
        config.number_loss,
        config.seed,
    )


def _group_size(config: HeadConfig, num_values: int, num_classes: int) -> int:
    units = (num_values, *(config.hidden_units if config.kind == "mlp" else ()), num_classes)
    num_weights = sum(a * b for a, b in itertools.pairwise(units))
    return max(1, MAX_GROUP_BYTES // (4 * COPIES * num_weights))


def _train_group(
    fit: PooledRows, held_out: PooledRows, curves: list[HeadCurve], num_classes: int
) -> None:
    # By dropout, so that heads of one rate lie side by side.
    curves = sorted(curves, key=lambda curve: curve.config.dropout)
    first = curves[0].config
    heads = _Heads([curve.config for curve in curves], fit, num_classes)
    epoch = heads.epoch_function(fit, held_out)
    for number in range(first.epochs):
        order = epoch_order(len(fit.labels), first.seed, number)
        view = epoch_view(number, fit.num_augmented)
        figures = [part.numpy() for part in epoch(heads.views[view], order)]
        for curve, train_loss, loss, accuracy in zip(curves, *figures, strict=True):
            curve.add(float(train_loss), float(loss), float(accuracy))
        if all(curve.has_stopped for curve in curves):
            break


class _Heads:
    """The weights of some heads, kernel [in, H, out] and bias [1, H, out] a layer, and their steps.

    Args:
        configs: Alike, by ascending dropout.
        fit: What they learn from.
        num_classes: Number of classes, labels or numbers.
    """

    def __init__(self, configs: Sequence[HeadConfig], fit: PooledRows, num_classes: int) -> None:
        self._first = configs[0]
        self.views = [tf.constant(view) for view in fit.views]
        self._rates = np.array([config.dropout for config in configs], np.float32)
        layers, self._dropout_seeds = _initial(self._first, fit.shape, num_classes)
        count = len(configs)
        self._layers = [
            (
                keras.Variable(np.repeat(kernel[:, None], count, axis=1), name="kernel"),
                keras.Variable(np.repeat(bias[None, None], count, axis=1), name="bias"),
            )
            for kernel, bias in layers
        ]
        self._variables = [variable for layer in self._layers for variable in layer]
        num_steps = self._first.epochs * -(-len(fit.labels) // self._first.batch_size)
        self._optimizer = make_many_optimizers_in_one(configs, num_steps, self._variables)
        self._optimizer.build(self._variables)
        self._losses = ManyLosses(configs, fit, num_classes)

    def epoch_function(
        self, fit: PooledRows, held_out: PooledRows
    ) -> Callable[[Any, Any], tuple[Any, Any, Any]]:
        """Return what trains an epoch: (view, order) to train loss, loss and accuracy [H] each."""
        labels = tf.constant(fit.labels)
        judged, judged_labels = tf.constant(held_out.views[0]), tf.constant(held_out.labels)
        size, num_rows = self._first.batch_size, len(fit.labels)
        num_steps = -(-num_rows // size)
        spec = tf.TensorSpec(fit.views[0].shape, tf.float32)

        def body(step: Any, view: Any, order: Any, total: Any) -> Any:
            chosen = order[step * size : tf.minimum((step + 1) * size, num_rows)]
            losses = self._step(tf.gather(view, chosen), tf.gather(labels, chosen))
            return step + 1, total + tf.reduce_sum(losses, axis=0)

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[spec, tf.TensorSpec((num_rows,), tf.int64)], autograph=False
        )
        def epoch(view: Any, order: Any) -> tuple[Any, Any, Any]:
            state = (tf.constant(0), tf.zeros(len(self._rates)))
            _, total = tf.while_loop(
                lambda step, _: step < num_steps,
                lambda step, total: body(step, view, order, total),
                state,
                parallel_iterations=1,
            )
            loss, figure = self._losses.judge(judged_labels, self._logits(judged))
            return total / num_rows, loss, figure

        result: Callable[[Any, Any], tuple[Any, Any, Any]] = epoch
        return result

    def _step(self, rows: Any, labels: Any) -> Any:
        """Train on a batch; return each row's loss for each head, [b, H]."""
        with tf.GradientTape() as tape:
            logits = self._logits(rows, self._optimizer.iterations)
            losses = self._losses.losses(labels, logits)
            # The heads' mean losses, added up: each weight's gradient is that of its own head's.
            objective = tf.reduce_sum(tf.reduce_mean(losses, axis=0))
        values = [variable.value for variable in self._variables]
        self._optimizer.apply(tape.gradient(objective, values), self._variables)
        return losses

    def _logits(self, rows: Any, step: Any = None) -> Any:
        """Compute the logits of all heads, [b, H, K]; with dropout where a step is given."""
        features = rows
        for number, (kernel, bias) in enumerate(self._layers):
            if number == 0:
                features = self._first_layer(rows, kernel, step)
            else:
                features = self._drop(tf.nn.relu(features), number, step)
                features = tf.einsum("bhi,iho->bho", features, kernel.value)
            features = features + bias.value
        return features

    def _first_layer(self, rows: Any, kernel: Any, step: Any) -> Any:
        """Multiply the rows by the kernels of all heads: one product for each rate of dropout."""
        if step is None or not self._rates.any():
            return _product(rows, kernel.value)
        noise = self._noise(0, step, tf.shape(rows))
        rates, starts = np.unique(self._rates, return_index=True)  # the heads are in their order
        products = []
        for rate, start, end in zip(rates, starts, [*starts[1:], len(self._rates)], strict=True):
            dropped = tf.where(noise >= rate, rows / (1 - rate), 0.0) if rate else rows
            products.append(_product(dropped, kernel.value[:, start:end]))
        return tf.concat(products, axis=1)

    def _drop(self, features: Any, number: int, step: Any) -> Any:
        if step is None or not self._rates.any():
            return features
        shape = tf.shape(features)
        noise = self._noise(number, step, tf.stack([shape[0], shape[2]]))[:, None]
        rates = self._rates[:, None]
        return tf.where(noise >= rates, features / (1 - rates), 0.0)

    def _noise(self, number: int, step: Any, shape: Any) -> Any:
        """Return the numbers that Keras's dropout of this layer compares with its rate."""
        seed = tf.stack([self._dropout_seeds[number], tf.cast(step, tf.int32)])
        return tf.random.stateless_uniform(shape, seed)


def _product(rows: Any, kernel: Any) -> Any:
    """Multiply rows [b, in] by the kernels [in, H, out] of heads: [b, H, out]."""
    num_values, count, units = kernel.shape
    product = rows @ tf.reshape(kernel, (num_values, count * units))
    return tf.reshape(product, (-1, count, units))


def _initial(
    config: HeadConfig, shape: tuple[int, ...], num_classes: int
) -> tuple[list[tuple[Any, Any]], list[int]]:
    """Return kernels and biases as a head alone begins with, and the seeds of its dropout."""
    head = build_head(config.model_copy(update={"dropout": 0.5}), shape, num_classes)
    dense = [layer.get_weights() for layer in head.layers if hasattr(layer, "units")]
    dropouts = [layer for layer in head.layers if isinstance(layer, keras.layers.Dropout)]
    seeds = [int(layer.seed_generator.state.numpy()[0]) for layer in dropouts]
    return [(kernel, bias) for kernel, bias in dense], seeds

"""Whole epochs of a head in one call of TensorFlow each, for rows that are in memory.

Keras's `fit` takes a batch from Python at every step and opens a data set twice an epoch, which
for a dense layer takes ten times as long as its arithmetic. Here an epoch is a loop inside of
TensorFlow over Keras's own `train_step`: the same batches, the same operations, the same weights.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.batches import (
    Finish,
    TrainingBatches,
    evaluation_batch_size,
    evaluation_batches,
    finish_judged,
)
from headstart.tasks.head.loss_guard import LossGuard

WATCHED_STEPS = 100
"""Steps, and the rest of the epoch that they end in, that watchers see one by one. Labels, scales,
gradients and learning rates that are wrong show by then; 25 epochs over 2,567 rows of 1,280 values
took 1.4 times as long where every step was watched (2 busy cores, 3 rounds)."""


def is_in_memory(*splits: LabelledRows | None) -> bool:
    """Say whether all rows of these splits are in memory."""
    readers = [reader for rows in splits if rows is not None for reader in rows.readers]
    return all(reader.resident is not None for reader in readers)


def fit_in_memory(
    head: keras.Model,
    batches: TrainingBatches,
    val: LabelledRows | None,
    epochs: int,
    guard: LossGuard,
    callbacks: Sequence[keras.callbacks.Callback],
    watchers: Sequence[keras.callbacks.Callback] = (),
) -> int:
    """Do what `head.fit` does with these batches, without a step in Python.

    Args:
        head: A compiled model with all its variables.
        batches: Gives the order and the view of each epoch.
        val: Rows to evaluate after each epoch, if there are any.
        epochs: Maximum number of epochs; a callback may stop earlier.
        guard: One of the callbacks, told where a loss is no number.
        callbacks: Called as each epoch begins and ends, and for no batch.
        watchers: Callbacks that see the first epochs, which are then trained by `head.fit`.
    """
    steps = -(-len(batches.rows) // batches.batch_size)
    calls = keras.callbacks.CallbackList(
        callbacks, model=head, epochs=epochs, steps=steps, verbose=0
    )
    calls.on_train_begin()
    head.stop_training = False
    num_watched = min(epochs, -(-WATCHED_STEPS // steps)) if watchers else 0
    if num_watched:
        judged = None if val is None else evaluation_batches(val, _num_outputs(head), batches.fit)
        head.fit(
            batches.dataset,
            epochs=num_watched,
            validation_data=judged,
            callbacks=[batches, *watchers, _Forwarded(calls)],
            shuffle=False,
            verbose=0,
        )
    if not head.stop_training and num_watched < epochs:
        _train_compiled(head, batches, val, range(num_watched, epochs), guard, calls)
    calls.on_train_end()
    return num_watched


class _Forwarded(keras.callbacks.Callback):  # type: ignore[misc]
    """Hands on to callbacks what happens within a part of a training, which goes on after it."""

    def __init__(self, calls: keras.callbacks.CallbackList) -> None:
        super().__init__()
        self._calls = calls

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._calls.on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._calls.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._calls.on_epoch_end(epoch, logs)


def _train_compiled(
    head: keras.Model,
    batches: TrainingBatches,
    val: LabelledRows | None,
    epochs: range,
    guard: LossGuard,
    calls: keras.callbacks.CallbackList,
) -> None:
    epoch = _epoch_function(head, batches, val)
    for number in epochs:
        batches.on_epoch_begin(number)
        calls.on_epoch_begin(number)
        first_step = int(head.optimizer.iterations)
        logs, batch, loss = epoch()
        guard.on_epoch_trained(batch, loss, _rate_at(head.optimizer, first_step + batch))
        calls.on_epoch_end(number, logs)
        if head.stop_training:
            break


def _epoch_function(
    head: keras.Model, batches: TrainingBatches, val: LabelledRows | None
) -> Callable[[], tuple[dict[str, float], int, float]]:
    """Return what trains and evaluates one epoch, with the figures that `fit` would log.

    Beside them the first batch whose running loss is no number, or else the last, and that loss.
    """
    rows, size = batches.rows, batches.batch_size
    values = [tf.constant(reader.resident) for reader in rows.readers]
    labels = tf.constant(rows.labels)
    judged = None if val is None else _judged_rows(val)
    finish_val = finish_judged(val or rows, _num_outputs(head), batches.fit)
    spec = tf.TensorSpec((None, *rows.shape), values[0].dtype)
    index = tf.TensorSpec((None,), tf.int64)

    @tf.function(input_signature=[spec, index, index], autograph=False)  # type: ignore[untyped-decorator]
    def epoch(values: Any, positions: Any, images: Any) -> Any:
        figures, batch, loss = _loop(
            head,
            head.train_step,
            values,
            positions,
            tf.gather(labels, images),
            size,
            batches.finish,
        )
        if judged is not None:
            told, _, _ = _loop(head, head.test_step, *judged, finish_val)
            figures.update({f"val_{name}": value for name, value in told.items()})
        return figures, batch, loss

    def run() -> tuple[dict[str, float], int, float]:
        positions = rows.positions[batches.order, batches.view]
        figures, batch, loss = epoch(values[min(batches.view, 1)], positions, batches.order)
        return {name: float(value) for name, value in figures.items()}, int(batch), float(loss)

    return run


def _judged_rows(val: LabelledRows) -> tuple[Any, Any, Any, int]:
    plain = val.readers[0].resident
    positions = tf.constant(val.positions[:, 0])
    return tf.constant(plain), positions, tf.constant(val.labels), evaluation_batch_size(val)


def _loop(
    head: keras.Model,
    step: Callable[[Any], dict[str, Any]],
    values: Any,
    positions: Any,
    labels: Any,
    batch_size: int,
    finish: Finish,
) -> tuple[dict[str, Any], Any, Any]:
    """Take a step for each batch; return the figures, and where the loss broke, as tensors."""
    for metric in head.metrics:
        metric.reset_state()
    num_rows = tf.shape(positions)[0]
    num_steps = -(-num_rows // batch_size)

    def body(number: Any, batch: Any, loss: Any) -> tuple[Any, Any, Any]:
        start = number * batch_size
        end = tf.minimum(start + batch_size, num_rows)
        bottlenecks = tf.cast(tf.gather(values, positions[start:end]), tf.float32)
        told = step(finish(bottlenecks, labels[start:end]))["loss"]
        sound = tf.math.is_finite(loss)
        return number + 1, tf.where(sound, number, batch), tf.where(sound, told, loss)

    state = (tf.constant(0), tf.constant(0), tf.constant(0.0))
    _, batch, loss = tf.while_loop(
        lambda number, *_: number < num_steps, body, state, parallel_iterations=1
    )
    return dict(head.get_metrics_result()), batch, loss


def _rate_at(optimizer: keras.optimizers.Optimizer, step: int) -> float:
    """Return the learning rate of a step that has been taken."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(np.int64(step))
    return float(rate)


def _num_outputs(head: keras.Model) -> int:
    return int(head.output_shape[-1])

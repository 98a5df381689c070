"""The head: what is trained on the bottlenecks, with Keras's own fit."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.rows import LabelledRows, Rows
from headstart.tasks.head.batches import TrainingBatches, evaluation_batch_size, evaluation_batches
from headstart.tasks.head.compiled_epochs import fit_in_memory, is_in_memory
from headstart.tasks.head.epochs import EpochFigures, written
from headstart.tasks.head.loss_guard import LossGuard, explain_broken_loss
from headstart.tasks.head.optimizer import make_optimizer
from headstart.tasks.head.training_log import EpochLog
from headstart.tasks.progress import reporter
from headstart.tasks.targets.target import NO_FIT, Fit, Target

STEPS_A_CALL = 8
"""Steps of a dense head over rows in files that TensorFlow makes in one call from Python. A tail's
steps are long, and made one by one, so that Ctrl-C is heard at once; so are those with callbacks
of the user's, who expect one call a batch. The result is the same."""


@dataclass(frozen=True)
class TrainedHead:
    """A trained head and how it came about.

    Attributes:
        model: float32 [n, *activation shape] -> logits float32 [n, num_classes]; the weights are
            those of `best_epoch`.
        best_epoch: The epoch with the lowest validation loss, 1 for the first; the last epoch
            where there are no validation images.
        stopped_early: Whether fewer epochs were trained than the configuration allows.
        penalty: Penalty of the squared weights, where a solver chose it.
        fit: What was found out about the targets.
    """

    model: keras.Model
    history: tuple[EpochFigures, ...]
    best_epoch: int
    stopped_early: bool
    penalty: float | None = None
    fit: Fit = NO_FIT


def build_head(
    config: HeadConfig,
    activation_shape: Sequence[int],
    num_classes: int,
    tail: keras.Model | None = None,
) -> keras.Model:
    """Build a head with new weights drawn from the configuration's seed.

    Args:
        config: Kind, hidden units, dropout and seed.
        activation_shape: Shape of one bottleneck, [C] or [H, W, C].
        num_classes: Width of the logits: classes, labels or numbers.
        tail: For kind "tail" only: the backbone's layers behind the cut, [n, *activation_shape]
            -> [n, C]. Its layers become part of the head and are trained with it.

    Returns:
        A model float32 [n, *activation_shape] -> logits float32 [n, num_classes], whose last
        layer is named "logits". Spatial bottlenecks are averaged over their positions first
        where there is no tail. Dropout comes before each dense layer.

    Raises:
        TrainingError: The tail is missing, not asked for, or of another shape.
    """
    _check_tail(config, tuple(activation_shape), tail)
    bottleneck = keras.Input(tuple(activation_shape), name="bottleneck", dtype="float32")
    features = bottleneck
    if tail is not None:
        # call, not __call__: the tail's layers then stand in the head one by one, where a
        # debugger and TensorBoard can see them, and not as one opaque layer.
        features = tail.call(bottleneck)
    elif len(activation_shape) > 1:
        positions = tuple(range(1, len(activation_shape)))
        features = keras.ops.mean(features, axis=positions)
    for index, units in enumerate(config.hidden_units if config.kind == "mlp" else ()):
        features = _drop(features, config, f"head_dropout_{index}")
        features = keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(_derive_seed(config.seed, 1, index)),
            name=f"head_hidden_{index}",
        )(features)
    features = _drop(features, config, "head_dropout")
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.GlorotUniform(_derive_seed(config.seed, 2)),
        name="logits",
    )(features)
    head = keras.Model(bottleneck, logits, name="head")
    _seed_dropout(head, config.seed)
    return head


def train_head(
    train: LabelledRows,
    val: LabelledRows | None,
    config: HeadConfig,
    num_classes: int,
    tail: keras.Model | None,
    log_dir: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    last_epoch: int | None = None,
    watchers: Sequence[keras.callbacks.Callback] = (),
) -> TrainedHead:
    """Train a head on bottlenecks and keep its best epoch.

    Epoch e trains on view 1 + e mod V of each image, in an order drawn from the seed and e. On
    a CPU the same rows and configuration give the same weights, bit for bit: all randomness
    (initial weights, order, dropout) is drawn from ``config.seed``, and the caller's global
    seeds are neither read nor changed. On a GPU call ``tf.config.experimental
    .enable_op_determinism()`` first for the same; it cannot be undone in a process, so it is
    the caller's to choose.

    Args:
        train: Rows to train on, every class among them.
        val: Rows whose plain views are evaluated after each epoch. Without any, all epochs are
            trained and the last is kept.
        config: What to train and how.
        num_classes: Width of the logits: classes, labels or numbers.
        tail: Layers behind the cut, for kind "tail" only; see `build_head`.
        log_dir: Folder for TensorBoard's event files, under train/ and validation/.
        callbacks: Keras callbacks of the user's, called before headstart's own.
        last_epoch: End after this one, 1 for the first, on the way that ``config.epochs`` laid
            out for the learning rate.
        watchers: Callbacks such as the debugger's, that need not see every step: of a head over
            rows in memory they see the first `WATCHED_STEPS`, and all of them where the loss
            breaks later.

    Raises:
        TrainingError: The labels cannot be trained on, the tail does not fit, or a loss came
            out as NaN or infinity.
    """
    target = train.target
    target.check(train.labels, None if val is None else val.labels, num_classes)
    val = val if val is not None and len(val) else None
    fit = target.fit(train.labels)
    head = build_head(config, train.readers[0].shape, num_classes, tail)
    epochs = last_epoch or config.epochs
    whole_epochs = not callbacks and tail is None and is_in_memory(train, val)
    one_by_one = bool(callbacks or watchers) or tail is not None
    compile_head(head, config, len(train), target, fit, one_by_one=one_by_one)
    _make_variables(head, num_classes)
    batches = TrainingBatches(train, config, num_classes, fit)
    guard = LossGuard()
    best = keras.callbacks.EarlyStopping(
        "val_loss", patience=config.patience or config.epochs, mode="min", restore_best_weights=True
    )
    log = EpochLog(log_dir, len(train), has_val=val is not None, metric=target.metric)
    with contextlib.closing(log):
        own = [log, guard, *([best] if val is not None else [])]
        num_watched = epochs
        if whole_epochs:
            num_watched = fit_in_memory(head, batches, val, epochs, guard, own, watchers)
        else:
            head.fit(
                batches.dataset,
                epochs=epochs,
                validation_data=evaluation_batches(val, num_classes, fit)
                if val is not None
                else None,
                callbacks=[batches, *callbacks, *watchers, *own],
                shuffle=False,
                verbose=0,
            )
    if guard.broken is not None and watchers and guard.broken.epoch >= num_watched:
        # The same once more, to the bit, with somebody who looks at the step that breaks.
        return train_head(
            train, val, config, num_classes, tail, log_dir, watchers, last_epoch=last_epoch
        )
    if guard.broken is not None:
        raise explain_broken_loss(guard.broken, config, train, val)
    best_epoch = best.best_epoch + 1 if val is not None else len(log.history)
    stopped_early = len(log.history) < epochs
    fit = decide(head, val, fit, config)
    trained = TrainedHead(head, tuple(log.history), best_epoch, stopped_early, fit=fit)
    reporter().note(f"     {_summarise(trained, config)}")
    return trained


def decide(model: keras.Model, val: LabelledRows | None, fit: Fit, config: HeadConfig) -> Fit:
    """Find what a trained network's outputs on the validation images tell of its targets.

    Returns:
        The same, and thresholds or intervals where such targets have some.
    """
    if val is None or not len(val) or val.target.kind == "class":
        return fit
    return val.target.decide(fit, predict_logits(model, val), val.labels, config)


def predict_logits(
    model: keras.Model, rows: Rows, batch_size: int | None = None
) -> npt.NDArray[np.float32]:
    """Compute the logits of the plain rows.

    Args:
        model: A head, float32 [b, *activation shape] -> [b, num_classes].
        rows: The rows to evaluate.
        batch_size: Rows a forward pass; chosen by their size where not given.

    Returns:
        float32 [len(rows), num_classes], in the order of the rows.
    """
    size = batch_size or evaluation_batch_size(rows)
    # Not Model.predict, which compiles an uncompiled model by XLA first.
    # One concrete function, or TensorFlow takes a flow's many heads for one that is retraced.
    forward = tf.function(
        lambda batch: model(tf.cast(batch, tf.float32), training=False),
        input_signature=[tf.TensorSpec((None, *rows.shape), tf.dtypes.as_dtype(rows.dtype))],
    ).get_concrete_function()
    num_rows = len(rows.labels)
    logits = np.empty((num_rows, int(model.output_shape[-1])), np.float32)
    for start in range(0, num_rows, size):
        images = np.arange(start, min(start + size, num_rows))
        logits[images] = forward(tf.constant(rows.gather(images, 0))).numpy()
    return logits


def _check_tail(
    config: HeadConfig, activation_shape: tuple[int, ...], tail: keras.Model | None
) -> None:
    if (config.kind == "tail") != (tail is not None):
        raise TrainingError(
            "a head of kind tail needs the backbone's tail, and no other kind takes one",
            f"kind {config.kind}, {'a' if tail is not None else 'no'} tail",
            "choose --set head.kind=tail and a --cut before the top",
        )
    if tail is not None and tuple(tail.input_shape[1:]) != activation_shape:
        raise TrainingError(
            f"the tail only takes bottlenecks of shape {tuple(tail.input_shape[1:])}",
            f"bottlenecks of shape {activation_shape}",
            "take the tail of the cut that the bottlenecks were extracted at",
        )


def _drop(features: Any, config: HeadConfig, name: str) -> Any:
    if config.dropout == 0.0:
        return features
    return keras.layers.Dropout(config.dropout, seed=config.seed, name=name)(features)


def _derive_seed(seed: int, *purpose: int) -> int:
    """Return a seed of its own for each purpose, so that no two draw the same numbers."""
    return int(np.random.SeedSequence((seed, *purpose)).generate_state(1)[0] >> 1)


def _seed_dropout(head: keras.Model, seed: int) -> None:
    # Each layer its own numbers; a tail may bring dropout that was seeded by chance when built.
    for index, layer in enumerate(head.layers):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign([_derive_seed(seed, 3, index), 0])


def compile_head(
    head: keras.Model,
    config: HeadConfig,
    num_images: int,
    target: Target,
    fit: Fit,
    *,
    one_by_one: bool,
) -> None:
    """Compile a head for training.

    Args:
        head: Built by `build_head`.
        config: Names the optimizer and its schedule.
        num_images: Number of training images, which sets the length of the schedule.
        target: Kind of target, which gives the loss and the metrics.
        fit: What is known of the targets.
        one_by_one: Make each step by a call from Python.
    """
    num_steps = config.epochs * -(-num_images // config.batch_size)
    head.compile(
        optimizer=make_optimizer(config, num_steps, head.trainable_variables),
        loss=target.loss(config),
        metrics=[target.make_metric(fit)],
        jit_compile=False,  # XLA made an epoch on 2 cores 40 times as long: 2.5 s, not 0.06 s
        steps_per_execution=1 if one_by_one else STEPS_A_CALL,
    )


def _make_variables(head: keras.Model, num_classes: int) -> None:
    """Make all variables of a training step now, or its first trace would, and have to be redone.

    The metrics are reset when the first epoch begins.
    """
    head.optimizer.build(head.trainable_variables)
    nothing = np.zeros((1, num_classes), np.float32)
    head.compute_metrics(None, nothing, nothing)


def _summarise(trained: TrainedHead, config: HeadConfig) -> str:
    best = trained.history[trained.best_epoch - 1]
    if best.val_loss is None:
        return f"no validation images: epoch {best.epoch}, the last, is kept"
    stopped = (
        f"stopped after {len(trained.history)} of {config.epochs} epochs"
        if trained.stopped_early
        else f"all {config.epochs} epochs trained"
    )
    return (
        f"epoch {best.epoch} is kept: val loss {best.val_loss:.4f}, val {best.metric} "
        f"{written(best.metric, best.val_figure or 0.0)}; {stopped}"
    )

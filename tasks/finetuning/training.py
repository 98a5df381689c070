"""Training of one network on rows, with what fine-tuning needs beside a plain `fit`.

One optimizer with falling rates from group to group, warm-up, clipping, batch normalisation that
keeps its statistics, and a step back to the best epoch.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from headstart.config import HeadConfig, TuningConfig
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.finetuning.group_rates import make_group_optimizer, warm_up_then_cosine
from headstart.tasks.finetuning.network import Network, hold_statistics, seed_dropout, stock_layers
from headstart.tasks.head.batches import TrainingBatches, evaluation_batches
from headstart.tasks.head.loss_guard import LossGuard, explain_broken_loss
from headstart.tasks.head.training import TrainedHead, decide
from headstart.tasks.head.training_log import EpochLog
from headstart.tasks.running import devices
from headstart.tasks.targets.target import Fit, Target


class BestEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the weights of the epoch with the lowest validation loss, and stops in time.

    It is the rule by which a head's epoch is chosen, so that a rung is compared with the head
    fairly, and the number of images right, which the comparison counts, chooses neither.

    Args:
        patience: Epochs without a better one before training stops; 0 never stops early.
    """

    def __init__(self, patience: int) -> None:
        super().__init__()
        self._patience = patience
        self._weights: list[Any] = []
        self._lowest = math.inf
        self.best_epoch = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compare the epoch with the best one so far."""
        loss = (logs or {})["val_loss"]
        if loss < self._lowest:
            self._lowest, self.best_epoch = loss, epoch + 1
            self._weights = self.model.get_weights()
        elif self._patience and epoch + 1 - self.best_epoch >= self._patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Step back to the best epoch."""
        if self._weights:
            self.model.set_weights(self._weights)


def train_network(
    network: Network,
    factors: Sequence[float],
    train: LabelledRows,
    val: LabelledRows | None,
    tuning: TuningConfig,
    head: HeadConfig,
    num_classes: int,
    log_dir: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainedHead:
    """Train a network on rows and keep its best epoch.

    Args:
        network: What to train; its model is not changed.
        factors: Factor of the learning rate, one a group of the network.
        train: Rows at the network's start.
        val: Rows whose plain views are evaluated after each epoch. Without any, all epochs are
            trained and the last is kept.
        tuning: Rates, epochs, warm-up, clipping, batch normalisation.
        head: Its label smoothing, class weights and seed count here too.
        num_classes: Number of classes, labels or numbers.
        log_dir: Folder for TensorBoard's event files.
        callbacks: Watchers, called before headstart's own.

    Returns:
        The trained network, of stock layers.

    Raises:
        TrainingError: The labels cannot be trained on, or a loss came out as NaN or infinity.
    """
    target = train.target
    target.check(train.labels, None if val is None else val.labels, num_classes)
    fit = target.fit(train.labels)
    settings = head.model_copy(
        update={"batch_size": tuning.batch_size, "learning_rate": tuning.learning_rate}
    )
    num_steps = tuning.epochs * -(-len(train) // tuning.batch_size)
    rate = warm_up_then_cosine(tuning.learning_rate, num_steps, tuning.warm_up_share)
    with devices.strategy().scope():  # with several GPUs, each has a copy
        model = compile_network(network, factors, rate, target, fit, tuning, settings)
    batches = TrainingBatches(train, settings, num_classes, fit)
    guard, best = LossGuard(), BestEpoch(tuning.patience)
    with contextlib.closing(
        EpochLog(log_dir, len(train), has_val=val is not None, metric=target.metric)
    ) as log:
        model.fit(
            batches.dataset,
            epochs=tuning.epochs,
            validation_data=evaluation_batches(val, num_classes, fit) if val is not None else None,
            callbacks=[batches, *callbacks, log, guard, *([best] if val is not None else [])],
            shuffle=False,
            verbose=0,
        )
    if guard.broken is not None:
        raise explain_broken_loss(guard.broken, settings, train, val)
    history = tuple(log.history)
    trained, stopped = stock_layers(model), len(history) < tuning.epochs
    fit = decide(trained, val, fit, settings)
    best_epoch = best.best_epoch if val is not None else len(history)
    return TrainedHead(trained, history, best_epoch, stopped, fit=fit)


def require_validation(splits: Mapping[Any, Any]) -> None:
    """Refuse a data set whose rungs could not be judged.

    Raises:
        TrainingError: There are no validation images.
    """
    if "val" not in splits:
        raise TrainingError(
            "fine-tuning needs validation images: an epoch or a rung that does not help "
            "them is undone",
            "a data set without a val split",
            "give it one, or hold some images out for it (--set dataset.val_fraction=0.15)",
        )


def compile_network(
    network: Network,
    factors: Sequence[float],
    rate: Any,
    target: Target,
    fit: Fit,
    tuning: TuningConfig,
    head: HeadConfig,
) -> keras.Model:
    """Copy a network, and compile the copy for training.

    Args:
        network: Model and groups; neither is changed.
        factors: Factor of the learning rate, one a group of the network.
        rate: Learning rate of the head: a number or a schedule.
        target: Kind of target, which gives the loss and the metrics.
        fit: What is known of the targets.
        tuning: Optimizer, clipping, batch normalisation.
        head: Names the loss, and gives the seed.
    """
    copy = hold_statistics if tuning.batch_norm == "inference" else stock_layers
    model = copy(network.model)
    seed_dropout(model, head.seed)
    optimizer = make_group_optimizer(
        tuning.optimizer,
        rate,
        Network(model, network.groups).rates(factors),
        model.trainable_variables,
        tuning.weight_decay,
        tuning.momentum,
        tuning.clip_norm,
    )
    model.compile(
        optimizer=optimizer,
        loss=target.loss(head),
        metrics=[target.make_metric(fit)],
        jit_compile=False,
    )
    return model

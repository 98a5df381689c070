"""Training from scratch with Keras's own fit, one cycle, by steps or by the clock."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from headstart.config import HeadConfig, ScratchTrainingConfig
from headstart.errors import TrainingError
from headstart.tasks.head.epochs import EpochFigures
from headstart.tasks.head.loss_guard import LossGuard
from headstart.tasks.head.training_log import EpochLog
from headstart.tasks.progress import reporter
from headstart.tasks.scratch.clock import Annealing, BudgetClock, Clock, StepClock
from headstart.tasks.scratch.one_cycle import make_optimizer
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import NO_FIT, Fit, Target

MOST_EPOCHS = 2**40
"""Of a training that ends by the clock: no budget reaches them, even at one step an epoch."""
STATISTICS_BATCHES = 16
"""Batches over which batch normalisation is measured anew for averaged weights."""


@dataclass(frozen=True)
class Trained:
    """A trained network and how it came about.

    Attributes:
        history: The figures of each epoch; the last one may be a part of one.
        num_steps: Number of optimizer steps taken.
        final_share: Share of the cycle that was done when the last step was made, 1 at its end.
    """

    history: tuple[EpochFigures, ...]
    num_steps: int
    final_share: float


class _Steps(EpochLog):
    """The table of epochs, of which the last may have fewer steps than the others."""

    def __init__(self, log_dir: Path, batch_size: int, num_epochs: int, metric: str) -> None:
        super().__init__(log_dir, batch_size, has_val=False, metric=metric)
        self._batch_size = batch_size
        self._num_epochs = num_epochs
        self.num_steps = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Tell who follows of the epochs that are expected, not of fit's, which the clock ends."""
        self.set_params({**self.params, "epochs": self._num_epochs})
        super().on_train_begin(logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step."""
        self.num_steps += 1
        self._num_images = (batch + 1) * self._batch_size


def head_config(config: ScratchTrainingConfig) -> HeadConfig:
    """Say what a target asks a head for: its loss, and how its thresholds are chosen."""
    return HeadConfig(number_loss=config.number_loss, min_precision=config.min_precision)


def compile_network(
    model: Any,
    config: ScratchTrainingConfig,
    target: Target = TARGETS["class"],
    fit: Fit = NO_FIT,
) -> Any:
    """Compile a network for training.

    Args:
        model: Built by `headstart.tasks.scratch.network.build_network`; compiled in place.
        config: Names the optimizer and the cycle.
        target: Kind of target, which gives the loss and the metrics.
        fit: What is known of the targets.

    Returns:
        The optimizer itself. Under float16 Keras wraps it into one that scales the loss.
    """
    optimizer = make_optimizer(config)
    model.compile(
        optimizer=optimizer,
        loss=target.loss(head_config(config)),
        metrics=[target.make_metric(fit)],
        # XLA made a step on 2 cores half as long again: 1.1 s and not 0.7 s.
        jit_compile=False,
    )
    return optimizer


def train_network(
    model: Any,
    batches: tf.data.Dataset,
    num_batches: int,
    config: ScratchTrainingConfig,
    num_epochs: float,
    budget_s: float | None,
    log_dir: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    target: Target = TARGETS["class"],
    fit: Fit = NO_FIT,
) -> Trained:
    """Train a network through one cycle.

    Args:
        model: From `headstart.tasks.scratch.network.build_network`; its weights are changed.
        batches: Endless dataset, from `headstart.tasks.scratch.batches.training_batches`.
        num_batches: Batches of an epoch.
        config: Peak, warm-up and final values of the cycle.
        num_epochs: Expected where there is a budget, else trained.
        budget_s: Seconds from the first step to the last; None to train the epochs.
        log_dir: Folder for TensorBoard's event files.
        callbacks: Keras callbacks of the user's, called before headstart's own.
        target: Kind of target, which gives the loss and the metrics.
        fit: What is known of the targets.

    Raises:
        TrainingError: The loss came out as NaN or infinity.
    """
    optimizer = compile_network(model, config, target, fit)
    expected = math.ceil(num_epochs)
    epochs = expected if budget_s is None else MOST_EPOCHS
    clock: Clock = StepClock(epochs * num_batches) if budget_s is None else BudgetClock(budget_s)
    annealing, guard = Annealing(optimizer, config, clock), LossGuard()
    batch_size = int(batches.element_spec[0].shape[0])
    with contextlib.closing(_Steps(log_dir, batch_size, expected, target.metric)) as log:
        model.fit(
            batches,
            epochs=epochs,
            steps_per_epoch=num_batches,
            callbacks=[annealing, *callbacks, log, guard],
            shuffle=False,
            verbose=0,
        )
    if config.ema:
        refresh_statistics(model, batches.take(min(num_batches, STATISTICS_BATCHES)))
    if guard.broken is not None:
        raise TrainingError(
            "the training loss is not a finite number",
            f"{guard.broken.value} in {guard.broken.place()}, at a learning rate of "
            f"{guard.broken.learning_rate:.3g}",
            f"try a lower peak: --set training.learning_rate={config.learning_rate / 4:.3g}; "
            "`headstart lr-find` suggests one",
        )
    trained = Trained(tuple(log.history), log.num_steps, annealing.final_share)
    reporter().note(
        f"     {trained.num_steps:,} steps, {trained.num_steps / num_batches:.1f} epochs, "
        f"annealed to {100 * trained.final_share:.1f} % of the cycle"
    )
    return trained


def refresh_statistics(model: Any, batches: tf.data.Dataset) -> None:
    """Give batch normalisation the statistics that go with a model's present weights.

    Averaged weights make other activations than the weights whose statistics were collected while
    training; each layer gets the plain mean over the batches.

    Args:
        model: Its moving means and variances are replaced.
        batches: Dataset of training images and targets.

    Source:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018,
        section 3.2, https://arxiv.org/abs/1803.05407.
    """
    layers = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    try:
        for number, (images, _) in enumerate(batches if layers else ()):
            for layer in layers:
                layer.momentum = number / (number + 1)
            model(images, training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

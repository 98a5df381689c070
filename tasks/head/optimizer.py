"""The optimizer: learning-rate schedules by the step, and weight decay on kernels alone."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from headstart.config import HeadConfig

ONE_CYCLE_START = 1 / 10
"""Share of the peak at which a one-cycle run starts, and to which it comes back. Source: Smith,
"A disciplined approach to neural network hyper-parameters: Part 1", 2018, section 4.1 ("a factor
of 3 or 4, or even 10 times less than the maximum"), https://arxiv.org/abs/1803.09820"""
ONE_CYCLE_END = 1 / 1000
"""Share of the peak at the end: "several orders of magnitude less than the initial learning
rate". Source: Smith and Topin, "Super-Convergence", 2018, https://arxiv.org/abs/1708.07120"""
ONE_CYCLE_TURN = 0.45
"""Share of the steps after which the peak is reached; the way back takes as many, so that the
cycle is "smaller than the total number of iterations" (Smith and Topin, 2018)."""


@keras.saving.register_keras_serializable(package="headstart")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Up from a tenth of the peak, back down, then to almost nothing, in straight lines.

    Only the learning rate moves. The publication also moves the momentum the other way; Keras
    optimizers hold it as a constant, and Adam's bias correction assumes a constant beta_1.

    Args:
        peak: Highest learning rate, reached at `ONE_CYCLE_TURN` of the training.
        num_steps: Steps of the whole training.

    Source:
        Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
        Learning Rates", 2018, https://arxiv.org/abs/1708.07120 ("1cycle").
    """

    def __init__(self, peak: float, num_steps: int) -> None:
        super().__init__()
        self.peak = peak
        self.num_steps = num_steps

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step.

        Args:
            step: Integer scalar, 0 for the first.

        Returns:
            float32 scalar tensor.
        """
        done = tf.cast(step, tf.float32) / self.num_steps
        corners = (
            (0.0, ONE_CYCLE_START),
            (ONE_CYCLE_TURN, 1.0),
            (2 * ONE_CYCLE_TURN, ONE_CYCLE_START),
            (1.0, ONE_CYCLE_END),
        )
        share = tf.constant(ONE_CYCLE_START, tf.float32)
        for (begin, low), (end, high) in itertools.pairwise(corners):
            share += tf.clip_by_value((done - begin) / (end - begin), 0.0, 1.0) * (high - low)
        return self.peak * share

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, for Keras to save."""
        return {"peak": self.peak, "num_steps": self.num_steps}


def learning_rate_schedule(
    kind: Literal["constant", "cosine", "one_cycle"], peak: Any, num_steps: int
) -> Any:
    """Return what a Keras optimizer takes as its learning rate.

    Args:
        kind: constant; cosine, from the peak to 0 by half a cosine; or one_cycle, see `OneCycle`.
        peak: Highest learning rate, or an array of such.
        num_steps: Steps of the whole training, at least 1.

    Source:
        cosine: Loshchilov and Hutter, "SGDR", 2017, equation 5 without restarts,
        https://arxiv.org/abs/1608.03983
    """
    if kind == "cosine":
        return keras.optimizers.schedules.CosineDecay(peak, num_steps)
    if kind == "one_cycle":
        return OneCycle(peak, num_steps)
    return peak


def make_optimizer(
    config: HeadConfig, num_steps: int, variables: Sequence[Any]
) -> keras.optimizers.Optimizer:
    """Return the configured optimizer.

    Args:
        config: Optimizer, learning rate, schedule, momentum and weight decay. The decay is
            decoupled from the gradient for each of them, which makes adam with a decay adamw.
        num_steps: Steps of the whole training.
        variables: The variables that will be trained; those that are not kernels (biases,
            BatchNorm's scales and offsets) are exempt from the decay.

    Source:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019,
        https://arxiv.org/abs/1711.05101; kernels only: Goyal et al., "Accurate, Large Minibatch
        SGD", 2017, section 5.1, and He et al., "Bag of Tricks", 2019, section 3.1.
    """
    rate = learning_rate_schedule(config.schedule, config.learning_rate, num_steps)
    return _make(config, rate, config.weight_decay or None, variables)


def make_many_optimizers_in_one(
    configs: Sequence[HeadConfig], num_steps: int, variables: Sequence[Any]
) -> keras.optimizers.Optimizer:
    """Return what steps the variables of many heads, each as `make_optimizer` would alone.

    Args:
        configs: Of the heads H; of the same optimizer, momentum and schedule, at any learning
            rate and weight decay.
        num_steps: Steps of the whole training.
        variables: As for `make_optimizer`; each of shape [?, H, ?].

    Returns:
        A Keras optimizer, whose learning rate is of shape [1, H, 1].
    """
    peaks, decays = (
        np.array([getattr(config, name) for config in configs], np.float32)[None, :, None]
        for name in ("learning_rate", "weight_decay")
    )
    rate: Any = learning_rate_schedule(configs[0].schedule, peaks, num_steps)
    if configs[0].schedule == "constant":
        rate = functools.partial(tf.constant, peaks)  # Keras takes no array, but a callable
    optimizer = _make(configs[0], rate, 1.0 if decays.any() else None, variables)
    if decays.any():
        optimizer.weight_decay = decays
    return optimizer


def _make(
    config: HeadConfig, rate: Any, decay: float | None, variables: Sequence[Any]
) -> keras.optimizers.Optimizer:
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            rate, momentum=config.momentum, nesterov=config.momentum > 0, weight_decay=decay
        )
    else:
        # What Keras calls AdamW is this, but that it refuses to do without a decay.
        optimizer = keras.optimizers.Adam(rate, weight_decay=decay)
    if decay is not None:
        exempt = [variable for variable in variables if not variable.name.endswith("kernel")]
        optimizer.exclude_from_weight_decay(var_list=exempt)
    return optimizer

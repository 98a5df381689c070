"""One cycle of learning rate and momentum, and the SGD that follows it.

Source: Smith, "A disciplined approach to neural network hyper-parameters: Part 1", 2018,
https://arxiv.org/abs/1803.09820 (momentum falls while the rate rises, section 4.3); Smith and
Topin, "Super-Convergence", 2018, https://arxiv.org/abs/1708.07120.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from headstart.config import ScratchTrainingConfig


class CyclePoint(NamedTuple):
    """What a step is made with."""

    learning_rate: float
    momentum: float


def cycle_point(share: float, config: ScratchTrainingConfig) -> CyclePoint:
    """Return the learning rate and momentum at a point of the cycle.

    Straight lines: the rate rises from 0 to its peak over the warm-up and falls to 0 at the end;
    the momentum moves the other way.

    Args:
        share: Share of the training that is done, clipped to [0, 1].
        config: Peak, warm-up and momenta.

    Source: Page, cifar10-fast (0 to the peak at a fifth of the epochs, and to 0 at the end).
    """
    share = min(max(share, 0.0), 1.0)
    if share < config.warmup:
        height = share / config.warmup
    else:
        height = (1.0 - share) / (1.0 - config.warmup)
    momentum = config.max_momentum - height * (config.max_momentum - config.min_momentum)
    return CyclePoint(config.learning_rate * height, momentum)


@keras.saving.register_keras_serializable(package="headstart")
class CycledSGD(keras.optimizers.Optimizer):  # type: ignore[misc]
    """SGD with Nesterov momentum, whose momentum is a variable and can be cycled.

    A step takes g' = g + weight_decay * w (kernels only), v = momentum * v + g', and
    w = w - learning_rate * (g' + momentum * v).

    Args:
        learning_rate: Rate of the first step.
        momentum: Momentum of the first step.
        l2: Weight decay, as an L2 penalty's gradient; only for variables named "kernel".
        **options: Options of every Keras optimizer, such as use_ema.

    Source:
        Sutskever et al., "On the importance of initialization and momentum in deep learning",
        2013, in PyTorch's form, which the published recipe uses; kernels only: Goyal et al.,
        "Accurate, Large Minibatch SGD", 2017, section 5.1.
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        l2: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.l2 = l2
        self.momentum = self.add_variable((), initializer="zeros", name="momentum")
        self.momentum.assign(momentum)
        self.velocities: list[Any] = []
        self.decays: list[bool] = []

    def build(self, variables: Sequence[Any]) -> None:
        """Make a velocity for each variable."""
        if self.built:
            return
        super().build(variables)
        self.velocities = [
            self.add_variable_from_reference(reference_variable=variable, name="velocity")
            for variable in variables
        ]
        # Told now: a step is handed TensorFlow's variables, whose names are others.
        self.decays = [variable.name.endswith("kernel") for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable."""
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        gradient = keras.ops.cast(gradient, variable.dtype)
        momentum = keras.ops.cast(self.momentum, variable.dtype)
        if self.l2 and self.decays[index]:
            gradient = gradient + self.l2 * variable
        self.assign(velocity, momentum * velocity + gradient)
        step = gradient + momentum * velocity
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * step)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, for Keras to save."""
        return {
            **super().get_config(),
            "momentum": float(keras.ops.convert_to_numpy(self.momentum)),
            "l2": self.l2,
        }


def make_optimizer(config: ScratchTrainingConfig) -> CycledSGD:
    """Return the optimizer of a training, at the first point of its cycle."""
    start = cycle_point(0.0, config)
    ema = {"use_ema": True, "ema_momentum": config.ema} if config.ema else {}
    return CycledSGD(start.learning_rate, start.momentum, config.weight_decay, **ema)

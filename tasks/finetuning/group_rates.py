"""One optimizer with a learning rate for each group of layers.

The rate scales the *update*, not the gradient: Adam divides a gradient by a running mean of its
own size, so that a gradient scaled by a constant gives the very same step.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras


class _GroupRates:
    """Scales each variable's learning rate, and its decoupled weight decay, by a factor.

    Mixed into a Keras optimizer. The base class is told of no weight decay, since it would take
    the same share off every variable.
    """

    group_rates: tuple[float, ...]
    group_decays: tuple[float, ...]

    def set_groups(self, rates: Sequence[float], decays: Sequence[float]) -> None:
        """Say what becomes of each variable.

        Args:
            rates: Factor of the learning rate, one a trainable variable, in the model's order.
            decays: Decoupled weight decay of each; 0 for none.
        """
        self.group_rates, self.group_decays = tuple(rates), tuple(decays)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable; Keras calls this once a variable and step."""
        index = self._get_variable_index(variable)  # type: ignore[attr-defined]
        rate = keras.ops.cast(learning_rate, variable.dtype) * self.group_rates[index]
        if self.group_decays[index]:
            decay = variable * keras.ops.cast(self.group_decays[index], variable.dtype) * rate
            self.assign_sub(variable, decay)  # type: ignore[attr-defined]
        super().update_step(gradient, variable, rate)  # type: ignore[misc]


class GroupAdam(_GroupRates, keras.optimizers.Adam):  # type: ignore[misc]
    """Adam with a learning rate a variable."""


class GroupSGD(_GroupRates, keras.optimizers.SGD):  # type: ignore[misc]
    """Stochastic gradient descent with a learning rate a variable."""


def warm_up_then_cosine(
    peak: float, num_steps: int, warm_up_share: float
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a schedule that rises from 0 in a straight line and falls to 0 by half a cosine.

    Source:
        Warm-up: Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2,
        https://arxiv.org/abs/1706.02677; cosine: Loshchilov and Hutter, "SGDR", 2017, equation 5.
    """
    num_warm_up = round(warm_up_share * num_steps)
    num_falling = max(1, num_steps - num_warm_up)
    if num_warm_up == 0:
        return keras.optimizers.schedules.CosineDecay(peak, num_falling)
    return keras.optimizers.schedules.CosineDecay(
        0.0, num_falling, warmup_target=peak, warmup_steps=num_warm_up
    )


def make_group_optimizer(
    kind: Literal["adamw", "sgd"],
    learning_rate: Any,
    rates: Sequence[float],
    variables: Sequence[Any],
    weight_decay: float,
    momentum: float,
    clip_norm: float | None,
) -> keras.optimizers.Optimizer:
    """Return one optimizer for all groups.

    Args:
        kind: adamw or sgd (Nesterov).
        learning_rate: Learning rate of the head: a number or a schedule.
        rates: Factor of that rate, one a variable.
        variables: The trainable variables, in the model's order.
        weight_decay: Decoupled, on kernels alone, scaled as the variable's rate is.
        momentum: Momentum of SGD; AdamW does not read it.
        clip_norm: Largest norm of the gradient of all variables together; None for no limit.

    Source:
        Rates that fall from layer to layer: Howard and Ruder, "Universal Language Model
        Fine-tuning for Text Classification", 2018, section 3.2, https://arxiv.org/abs/1801.06146
    """
    optimizer: Any
    if kind == "sgd":
        optimizer = GroupSGD(
            learning_rate, momentum=momentum, nesterov=momentum > 0, global_clipnorm=clip_norm
        )
    else:
        optimizer = GroupAdam(learning_rate, global_clipnorm=clip_norm)
    decays = [weight_decay if variable.name.endswith("kernel") else 0.0 for variable in variables]
    optimizer.set_groups(rates, decays)
    optimizer.build(list(variables))
    return optimizer

"""Weights that are kept in half precision, where they cannot be trained."""

import gc
import sys
from typing import Any

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Facts
from headstart.debug.preflight.objectives import OWN_OPTIMIZER

HALF = "float16"
LARGEST = 65504.0
"""Of float16."""


def half_precision(facts: Facts, is_broken: bool) -> list[Diagnosis]:
    """Find trained variables that are float16 themselves.

    Args:
        facts: What is known of the training.
        is_broken: Whether it ended in NaN or an exception.

    Returns:
        A finding, or none.
    """
    names = [str(one.path) for one in facts.model.trainable_variables if one.dtype == HALF]
    if not names:
        return []
    return [
        Diagnosis(
            symptom="float16-overflow",
            cause=f"The weights, and with them the optimizer's state, are float16 ({names[0]} and "
            f"{len(names) - 1} more; by set_floatx, the dtype policy or dtype=): beyond "
            f"{LARGEST:,.0f} values overflow to Inf, and small squared gradients underflow to 0. "
            "The loss is not scaled to prevent that.",
            phase="optimizer",
            confidence=0.96,
            suggestions=(
                "use keras.mixed_precision.set_global_policy('mixed_float16'): it keeps weights "
                "in float32 and scales the loss",
                "or mixed_bfloat16, whose range is that of float32",
            ),
            evidence={"variables": names[:20], "at": "optimizer", "is_certain": is_broken},
        )
    ]


def _is_scaled(optimizer: Any) -> bool:
    """Tell whether an optimizer stands inside one that scales the loss."""
    scaling = sys.modules["keras"].optimizers.LossScaleOptimizer
    alive = [one for one in gc.get_objects() if type(one) is scaling]
    return any(one is optimizer or one.inner_optimizer is optimizer for one in alive)


def loss_without_scale(model: Any) -> list[Diagnosis]:
    """Find a loop of the user's own that computes in float16 and does not scale its loss.

    Args:
        model: A model that such a loop trains.

    Returns:
        A finding, or none.
    """
    layers = model._flatten_layers(include_self=False)
    halves = [layer for layer in layers if getattr(layer, "compute_dtype", "") == HALF]
    optimizer = vars(model).get(OWN_OPTIMIZER)
    if not halves or optimizer is None or _is_scaled(optimizer):
        return []
    return [
        Diagnosis(
            symptom="float16-underflow",
            cause=f"The model computes in float16 ({halves[0].name} and others), but the loop does "
            "not scale its loss: small gradients underflow to 0, and the weights do not change. "
            "compile() wraps the optimizer to do so; your own loop has to do it itself.",
            phase="optimizer",
            confidence=0.92,
            suggestions=(
                "optimizer = keras.optimizers.LossScaleOptimizer(optimizer), and "
                "scaled = optimizer.scale_loss(loss) before the gradient",
                "or use mixed_bfloat16, which needs no scaling",
            ),
        )
    ]

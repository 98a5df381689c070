"""Penalties on the weights (L1, L2, decay) that outweigh what is to be learnt."""

import math
from typing import Any

import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Facts

LARGE_SHARE = 0.5
"""Share of the loss that is a penalty from which on it is most of what is trained."""
SHRUNK = 0.15
"""Size of the weights after training over that before below which something pulls them to 0..."""
SOME_SHARE, SOME_SHRUNK = 0.1, 0.35
"""... and share and size that say so together."""


def too_strong(facts: Facts) -> list[Diagnosis]:
    """Find a penalty that is most of the loss, or has pulled the weights to nothing.

    Args:
        facts: What is known of a training that came to little.

    Returns:
        A finding, or none.
    """
    share, size = _share(facts), _size_left(facts)
    if share >= LARGE_SHARE:
        effect = f"The penalty on the weights is {share:.0%} of the loss"
    elif size < SHRUNK or (share >= SOME_SHARE and size < SOME_SHRUNK):
        effect = f"Training has shrunk all weights to {size:.1%} of their initial size or less"
    else:
        return []
    layers = [layer for layer in facts.model._flatten_layers(include_self=False)
              if _has_penalty(layer)]  # fmt: skip
    return [
        Diagnosis(
            symptom="regularisation-too-strong",
            cause=f"{effect}: the regularizer (a penalty on the weights: L1, L2, weight decay) is "
            "too strong: it outweighs the loss on the data and keeps the weights near 0.",
            layer=str(layers[0].path) if layers else None,
            phase="model",
            confidence=0.93,
            suggestions=("divide the penalty's factor by 10 to 1000 (1e-4 is usual)",),
        )
    ]


def _has_penalty(layer: Any) -> bool:
    names = ("kernel_regularizer", "activity_regularizer", "bias_regularizer")
    return any(getattr(layer, name, None) is not None for name in names)


def _share(facts: Facts) -> float:
    """Return the share of the loss that is a penalty; 0 where it is not known."""
    try:
        penalty = float(sum(float(np.asarray(loss)) for loss in facts.model.losses))
        y, y_pred = facts.y, facts.y_pred
        if y is not None and y_pred is not None and y.size == y_pred.size:
            y = y.reshape(y_pred.shape)
        data = float(np.mean(np.asarray(facts.loss(y, y_pred)))) if facts.loss else 0.0
    except Exception:  # losses of another form
        return 0.0
    return penalty / (penalty + data) if penalty > 0.0 and data > 0.0 else 0.0


def _size_left(facts: Facts) -> float:
    """Return the size of the weights over their initial size, of the matrix that kept most."""
    ratios = []
    layers = facts.model._flatten_layers(include_self=False)
    for layer in [one for one in layers if _has_penalty(one)] or layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is None or len(kernel.shape) < 2 or not layer.trainable:
            continue
        fans = int(np.prod(kernel.shape[:-1])) + int(kernel.shape[-1])
        initial = spread_of(getattr(layer, "kernel_initializer", None))
        initial = math.sqrt(2.0 / fans) if math.isnan(initial) else initial
        size = math.sqrt(float(np.mean(np.asarray(kernel, np.float64) ** 2)))
        ratios.append(size / max(initial, 1e-12))
    most = max(ratios, default=math.inf)
    return most if most > 0.0 else math.inf  # weights that are 0 were made so


def spread_of(initializer: Any, is_constant: bool = False) -> float:
    """Return how far apart an initializer draws its values.

    Args:
        initializer: A Keras initializer.
        is_constant: Whether a constant is asked for instead.

    Returns:
        The standard deviation, or the constant; NaN for other kinds.
    """
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    name = type(initializer).__name__
    if is_constant:
        value = config.get("value")
        return float(value) if name == "Constant" and isinstance(value, int | float) else math.nan
    if name in ("RandomNormal", "TruncatedNormal"):
        return float(config["stddev"])
    if name == "RandomUniform":
        return float(config["maxval"] - config["minval"]) / math.sqrt(12.0)
    return math.nan

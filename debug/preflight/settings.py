"""Rules about what was set: learning rate, optimizer, initial values, dropout, activations."""

import math
from typing import Any

import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight import penalties
from headstart.debug.preflight.facts import Facts, activation_of
from headstart.debug.preflight.objectives import optimizer_of
from headstart.debug.preflight.penalties import spread_of

HUGE_RATE = {"sgd": 1.0, "adagrad": 1.0, "adadelta": 10.0}
"""Rates from which on they are too high, by optimizer."""
HUGE_ADAPTIVE_RATE = 0.1
"""... and for those that divide by the size of the gradient (Adam, RMSprop, ...)."""
TINY_RATE = 1e-6
LOW_RATE = {"sgd": 1e-3, "adagrad": 1e-3, "adadelta": 1e-2}
"""Rates up to which they explain a training that came to nothing..."""
LOW_ADAPTIVE_RATE = 1e-4
"""... and for those that divide by the size of the gradient."""
FAR_BEYOND = 5.0
"""Times the limit from which a rate is told of a training too that came to something."""
MAX_DROPOUT = 0.8
"""Share dropped from which on too little is left."""
MAX_EPSILON = 0.1
MAX_DECAY = 0.1
TINY_CLIP = 1e-3
DECAYED = 1e-3
"""Share of its first value below which a rate has died..."""
DEAD = 1e-6
"""... and from which on it is a mistake, whatever the training came to before."""
EARLY = 0.5
"""... where it got there within this share of the training."""
FEW_STEPS = 60
"""Steps with which little can be learnt, whatever the settings."""
WASTEFUL = ("dropout-too-high", "dropout-on-output", "constant-initialisation",
            "odd-initialisation", "learning-rate-decayed", "stacked-linear-layers",
            "too-narrow")  # fmt: skip
"""Findings that are told of a training too that came to something, if not to all it could."""
FEW_UNITS = 4
FEW_TIMES = 8.0
"""Spread of the initial weights over the usual one from which on they are too large..."""
MANY_TIMES = 50.0
"""... and the usual one over theirs from which on they are too small."""
LARGE_BIAS = 2.0
DEEP = 4
"""Hidden layers of sigmoids from which on hardly any gradient reaches the first: each passes on at
most a quarter."""
_SIGMOIDS = ("sigmoid", "tanh", "hard_sigmoid", "softsign")
_RATE_SUGGESTIONS = ("Adam: about 0.001; SGD: about 0.01 to 0.1",)


def base_rate(model: Any) -> float:
    """Return the rate a model's optimizer starts with; NaN where that cannot be read."""
    optimizer = optimizer_of(model)
    rate = getattr(optimizer, "_learning_rate", None)
    try:
        if callable(rate) and not hasattr(rate, "numpy"):
            return float(np.asarray(rate(0)))
        return float(np.asarray(rate))
    except (TypeError, ValueError):
        return math.nan


def impossible_settings(model: Any) -> list[Diagnosis]:
    """Find settings with which nothing can come of any training.

    Args:
        model: A compiled Keras model.

    Returns:
        The findings.
    """
    optimizer = optimizer_of(model)
    if optimizer is None:
        return []
    rate, name = base_rate(model), type(optimizer).__name__
    if rate < 0.0:
        return [
            _of_optimizer(
                "negative-learning-rate",
                f"The learning rate of {name} is negative ({rate:g}, below 0): each training step "
                "climbs the loss instead of descending.",
                0.98,
                "use a positive learning rate",
                *_RATE_SUGGESTIONS,
            )
        ]
    momentum = getattr(optimizer, "momentum", 0.0)
    if isinstance(momentum, float) and momentum >= 1.0:
        return [
            _of_optimizer(
                "odd-optimizer",
                f"The momentum of {name} is {momentum:g}: at 1 or more, updates accumulate without "
                "limit.",
                0.95,
                "use a momentum of 0.9",
            )
        ]
    return []


def odd_settings(facts: Facts, rates: list[float]) -> list[Diagnosis]:
    """Find settings that explain why a training went badly.

    Args:
        facts: What is known of the training.
        rates: The learning rate at some steps, evenly spread.

    Returns:
        The findings.
    """
    model = facts.model
    return [
        *_rate(model, rates),
        *_optimizer_values(model),
        *_dropout(facts),
        *_initial_values(model),
        *_initial_scale(model),
        *_narrow(facts),
        *penalties.too_strong(facts),
        *_linear_stack(facts),
        *_deep_sigmoids(facts),
    ]


def _rate(model: Any, rates: list[float]) -> list[Diagnosis]:
    optimizer = optimizer_of(model)
    if optimizer is None:
        return []
    rate, name = base_rate(model), type(optimizer).__name__
    limit = HUGE_RATE.get(name.lower(), HUGE_ADAPTIVE_RATE)
    if rate >= limit:
        return [
            _of_optimizer(
                "learning-rate-too-high",
                f"The learning rate {rate:g} is far too high for {name}: updates overshoot.",
                0.92,
                "divide it by 10 to 100",
                *_RATE_SUGGESTIONS,
                is_far_off=rate >= FAR_BEYOND * limit,
            )
        ]
    if 0.0 <= rate <= TINY_RATE:
        return [
            _of_optimizer(
                "learning-rate-too-low",
                f"The learning rate {rate:g} is too low (tiny) for {name}: the weights hardly "
                "move.",
                0.92,
                "raise it by a factor of 100 or more",
                *_RATE_SUGGESTIONS,
            )
        ]
    num_early = max(2, int(len(rates) * EARLY))
    early, later = rates[:num_early], rates[num_early - 1 :]  # restarts rise again
    if len(rates) >= 4 and max(rates) > 0.0 and max(later) < DECAYED * max(rates):
        return [
            _of_optimizer(
                "learning-rate-decayed",
                f"The learning rate decays too fast: it starts at {rates[0]:.3g} and is down to "
                f"{early[-1]:.3g} before half of the training is done. After that the rate is too "
                "low to learn anything more.",
                0.94,
                "raise decay_steps (it counts training steps, not epochs) or decay_rate",
                "start with a constant learning rate",
                is_far_off=max(later) < DEAD * max(rates),
            )
        ]
    return _low_rate(optimizer, rate, name)


def _low_rate(optimizer: Any, rate: float, name: str) -> list[Diagnosis]:
    limit = LOW_RATE.get(name.lower(), LOW_ADAPTIVE_RATE)
    momentum = getattr(optimizer, "momentum", 0.0)
    if isinstance(momentum, float):
        limit *= 1.0 - momentum
    if not 0.0 <= rate <= limit * (1.0 + 1e-6):
        return []
    adadelta = " (Keras's own default; the method was made for 1.0)" if name == "Adadelta" else ""
    return [
        _of_optimizer(
            "learning-rate-too-low",
            f"The learning rate {rate:g} of {name} is low{adadelta}: the updates were too small to"
            " get anywhere.",
            0.84 if adadelta else 0.76,
            "raise it by a factor of 10 or more, or use Adam",
            "or train for many more epochs",
            *_RATE_SUGGESTIONS,
        )
    ]


def _optimizer_values(model: Any) -> list[Diagnosis]:
    optimizer = optimizer_of(model)
    if optimizer is None:
        return []
    found, name = [], type(optimizer).__name__
    for setting, limit in (("epsilon", MAX_EPSILON), ("weight_decay", MAX_DECAY)):
        value = getattr(optimizer, setting, None)
        if isinstance(value, float) and value >= limit:
            found.append(
                _of_optimizer(
                    "odd-optimizer",
                    f"{name}'s {setting} is {value:g}, far above usual values: "
                    + ("updates shrink to nothing." if setting == "epsilon" else
                       "the weights are pulled to 0 faster than they learn."),
                    0.85,
                    f"leave {setting} at its default",
                )
            )  # fmt: skip
    for setting in ("clipnorm", "clipvalue", "global_clipnorm"):
        value = getattr(optimizer, setting, None)
        if isinstance(value, int | float) and 0.0 <= value <= TINY_CLIP:
            found.append(
                _of_optimizer(
                    "odd-optimizer",
                    f"{name} clips gradients at {setting}={value:g}: updates are too small.",
                    0.85,
                    "clip at about 1.0",
                )
            )
    for setting in ("beta_1", "beta_2", "rho"):
        value = getattr(optimizer, setting, None)
        if isinstance(value, float) and not 0.0 <= value < 1.0:
            found.append(
                _of_optimizer(
                    "odd-optimizer",
                    f"{name}'s {setting} is {value:g}: it must be in [0, 1).",
                    0.95,
                    f"leave {setting} at its default",
                )
            )
    return found


def _dropout(facts: Facts) -> list[Diagnosis]:
    found = []
    for place, use in enumerate(facts.uses):
        if "Dropout" not in use.kind:
            continue
        rate = float(getattr(use.layer, "rate", 0.0) or 0.0)
        later = facts.uses[place + 1 :]
        if rate >= MAX_DROPOUT:
            found.append(
                Diagnosis(
                    symptom="dropout-too-high",
                    cause=f"Dropout of {rate:g} drops {rate:.0%} of the values (rate is the share "
                    "dropped, not kept): almost nothing is left to learn from.",
                    layer=use.path,
                    phase="model",
                    confidence=0.93,
                    suggestions=("use a rate of 0.2 to 0.5", "drop in fewer places"),
                )
            )
        elif rate > 0.0 and facts.units > 0 and _only_activation(later):
            found.append(
                Diagnosis(
                    symptom="dropout-on-output",
                    cause=f"Dropout of {rate:g} stands between the last Dense layer and the output"
                    f"{' softmax' if facts.activation == 'softmax' else ''}: it sets scores of "
                    "whole classes to 0 in training.",
                    layer=use.path,
                    phase="model",
                    confidence=0.9,
                    suggestions=("put it before the last Dense layer", "or leave it out"),
                    evidence={"is_structural": True},
                )
            )
    return found[:1]


def _only_activation(later: tuple[Any, ...]) -> bool:
    return all(use.kind in ("Activation", "Softmax", "Reshape", "Flatten") for use in later)


def _initial_values(model: Any) -> list[Diagnosis]:
    """Find hidden layers all of whose units still have the same weights after training."""
    layers = [layer for layer in model._flatten_layers() if type(layer).__name__ == "Dense"]
    for layer in layers[:-1]:
        kernel = np.asarray(getattr(layer, "kernel", np.zeros(0)))
        if kernel.ndim != 2 or kernel.shape[1] < 2 or not layer.trainable:
            continue
        if (
            np.isfinite(kernel).all()
            and np.ptp(kernel, axis=1).max() <= 1e-7 * np.abs(kernel).max()
        ):
            what = "0" if not kernel.any() else "the same"
            path = str(getattr(layer, "path", layer.name))
            return [
                Diagnosis(
                    symptom="constant-initialisation",
                    cause=f"All units of layer {path!r} have equal weights ({what} for each "
                    "unit): zero or constant initialisation (kernel_initializer) leaves nothing "
                    "to tell units apart, they all learn the same.",
                    layer=path,
                    phase="model",
                    confidence=0.95,
                    suggestions=("leave kernel_initializer at its default, or use he_normal",),
                )
            ]
    return []


def _initial_scale(model: Any) -> list[Diagnosis]:
    """Find initial weights that are far larger or smaller than the layer's width asks for."""
    for layer in model._flatten_layers():
        kernel = getattr(layer, "kernel", None)
        if kernel is None or len(kernel.shape) < 2 or not layer.trainable:
            continue
        fan_out = int(kernel.shape[-1])
        fan_in = int(np.prod(kernel.shape[:-1]))
        usual = math.sqrt(2.0 / (fan_in + fan_out))
        spread = spread_of(getattr(layer, "kernel_initializer", None))
        bias = math.nan
        if activation_of(layer) in ("relu", "relu6"):
            bias = spread_of(getattr(layer, "bias_initializer", None), is_constant=True)
        if FEW_TIMES * usual > spread > usual / MANY_TIMES or math.isnan(spread):
            spread = math.nan
        if math.isnan(spread) and not bias <= -LARGE_BIAS:
            continue
        path = str(getattr(layer, "path", layer.name))
        what = (
            f"weights are drawn with a spread of {spread:g} (kernel_initializer), about "
            f"{usual:.2g} is usual for its width"
            if not math.isnan(spread)
            else f"biases begin at {bias:g} (bias_initializer), which keeps relu units at zero"
        )
        return [
            Diagnosis(
                symptom="odd-initialisation",
                cause=f"The initial {what}, in layer {path!r}: units begin "
                + ("saturated or far off." if spread > usual else "with next to no signal."),
                layer=path,
                phase="model",
                confidence=0.88,
                suggestions=("leave the initializers at their defaults, or use he_normal",),
            )
        ]
    return []


def _narrow(facts: Facts) -> list[Diagnosis]:
    """Find a hidden layer that is too narrow to tell the classes apart."""
    dense = [use for use in facts.uses if use.kind == "Dense"]
    # A score for each step, such as an attention's, is no bottleneck.
    hidden = [use for use in dense
              if use.layer is not dense[-1].layer and len(use.output.shape) == 2]  # fmt: skip
    classes = facts.units if facts.objective.kind in ("sparse", "categorical") else 0
    for use in hidden:
        width = int(use.layer.units)
        if width == 1 or (width == 2 and classes > 5):
            return [
                Diagnosis(
                    symptom="too-narrow",
                    cause=f"The hidden layer {use.path!r} has {width} unit(s) (neurons): "
                    "everything the network knows about a row must pass through so few numbers.",
                    layer=use.path,
                    phase="model",
                    confidence=0.86,
                    suggestions=("give it more units: 16, 32 or 64",),
                )
            ]
    widths = [int(use.layer.units) for use in hidden]
    if not widths or max(widths) > FEW_UNITS:
        return []
    return [
        Diagnosis(
            symptom="too-narrow",
            cause=f"The hidden layers have at most {max(widths)} units (neurons): from some "
            "initial values, so few units never learn.",
            layer=hidden[0].path,
            phase="model",
            severity="warning",
            confidence=0.6,
            suggestions=("give them more units: 16, 32 or 64",),
        )
    ]


def _linear_stack(facts: Facts) -> list[Diagnosis]:
    weighted = [use for use in facts.uses if hasattr(use.layer, "kernel")]
    if len(weighted) < 2:
        return []
    if any(use.activation not in ("", "linear") for use in facts.uses if use is not facts.last):
        return []
    if any(use.kind in ("LSTM", "GRU", "SimpleRNN", "MaxPooling2D", "PReLU") for use in facts.uses):
        return []
    hidden = [use for use in weighted if use is not facts.last]
    if not hidden or any(use.activation != "linear" for use in hidden):
        return []
    return [
        Diagnosis(
            symptom="stacked-linear-layers",
            cause=f"No hidden layer has an activation: {len(weighted)} linear layers in a row are "
            "one linear layer, which can only draw a straight line.",
            layer=hidden[0].path,
            phase="model",
            confidence=0.8,
            suggestions=("give the hidden layers activation='relu'",),
        )
    ]


def _deep_sigmoids(facts: Facts) -> list[Diagnosis]:
    hidden = [use for use in facts.uses if use is not facts.last and use.activation in _SIGMOIDS]
    hidden = [use for use in hidden if use.kind not in ("LSTM", "GRU")]
    if not hidden or any("Normalization" in use.kind for use in facts.uses):
        return []
    name = hidden[0].activation
    is_deep = len(hidden) >= DEEP
    # A policy or a small regression has one such layer or two by custom, and learns well.
    is_usual = name in ("tanh", "softsign") and len(hidden) <= 2
    return [
        Diagnosis(
            symptom="vanishing-gradient" if is_deep else "saturating-activations",
            cause=f"{len(hidden)} hidden layer(s) with {name}: it is flat away from 0, gradients "
            f"vanish on the way back through it and training is slow.",
            layer=hidden[0].path,
            phase="model",
            severity="error" if is_deep else "advice" if is_usual else "warning",
            confidence=0.5 + min(0.35, 0.1 * (len(hidden) - 1)),
            suggestions=(
                "use relu in the hidden layers",
                "use Adam, or a higher learning rate, smaller batches and more epochs",
            ),
        )
    ]


def _of_optimizer(
    symptom: str, cause: str, confidence: float, *suggestions: str, is_far_off: bool = False
) -> Diagnosis:
    return Diagnosis(
        symptom=symptom,
        cause=cause,
        phase="optimizer",
        confidence=confidence,
        suggestions=suggestions,
        evidence={"at": "optimizer", "is_far_off": is_far_off},
    )

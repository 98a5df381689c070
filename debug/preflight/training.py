"""Preflight checks that take a few training steps on one batch; the caller restores the model."""

import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.objectives import optimizer_of
from headstart.debug.preflight.samples import Sample
from headstart.debug.preflight.untracked import nothing_tracked
from headstart.debug.symptoms.activity_probe import leaf_layers

OVERFIT_STEPS = 60
"""Steps on one batch in which any sound model makes some headway. Source: A. Karpathy, "A Recipe
for Training Neural Networks" (2019): overfit one batch."""
OVERFIT_RATE = 3e-3
"""Learning rate of the Adam that tries it: enough for a new head on a frozen backbone as well."""
MIN_OVERFIT_FALL = 0.02
"""Relative fall of the loss that counts as headway; biases alone bring it less than that."""
OWN_STEPS = 8
"""Steps with the user's own optimizer, to see whether it explodes at once."""
EXPLODED_FACTOR = 10.0
"""Loss after these steps over that before from which on the learning rate is too high."""

EAGER_FACTOR = 3.0
"""How much slower a step is at least when it is not compiled into a graph (small networks)."""
MIN_TRAINED_STEPS = 5
"""Steps after which statistics must have moved."""
TRACING_S = 0.25
"""What tracing the steps takes at least; with less than that left they are not begun."""

_ALWAYS_TRAINING = (
    "updates its statistics in inference: it is called with training=True, so predictions depend "
    "on their batch"
)
_NEVER_TRAINING = (
    "never updates its statistics in training: it is called with training=False and normalises by "
    "its initial 0 and 1"
)


def nothing_to_train(model: Any) -> list[Diagnosis]:
    """Find a model of which every layer is frozen, or unknown to Keras."""
    if not model.built or model.trainable_variables:
        return []
    if not model.count_params():
        return nothing_tracked(model)
    return [
        Diagnosis(
            symptom="nothing-trainable",
            cause="Every layer is frozen: no variable is trainable, and training changes nothing.",
            phase="model",
            confidence=0.98,
            suggestions=("set trainable = True on the layers to train, then compile again",),
        )
    ]


def gradients(sample: Sample) -> list[Diagnosis]:
    """Find trainable variables without gradient."""
    model = sample.model
    _, found = _loss_and_gradients(sample)
    pairs = zip(model.trainable_variables, found, strict=True)
    without = [str(variable.path) for variable, gradient in pairs if gradient is None]
    if not without:
        return []
    return [
        Diagnosis(
            symptom="missing-gradient",
            cause=f"{len(without)} of {len(found)} trainable variables get no gradient "
            f"({', '.join(without[:3])}): the loss does not depend on them.",
            layer=without[0].rpartition("/")[0] or None,
            phase="backward",
            confidence=0.8,
            suggestions=(
                "check that the layer's output reaches the loss",
                "look for tf.stop_gradient, argmax, round or casts to integers on the way",
            ),
            evidence={"variables": without},
        )
    ]


def stale_trainable_flags(sample: Sample) -> list[Diagnosis]:
    """Find ``trainable`` flags that were flipped after compile and are silently ignored."""
    model = sample.model
    is_kerases = type(model).train_step is keras.Model.train_step
    if model.train_function is None or sample.is_new or not is_kerases:
        return []  # a step of the program's own may train a part, as a pupil's does
    # A compiled train step keeps the variables it was traced with, and so does its optimizer.
    known = {id(v) for v in getattr(model.optimizer, "_trainable_variables", ())}
    now = {id(v): str(v.path) for v in model.trainable_variables}
    added = [path for key, path in now.items() if key not in known]
    removed = len(known - set(now))
    if not known or not (added or removed):
        return []
    return [
        Diagnosis(
            symptom="stale-trainable",
            cause=f"trainable was changed after the model was compiled and trained: {len(added)} "
            f"variables switched on and {removed} switched off are still trained as before.",
            phase="model",
            confidence=0.9,
            suggestions=("call model.compile(...) again after changing trainable",),
            evidence={"switched_on": added[:10], "num_switched_off": removed},
        )
    ]


def frozen_layers(sample: Sample) -> list[Diagnosis]:
    """Find frozen layers whose state moves in a training step all the same."""
    frozen = [layer for layer in leaf_layers(sample.model) if not layer.trainable]
    watched = [(layer, v) for layer in frozen for v in layer.variables if "seed" not in v.path]
    before = [variable.numpy() for _, variable in watched]
    _loss_and_gradients(sample)
    moved = [
        str(layer.path)
        for (layer, variable), value in zip(watched, before, strict=True)
        if not np.array_equal(variable.numpy(), value)
    ]
    if not moved:
        return []
    return [
        Diagnosis(
            symptom="frozen-layer-trains",
            cause=f"Layer {moved[0]!r} is frozen, but a training step still changes its state.",
            layer=moved[0],
            phase="model",
            confidence=0.8,
            suggestions=("call it with training=False", "set trainable before it is built"),
            evidence={"layers": sorted(set(moved))},
        )
    ]


def batch_normalization(sample: Sample) -> list[Diagnosis]:
    """Find BatchNormalization that runs in the wrong mode."""
    layers = [
        layer
        for layer in leaf_layers(sample.model)
        if type(layer).__name__ == "BatchNormalization" and hasattr(layer, "moving_mean")
    ]
    if not layers:
        return []
    before = [layer.moving_mean.numpy() for layer in layers]
    sample.model(sample.batches[0].x, training=False)
    for layer, mean in zip(layers, before, strict=True):
        if not np.array_equal(layer.moving_mean.numpy(), mean):
            return [_wrong_mode(layer, _ALWAYS_TRAINING)]
    _loss_and_gradients(sample)
    for layer, mean in zip(layers, before, strict=True):
        untouched = np.array_equal(layer.moving_mean.numpy(), mean) and not mean.any()
        if untouched and layer.trainable and sample.is_new:
            return [_wrong_mode(layer, _NEVER_TRAINING)]
    return []


def untouched_normalization(model: Any) -> list[Diagnosis]:
    """Find BatchNormalization whose statistics are the initial ones although the model trained.

    Returns:
        A finding for the first such layer, or none.
    """
    iterations = getattr(optimizer_of(model), "iterations", None)
    if iterations is None or int(iterations.numpy()) < MIN_TRAINED_STEPS:
        return []
    for layer in leaf_layers(model):
        if type(layer).__name__ != "BatchNormalization" or not layer.trainable or not layer.built:
            continue
        if not layer.moving_mean.numpy().any() and (layer.moving_variance.numpy() == 1.0).all():
            return [_wrong_mode(layer, _NEVER_TRAINING)]
    return []


def _wrong_mode(layer: Any, what: str) -> Diagnosis:
    return Diagnosis(
        symptom="batchnorm-mode",
        cause=f"BatchNormalization {layer.path!r} {what}.",
        layer=str(layer.path),
        phase="model",
        severity="warning",
        confidence=0.75,
        suggestions=("pass the training argument of call on to the layer, or leave it out",),
    )


def has_time_to_overfit(sample: Sample, limit_s: float) -> bool:
    """Tell whether `overfit_one_batch` would come to an end within a time.

    Returns:
        True where a step, taken eagerly to be timed, leaves room for all of them.
    """
    if limit_s < TRACING_S:
        return False
    started_s = time.monotonic()
    _loss_and_gradients(sample)
    step_s = time.monotonic() - started_s
    return TRACING_S + (OVERFIT_STEPS + OWN_STEPS) * step_s / EAGER_FACTOR < limit_s


def overfit_one_batch(sample: Sample, limit_s: float) -> list[Diagnosis]:
    """Find a model that cannot learn a single batch, or an optimizer that explodes at once.

    Args:
        sample: The sample; its model is changed.
        limit_s: Seconds after which no further step is taken.

    Returns:
        A finding, or none.
    """
    model = sample.model
    if type(model).train_step is not keras.Model.train_step or not model.trainable_variables:
        return []  # an own train step has a loss of its own
    start = [variable.numpy() for variable in model.trainable_variables]
    losses = steps_on(sample, keras.optimizers.Adam(OVERFIT_RATE), OVERFIT_STEPS, limit_s)
    for variable, value in zip(model.trainable_variables, start, strict=True):
        variable.assign(value)
    own = keras.optimizers.deserialize(keras.optimizers.serialize(model.optimizer))
    own_losses = steps_on(sample, own, OWN_STEPS, limit_s)
    first = losses[0]
    if not all(map(math.isfinite, own_losses)) or own_losses[-1] > EXPLODED_FACTOR * abs(first):
        return [_explodes(model, own_losses)]
    fell = min(losses) <= (1.0 - MIN_OVERFIT_FALL) * first
    if fell or len(losses) < OVERFIT_STEPS or first < 0.1:
        return []
    return [
        Diagnosis(
            symptom="cannot-overfit",
            cause=f"The model cannot overfit a single batch: its loss goes from {first:.4g} to "
            f"{losses[-1]:.4g} in {len(losses)} training steps with Adam.",
            phase="model",
            confidence=0.75,
            suggestions=(
                "check that labels reach the loss in the form it expects",
                "look for dead or saturated layers, a frozen model or a blocked gradient",
                "check the activation of the last layer",
            ),
            evidence={"first_loss": first, "last_loss": losses[-1], "steps": len(losses)},
        )
    ]


def _explodes(model: Any, losses: list[float]) -> Diagnosis:
    rate = float(np.asarray(model.optimizer.learning_rate))
    return Diagnosis(
        symptom="learning-rate-too-high",
        cause=f"On one batch the loss goes from {losses[0]:.4g} to {losses[-1]:.4g} in "
        f"{len(losses)} training steps: the learning rate {rate:.3g} is too high.",
        phase="optimizer",
        confidence=0.8,
        suggestions=("divide it by 10 to 100", "clip gradients (global_clipnorm=1.0)"),
        evidence={"losses": losses, "learning_rate": rate},
    )


def steps_on(sample: Sample, optimizer: Any, steps: int, limit_s: float) -> list[float]:
    """Take steps on the first batch of a sample; its model is changed.

    Args:
        sample: The sample.
        optimizer: With what.
        steps: How many.
        limit_s: Seconds after which no further step is taken.

    Returns:
        The loss of each step; it ends with the first that is no number.
    """
    variables = sample.model.trainable_variables
    optimizer.build(variables)

    @tf.function  # type: ignore[untyped-decorator]
    def headstart_step() -> Any:  # `RetraceCounter` passes such names over
        loss, found = _loss_and_gradients(sample)
        optimizer.apply([_or_zeros(g, v) for g, v in zip(found, variables, strict=True)])
        return loss

    losses, started = [], time.monotonic()
    for _ in range(steps):
        losses.append(float(headstart_step()))
        if time.monotonic() - started > limit_s or not math.isfinite(losses[-1]):
            break
    return losses


def _or_zeros(gradient: Any, variable: Any) -> Any:
    return tf.zeros_like(variable.value) if gradient is None else gradient


def _loss_and_gradients(sample: Sample) -> tuple[Any, list[Any]]:
    model, batch = sample.model, sample.batches[0]
    with tf.GradientTape() as tape:
        y_pred = model(batch.x, training=True)
        loss = model.compute_loss(batch.x, batch.y, y_pred, batch.weights, training=True)
    return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

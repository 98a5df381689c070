"""Callbacks that hold the worse of two values for the better one.

`EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` are told by ``mode`` whether what they
monitor should rise or fall. Keras knows that of its own metrics; a metric of the user's own is
asked what it says of right answers and of wrong ones.
"""

from typing import Any

import numpy as np

from headstart.debug.callsites import calling_site, find_call
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.dump.origins import SITE
from headstart.debug.preflight.facts import Array, Facts

MIN_ROWS = 8
"""Rows on which a metric is asked."""
CLEAR = 0.02
"""Difference between right answers and wrong ones, as a share of the greater, that is no chance."""


def wrong_modes(model: Any, callbacks: Any, facts: Facts | None = None) -> list[Diagnosis]:
    """Find callbacks whose mode is the opposite of what their metric should do.

    Args:
        model: Compiled; its metrics say which way is better.
        callbacks: What ``fit`` was given.
        facts: What is known of the training, if anything.

    Returns:
        A finding for each.
    """
    import keras

    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    return [
        found
        for callback in keras.tree.flatten(callbacks or [])
        for found in _wrong_mode(model, callback, facts)
    ]


def _wrong_mode(model: Any, callback: Any, facts: Facts | None) -> list[Diagnosis]:
    mode = _mode_of(callback)
    # One that saves after every epoch compares nothing.
    if not mode or not getattr(callback, "save_best_only", True):
        return []
    wanted = _direction(model, str(callback.monitor).removeprefix("val_"), facts)
    if wanted in ("", mode):
        return []
    kind, better = type(callback).__name__, "high" if wanted == "max" else "low"
    site = vars(callback).get(SITE)
    if site is None and (fitted := calling_site()) is not None:
        site = find_call(fitted, kind) or fitted
    what = (
        "stops the training while it is still improving, and keeps the worst epoch"
        if hasattr(callback, "restore_best_weights")
        else "saves the worst epoch"
        if hasattr(callback, "save_best_only")
        else "acts while the training is still improving"
    )
    return [
        Diagnosis(
            symptom="wrong-monitor-mode",
            cause=f"{kind} monitors {callback.monitor!r} with mode={mode!r}, but that metric "
            f"should be {better}: it treats the worst value as the best, and {what}.",
            phase="metric",
            confidence=0.97,
            suggestions=(
                f"mode={wanted!r} for {callback.monitor!r}",
                "or leave mode='auto': Keras knows the direction of its own metrics",
            ),
            evidence={"is_certain": True, "mode": mode, "monitor": callback.monitor},
        ).at(site)
    ]


def _mode_of(callback: Any) -> str:
    """Return what a callback looks for, ``min`` or ``max``; empty for one that compares nothing."""
    import keras

    if not isinstance(getattr(callback, "monitor", None), str):
        return ""
    compares = getattr(callback, "monitor_op", None)
    for mode, functions in (("min", (keras.ops.less, np.less)),
                            ("max", (keras.ops.greater, np.greater))):  # fmt: skip
        if compares in functions:
            return mode
    return ""


def _direction(model: Any, name: str, facts: Facts | None) -> str:
    """Return where a quantity should go, ``min`` or ``max``; empty where that is not known."""
    if name == "loss":
        return "min"
    metrics = [part for one in model.metrics for part in (getattr(one, "metrics", None) or [one])]
    for metric in metrics:
        if name == metric.name or name.endswith(f"_{metric.name}"):
            known = {"up": "max", "down": "min"}.get(getattr(metric, "_direction", ""), "")
            return known or _measured_direction(metric, facts)
    return ""


def _measured_direction(metric: Any, facts: Facts | None) -> str:
    """Return whether a metric is higher or lower where answers are right; empty if it is alike."""
    if facts is None or facts.y is None or facts.y_pred is None or len(facts.y) < MIN_ROWS:
        return ""
    y, right = facts.y, _right_answers(facts.y, facts.y_pred.shape)
    if right is None:
        return ""
    wrong = np.roll(right, len(right) // 2 + 1, axis=0)
    shaped = y.reshape(right.shape) if y.size == right.size else y
    held = [variable.numpy() for variable in metric.variables]
    values = []
    try:
        for answers in (right, wrong):
            metric.reset_state()
            metric.update_state(shaped, answers)
            values.append(float(np.asarray(metric.result())))
    finally:
        for variable, value in zip(metric.variables, held, strict=True):
            variable.assign(value)
    at_right, at_wrong = values
    if not abs(at_right - at_wrong) > CLEAR * max(abs(at_right), abs(at_wrong)):
        return ""
    return "max" if at_right > at_wrong else "min"


def _right_answers(y: Array, shape: tuple[int, ...]) -> Array | None:
    """Return what a model that is always right would give; None where that is not known."""
    if y.size == np.prod(shape):
        return y.reshape(shape).astype(np.float32)
    if y.size != len(y) or len(shape) != 2 or y.min() < 0 or y.max() >= shape[1]:
        return None
    return np.eye(shape[1], dtype=np.float32)[y.reshape(-1).astype(np.int64)]

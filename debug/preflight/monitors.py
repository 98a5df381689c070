"""Callbacks that hold the worse of two values for the better one.

`EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` are told by ``mode`` whether what they
monitor should rise or fall. What Keras knows of a metric says what it should do; of a metric of the
user's own, the epochs say whether it rises as the loss falls.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headstart.debug.callsites import calling_site, find_call
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.dump.origins import SITE

MIN_EPOCHS = 4
"""Epochs from which on their logs say which way a metric goes as the loss falls."""
MIN_CORRELATION = 0.9
"""... where the two go together as closely as this."""


def wrong_modes(
    model: Any, callbacks: Any, epochs: Sequence[Mapping[str, float]]
) -> list[Diagnosis]:
    """Find callbacks whose mode is the opposite of what their metric should do.

    Args:
        model: The fitted model.
        callbacks: What ``fit`` was given.
        epochs: The logs of its epochs.

    Returns:
        A finding for each.
    """
    import keras

    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    return [
        found
        for callback in keras.tree.flatten(callbacks or [])
        for found in _wrong_mode(model, callback, epochs)
    ]


def _wrong_mode(
    model: Any, callback: Any, epochs: Sequence[Mapping[str, float]]
) -> list[Diagnosis]:
    mode = _mode_of(callback)
    # One that saves after every epoch compares nothing.
    if not mode or not getattr(callback, "save_best_only", True):
        return []
    name = str(callback.monitor).removeprefix("val_")
    known = _known_direction(model, name)
    if (known or _seen_direction(name, epochs)) not in ("max" if mode == "min" else "min",):
        return []
    kind, better = type(callback).__name__, "high" if mode == "min" else "low"
    site = vars(callback).get(SITE)
    if site is None and (fitted := calling_site()) is not None:
        site = find_call(fitted, kind) or fitted
    what = (
        "stops the training while it still gets better, and keeps the worst epoch"
        if hasattr(callback, "restore_best_weights")
        else "saves the worst epoch"
        if hasattr(callback, "save_best_only")
        else "acts while the training still gets better"
    )
    seen = "" if known else " (in this training it does as the loss falls)"
    return [
        Diagnosis(
            symptom="wrong-monitor-mode",
            cause=f"{kind} monitors {callback.monitor!r} with mode={mode!r}, but that should be "
            f"{better}{seen}: it takes the worst value for the best, and {what}.",
            file=site.file if site else None,
            line=site.line if site else None,
            phase="metric",
            confidence=0.97 if known else 0.86,
            suggestions=(
                f"mode={'max' if mode == 'min' else 'min'!r} for {callback.monitor!r}",
                "or leave mode at 'auto': Keras knows its own metrics",
            ),
            evidence={"is_certain": bool(known), "mode": mode, "monitor": callback.monitor},
        ).with_source()
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


def _known_direction(model: Any, name: str) -> str:
    """Return what Keras knows of a quantity's direction; empty where it knows none."""
    if name == "loss":
        return "min"
    metrics = [part for one in model.metrics for part in (getattr(one, "metrics", None) or [one])]
    for metric in metrics:
        if name == metric.name or name.endswith(f"_{metric.name}"):
            direction = getattr(metric, "_direction", "")
            return {"up": "max", "down": "min"}.get(direction, "")
    return ""


def _seen_direction(name: str, epochs: Sequence[Mapping[str, float]]) -> str:
    """Return which way a metric goes as the loss falls; empty where that is not clear."""
    if len(epochs) < MIN_EPOCHS or not all({name, "loss"} <= set(logs) for logs in epochs):
        return ""
    pairs = np.array([[logs[name], logs["loss"]] for logs in epochs], dtype=np.float64)
    if not np.isfinite(pairs).all() or pairs[-1, 1] >= pairs[0, 1] or not pairs.std(axis=0).all():
        return ""
    metric, loss = pairs.argsort(axis=0).argsort(axis=0).T
    together = float(np.corrcoef(metric, loss)[0][1])
    if abs(together) < MIN_CORRELATION:
        return ""
    return "min" if together > 0.0 else "max"

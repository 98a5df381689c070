"""A rule about loss scaling: gradients divided by a scale that the loss was never multiplied by."""

import functools
import linecache
from collections.abc import Callable
from typing import Any

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless
from headstart.debug.symptoms.own_loops import tracing_site

_SCALED = "_headstart_scaled"
_TOLD = "_headstart_told_of_scale"
_BY_HAND = ("dynamic_scale", "initial_scale")
"""Attributes by which a program scales its loss itself."""


def watch_loss_scales(tell: Callable[[Diagnosis], None]) -> None:
    """Look at each step of a `LossScaleOptimizer`: `scale_loss` must have come first.

    Args:
        tell: Is given one finding an optimizer.
    """
    import keras

    kind = keras.optimizers.LossScaleOptimizer
    scale, apply = kind.scale_loss, kind.apply

    @functools.wraps(scale)
    def scale_and_note(optimizer: Any, loss: Any) -> Any:
        vars(optimizer)[_SCALED] = True
        return scale(optimizer, loss)

    @functools.wraps(apply)
    def apply_and_look(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        with harmless("the rule about loss scaling"):
            known = vars(optimizer)
            if _SCALED not in known and _TOLD not in known:
                known[_TOLD] = True
                site = tracing_site()
                if site is not None and not _is_by_hand(site):
                    tell(_unscaled(site))
        return apply(optimizer, *args, **kwargs)

    kind.scale_loss, kind.apply = scale_and_note, apply_and_look


def _is_by_hand(site: CallSite) -> bool:
    lines = linecache.getlines(site.file)
    return any(name in line for line in lines for name in _BY_HAND)


def _unscaled(site: CallSite) -> Diagnosis:
    return Diagnosis(
        symptom="loss-not-scaled",
        cause="A LossScaleOptimizer divides the gradients by its loss scale (32768 at first), but "
        "the loss was never multiplied by it: scale_loss is not called. Small gradients become 0 "
        "in float16, and the updates are as many times too small.",
        phase="optimizer",
        confidence=0.95,
        suggestions=(
            "in the tape: scaled = optimizer.scale_loss(loss); then tape.gradient(scaled, weights)",
        ),
    ).at(site)

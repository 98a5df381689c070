"""Optimizers that follow each other on the same weights, such as a new one in each epoch."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.dump.origins import SITE
from headstart.debug.symptoms.variables import storage_of

MIN_SUCCESSORS = 4
MIN_STEPS = 3
"""Steps of each; fewer are another finding."""
MAX_ELEMENTS = 1 << 14
NEAR = 3.0
"""Times the largest change of one step up to which weights went on from where they were: a fold
of a cross-validation begins anew."""


class Successors:
    """Counts optimizers that are alike and go on where the last one stopped.

    Attributes:
        found: The finding, once there is one.
    """

    def __init__(self) -> None:
        self.found: list[Diagnosis] = []
        self._optimizer: Any = None
        self._variable: Any = None
        self._value: Any = None
        self._largest = 0.0
        self._num_steps = 0
        self._num = 0

    def on_step(self, optimizer: Any, variables: Any, site: CallSite | None) -> None:
        """Note a step that an optimizer is about to take eagerly.

        Args:
            optimizer: The optimizer.
            variables: What it changes.
            site: The user's line.
        """
        if self.found or not variables:
            return
        variable = storage_of(variables[0])
        if int(np.prod(variable.shape)) > MAX_ELEMENTS:
            return
        value = np.array(variable.numpy())
        is_same = variable is self._variable
        change = float(np.abs(value - self._value).max(initial=0.0)) if is_same else 0.0
        if optimizer is self._optimizer and is_same:
            self._largest = max(self._largest, change)
            self._num_steps += 1
        else:
            goes_on = is_same and change <= NEAR * self._largest
            is_next = goes_on and _are_alike(optimizer, self._optimizer)
            self._num = self._num + 1 if is_next and self._num_steps >= MIN_STEPS else 0
            self._largest = self._largest if is_same else 0.0
            self._num_steps = 1
        self._optimizer, self._variable, self._value = optimizer, variable, value
        if self._num >= MIN_SUCCESSORS and has_state(optimizer):
            self.found.append(_finding(optimizer, site))


def _are_alike(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or not hasattr(one, "get_config"):
        return False
    first, second = ({**each.get_config(), "name": ""} for each in (one, other))
    return str(first) == str(second)


def has_state(optimizer: Any) -> bool:
    """Tell whether something is lost with an optimizer: plain SGD knows nothing but its rate.

    Args:
        optimizer: A Keras optimizer.
    """
    is_plain = isinstance(optimizer, keras.optimizers.SGD) and not optimizer.momentum
    return _has_schedule(optimizer) or not is_plain


def _has_schedule(optimizer: Any) -> bool:
    config: Any = getattr(optimizer, "get_config", dict)()
    return isinstance(config.get("learning_rate"), Mapping)


def _finding(optimizer: Any, site: CallSite | None) -> Diagnosis:
    name, has_schedule = type(optimizer).__name__, _has_schedule(optimizer)
    stuck = (
        ", and its iteration counter starts at 0 again, so that the schedule of its learning rate "
        "(warm-up, decay) never gets beyond its first training steps"
    )
    return Diagnosis(
        symptom="optimizer-made-anew",
        cause=f"A new {name} is made again and again, most likely in each epoch, while "
        "the weights are kept: its state is lost each time. Momentum and averages start from zero"
        f"{stuck if has_schedule else ''}. (This may be intended, for a new task or cyclic "
        "rates.)",
        phase="optimizer",
        severity="warning" if has_schedule else "advice",
        confidence=0.94,
        suggestions=("make the optimizer once, before the loop over epochs",),
    ).at(vars(optimizer).get(SITE) or site)

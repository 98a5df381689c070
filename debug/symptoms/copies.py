"""A rule about copies of a network that must follow it: target networks of Q-learning."""

import functools
import linecache
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless
from headstart.debug.symptoms.variables import print_of

MIN_STEPS = 100
"""Training steps that leave a copy behind."""
_TARGET = re.compile(r"\btarget\w*\.set_weights\(|_target\w*\.set_weights\(", re.IGNORECASE)
"""A line that copies weights to what is called a target; a reference model stays on purpose."""


@dataclass
class _Copy:
    model: weakref.ref[Any]
    weights: int
    steps: int
    site: CallSite


class Copies:
    """Target networks of one program, and whether they follow what they are copies of.

    Attributes:
        num_steps: Tells how many training steps the program has taken.
    """

    def __init__(self) -> None:
        self.num_steps: Callable[[], int] = int
        self._known: dict[int, _Copy] = {}
        self._lines: set[tuple[str, int]] = set()

    def on_set_weights(self, model: Any) -> None:
        """Note that a model was given weights, if its name in that line says what it is for."""
        site = calling_site()
        if site is None or not _TARGET.search(linecache.getline(site.file, site.line)):
            return
        self._lines.add((site.file, site.line))
        self._known[id(model)] = _Copy(weakref.ref(model), _print_of(model), self.num_steps(), site)

    def diagnoses(self) -> list[Diagnosis]:
        """Return a finding for the first target that a training left behind."""
        for copy in self._known.values():
            model, steps = copy.model(), self.num_steps() - copy.steps
            if model is None or steps < MIN_STEPS or _print_of(model) != copy.weights:
                continue
            if copy.steps:  # it was brought up to date before, while the training went on
                continue
            unrun = self._never_run(copy.site.file)
            where = " (this line is never run)" if unrun else ""
            return [
                Diagnosis(
                    symptom="target-never-updated",
                    cause=f"The target network is a copy of the network as it was at the start: in "
                    f"{steps} training steps it is never updated{where}. Its targets stay those of "
                    "an untrained network.",
                    phase="model",
                    confidence=0.93,
                    suggestions=(
                        "every few hundred steps: target.set_weights(online.get_weights())",
                        "look at the condition under which that is done: does its counter count?",
                    ),
                    evidence={"steps": steps},
                ).at(unrun or copy.site)
            ]
        return []

    def _never_run(self, file: str) -> CallSite | None:
        """Return another line of the file that updates a target, if it was never run."""
        lines = enumerate(linecache.getlines(file), 1)
        found = [line for line, text in lines if _TARGET.search(text)]
        unrun = [line for line in found if (file, line) not in self._lines]
        return CallSite(file, unrun[0]) if unrun else None


def watch_copies(copies: Copies, num_steps: Callable[[], int]) -> None:
    """Have each `set_weights` of a model noted.

    Args:
        copies: Is told of each.
        num_steps: Tells how many training steps the program has taken.
    """
    import keras

    copies.num_steps = num_steps
    set_weights = keras.Model.set_weights

    @functools.wraps(set_weights)
    def set_and_note(model: Any, weights: Any) -> None:
        set_weights(model, weights)
        with harmless("the rule about target networks"):
            if isinstance(model, keras.Model):
                copies.on_set_weights(model)

    keras.Model.set_weights = set_and_note


def _print_of(model: Any) -> int:
    return hash(tuple(map(print_of, model.weights)))

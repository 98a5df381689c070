"""What can be said of a training before its first step, said then: it may take hours."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from headstart.debug.callsites import calling_site
from headstart.debug.guard import harmless
from headstart.debug.preflight import held_out, inputs
from headstart.debug.preflight.rules import RULES, Case, apply_rules, facts_for
from headstart.debug.preflight.run import placed
from headstart.debug.preflight.samples import restored
from headstart.debug.replay.taps import tap, untap

ROWS = 16
"""Rows that the model is run on: the activations of a deep network are large."""
_READS_DATA = (inputs.scale_of_splits, held_out.shared_rows, held_out.shared_with_stream)
"""Rules that go through the program's data once more: they can wait."""
_CERTAIN = [
    rule
    for rule in RULES
    if rule.told == "always" and not rule.only and rule.finds not in _READS_DATA
]


class Beforehand(keras.callbacks.Callback):  # type: ignore[misc]
    """Looks at a few rows before the first step and writes to stderr what cannot come to anything.

    When the training has ended it is judged as a whole, by the same rules and others: this is
    for those who wait.

    Args:
        given: What ``fit`` was given, by name.
    """

    needs_every_batch = False

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.given = given

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Wait for the first batch."""
        self.site = calling_site()
        with harmless("the look before the training"):
            tap(self.model, self)

    def on_batch(self, batch: Any, wait_s: float) -> None:
        """Judge the first batch (called by the tap)."""
        untap(self.model, self)
        if not self.model.built:  # the first call builds it, for the shape that it is called with
            return
        first = tf.nest.map_structure(lambda part: part[:ROWS], batch)
        with restored(self.model):
            facts = facts_for(self.model, self.given, [first], max_rows=ROWS)
            found = apply_rules(Case(self.model, self.given, facts, batches=[first]), _CERTAIN)
        for one in found:
            if one.severity == "error" and one.evidence.get("is_certain", True):
                there = placed(one, self.model, self.site)
                line = f" ({Path(there.file).name}:{there.line})" if there.file else ""
                print(f"headstart: before the training: {there.cause}{line}", file=sys.stderr)

    def on_step_error(self, error: BaseException) -> None:
        """Let go of the model: the step is judged elsewhere."""
        untap(self.model, self)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Let go of a model that was never shown a batch."""
        untap(self.model, self)

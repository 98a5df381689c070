"""A TF1 session whose variables are set back to their initial values again and again."""

from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis

MIN_RESTARTS = 2
"""Times that trained variables are set back before it is a habit."""
MAX_STEPS = 200
"""Steps from one restart to the next, all on rows that are fed once, that are still one epoch.
Trainings that are meant to be separate (folds, a search) see their rows many times."""
MAX_BLIND_STEPS = 3
"""... where nothing is fed, so that nobody can tell."""


class Restarts:
    """Counts what happens between two runs of the initialisers."""

    def __init__(self) -> None:
        self._steps = 0
        self._stages: list[int] = []
        self._fed: set[bytes] = set()
        self._repeats = False
        self._is_fed = False
        self._site: CallSite | None = None

    def on_run(self, graph: Any, fetches: Any, feed: Any) -> None:
        """Note a run of a session.

        Args:
            graph: Its graph.
            fetches: What was fetched.
            feed: The ``feed_dict``.
        """
        import tensorflow as tf

        ops = [one for one in fetched(fetches) if isinstance(one, tf.Operation)]
        if not ops:
            return
        variables = graph.get_collection("trainable_variables")
        initial = {variable.initializer for variable in variables}
        if any(_sets_back(op, initial) for op in ops):
            if self._steps:
                self._stages.append(self._steps)
                self._site = calling_site()
            self._steps, self._fed = 0, set()
            return
        self._steps += 1
        rows = _print_of(feed)
        if rows:
            self._is_fed = True
            self._repeats = self._repeats or rows in self._fed
            self._fed.add(rows)

    def diagnoses(self) -> list[Diagnosis]:
        """Return a finding, or none; call it when the program has ended."""
        most = MAX_STEPS if self._is_fed else MAX_BLIND_STEPS
        if len(self._stages) < MIN_RESTARTS or self._repeats or max(self._stages) > most:
            return []
        return [
            Diagnosis(
                symptom="variables-set-back",
                cause=f"The variables are initialised anew {len(self._stages)} times, after every "
                f"{max(self._stages)} training steps: global_variables_initializer runs inside the "
                "training loop, and what was learnt is thrown away each time.",
                phase="optimizer",
                confidence=0.97,
                suggestions=(
                    "run the initializer once, before the first loop: "
                    "sess.run(tf.global_variables_initializer())",
                ),
                evidence={"steps_between": self._stages[:20]},
            ).at(self._site)
        ]


def fetched(structure: Any) -> list[Any]:
    """Return the leaves of what a session fetches, or of what it returned.

    ``tf.nest`` sorts the keys of a dictionary; those of a hook's fetches cannot be sorted.

    Args:
        structure: A leaf, or lists, tuples and dictionaries of them.
    """
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, list | tuple):
        return [leaf for part in structure for leaf in fetched(part)]
    return [structure]


def _sets_back(op: Any, initial: set[Any], depth: int = 2) -> bool:
    """Tell whether an op sets trainable variables to their initial values."""
    if op in initial:
        return True
    return depth > 0 and any(_sets_back(one, initial, depth - 1) for one in op.control_inputs)


def _print_of(feed: Any) -> bytes:
    """Return bytes that tell one batch from another; empty where no rows are fed."""
    if not isinstance(feed, dict):
        return b""
    arrays = [np.asarray(value) for value in feed.values()]
    rows = [array for array in arrays if array.ndim and array.size and array.dtype.kind in "fiub"]
    return b"".join(array[:2].tobytes() + array[-1:].tobytes() for array in rows)

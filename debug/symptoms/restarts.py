"""A TF1 session whose variables are set back to initial values: in a loop, or once restored."""

import contextlib
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
        self._fed: set[int] = set()
        self._repeats = False
        self._is_fed = False
        self._site: CallSite | None = None
        self._restored: set[str] = set()
        self._lost_at: CallSite | None = None
        self._num_lost = 0

    def on_run(self, graph: Any, fetches: Any, feed: Any) -> None:
        """Note a run of a session."""
        import tensorflow as tf

        leaves = resolved(fetches, graph)
        restores = self._look_for_restored(graph, leaves)
        ops = [one for one in leaves if isinstance(one, tf.Operation)]
        if not ops or restores:
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
        if self._repeats or (not self._stages and self._steps > MAX_STEPS):
            return  # no restart can be a mistake any more
        rows = _print_of(feed)
        if rows:
            self._is_fed = True
            self._repeats = self._repeats or rows in self._fed
            self._fed.add(rows)

    def _look_for_restored(self, graph: Any, leaves: list[Any]) -> bool:
        """Note what a checkpoint sets, and whether the very next run sets it back.

        Returns:
            Whether this run restores.
        """
        written = {name for leaf in leaves for name in _written_by(leaf, "Restore")}
        if written:
            self._restored |= written
            return True
        if self._restored:
            variables = graph.get_collection("variables")
            first = {variable.initializer.name: variable.op.name for variable in variables}
            back = {first[name] for leaf in leaves for name in _names_below(leaf) if name in first}
            if self._restored <= back:
                self._lost_at, self._num_lost = calling_site(), len(self._restored)
        self._restored = set()
        return False

    def diagnoses(self) -> list[Diagnosis]:
        """Return a finding, or none; call it when the program has ended."""
        if self._lost_at is not None:
            return [
                Diagnosis(
                    symptom="variables-set-back",
                    cause=f"The {self._num_lost} variables that a checkpoint was restored into are "
                    "initialised right afterwards: the loaded values are thrown away, and the "
                    "model is untrained.",
                    phase="model",
                    confidence=0.97,
                    suggestions=(
                        "run global_variables_initializer before saver.restore, or not at all: "
                        "restored variables need no initialiser",
                    ),
                ).at(self._lost_at)
            ]
        most = MAX_STEPS if self._is_fed else MAX_BLIND_STEPS
        if len(self._stages) < MIN_RESTARTS or self._repeats or max(self._stages) > most:
            return []
        return [
            Diagnosis(
                symptom="variables-set-back",
                cause=f"The variables are initialised again {len(self._stages)} times, after every "
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


def resolved(fetches: Any, graph: Any) -> list[Any]:
    """Return what a session fetches, with tensors and ops in place of their names.

    Args:
        fetches: What the run was given; a Saver fetches its op by name.
        graph: The session's graph.
    """
    return [_named(one, graph) if isinstance(one, str) else one for one in fetched(fetches)]


def _named(name: str, graph: Any) -> Any:
    try:
        return graph.as_graph_element(name)
    except (KeyError, ValueError):
        return name


def _sets_back(op: Any, initial: set[Any], depth: int = 2) -> bool:
    """Tell whether an op sets trainable variables to their initial values."""
    if op in initial:
        return True
    return depth > 0 and any(_sets_back(one, initial, depth - 1) for one in op.control_inputs)


def _names_below(op: Any, depth: int = 2) -> set[str]:
    """Return the names of an op and of those that it only waits for."""
    if not hasattr(op, "control_inputs"):
        return set()
    below = [_names_below(one, depth - 1) for one in op.control_inputs] if depth else []
    return {op.name}.union(*below)


def _written_by(op: Any, source: str, depth: int = 3) -> set[str]:
    """Return the variables that an op, or what it waits for, sets to what ops of a type give."""
    if not hasattr(op, "control_inputs"):
        return set()
    if op.type.startswith("Assign"):
        givers = [tensor.op for tensor in op.inputs[1:]]
        givers += [tensor.op for giver in givers for tensor in giver.inputs]  # behind an Identity
        return {op.inputs[0].op.name} if any(g.type.startswith(source) for g in givers) else set()
    below = [_written_by(one, source, depth - 1) for one in op.control_inputs] if depth else []
    return set().union(*below)


def fed_arrays(feed: Any) -> list[tuple[Any, np.ndarray[Any, Any]]]:
    """Return the dense values that a session is fed, each with its placeholder.

    Args:
        feed: What the run was given; of a sparse tensor a tuple of three arrays.
    """
    arrays = []
    for placeholder, value in feed.items() if isinstance(feed, dict) else ():
        with contextlib.suppress(ValueError, TypeError):  # rows of several lengths
            if not hasattr(value, "_fields"):
                arrays.append((placeholder, np.asarray(value)))
    return arrays


def _print_of(feed: Any) -> int:
    """Return a number that tells one batch from another; 0 where no rows are fed."""
    arrays = [array for _, array in fed_arrays(feed)]
    rows = [array for array in arrays if array.ndim and array.size and array.dtype.kind in "fiub"]
    ends = b"".join(array[:2].tobytes() + array[-1:].tobytes() for array in rows)
    return hash(ends) if ends else 0

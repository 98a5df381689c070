"""Rules about training in TF1 sessions: what was minimised, by which optimizer, fed with what."""

import functools
import math
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.errors.no_gradient import user_line
from headstart.debug.guard import harmless
from headstart.debug.internals import private
from headstart.debug.running.session_kernels import SessionKernels
from headstart.debug.running.session_rates import SessionRates, ops_behind
from headstart.debug.source.shuffles import shuffled_apart
from headstart.debug.symptoms.batches import MAX_STEPS, Batches
from headstart.debug.symptoms.loss import divergence, falls_without_end, is_stuck
from headstart.debug.symptoms.restarts import Restarts, fed_arrays, resolved
from headstart.debug.symptoms.trace import TrainingTrace

LARGE = 100.0
"""Fed values from here on, of either sign, were not scaled."""
MIN_KERNELS = 2
"""Matrices in a row from which on equal initial values keep their units alike."""
_CHANGES = ("Apply", "ResourceApply", "SparseApply", "ResourceSparseApply", "Assign", "Scatter",
            "ResourceScatter", "Restore")  # fmt: skip
"""Starts of the types of ops that change variables."""
MIN_IDLE_RUNS = 30
"""Runs that train, or that fetch the loss and do not, before what they leave out is a mistake."""
MIN_CHANCE_RUNS = 100
AT_CHANCE = (0.97, 1.1)
"""The loss at the end, as a share of that of a constant answer, where nothing was learnt."""
TINY_RATE, HUGE_RATE, HUGE_ADAPTIVE_RATE = 1e-6, 1.0, 0.1


class OwnSessions:
    """What is known of the sessions of one program."""

    def __init__(self) -> None:
        self.loss_name = ""
        self.optimizer_site: CallSite | None = None
        self._optimizer: Any = None
        self._graph: Any = None
        self._loss: Any = None
        self._fed: tuple[str, float, float] | None = None
        self._fed_at: CallSite | None = None
        self._restarts = Restarts()
        self._rates = SessionRates()
        self._trains: dict[Any, bool] = {}
        self._idle_runs = 0
        self._idle_at: CallSite | None = None
        self._num_trained = 0
        self._optimizers: set[int] = set()
        self._yes = [0.0, 0.0]
        self._updated: set[Any] = set()
        self._batches = Batches()
        self._num_fed = {True: 0, False: 0}
        self._kernels = SessionKernels()

    def on_minimize(self, optimizer: Any, loss: Any) -> None:
        """Note what an optimizer of TF1's is to minimise."""
        self._optimizer, self.optimizer_site = optimizer, calling_site()
        self._optimizers.add(id(optimizer))
        self._loss = loss
        self.loss_name, self._graph = str(getattr(loss, "name", "")), getattr(loss, "graph", None)

    def on_run(
        self, graph: Any, fetches: Any, feed: Any, read: Callable[..., Any] | None = None
    ) -> None:
        """Note what a session ran, and what it was fed, as long as nothing large was.

        Args:
            graph: The session's graph.
            fetches: What it ran.
            feed: What it was fed.
            read: Runs tensors in the same session, unseen; None leaves them.
        """
        self._restarts.on_run(graph, fetches, feed)
        trains = self._loss is not None and self._look_for_training(graph, fetches)
        if trains and read is not None and graph is self._graph:
            with harmless("the look at matrices"):
                self._kernels.on_training_run(self._loss, self._num_trained, read)
        is_known = graph is self._graph and len(self._optimizers) == 1
        if read is not None and is_known and isinstance(feed, dict | None):
            with harmless("the look at the learning rate"):
                self._rates.on_run(self._optimizer, feed, read if trains else None)
        if not isinstance(feed, dict) or not self.loss_name or self._num_fed[trains] >= MAX_STEPS:
            return
        self._num_fed[trains] += 1
        arrays = fed_arrays(feed)
        if trains:
            rows = [array for _, array in arrays if array.ndim]
            self._look_at_rows(rows, are_all=len(arrays) == len(feed))
        for tensor, array in arrays if self._fed is None else ():
            if array.ndim < 2 or array.dtype.kind not in "fiu" or not array.size:
                continue
            low, high = float(array.min()), float(array.max())
            if max(abs(low), abs(high)) >= LARGE and array.shape[-1] != 1:
                self._fed = (str(getattr(tensor, "name", tensor)), low, high)
                self._fed_at = calling_site()

    def _look_at_rows(self, arrays: list[np.ndarray[Any, Any]], are_all: bool) -> None:
        """Note the batch of a training run, and count the labels 1 among those of 0 and 1."""
        tables = [one for one in arrays if one.ndim > 1]
        if tables and are_all:  # else what is not known, as sparse rows, may be what changes
            largest = max(tables, key=np.size)
            others = [one for one in arrays if one is not largest]
            self._batches.on_step(largest, None, calling_site(), others)
        for labels in arrays:
            if labels.size == len(labels) and np.isin(labels, (0, 1)).all():
                self._yes[0] += float(labels.sum())
                self._yes[1] += labels.size

    def _look_for_training(self, graph: Any, fetches: Any) -> bool:
        """Note whether a run changes variables: by an optimizer, by hand, or from a checkpoint."""
        trains = False
        for one in resolved(fetches, graph):
            op = getattr(one, "op", one)
            if op not in self._trains:
                behind = ops_behind(op, _initializers(graph))
                self._trains[op] = any(other.type.startswith(_CHANGES) for other in behind)
                self._updated |= behind & _updates(graph)
                self._kernels.on_behind(behind)
            trains = trains or self._trains[op]
            if one is self._loss:
                self._idle_runs += 1
                self._idle_at = calling_site()
        self._num_trained += trains
        return trains

    def _untrained(self) -> list[Diagnosis]:
        """Find a loss that is looked at again and again, and that no run ever minimises."""
        if self._num_trained or self._idle_runs < MIN_IDLE_RUNS:
            return []
        return [
            _diagnosis(
                "weights-never-change",
                "The training op that minimize returned is never run: none of the "
                f"{self._idle_runs} session runs that fetch the loss fetches it too, so the "
                "weights never change.",
                self._idle_at,
                0.96,
                "optimizer",
                "fetch it with the loss: _, value = sess.run([train_op, loss], feed_dict=…)",
            )
        ]

    def _without_updates(self) -> list[Diagnosis]:
        """Find moving averages of BatchNormalization that a training leaves as they were made."""
        updates = set() if self._graph is None else _updates(self._graph)
        if self._num_trained < MIN_IDLE_RUNS or not updates or updates & self._updated:
            return []
        return [
            _diagnosis(
                "batchnorm-mode",
                f"The {len(updates)} update ops (tf.GraphKeys.UPDATE_OPS) are never run: the "
                "moving mean and variance of batch normalisation keep their initial values, which "
                "inference then uses.",
                self.optimizer_site,
                0.95,
                "optimizer",
                "make the training op depend on them: with tf.control_dependencies("
                "tf.get_collection(tf.GraphKeys.UPDATE_OPS)): train_op = optimizer.minimize(loss)",
            )
        ]

    def _still(self, losses: list[float]) -> list[Diagnosis]:
        """Find a training that changes nothing: the loss is the same number in every run."""
        if self._num_trained < MIN_IDLE_RUNS or len(losses) < MIN_IDLE_RUNS:
            return []
        if not math.isfinite(losses[0]) or np.ptp(losses) != 0.0:  # NaN is not 0 either
            return []
        return [
            _diagnosis(
                "weights-never-change",
                f"The loss is exactly {losses[0]:.6g} in all {len(losses)} session runs, although "
                "the training op is run: the learning rate (as fed or computed) is 0, or the "
                "gradients are 0.",
                self.optimizer_site,
                0.93,
                "optimizer",
                "fetch the learning rate and the norm of the gradients with the loss",
            )
        ]

    def _at_chance(self, losses: list[float]) -> list[Diagnosis]:
        """Find a cross-entropy that ends where a constant answer has it; two models' may."""
        yes, rows = self._yes
        if not 0.0 < yes < rows or len(losses) < MIN_CHANCE_RUNS or len(self._optimizers) > 1:
            return []
        share = yes / rows
        constant = -share * math.log(share) - (1.0 - share) * math.log(1.0 - share)
        last = float(np.mean(losses[-len(losses) // 4 :]))
        if not AT_CHANCE[0] * constant < last < AT_CHANCE[1] * constant:
            return []
        apart = shuffled_apart(self.optimizer_site.file) if self.optimizer_site else None
        why = (
            "Inputs and labels are shuffled here separately, each in its own order: labels "
            "no longer belong to their rows (shuffled apart)."
            if apart
            else "The predictions do not depend on the inputs, or labels do not match their rows."
        )
        found = _diagnosis(
            "no-better-than-constant",
            f"Nothing is learnt: the loss ends at {last:.4g}, and a constant answer gives "
            f"{constant:.4g}. {why}",
            apart or self.optimizer_site,
            0.93 if apart else 0.6,
            "data",
            "shuffle both in the same order: order = rng.permutation(len(x)); x[order], y[order]",
        )
        return [found if apart else replace(found, severity="warning")]

    def diagnoses(self, histories: dict[str, list[float]], is_broken: bool) -> list[Diagnosis]:
        """Judge the training; call it when the program has ended.

        Args:
            histories: Fetched numbers by the name of their tensor.
            is_broken: Whether the program ended in NaN or Inf.

        Returns:
            The findings: causes of a loss that grew, or never fell.
        """
        trace = TrainingTrace(losses=histories.get(self.loss_name, []))
        endless = falls_without_end(trace)
        if endless:
            site = user_line(self._loss.op)
            return [one.at(site) for one in endless]
        restarts = [
            *self._restarts.diagnoses(),
            *self._untrained(),
            *self._without_updates(),
            *self._batches.same_batch(),
            *self._kernels.diagnoses(trace.losses),
        ]
        at_chance = self._at_chance(trace.losses)
        rising = self._rates.diagnoses(trace.losses, self.optimizer_site)
        still = self._still(trace.losses)
        goes_badly = is_broken or divergence(trace) or is_stuck(trace) or at_chance or still
        if rising:
            return [*restarts, *rising]
        if restarts or not self.loss_name or not goes_badly:
            return restarts
        known = [*self._unscaled(), *self._rate(), *self._alike()]
        return known or still or at_chance

    def _unscaled(self) -> list[Diagnosis]:
        if self._fed is None:
            return []
        name, low, high = self._fed
        return [
            _diagnosis(
                "unscaled-input",
                f"The inputs are not scaled (not normalised): placeholder {name!r} is fed values "
                f"from {low:.4g} to {high:.4g}.",
                self._fed_at,
                0.93,
                "data",
                "standardise the columns, or divide pixels by 255, before they are fed",
            )
        ]

    def _rate(self) -> list[Diagnosis]:
        kind = type(self._optimizer).__name__
        value = getattr(self._optimizer, "_learning_rate", getattr(self._optimizer, "_lr", None))
        if not isinstance(value, int | float):
            return []
        limit = HUGE_RATE if kind == "GradientDescentOptimizer" else HUGE_ADAPTIVE_RATE
        side = "high" if value >= limit else "low" if 0.0 <= value <= TINY_RATE else ""
        if not side:
            return []
        return [
            _diagnosis(
                f"learning-rate-too-{side}",
                f"The learning rate {value:g} is too {side} for {kind}.",
                self.optimizer_site,
                0.92,
                "optimizer",
                "Adam: about 0.001; gradient descent: about 0.01 to 0.1",
            )
        ]

    def _alike(self) -> list[Diagnosis]:
        """Find matrices that begin with equal values in every column."""
        import tensorflow as tf

        kernels = [one for one in self._graph.get_collection("trainable_variables")
                   if len(one.shape) == 2 and one.shape[1] != 1]  # fmt: skip
        values = [tf.get_static_value(one.initializer.inputs[1]) for one in kernels]
        alike = [one for one, value in zip(kernels, values, strict=True)
                 if value is not None and math.isclose(np.ptp(value), 0.0)]  # fmt: skip
        if len(kernels) < MIN_KERNELS or not alike:
            return []
        site = next(
            (CallSite(frame.filename, frame.lineno) for frame in reversed(alike[0].op.traceback)
             if frame.filename == getattr(self.optimizer_site, "file", None)), None,
        )  # fmt: skip
        return [
            _diagnosis(
                "constant-initialisation",
                f"Variable {alike[0].name!r} starts with equal values (zero or constant "
                "initialisation): nothing tells its units apart, so they all learn the same, or "
                "nothing at all.",
                site,
                0.95,
                "model",
                "start with small random values: tf.random.truncated_normal(shape, stddev=0.1)",
            )
        ]


def _diagnosis(
    symptom: str, cause: str, site: CallSite | None, confidence: float, phase: Any, *tries: str
) -> Diagnosis:
    return Diagnosis(
        symptom=symptom,
        cause=cause,
        phase=phase,
        confidence=confidence,
        suggestions=tries,
    ).at(site)


def _initializers(graph: Any) -> set[Any]:
    kept = ("variables", "local_variables")
    return {variable.initializer for name in kept for variable in graph.get_collection(name)}


def _updates(graph: Any) -> set[Any]:
    return {getattr(one, "op", one) for one in graph.get_collection("update_ops")}


def watch_minimizers(sessions: OwnSessions) -> None:
    """Let every optimizer of TF1's tell what it is to minimise.

    What a program gives to ``apply_gradients`` itself it has from ``tf.gradients``.
    """
    import tensorflow as tf

    kind, differentiate = tf.compat.v1.train.Optimizer, private("gradients_helper")
    compute, apply = kind.compute_gradients, kind.apply_gradients
    known: weakref.WeakSet[Any] = weakref.WeakSet()
    differentiated: list[Any] = [None]

    @functools.wraps(compute)
    def compute_and_tell(optimizer: Any, loss: Any, *args: Any, **kwargs: Any) -> Any:
        known.add(optimizer)
        with harmless("the watch over sessions"):
            sessions.on_minimize(optimizer, loss)
        return compute(optimizer, loss, *args, **kwargs)

    @functools.wraps(differentiate)
    def differentiate_and_keep(ys: Any, *args: Any, **kwargs: Any) -> Any:
        with harmless("the watch over sessions"):
            parts = tf.nest.flatten(ys)
            if len(parts) == 1 and parts[0].shape.rank == 0:  # a loss, and no penalty's part
                differentiated[0] = weakref.ref(parts[0])
        return differentiate(ys, *args, **kwargs)

    @functools.wraps(apply)
    def apply_and_tell(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        with harmless("the watch over sessions"):
            loss = None if differentiated[0] is None else differentiated[0]()
            if optimizer not in known and loss is not None:
                known.add(optimizer)
                sessions.on_minimize(optimizer, loss)
        return apply(optimizer, *args, **kwargs)

    kind.compute_gradients, kind.apply_gradients = compute_and_tell, apply_and_tell
    # The many names of tf.gradients all come here.
    setattr(sys.modules[differentiate.__module__], differentiate.__name__, differentiate_and_keep)

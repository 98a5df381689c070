"""Rules about training in TF1 sessions: what was minimised, by which optimizer, fed with what."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.errors.no_gradient import user_line
from headstart.debug.guard import harmless
from headstart.debug.symptoms.loss import divergence, falls_without_end, is_stuck
from headstart.debug.symptoms.restarts import Restarts
from headstart.debug.symptoms.trace import TrainingTrace

LARGE = 100.0
"""Fed values from here on, of either sign, were not scaled."""
MIN_KERNELS = 2
"""Matrices in a row from which on equal initial values keep their units alike."""
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

    def on_minimize(self, optimizer: Any, loss: Any) -> None:
        """Note what an optimizer of TF1's is to minimise.

        Args:
            optimizer: The optimizer.
            loss: The tensor.
        """
        self._optimizer, self.optimizer_site = optimizer, calling_site()
        self._loss = loss
        self.loss_name, self._graph = str(getattr(loss, "name", "")), getattr(loss, "graph", None)

    def on_run(self, graph: Any, fetches: Any, feed: Any) -> None:
        """Note what a session ran, and what it was fed, as long as nothing large was.

        Args:
            graph: Its graph.
            fetches: What was fetched.
            feed: The ``feed_dict``.
        """
        self._restarts.on_run(graph, fetches, feed)
        if not isinstance(feed, dict) or self._fed is not None or not self.loss_name:
            return
        for tensor, value in feed.items():
            array = np.asarray(value)
            if array.ndim < 2 or array.dtype.kind not in "fiu" or not array.size:
                continue
            low, high = float(array.min()), float(array.max())
            if max(abs(low), abs(high)) >= LARGE and array.shape[-1] != 1:
                self._fed = (str(getattr(tensor, "name", tensor)), low, high)
                self._fed_at = calling_site()

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
            return [replace(one, file=site.file, line=site.line).with_source() if site else one
                    for one in endless]  # fmt: skip
        restarts = self._restarts.diagnoses()
        goes_badly = is_broken or divergence(trace) or is_stuck(trace)
        if restarts or not self.loss_name or not goes_badly:
            return restarts
        return [*self._unscaled(), *self._rate(), *self._alike()]

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
                f"Variable {alike[0].name!r} begins with equal values (zero or constant "
                "initialisation): nothing tells its units apart, they all learn the same, or "
                "nothing at all.",
                site,
                0.95,
                "model",
                "begin with small random values: tf.random.truncated_normal(shape, stddev=0.1)",
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


def watch_minimizers(sessions: OwnSessions) -> None:
    """Let every optimizer of TF1's tell what it is to minimise.

    Args:
        sessions: Whom to tell.
    """
    import tensorflow as tf

    kind = tf.compat.v1.train.Optimizer
    compute = kind.compute_gradients

    def compute_and_tell(optimizer: Any, loss: Any, *args: Any, **kwargs: Any) -> Any:
        with harmless("the watch over sessions"):
            sessions.on_minimize(optimizer, loss)
        return compute(optimizer, loss, *args, **kwargs)

    kind.compute_gradients = compute_and_tell

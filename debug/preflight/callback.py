"""Preflight as a Keras callback: ``model.fit(..., callbacks=[Preflight()])``.

It looks at the first batch before its step is taken, within about a second, and at the order of
the labels in the first steps. Training goes on as if it had not been there, to the bit.
"""

import logging
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis, ranked
from headstart.debug.preflight import data as preflight_data
from headstart.debug.preflight.rules import Case, facts_for
from headstart.debug.preflight.run import check_case, placed
from headstart.debug.preflight.samples import Sample, take_sample
from headstart.debug.replay.taps import tap, untap
from headstart.errors import TrainingError

BUDGET_S = 0.6
"""Seconds after which no further check is begun; one more may be under way."""
MAX_ROWS = 64
"""Rows of the first batch that are looked at."""
ORDER_STEPS = 8
"""First steps whose labels are looked at for their order."""
CERTAIN = ("label-out-of-range", "label-format")
"""Findings with which nothing can come of the training."""

_log = logging.getLogger("headstart.debug")


class Preflight(keras.callbacks.Callback):  # type: ignore[misc]
    """Checks model and data as training begins.

    Args:
        stops: Whether a finding that leaves no hope (`CERTAIN`) ends the training; else it is
            told like the others.

    Attributes:
        diagnoses: The findings, most likely first.

    Raises:
        TrainingError: From ``fit``, where it stops the training.

    Example:
        >>> preflight = Preflight()
        >>> model.fit(x, y, callbacks=[preflight])
        >>> preflight.diagnoses
    """

    needs_every_batch = True

    def __init__(self, stops: bool = True) -> None:
        super().__init__()
        self.stops = stops
        self.diagnoses: list[Diagnosis] = []
        self._site: CallSite | None = None
        self._labels: list[npt.NDArray[np.int64]] = []
        self._sample: Sample | None = None
        self._num_batches = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Wait for the first batch."""
        self.diagnoses, self._labels, self._sample, self._num_batches = [], [], None, 0
        self._site = calling_site()
        tap(self.model, self)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Let go of the model, and judge the order of what was seen of a short training."""
        self._let_go()

    def on_step_error(self, error: BaseException) -> None:
        """Let go of the model: Keras calls no ``on_train_end`` after an exception."""
        self._let_go()

    def on_batch(self, batch: Any, wait_s: float) -> None:
        """Check the first batch, and note the labels of the first few (called by the tap)."""
        self._num_batches += 1
        if self._num_batches == 1:
            self._check(batch)
        if self._sample is not None and self._num_batches <= ORDER_STEPS:
            y = keras.utils.unpack_x_y_sample_weight(batch)[1]
            if hasattr(y, "shape"):
                self._labels.append(self._sample.objective.labels(np.asarray(y)))
        if self._num_batches == ORDER_STEPS:
            self._let_go()

    def _let_go(self) -> None:
        untap(self.model, self)
        if self._sample is None:
            return
        found = preflight_data.order_of(np.concatenate(self._labels or [_NONE]), self._sample)
        self._keep(found)
        self._sample, self._labels = None, []

    def _check(self, batch: Any) -> None:
        first = tf.nest.map_structure(lambda part: part[:MAX_ROWS], batch)
        try:
            self._sample = take_sample(self.model, [first], 1)
            case = Case(self.model, {}, facts_for(self.model, {}, [first]), batches=[first])
            self._keep(check_case(case, self._sample, total_s=BUDGET_S))
            for metric in self.model.metrics:
                metric.reset_state()  # some count losses wherever they are computed
        except Exception as error:  # whatever a model is, checking it must not end its training
            _log.debug("the preflight could not be made: %r", error)
        certain = [found for found in self.diagnoses if found.symptom in CERTAIN]
        if certain and self.stops:
            raise TrainingError(
                "labels, last layer and loss do not fit together",
                certain[0].cause,
                "; ".join(certain[0].suggestions),
            )

    def _keep(self, found: list[Diagnosis]) -> None:
        new = (placed(diagnosis, self.model, self._site) for diagnosis in found)
        self.diagnoses = ranked([*self.diagnoses, *new])


_NONE = np.zeros(0, np.int64)

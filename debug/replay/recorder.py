"""Flight recorder: the last batches and weights of a training run, kept for when it fails.

    with FlightRecorder(model, folder) as recorder:
        model.fit(dataset)                      # on failure: folder/crash-<step>/

While armed it holds references to the last batches and, every few steps, to the weights and the
optimizer's state as they were *before* a step (by the time a callback sees NaN the weights hold it
as well). References cost nothing; TensorFlow copies a variable once when the next step writes to
it. Memory: at most two copies of weights and optimizer state, and the batches since the older of
the two, all of it within ``max_bytes``. Where that has no room for a few steps, nothing is held.
"""

import logging
import math
import random
from pathlib import Path
from types import TracebackType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headstart.debug.guard import harmless
from headstart.debug.internals import private
from headstart.debug.replay.bundle import write_bundle
from headstart.debug.replay.flight import Flight, Snapshot
from headstart.debug.replay.taps import tap, untap

SNAPSHOT_EVERY = 32
"""Steps from one snapshot of the weights to the next."""
MAX_BYTES = 512 * 2**20
"""Most bytes of batches and snapshots held; with larger batches snapshots come more often."""
LEAST_APART = 2
"""Steps from one snapshot to the next where batches are large; more often would cost too much."""

_log = logging.getLogger("headstart.debug")


class NonFiniteLossError(ArithmeticError):
    """The loss of a step is NaN or Inf (raised by the recorder where it is told to stop)."""


class LastSteps(keras.callbacks.Callback):  # type: ignore[misc]
    """Holds the last steps of a training; give it to ``fit`` as a callback.

    Args:
        every: Steps from one snapshot to the next.
        max_bytes: Most bytes held, of batches and two snapshots together; a training with a larger
            model, or larger batches, is let go of.
    """

    needs_every_batch = False
    loudness = logging.DEBUG
    """Of what it says of itself: nobody asked for this one."""

    def __init__(self, every: int = SNAPSHOT_EVERY, max_bytes: int = MAX_BYTES) -> None:
        super().__init__()
        self.every = every
        self.max_bytes = max_bytes
        self.flight = Flight()
        self._num_bytes_since = 0
        self._room = max_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes of the batches and snapshots held now (one snapshot may share the live weights)."""
        batches = sum(_num_bytes(batch) for _, batch in self.flight.batches)
        return batches + sum(_num_bytes(snapshot.values) for snapshot in self.flight.snapshots)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Start with empty hands and tap the training loop."""
        self.flight = Flight()
        with harmless("the flight recorder"):
            tap(self.model, self)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Let go of the model and of everything held."""
        self.let_go()

    def on_batch(self, batch: Any, wait_s: float) -> None:
        """Keep a batch, and before every few steps the state (called by the tap)."""
        flight = self.flight
        if flight.step < 0:
            _build_optimizer(self.model)
        flight.step += 1
        flight.batches.append((flight.step, batch))
        self._num_bytes_since += _num_bytes(batch)
        if flight.step < 2 and not self._has_room():  # a model may be built in its first step
            return
        is_full = self._is_full()
        if is_full and (2 * _num_bytes(batch) > self._room or self._is_close()):
            self._give_up(f"batches of {_num_bytes(batch):,} bytes leave no room for a few")
            return
        is_due = flight.step % self.every == 0 or flight.step == 1  # the first step may build
        if not flight.snapshots or is_due or is_full:
            flight.snapshots.append(self._snapshot())
            self._num_bytes_since = _num_bytes(batch)
            oldest = flight.snapshots[0].step
            while flight.batches and flight.batches[0][0] < oldest:
                flight.batches.popleft()

    def on_step_error(self, error: BaseException) -> None:
        """Let go: Keras calls no ``on_train_end`` after an exception."""
        self.let_go()

    def let_go(self) -> None:
        """Leave the training loop and forget what was held."""
        with harmless("the flight recorder"):
            untap(self.model, self)
        self.flight = Flight()

    def _has_room(self) -> bool:
        """Whether two snapshots fit the bound; else the recorder lets go of this training."""
        weights = sum(
            tf.as_dtype(variable.dtype).size * int(np.prod(variable.shape))
            for variable in recorded_variables(self.model)
        )
        self._room = self.max_bytes - 2 * weights
        if self._room < 0:
            self._give_up(f"two snapshots of {weights:,} bytes each have no room")
        return self._room >= 0

    def _give_up(self, why: str) -> None:
        _log.log(
            self.loudness, "no flight recorder: %s in max_bytes=%s", why, f"{self.max_bytes:,}"
        )
        self.let_go()

    def _is_full(self) -> bool:
        """Whether the batches since the last snapshot take half of what snapshots leave."""
        return 2 * self._num_bytes_since > self._room

    def _is_close(self) -> bool:
        """Whether the last snapshot was taken only just before."""
        taken = self.flight.snapshots
        return bool(taken) and self.flight.step - taken[-1].step < LEAST_APART

    def _snapshot(self) -> Snapshot:
        state = np.random.get_state(legacy=False)  # noqa: NPY002
        variables = tuple(recorded_variables(self.model))
        return Snapshot(
            step=self.flight.step,
            variables=variables,
            values=tuple(variable.value.read_value() for variable in variables),
            python_random=random.getstate(),
            numpy_random=dict(state) if isinstance(state, dict) else {},
            tf_generator=_generator_state(),
        )


class FlightRecorder(LastSteps):
    """Records a training run and writes a crash bundle when a step fails.

    A step fails when it raises, or when its loss is NaN or Inf. Give it to ``fit`` as a callback.

    Args:
        folder: Where bundles are written, each into a folder of its own.
        every: Steps from one snapshot to the next.
        max_bytes: Most bytes of batches and snapshots held.
        stops_on_nan: Whether a loss of NaN or Inf ends the training by raising
            `NonFiniteLossError`; else the first is recorded and the training goes on.
    """

    needs_every_batch = True
    loudness = logging.WARNING

    def __init__(
        self,
        folder: Path,
        every: int = SNAPSHOT_EVERY,
        max_bytes: int = MAX_BYTES,
        stops_on_nan: bool = False,
    ) -> None:
        super().__init__(every, max_bytes)
        self.folder = Path(folder)
        self.stops_on_nan = stops_on_nan
        self.bundle: Path | None = None

    def __enter__(self) -> "FlightRecorder":
        """Arm the recorder; the callback does the rest."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write a bundle where an exception left the block after the last step began."""
        if isinstance(error, Exception) and self.bundle is None and self.flight.step >= 0:
            self.on_step_error(error)

    def on_batch(self, batch: Any, wait_s: float) -> None:
        """Keep a batch; before the first step make what the step would make (called by the tap)."""
        if self.flight.step < 0:
            _build(self.model, batch)
        super().on_batch(batch, wait_s)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Note the loss and write a bundle where it is NaN or Inf."""
        loss = float(np.mean((logs or {}).get("loss", 0.0)))
        self.flight.losses[self.flight.step] = loss
        if math.isfinite(loss) or self.bundle is not None:
            return
        error = NonFiniteLossError(f"The loss of step {self.flight.step} is {loss}.")
        self._write(error)
        if self.stops_on_nan:
            self.let_go()
            raise error

    def on_step_error(self, error: BaseException) -> None:
        """Write the crash bundle and let go."""
        if self.bundle is None:
            self._write(error)
        super().on_step_error(error)

    def _write(self, error: BaseException) -> None:
        """Write the bundle; what goes wrong there never hides the error itself."""
        try:
            self.bundle = write_bundle(self.folder, self.flight, self.model, error)
            _log.warning("crash bundle: %s", self.bundle)
        except Exception as problem:
            _log.warning("no crash bundle could be written: %r", problem)


def recorded_variables(model: Any) -> list[Any]:
    """Return what a training step may change: weights and seeds, optimizer state, metrics.

    Args:
        model: A compiled Keras model.

    Returns:
        Keras variables, each once; those of the model first and of metrics last, in an order
        that depends on nothing but the architecture.
    """
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    found = [*model.variables, *model.optimizer.variables, *metrics]
    return list({id(variable): variable for variable in found}.values())


def _build_optimizer(model: Any) -> None:
    """Make the optimizer's variables before the first step, where Keras's own step would in it.

    A step of the program's own may give an optimizer other variables than the model's.
    """
    is_keras = type(model).train_step is private("KerasTrainer").train_step
    if is_keras and model.built and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _build(model: Any, batch: Any) -> None:
    """Make all variables before the first step, as that step would: its state is worth keeping."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    try:
        if not model.built or not model.variables:
            model(tf.nest.map_structure(lambda part: part[:1], x), training=False)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    except Exception as error:  # the step itself will say so, and better
        _log.debug("the model could not be built before its first step: %r", error)


def _generator_state() -> Any:
    """Return the state of TensorFlow's global generator; None where a program is deterministic.

    TensorFlow makes no generator then, unless the program has set one.
    """
    try:
        return tf.random.get_global_generator().state.read_value()
    except RuntimeError:
        return None


def _num_bytes(structure: Any) -> int:
    parts = tf.nest.flatten(structure)
    return sum(
        part.dtype.size * (part.shape.num_elements() or 0)
        for part in parts
        if isinstance(part, tf.Tensor)
    )

"""A tap on Keras's training loop: what each step is fed, and when a step fails.

Callbacks see only logs. Keras calls ``model.train_function(iterator)`` once a step and takes any
Python iterator in place of a ``tf.data`` one; the tap draws the batch itself, shows it to its
listeners (a reference, never a copy) and hands it on to Keras's own step. Numerics, order and
graph of the training are Keras's.
"""

import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import tensorflow as tf

from headstart.debug.guard import harmless

_KERAS_FUNCTION = "TensorFlowTrainer._make_function."


class BatchListener(Protocol):
    """What wants to see a training run from inside the loop."""

    needs_every_batch: bool
    """Whether steps that Keras runs together (``steps_per_execution``) are taken one by one."""

    def on_batch(self, batch: Any, wait_s: float) -> None:
        """Take note of a batch that was drawn and is about to be trained on.

        Args:
            batch: What the data set yields: a tuple ``(x, y)`` or ``(x, y, weights)`` of tensors.
            wait_s: Seconds the training waited for it.
        """
        ...

    def on_step_error(self, error: BaseException) -> None:
        """Take note that the step of the batch last seen, or drawing the next one, failed.

        Args:
            error: The exception; it is raised on afterwards.
        """
        ...


class StepTap:
    """Stands in for ``model.train_function`` and calls it, batch by batch.

    A train function that is not Keras's own, and an iterator that is not one of tf.data's (a
    distribution strategy has its own), are left as they are: their batches are not seen.

    Args:
        inner: Keras's own train function.
        steps_per_execution: Batches that one call trains on.
    """

    def __init__(self, inner: Callable[[Any], Any], steps_per_execution: int) -> None:
        self.inner = inner
        self.steps_per_execution = steps_per_execution
        self.listeners: list[BatchListener] = []
        self._traced_for: Any = None
        self._is_keras = getattr(inner, "__qualname__", "").startswith(_KERAS_FUNCTION)

    def __call__(self, iterator: Any) -> Any:
        """Train on the next batches of the iterator and return Keras's logs."""
        try:
            if not self._can_draw(iterator):
                return self.inner(iterator)
            first = self._draw(iterator)  # StopIteration here ends the epoch, as in Keras
            self._trace_as_keras_would(iterator.element_spec)
            return self.inner(self._batches(first, iterator))
        except StopIteration:
            raise
        except Exception as error:
            for listener in tuple(self.listeners):  # some take their leave
                with harmless(type(listener).__name__):
                    listener.on_step_error(error)
            raise

    def _can_draw(self, iterator: Any) -> bool:
        is_wanted = self.steps_per_execution == 1 or any(
            listener.needs_every_batch for listener in self.listeners
        )
        return is_wanted and self._is_keras and isinstance(iterator, tf.data.Iterator)

    def _trace_as_keras_would(self, spec: Any) -> None:
        """Trace the step for the shapes that the data set promises, not for those of this batch.

        With the batch's own shape, errors of the step would read differently.
        """
        if self._traced_for is not None and self._traced_for == spec:
            return
        self._traced_for = spec
        step = inspect.getclosurevars(self.inner).nonlocals.get("one_step_on_data")
        function: Any = getattr(step, "__wrapped__", step)
        if not hasattr(function, "get_concrete_function"):  # run eagerly
            return
        function.get_concrete_function(
            tf.nest.map_structure(
                lambda part: None if isinstance(part, tf.OptionalSpec) else part, spec
            )
        )

    def _batches(self, first: Any, iterator: Any) -> Iterator[Any]:
        yield first
        for _ in range(self.steps_per_execution - 1):
            try:
                batch = self._draw(iterator)
            except StopIteration:  # a generator may not leak it
                return
            yield batch

    def _draw(self, iterator: Any) -> Any:
        start = time.perf_counter()
        batch = next(iterator)
        wait_s = time.perf_counter() - start
        for listener in tuple(self.listeners):
            with harmless(type(listener).__name__):
                listener.on_batch(batch, wait_s)
        return batch


def tap(model: Any, listener: BatchListener) -> None:
    """Let a listener see every training batch of a model from now on.

    Call it after ``model.make_train_function()``: in a callback, from ``on_train_begin`` on.

    Args:
        model: A compiled Keras model.
        listener: Who wants to see; adding it twice changes nothing.
    """
    current = model.train_function
    if not isinstance(current, StepTap):
        current = StepTap(current, int(model.steps_per_execution))
        model.train_function = current
    if listener not in current.listeners:
        current.listeners.append(listener)


def untap(model: Any, listener: BatchListener) -> None:
    """Stop showing batches to a listener; with the last one gone the model is as it was.

    Args:
        model: The model given to `tap`.
        listener: The listener given to `tap`.
    """
    current = model.train_function
    if not isinstance(current, StepTap):  # compiled anew meanwhile
        return
    if listener in current.listeners:
        current.listeners.remove(listener)
    if not current.listeners:
        model.train_function = current.inner


def step_traced_anew(model: Any) -> Callable[[Any], Any]:
    """Return the training step of a tapped model, traced again, as a function of a batch.

    Args:
        model: A model whose training was tapped.

    Returns:
        The step; it returns Keras's logs.
    """
    spec = model.train_function._traced_for
    model.steps_per_execution = 1
    model.make_train_function(force=True)
    step = StepTap(model.train_function, 1)
    step._trace_as_keras_would(spec)
    return lambda batch: step.inner(iter([batch]))

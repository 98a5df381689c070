"""The first sign that a program fails: a NaN or Inf in a log, a result or a variable."""

import gc
import math
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.debug.diagnosis import StepUnit
from headstart.debug.guard import harmless
from headstart.debug.internals import private
from headstart.debug.running.watched import watched

MIN_SKIPPED_STEPS = 4
"""Steps skipped by loss scaling from the first on, after which something is broken."""
MAX_CHECKED_ELEMENTS = 1 << 24
"""Larger variables are not checked at the end."""


class FaultSeen(BaseException):
    """Ends the program once the sign was seen; a BaseException, so that it is not swallowed."""


@dataclass(frozen=True)
class Sign:
    """The first sign of a numerical fault.

    Args:
        where: ``loss``, ``metric``, ``result``, ``gradient`` or ``variable``.
        name: The metric's, function's or variable's name.
        value: The value, such as ``nan``.
        step: When it was seen, counted from 0 over all epochs; None where not known.
        step_unit: What ``step`` counts.
        batch: Batch within its epoch; None where not known.
        file: The user's line that was running.
        line: Number of that line.
        is_training: Whether a training step showed it, and not a validation.
    """

    where: str
    name: str
    value: str
    step: int | None = None
    batch: int | None = None
    file: str | None = None
    line: int | None = None
    is_training: bool = True
    step_unit: StepUnit = "training step"

    def to_dict(self) -> dict[str, Any]:
        """Return every field as JSON values."""
        return asdict(self)


def end_program(sign: Sign) -> None:
    """End the program at a sign.

    Raises:
        FaultSeen: Always. In another thread than the main one, which may wait for it without end,
            that one is interrupted, too.
    """
    if threading.current_thread() is not threading.main_thread():
        main = threading.main_thread().ident
        if main is not None and hasattr(signal, "pthread_kill"):  # a wait ends only by a signal
            signal.pthread_kill(main, signal.SIGINT)
    raise FaultSeen(sign.name)


def sign_callback(watch: Any) -> Any:
    """Return a Keras callback that looks at every log for the first sign.

    Args:
        watch: Told of the first sign.
    """
    import keras

    class SignCallback(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.step = -1

        def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
            with harmless("the watch over Keras"):
                if _never_updated(self.model, self.step + 1):
                    watch.note(Sign("gradient", "every gradient", "inf", self.step), self.model)

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            self.step += 1
            watched.note("steps")
            with harmless("the watch over Keras"):
                self._look(batch, logs or {}, is_training=True)

        def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            with harmless("the watch over Keras"):
                self._look(batch, logs or {}, is_training=False)

        def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            with harmless("the watch over predict"):
                for output in keras.tree.flatten((logs or {}).get("outputs")):
                    values = np.asarray(output)
                    # Inf may well be meant: a mask of actions, or of tokens, in the answer.
                    if values.dtype.kind == "f" and np.isnan(values).any():
                        watch.note(Sign("result", "predict", "nan", batch=batch), self.model)

        def _look(self, batch: int, logs: dict[str, Any], *, is_training: bool) -> None:
            for name, value in logs.items():
                if np.size(value) != 1:
                    continue
                number = float(np.asarray(value).reshape(()))
                watched.note_metric(name, number)
                if name == "loss":
                    watch.losses.note("loss", number)
                if not math.isfinite(number):
                    where = "loss" if "loss" in name else "metric"
                    step = self.step if self.step >= 0 else None
                    sign = Sign(where, name, str(number), step, batch, is_training=is_training)
                    watch.note(sign, self.model)

    return SignCallback()


def _never_updated(model: Any, num_steps: int) -> bool:
    """Tell whether loss scaling skipped every step: no gradient was ever finite."""
    import keras

    inner = getattr(getattr(model, "optimizer", None), "inner_optimizer", None)
    if inner is None or num_steps < MIN_SKIPPED_STEPS:
        return False
    if type(model).train_step is not keras.Model.train_step:
        return False  # a step of the program's own may never ask the optimizer that compile made
    # The property of that name divides by the steps of gradient accumulation.
    return int(inner._iterations.numpy()) == 0


def bad_variables() -> Iterator[str]:
    """Yield the names of living variables that hold NaN; Inf may be a mask, or the best so far."""
    variable_class = private("ResourceVariable")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # isinstance wakes deprecated properties of strangers
        variables = [item for item in gc.get_objects() if isinstance(item, variable_class)]
    for variable in variables:
        try:
            if not variable.dtype.is_floating or variable.shape.num_elements() is None:
                continue
            if variable.shape.num_elements() > MAX_CHECKED_ELEMENTS:
                continue
            if np.isnan(variable.numpy().astype(np.float32)).any():
                yield str(variable.name)
        except (NotImplementedError, RuntimeError, TypeError, ValueError):
            # Made in a graph, which may be gone, or never set.
            continue

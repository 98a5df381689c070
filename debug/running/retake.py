"""The failing steps of a ``fit`` taken again, instrumented, where they failed.

A program whose loss is no number has been stopped inside its ``fit``: its model, the user's lines
that lead there and its threads are all still there. So the state from before the failing steps is
put back into the very variables, the step is traced anew under a Debugger V2 dump, and the
recorded batches go through it once more. Nothing else of the program runs a second time.
"""

import functools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.debug.running.signs import Sign
from headstart.errors import HeadstartError

HELD_BYTES = 256 << 20
"""Most bytes of batches, and of two snapshots, that are held of a stranger's training."""


@dataclass(frozen=True)
class Retake:
    """What came of taking steps again.

    Args:
        first_step: The step of this ``fit`` with which the dump begins; -1 where there is none.
        reason: Why there is no dump to read; empty where there is one.
        bad_batch: What is wrong with the failing batch itself, as a sentence; empty where nothing.
        is_pipeline: Whether the batches came out of a ``tf.data`` pipeline of the program's.
    """

    first_step: int = -1
    reason: str = ""
    bad_batch: str = ""
    is_pipeline: bool = False


def retake(
    model: Any, held: Any, sign: Sign, folder: Path, mode: Any, *, is_pipeline: bool
) -> Retake:
    """Take the last steps of a training again, under a dump.

    This process is good for nothing else afterwards: the instrumentation stays.

    Args:
        model: The model that was trained.
        held: The `headstart.debug.replay.recorder.LastSteps` of its training.
        sign: What was seen of it.
        folder: A new folder for the dump.
        mode: Tensor mode of the dump, such as ``FULL_HEALTH``.
        is_pipeline: Whether the batches came out of a ``tf.data`` pipeline.

    Returns:
        Whether the fault came back, and in which steps.
    """
    from headstart.debug.dump.dump import Recording
    from headstart.debug.replay.bundle import last_good
    from headstart.debug.replay.taps import step_traced_anew

    batches = [batch for _, batch in held.flight.batches]
    bad = bad_in_last(batches)
    if bad:
        return Retake(bad_batch=bad, is_pipeline=is_pipeline, reason="the batch itself is bad")
    try:
        snapshot = last_good(held.flight, model)
    except HeadstartError:
        return Retake(reason="there is no snapshot of the weights from before the fault")
    batches = [batch for step, batch in held.flight.batches if step >= snapshot.step]
    turn_xla_off()
    _restore(model, snapshot)
    recording = Recording(folder, mode)
    step = step_traced_anew(model)
    has_failed = sign.where == "gradient"  # of which the logs tell nothing
    for batch in batches:
        if not all(map(math.isfinite, _numbers(step(batch)))):
            has_failed = True
            break
    recording.flush()
    reason = (
        "" if has_failed else "the fault did not recur when the last training steps were repeated"
    )
    return Retake(snapshot.step, reason, is_pipeline=is_pipeline)


def bad_in_last(batches: list[Any]) -> str:
    """Say what is no number in the last of several batches.

    Args:
        batches: Batches as the training took them, the failing one last.

    Returns:
        A sentence; empty where all is finite, or batches before held the like and did no harm.
    """
    if not batches or (len(batches) > 1 and any(_bad_parts(batches[-2]))):
        return ""
    return next(_bad_parts(batches[-1]), "")


def _bad_parts(batch: Any) -> Iterator[str]:
    import tensorflow as tf

    parts = batch if isinstance(batch, tuple) else (batch,)
    for name, part in zip(("inputs", "targets", "sample weights"), parts, strict=False):
        for tensor in tf.nest.flatten(part):
            if not isinstance(tensor, tf.Tensor) or not tensor.dtype.is_floating:
                continue
            values = np.asarray(tf.cast(tensor, tf.float32))
            count = int((~np.isfinite(values)).sum())
            if count:
                kind = "NaN" if np.isnan(values).any() else "Inf"
                row = int(np.argwhere(~np.isfinite(values))[0][0]) if values.ndim else 0
                yield (
                    f"The input data holds {kind}: that is how it came out of the input pipeline "
                    f"({count} of {values.size} values of the batch's {name}, first in row {row} "
                    "of the batch)."
                )


def _numbers(logs: Any) -> Iterator[float]:
    values = logs.values() if isinstance(logs, dict) else [logs]
    return (float(np.asarray(value).reshape(())) for value in values if np.size(value) == 1)


def _restore(model: Any, snapshot: Any) -> None:
    """Put everything back as it was before the snapshot's step."""
    import tensorflow as tf

    model.reset_metrics()  # some are made only in the first step, after its snapshot
    for variable, value in zip(snapshot.variables, snapshot.values, strict=True):
        variable.assign(value)
    random.setstate(snapshot.python_random)
    if snapshot.numpy_random:
        np.random.set_state(snapshot.numpy_random)  # noqa: NPY002
    if snapshot.tf_generator is not None:
        tf.random.get_global_generator().state.assign(snapshot.tf_generator)


def turn_xla_off() -> None:
    """Let nothing be compiled from now on: XLA drops the instrumentation, or fails on it."""
    import tensorflow as tf

    from headstart.debug.internals import private

    tf.config.optimizer.set_jit(False)
    function_class = private("Function")
    construct = function_class.__init__

    @functools.wraps(construct)
    def construct_without_jit(function: Any, *args: Any, **kwargs: Any) -> None:
        construct(function, *args, **{**kwargs, "jit_compile": None})

    function_class.__init__ = construct_without_jit

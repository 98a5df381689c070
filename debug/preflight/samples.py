"""A few batches of the user's data and what the untrained model makes of them."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.debug.internals import private
from headstart.debug.preflight.objectives import Objective, objective_of
from headstart.errors import ConfigError

BATCH_ROWS = 32
"""Rows of a batch cut from arrays (Keras's own default)."""


@dataclass(frozen=True)
class Batch:
    """One batch, as NumPy arrays or structures of them.

    Args:
        x: Inputs, ``[N, ...]`` each.
        y: Labels; None where there are none.
        weights: Sample weights; None where there are none.
    """

    x: Any
    y: Any
    weights: Any

    @property
    def inputs(self) -> list[npt.NDArray[Any]]:
        """The arrays of ``x``, one an input of the model."""
        return [np.asarray(part) for part in tf.nest.flatten(self.x)]

    @property
    def num_rows(self) -> int:
        """Rows of the batch."""
        return len(self.inputs[0])


@dataclass(frozen=True)
class Sample:
    """What the checks look at.

    Args:
        model: The compiled Keras model, built.
        batches: The first batches of the training data.
        y_pred: The model's output on the first batch in inference mode; None where it has several.
        objective: What it is trained for.
        is_new: Whether the optimizer has taken no step yet.
    """

    model: Any
    batches: tuple[Batch, ...]
    y_pred: npt.NDArray[Any] | None
    objective: Objective
    is_new: bool

    @property
    def num_classes(self) -> int:
        """Classes that the model tells apart; 0 where it is no classifier."""
        return 0 if self.y_pred is None else self.objective.num_classes(self.y_pred.shape)

    @property
    def y(self) -> npt.NDArray[Any] | None:
        """Labels of the first batch, where they are one array."""
        return _array(self.batches[0].y)

    def labels(self) -> npt.NDArray[np.int64]:
        """Class indices of all batches, in the order of the data."""
        arrays = [_array(batch.y) for batch in self.batches]
        known = [self.objective.labels(y) for y in arrays if y is not None]
        return np.concatenate(known) if known else np.zeros(0, np.int64)


def take_batches(data: Any, count: int) -> list[Batch]:
    """Return the first batches of training data in any of the forms that ``fit`` takes.

    Args:
        data: A tuple of arrays ``(x, y)`` or ``(x, y, weights)``, a ``tf.data.Dataset`` or
            another iterable of batches.
        count: How many batches at most.

    Returns:
        The batches.

    Raises:
        ConfigError: There is no batch in it.
    """
    if isinstance(data, tuple):
        data = _cut(data, count)
    elif isinstance(data, keras.utils.PyDataset):
        data = (data[i] for i in range(len(data)))
    batches = [_to_batch(item) for item in itertools.islice(iter(data), count)]
    if not batches or not batches[0].inputs:
        raise ConfigError(
            "there is no training data to check",
            f"{type(data).__name__} that yields no batch",
            "pass (x, y) arrays or a batched tf.data.Dataset",
        )
    return batches


def take_sample(model: Any, data: Any, count: int) -> Sample:
    """Take batches, build the model where it is not and run it on the first batch.

    Args:
        model: A compiled Keras model.
        data: Whatever `take_batches` can read.
        count: How many batches at most.

    Returns:
        The sample.
    """
    batches = take_batches(data, count)
    output = model(batches[0].x, training=False)
    single = None if isinstance(output, dict | list | tuple) else np.asarray(output)
    iterations = getattr(model.optimizer, "iterations", None)
    is_new = iterations is None or int(iterations.numpy()) == 0
    return Sample(model, tuple(batches), single, objective_of(model), is_new)


@contextmanager
def restored(model: Any) -> Iterator[None]:
    """Put weights, metrics, seeds and every random state back when the block is left.

    Args:
        model: A built Keras model.
    """
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else ())]
    variables += [variable for metric in model.metrics for variable in metric.variables]
    values = [(variable, np.array(variable.numpy())) for variable in variables]
    with same_seeds():
        try:
            yield
        finally:
            for variable, value in values:
                variable.assign(value)


_KERAS_SEEDS = "global_seed_generator"


@contextmanager
def same_seeds() -> Iterator[None]:
    """Put every random state back when the block is left.

    Of TensorFlow's eager ops that is the seed of the next one; a kernel that is kept for a seed
    goes on where the block left it.
    """
    import random

    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    # From it come the seeds of TensorFlow's eager ops, once the program has set one.
    eager = getattr(private("eager_context")(), "_rng", None)
    eager_state = None if eager is None else eager.getstate()
    try:
        generator = tf.random.get_global_generator()
    except RuntimeError:  # a program under op determinism has none, unless it has set one
        generator = None
    tf_state = None if generator is None else generator.state.numpy()
    seeds = private("keras_global")(_KERAS_SEEDS)
    keras_state = None if seeds is None else np.array(seeds.state)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        if eager is not None:
            eager.setstate(eager_state)
        if generator is not None:
            generator.reset(tf_state)
        if seeds is not None:
            seeds.state.assign(keras_state)
        private("set_keras_global")(_KERAS_SEEDS, seeds)


def _array(y: Any) -> npt.NDArray[Any] | None:
    return None if y is None or isinstance(y, dict | list | tuple) else np.asarray(y)


def _to_batch(item: Any) -> Batch:
    arrays = tf.nest.map_structure(
        lambda part: part.numpy() if hasattr(part, "numpy") else np.asarray(part), item
    )
    return Batch(*keras.utils.unpack_x_y_sample_weight(arrays))


def _cut(arrays: tuple[Any, ...], count: int) -> Iterable[Any]:
    present = tuple(array for array in arrays if array is not None)
    rows = len(tf.nest.flatten(present)[0])
    for start in range(0, min(rows, count * BATCH_ROWS), BATCH_ROWS):
        stop = start + BATCH_ROWS
        yield tf.nest.map_structure(lambda a, i=start, j=stop: np.asarray(a[i:j]), present)

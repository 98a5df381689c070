"""Looking at a model from outside: which units fire, what reaches it, which class it predicts.

One eager forward pass on a batch that was just trained on. Nothing of the model changes: it runs
in inference mode, and whatever state a layer moves all the same is put back.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.debug.preflight.objectives import Objective
from headstart.debug.preflight.samples import same_seeds
from headstart.debug.symptoms.trace import LayerActivity, Probe

ENOUGH_ROWS = 32
"""Rows from which on no further batch is joined."""
MAX_JOINED_BYTES = 4 * 2**20
"""Of inputs, from which on no further batch is joined: who trains on large rows in small batches
has no memory for more."""
MAX_ROWS = 256
"""Most rows of a batch that are looked at."""
SATURATED_SLOPE = 0.01
"""Slope of sigmoid or tanh, relative to its greatest, below which a unit is saturated."""
SATURATED_ROWS = 0.95
"""Share of the rows on which a saturated unit must be so."""

_log = logging.getLogger("headstart.debug")


def probe(model: Any, batches: list[Any], step: int, objective: Objective) -> Probe | None:
    """Run a model on the last batches and note what its layers do.

    Args:
        model: A built Keras model.
        batches: What the data set yielded, last one last: ``(x, y)`` or ``(x, y, weights)`` each;
            only as many are used as it takes to have `ENOUGH_ROWS`.
        step: Steps trained so far, for the record.
        objective: What the model is trained for.

    Returns:
        The probe; None where the model cannot be called this way.
    """
    watch = _Watch()
    try:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(_joined(batches))
        with watch.attached(model), unchanged(model), same_seeds():
            y_pred = model(x, training=False)
    except Exception as error:  # own models take what they like; a look must never end a training
        _log.debug("no look at the activations: %s", error)
        return None
    predicted, labels = _classes(objective, y_pred, y)
    first = watch.first_input
    return Probe(
        step=step,
        num_rows=len(tf.nest.flatten(x)[0]),
        activities=tuple(watch.activities(y_pred)),
        first_layer=watch.first_layer,
        first_input_min=float(first.min()) if first.size else 0.0,
        first_input_mean=float(first.mean()) if first.size else 0.0,
        first_input_max=float(first.max()) if first.size else 0.0,
        predicted_counts=count(predicted),
        label_counts=count(labels),
        num_classes=objective.num_classes(tuple(getattr(y_pred, "shape", ()))),
    )


def input_of(model: Any, layer: Any, x: Any) -> npt.NDArray[np.float64] | None:
    """Return the values that reach a layer when a model runs on inputs.

    Args:
        model: The model that the layer is part of.
        layer: A layer or model somewhere inside it.
        x: Inputs of the model.

    Returns:
        The layer's first input, ``[N, ...]``; None where the model cannot be called this way.
    """
    seen: list[npt.NDArray[np.float64]] = []
    call = layer.call

    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.append(np.asarray(args[0] if args else next(iter(kwargs.values())), np.float64))
        return call(*args, **kwargs)

    try:
        with call_replaced(layer, noted), unchanged(model):
            model(x, training=False)
    except Exception as error:
        _log.debug("no look at the inputs of %s: %s", layer.name, error)
    return seen[0] if seen else None


def leaf_layers(model: Any) -> list[Any]:
    """Return the layers of a model that hold no other layers, own and nested ones alike.

    Args:
        model: A Keras model or layer.

    Returns:
        The layers, in the order in which they were attached.
    """
    # Keras names no public walk that also enters layers of the user's own.
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if not list(layer._flatten_layers(include_self=False))]


def count(labels: npt.NDArray[np.int64]) -> dict[int, int]:
    """Count how often each class index occurs.

    Args:
        labels: int64 class indices, ``[N]``.

    Returns:
        Index -> occurrences.
    """
    values, occurrences = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), occurrences.tolist(), strict=True))


class _Watch:
    """Notes the output of each leaf layer during one forward pass."""

    def __init__(self) -> None:
        self.outputs: list[tuple[str, str, Any]] = []
        self.first_layer = ""
        self.first_input: npt.NDArray[np.float64] = np.zeros(0)

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        with ExitStack() as calls:
            for layer in leaf_layers(model):
                calls.enter_context(call_replaced(layer, self._noting(layer, layer.call)))
            yield

    def _noting(self, layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            if not self.first_layer and hasattr(layer, "kernel") and args:
                self.first_layer = layer.path or layer.name
                self.first_input = np.asarray(args[0], np.float64)
            output = call(*args, **kwargs)
            name = _activation_name(layer)
            if name in ("relu", "sigmoid", "tanh") and hasattr(output, "ndim"):
                self.outputs.append((layer.path or layer.name, name, output))
            return output

        return noted

    def activities(self, y_pred: Any) -> Iterator[LayerActivity]:
        for path, name, output in self.outputs:
            if output is y_pred or output.ndim < 2:  # the last layer may well sit at 0 and 1
                continue
            values = np.asarray(output, np.float32)
            units = values.reshape(-1, values.shape[-1])
            dead = float((units == 0.0).all(axis=0).mean()) if name == "relu" else 0.0
            yield LayerActivity(path, name, dead, _saturated_share(name, units))


def _saturated_share(name: str, units: npt.NDArray[np.float32]) -> float:
    if name == "relu":
        return 0.0
    slopes = 4.0 * units * (1.0 - units) if name == "sigmoid" else 1.0 - units**2
    flat = (slopes < SATURATED_SLOPE).mean(axis=0)
    return float((flat >= SATURATED_ROWS).mean())


def _activation_name(layer: Any) -> str:
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return name or {"ReLU": "relu"}.get(type(layer).__name__, "")


def _joined(batches: list[Any]) -> Any:
    chosen: list[Any] = []
    rows = num_bytes = 0
    for batch in reversed(batches):
        chosen.append(batch)
        first = tf.nest.flatten(batch)[0]
        rows += len(first)
        num_bytes += np.size(first) * tf.as_dtype(first.dtype).size
        if rows >= ENOUGH_ROWS or num_bytes >= MAX_JOINED_BYTES:
            break
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0)[:MAX_ROWS], *chosen)


def _classes(
    objective: Objective, y_pred: Any, y: Any
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    none = np.zeros(0, np.int64)
    if y is None or not hasattr(y_pred, "shape") or not hasattr(y, "shape"):
        return none, none
    predicted = objective.predictions(np.asarray(y_pred))
    return predicted, objective.labels(np.asarray(y)[: len(y_pred)]) if predicted.size else none


@contextmanager
def call_replaced(layer: Any, call: Callable[..., Any]) -> Iterator[None]:
    """Replace a layer's ``call`` while the block runs.

    Around Keras's tracking of attributes, and with an own ``call`` of the instance kept.

    Args:
        layer: Changed while the block runs.
        call: What stands in for its ``call``.
    """
    own = vars(layer).get("call")
    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        if own is None:
            object.__delattr__(layer, "call")
        else:
            object.__setattr__(layer, "call", own)


@contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Put back the state that layers keep: moving averages, seeds of random layers.

    Args:
        model: A built Keras model.
    """
    before = [(variable, variable.numpy()) for variable in model.non_trainable_variables]
    try:
        yield
    finally:
        for variable, value in before:
            if not np.array_equal(variable.numpy(), value):
                variable.assign(value)

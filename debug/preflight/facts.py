"""What can be measured of a model and its data: the facts that the rules hold together.

One forward pass in inference mode on a few hundred rows tells which layer comes last, what it
gives, what reaches the first weights, and which predictor a constant would have to beat.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.debug.preflight.objectives import Objective, loss_family, objective_of, single_loss
from headstart.debug.symptoms.activity_probe import call_replaced, unchanged

MAX_ROWS = 512
"""Rows that are looked at."""
MAX_BYTES = 256 * 2**20
"""Of what all layers give for the rows that are looked at: of large pictures there are fewer."""
FEW_ROWS = 8
"""Rows by which that is estimated, and the least that are looked at."""
MAX_TARGETS = 200_000
"""Targets that are looked at."""
PASSIVE = ("Reshape", "Flatten", "Dropout", "Permute", "Identity", "Cropping1D")
"""Layers that hand on what they get, as far as the range of the values goes."""
_LAYER_ACTIVATIONS = {"Softmax": "softmax", "ReLU": "relu", "LeakyReLU": "leaky_relu"}

Array = npt.NDArray[Any]

_log = logging.getLogger("headstart.debug")


@dataclass(frozen=True)
class LayerUse:
    """One call of a layer in the forward pass.

    Args:
        layer: The Keras layer that was called.
        input: What it was given; None where it was no tensor.
        output: What the call returned.
        mask: Its ``attention_mask``, where it was given one.
    """

    layer: Any
    input: Any
    output: Any
    mask: Any = None

    @property
    def path(self) -> str:
        """The layer's path."""
        return str(getattr(self.layer, "path", "") or self.layer.name)

    @property
    def kind(self) -> str:
        """Name of the layer's class."""
        return type(self.layer).__name__

    @property
    def activation(self) -> str:
        """Name of its activation: ``linear`` where it has weights and none, empty elsewhere."""
        return activation_of(self.layer)


@dataclass(frozen=True)
class Facts:
    """What is known of one training.

    Args:
        model: The compiled Keras model, built.
        x: Some rows of the inputs, in the structure that the model takes.
        y: Their targets, where these are one array of numbers.
        y_pred: The model's output for them, where it is one array.
        uses: Calls of layers, in their order.
        objective: The cross-entropy that is trained, if it is one.
        family: Plain name of the loss (``mse``, ``binary_crossentropy``, ...); empty for own and
            for several losses.
        loss: The loss as something that can be called; None where ``family`` is empty.
        targets: Targets of all rows in their order, where they are at hand; else ``y``.
        is_complete: Whether ``targets`` are all that the training is given.
        is_weighted: Whether rows or classes have weights.
        output: What the model gave, as the layers gave it; None where it is not one tensor.
        every_output: What the model gave, of several outputs too.
        every_y: The targets of these rows, of several outputs too.
    """

    model: Any
    x: Any
    y: Array | None
    y_pred: Array | None
    uses: tuple[LayerUse, ...]
    objective: Objective
    family: str
    loss: Callable[[Any, Any], Any] | None
    targets: Array | None
    is_complete: bool = False
    is_weighted: bool = False
    output: Any = None
    every_output: Any = None
    every_y: Any = None

    @property
    def inputs(self) -> list[Array]:
        """The arrays of ``x``."""
        return [np.asarray(part) for part in tf.nest.flatten(self.x)]

    @property
    def last(self) -> LayerUse | None:
        """The layer that gives the model's output its range; None where something else does."""
        output, found = self.output, None
        for use in reversed(self.uses):
            if not _is_same(use.output, output):
                continue
            if use.activation:
                return use
            found = found or use
            if use.kind in PASSIVE:
                output, found = use.input, None
        return found

    @property
    def activation(self) -> str:
        """Activation behind the model's output; ``softmax`` also where only the values say so."""
        named = self.last.activation if self.last is not None else ""
        if not named and self.y_pred is not None and self.y_pred.shape[-1:] > (1,):
            sums = self.y_pred.astype(np.float64).sum(axis=-1)
            if self.y_pred.min() >= 0.0 and np.abs(sums - 1.0).max() < 1e-3:
                return "softmax"
        return named

    @property
    def units(self) -> int:
        """Width of the model's output; 0 where it is not known."""
        return int(self.y_pred.shape[-1]) if self.y_pred is not None and self.y_pred.ndim > 1 else 0

    @property
    def first_weights(self) -> LayerUse | None:
        """The first call of a layer that multiplies its input with weights."""
        for use in self.uses:
            if hasattr(use.layer, "kernel") or use.kind in ("LSTM", "GRU", "SimpleRNN"):
                return use
        return None


def activation_of(layer: Any) -> str:
    """Return the name of a layer's activation.

    Args:
        layer: A Keras layer, or one that wraps another.

    Returns:
        The name; empty where it has none.
    """
    inner = getattr(layer, "layer", None)
    if type(layer).__name__ == "TimeDistributed" and inner is not None:
        return activation_of(inner)
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", "") or (
        type(activation).__name__.lower() if activation is not None else ""
    )
    return name or _LAYER_ACTIVATIONS.get(type(layer).__name__, "")


def facts_of(
    model: Any,
    x: Any,
    y: Any,
    *,
    targets: Any = None,
    is_complete: bool = False,
    is_weighted: bool = False,
) -> Facts:
    """Look at a model on some rows.

    Args:
        model: A compiled Keras model.
        x: Inputs of at most a few hundred rows; fewer are looked at where the layers' outputs
            would take more than `MAX_BYTES`.
        y: Their targets; None where there are none.
        targets: All targets in their order, where they are at hand.
        is_complete: Whether these are all there are.
        is_weighted: Whether rows or classes have weights.

    Returns:
        The facts.
    """
    x, y = _fitting(model, x, y)
    uses, output = _forward(model, x)
    loss = single_loss(model)
    family = loss_family(loss)
    rows = numbers(y)
    every = numbers(targets)
    return Facts(
        model=model,
        x=x,
        y=rows,
        y_pred=None if isinstance(output, dict | list | tuple) else numbers(output),
        uses=uses,
        objective=objective_of(model),
        family=family,
        loss=keras.losses.get(loss) if family else None,
        targets=(rows if every is None else every),
        is_complete=is_complete and every is not None,
        is_weighted=is_weighted,
        output=None if isinstance(output, dict | list | tuple) else output,
        every_output=output,
        every_y=y,
    )


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether two tensors are one: a model may hand out a cast or a copy of what it got."""
    if one is other:
        return True
    if getattr(one, "shape", None) != getattr(other, "shape", ()):
        return False
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


def numbers(values: Any) -> Array | None:
    """Return values as one array of numbers; None where they are not that.

    A stream of batches is left alone: reading it may never end, or take rows from the program.
    """
    if not isinstance(values, list | tuple) and not hasattr(values, "__array__"):
        return None
    if isinstance(values, list | tuple) and values and np.ndim(values[0]) > 1:
        return None  # several outputs
    try:
        array = np.asarray(values)
    except (ValueError, TypeError):
        return None
    return array[:MAX_TARGETS] if array.dtype.kind in "fiub" and array.ndim else None


def pick_rows(arrays: Any, num_rows: int) -> Any:
    """Return rows spread evenly over arrays, in their order.

    Args:
        arrays: An array, or a structure of arrays of equal length.
        num_rows: How many at most.

    Returns:
        The rows, in the same structure.
    """

    def pick(array: Any) -> Any:
        length = len(array)
        places = np.unique(np.linspace(0, length - 1, min(length, num_rows)).astype(np.int64))
        if hasattr(array, "iloc"):
            return np.asarray(array.iloc[places])
        return np.asarray(array)[places]

    return tf.nest.map_structure(pick, arrays)


def _fitting(model: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Return the rows, or fewer of them, whose activations fit into the bound."""
    num_rows = len(tf.nest.flatten(x)[0])
    if num_rows <= FEW_ROWS:
        return x, y
    uses, _ = _forward(model, pick_rows(x, FEW_ROWS))
    num_bytes = sum(np.size(use.output) * use.output.dtype.size for use in uses) / FEW_ROWS
    fitting = max(FEW_ROWS, int(MAX_BYTES / max(1.0, num_bytes)))
    if fitting >= num_rows:
        return x, y
    return pick_rows(x, fitting), None if y is None else pick_rows(y, fitting)


def _forward(model: Any, x: Any) -> tuple[tuple[LayerUse, ...], Any]:
    uses: list[LayerUse] = []
    with _noting(model, uses), unchanged(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras has told them once
        output = model(x, training=False)
    return tuple(uses), output


@contextmanager
def _noting(model: Any, uses: list[LayerUse]) -> Iterator[None]:
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if not isinstance(layer, keras.Model) and not type(layer).__name__.endswith("Cell")
    ]
    with ExitStack() as calls:
        for layer in layers:
            calls.enter_context(call_replaced(layer, _noted(layer, layer.call, uses)))
        yield


def _noted(layer: Any, call: Callable[..., Any], uses: list[LayerUse]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        if hasattr(output, "numpy"):
            first = args[0] if args else next(iter(kwargs.values()), None)
            uses.append(LayerUse(layer, first, output, kwargs.get("attention_mask")))
        return output

    return noted

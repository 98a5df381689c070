"""Contracts: what a tensor must be, checked where it is made, on tf.debugging.

Each check returns its tensor, so that it can stand in the middle of an expression; shapes and
dtypes known while a graph is traced are checked then, values when it runs. All work eagerly, inside
``tf.function`` and in the ``call`` of a Keras layer.

    logits = check_finite(logits, "logits")
    features = check_shape(features, "batch channels", {"channels": 64})
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import keras
import tensorflow as tf

Dimension = str | int | None
Shape = str | tuple[Dimension, ...]
Decorated = TypeVar("Decorated")

ROW_SUM_TOLERANCE = 1e-3
"""How far the sum of a row of probabilities may be from 1, float16 included."""


def check_shape(
    tensor: Any, shape: Shape, dimensions: Mapping[str, int] | None = None, name: str = "tensor"
) -> Any:
    """Check a shape with named dimensions.

    Args:
        tensor: Eager, or part of a graph.
        shape: Its dimensions, as a tuple or a text with spaces: a number must be met, a name must
            have the same size wherever it stands, ``None`` or ``_`` may be anything and a leading
            ``...`` stands for any number of dimensions: ``"... height width 3"``.
        dimensions: Sizes of names that are known already.
        name: What to call the tensor in the message.

    Returns:
        The tensor.

    Raises:
        ValueError: A size known while tracing is wrong.
        tf.errors.InvalidArgumentError: A size known only when the graph runs is wrong.
    """
    tensor = tf.convert_to_tensor(tensor)
    with tf.control_dependencies(_shape_checks(tensor, shape, dict(dimensions or {}), name)):
        return tf.identity(tensor)


def check_dtype(tensor: Any, dtype: Any, name: str = "tensor") -> Any:
    """Check a dtype.

    Args:
        tensor: Eager, or part of a graph.
        dtype: A TensorFlow dtype or its name.
        name: What to call the tensor in the message.

    Returns:
        The tensor.

    Raises:
        TypeError: It has another dtype.
    """
    tensor = tf.convert_to_tensor(tensor)
    wanted = tf.as_dtype(dtype)
    if tensor.dtype != wanted:
        raise TypeError(
            f"{name} must have dtype {wanted.name}. Received: {tensor.dtype.name} of shape "
            f"{tensor.shape}. Next: tf.cast it where it is made."
        )
    return tensor


def check_range(tensor: Any, minimum: float, maximum: float, name: str = "tensor") -> Any:
    """Check that every value lies in a closed range.

    Args:
        tensor: Of any numeric dtype.
        minimum: Least value allowed, itself included.
        maximum: Greatest value allowed, itself included.
        name: What to call the tensor in the message.

    Returns:
        The tensor.

    Raises:
        tf.errors.InvalidArgumentError: A value lies outside, or is NaN.
    """
    tensor = tf.convert_to_tensor(tensor)
    low, high = tf.cast(minimum, tensor.dtype), tf.cast(maximum, tensor.dtype)
    checks = [
        tf.debugging.assert_greater_equal(tensor, low, f"{name} must be at least {minimum}."),
        tf.debugging.assert_less_equal(tensor, high, f"{name} must be at most {maximum}."),
    ]
    return _after(checks, tensor)


def check_finite(tensor: Any, name: str = "tensor") -> Any:
    """Check that no value is NaN or Inf.

    Args:
        tensor: A tensor of any dtype; integers pass.
        name: What to call the tensor in the message.

    Returns:
        The tensor.

    Raises:
        tf.errors.InvalidArgumentError: A value is NaN or Inf.
    """
    tensor = tf.convert_to_tensor(tensor)
    if not tensor.dtype.is_floating:
        return tensor
    return tf.debugging.check_numerics(tensor, f"{name} must be finite")


def check_labels(labels: Any, num_classes: int, name: str = "labels") -> Any:
    """Check that sparse labels are class indices.

    Args:
        labels: Integers, or floats that hold integers.
        num_classes: Labels must lie in ``[0, num_classes)``. TensorFlow itself does not check
            this on a GPU, where a label out of range makes the loss NaN.
        name: What to call the labels in the message.

    Returns:
        The labels.

    Raises:
        tf.errors.InvalidArgumentError: A label is out of range or no integer.
    """
    labels = check_range(labels, 0, num_classes - 1, name)
    if not labels.dtype.is_floating:
        return labels
    whole = tf.debugging.assert_equal(labels, tf.round(labels), f"{name} must be whole numbers.")
    return _after([whole], labels)


def check_probabilities(tensor: Any, name: str = "probabilities") -> Any:
    """Check that the last axis holds probabilities (and not logits).

    Args:
        tensor: Floats, ``[..., C]`` with C > 1.
        name: What to call the tensor in the message.

    Returns:
        The tensor.

    Raises:
        tf.errors.InvalidArgumentError: A value is outside [0, 1] or a row does not sum to 1.
    """
    tensor = check_range(tensor, 0.0, 1.0, f"{name} (logits need a softmax first)")
    sums = tf.reduce_sum(tf.cast(tensor, tf.float32), axis=-1)
    text = f"{name} must sum to 1 along the last axis: logits need a softmax first."
    check = tf.debugging.assert_near(
        sums, tf.ones_like(sums), rtol=0.0, atol=ROW_SUM_TOLERANCE, message=text
    )
    return _after([check], tensor)


def check_logits(tensor: Any, name: str = "logits") -> Any:
    """Check that the last axis holds logits (and not probabilities).

    Args:
        tensor: Floats, ``[..., C]`` with C > 1.
        name: What to call the tensor in the message.

    Returns:
        The tensor.

    Raises:
        tf.errors.InvalidArgumentError: A value is not finite, or every row is a probability
            distribution, as after a softmax.
    """
    tensor = check_finite(tensor, name)
    values = tf.cast(tensor, tf.float32)
    off_one = tf.abs(tf.reduce_sum(values, axis=-1) - 1.0)
    looks_soft = tf.logical_and(
        tf.reduce_all(values >= 0.0), tf.reduce_max(off_one) <= ROW_SUM_TOLERANCE
    )
    text = f"{name} must be logits, but every row is positive and sums to 1: drop the softmax."
    check = tf.debugging.assert_equal(looks_soft, False, message=text)
    return _after([check], tensor)


def contract(
    *,
    inputs: Mapping[str, Shape] | Shape | None = None,
    output: Shape | None = None,
    input_dtype: Any = None,
    output_dtype: Any = None,
    output_range: tuple[float, float] | None = None,
    finite: bool = True,
) -> Callable[[Decorated], Decorated]:
    """Hold a function or a Keras layer to what its tensors must be.

    Dimensions named alike in ``inputs`` and ``output`` must agree within a call.

    Args:
        inputs: Shape of each tensor argument by its name, or of the first one.
        output: Shape of the result, where that is one tensor.
        input_dtype: Dtype of every argument in ``inputs``.
        output_dtype: Dtype of the result.
        output_range: Least and greatest value of the result.
        finite: Whether arguments in ``inputs`` and the result may hold no NaN or Inf.

    Returns:
        A decorator for a function, a layer class (its ``call`` is held to the contract) or a
        layer instance.

    Example:
        >>> @contract(inputs={"x": "batch features"}, output="batch 10")
        ... def head(x):
        ...     return dense(x)
    """

    def decorate(target: Decorated) -> Decorated:
        if isinstance(target, keras.layers.Layer):
            # Around Keras's tracking of attributes: the wrapper is no part of the model.
            object.__setattr__(target, "call", wrap(target.call, type(target).__name__))
            return target
        if inspect.isclass(target) and issubclass(target, keras.layers.Layer):
            layer_class = cast(Any, target)
            layer_class.call = wrap(layer_class.call, target.__name__)
            return target
        function = cast(Callable[..., Any], target)
        return cast(Decorated, wrap(function, function.__name__))

    def wrap(function: Callable[..., Any], owner: str) -> Callable[..., Any]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def held(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            sizes: dict[str, Any] = {}
            for name, shape in _shapes_by_name(inputs, signature).items():
                checked = bound.arguments[name]
                label = f"{name} of {owner}"
                bound.arguments[name] = _held(checked, shape, sizes, label, input_dtype, finite)
            result = function(*bound.args, **bound.kwargs)
            label = f"result of {owner}"
            result = _held(result, output, sizes, label, output_dtype, finite)
            return result if output_range is None else check_range(result, *output_range, label)

        return held

    return decorate


def _shapes_by_name(
    inputs: Mapping[str, Shape] | Shape | None, signature: inspect.Signature
) -> dict[str, Shape]:
    if inputs is None:
        return {}
    if isinstance(inputs, Mapping):
        return dict(inputs)
    names = [name for name in signature.parameters if name != "self"]
    return {names[0]: inputs}


def _held(
    tensor: Any, shape: Shape | None, sizes: dict[str, Any], name: str, dtype: Any, finite: bool
) -> Any:
    if isinstance(tensor, dict | list | tuple | keras.KerasTensor):
        return tensor  # several tensors have no one shape; symbolic ones are checked when called
    tensor = tf.convert_to_tensor(tensor)
    if dtype is not None:
        tensor = check_dtype(tensor, dtype, name)
    checks = [] if shape is None else _shape_checks(tensor, shape, sizes, name)
    tensor = _after(checks, tensor)
    return check_finite(tensor, name) if finite else tensor


def _after(checks: list[Any], tensor: Any) -> Any:
    """The tensor, once the checks have run; in eager mode they have, and return None."""
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(tensor)


def _shape_checks(tensor: Any, shape: Shape, sizes: dict[str, Any], name: str) -> list[Any]:
    """Check what is known now, return ops for the rest and enter new names into ``sizes``."""
    wanted = _dimensions(shape)
    message = f"{name} must have shape [{' '.join(map(str, wanted))}]. Received: {tensor.shape}"
    if tensor.shape.rank is None:
        raise ValueError(f"{message}, of unknown rank. Next: tf.ensure_shape it before.")
    if wanted[:1] == ["..."]:
        wanted = wanted[1:]
        known = list(tensor.shape)[tensor.shape.rank - len(wanted) :]
        fits = tensor.shape.rank >= len(wanted)
    else:
        known, fits = list(tensor.shape), tensor.shape.rank == len(wanted)
    if not fits:
        raise ValueError(f"{message}, of rank {tensor.shape.rank}.")
    first, checks = tensor.shape.rank - len(wanted), []
    for axis, (dimension, size) in enumerate(zip(wanted, known, strict=True), start=first):
        if dimension == "_":
            continue
        actual = size if size is not None else tf.shape(tensor)[axis]
        required = sizes.setdefault(dimension, actual) if isinstance(dimension, str) else dimension
        if isinstance(actual, int) and isinstance(required, int):
            if actual != required:
                raise ValueError(f"{message}: dimension {axis} must be {required} ({dimension}).")
            continue
        text = f"{message}: dimension {axis} must be {dimension}."
        checks.append(tf.debugging.assert_equal(actual, required, message=text))
    return [check for check in checks if check is not None]


def _dimensions(shape: Shape) -> list[str | int]:
    parts = shape.split() if isinstance(shape, str) else list(shape)
    return [
        int(part) if isinstance(part, str) and part.isdigit() else "_" if part is None else part
        for part in parts
    ]

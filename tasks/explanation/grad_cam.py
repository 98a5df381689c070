"""Grad-CAM and Grad-CAM++ of any Keras model whose layers keep a map of the image."""

from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.errors import ConfigError, ExportError
from headstart.tasks.explanation.layers import find_layer, named_layers, watch

Method = Literal["grad-cam", "grad-cam++"]
SOFTMAX, SIGMOID = keras.activations.softmax, keras.activations.sigmoid
SUM_TOLERANCE = 1e-2
"""How far probabilities may be from a sum of 1: in 16 bits each is off by up to 1 in 256."""


@dataclass(frozen=True)
class Heatmaps:
    """Where a model found evidence for a class in each image.

    Attributes:
        maps: float32 [N, h, w] in [0, 1] at the layer's resolution; the strongest place of an
            image is 1, and an image without any evidence for the class is 0 throughout.
        classes: int64 [N]: the class that the evidence is for.
        likeliest: int64 [N]: the class that the model finds likeliest.
        probabilities: float32 [N, num_classes]: what the model says; what it makes of its logits
            where it ends in them.
    """

    maps: NDArray[np.float32]
    classes: NDArray[np.int64]
    likeliest: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    layer: str


@dataclass
class _Recording:
    """What was seen in one pass of the model.

    Attributes:
        activations: Output of each layer, by the layer's path.
        scores: [N, num_classes]: logits, or probabilities where those are all that there is.
        probabilities: float32 [N, num_classes], each row summing to 1.
    """

    activations: dict[str, Any] = field(default_factory=dict)
    scores: Any = None
    probabilities: Any = None


def map_layers(model: keras.Model, images: NDArray[Any]) -> list[str]:
    """Name the layers that heatmaps can be made at.

    Returns:
        Paths of the layers whose output has a height and a width above 1, in the order in which
        they compute.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def seen(path: str, _: Any, output: Any) -> None:
        if tf.is_tensor(output):
            shapes.pop(path, None)  # a layer that computes twice counts where it is last
            shapes[path] = tuple(output.shape)

    with watch(named_layers(model), seen):
        model(tf.constant(images[:1]), training=False)
    return [path for path, shape in shapes.items() if len(shape) == 4 and min(shape[1:3]) > 1]


def choose_layer(model: keras.Model, images: NDArray[Any], layer: str | None = None) -> str:
    """Find the layer to make heatmaps at.

    Args:
        model: A classifier or regressor of images.
        images: One batch as the model takes it.
        layer: Path or unique name of the layer; the last one that has a map where None.

    Raises:
        ConfigError: There is no such layer, or no layer has a map.
    """
    names = map_layers(model, images)
    if not names:
        raise ConfigError(
            "no layer can carry a heatmap: its output must be a map of the image, [N, "
            "height, width, channels] with height and width above 1",
            f"{model.name}: no layer has one",
            "explain a convolutional model",
        )
    return names[-1] if layer is None else find_layer(names, layer)


def heatmaps(
    model: keras.Model,
    images: NDArray[Any],
    layer: str,
    classes: NDArray[np.int64] | None = None,
    method: Method = "grad-cam",
    tells_numbers: bool = False,
) -> Heatmaps:
    """Weigh the channels of a layer by what they do for a class, and add them up.

    Grad-CAM weighs channel k by the mean gradient of the class's score, a_k = mean_ij dy/dA_kij,
    and shows ReLU(sum_k a_k A_k). Grad-CAM++ takes a weighted sum of the positive gradients
    instead of the mean, with the weights g^2 / (2 g^2 + sum_ab A_kab g^3), g = dy/dA_kij, which
    finds several objects of a class better. The score y is the logit: after a softmax, evidence
    against the other classes would mix in.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017 (equations 1 and 2); Chattopadhay et al.,
    Grad-CAM++, WACV 2018 (equations 14 and 19: with y = exp(logit) all derivatives share the
    factor exp(logit), which scaling the map to [0, 1] takes out).

    Args:
        model: A classifier: its one output is [N, num_classes], or [N, 1] for two classes.
        images: A batch as the model takes it.
        layer: As `choose_layer` gives it.
        classes: int64 [N]: what to look for; the likeliest class of each image where None.
        method: Formula of the weights: "grad-cam" or "grad-cam++".
        tells_numbers: Whether the outputs are numbers: the maps then show what raises one, by
            default the first, and "probabilities" are the numbers themselves.

    Raises:
        ConfigError: There is no such class.
        ExportError: The model is no classifier of images, or does not use the layer.
    """
    recording = _Recording()
    with tf.GradientTape() as tape:
        _run(model, tf.constant(images), layer, tape, recording, tells_numbers)
        likeliest = np.asarray(tf.argmax(recording.scores, axis=1), np.int64)
        if tells_numbers:  # of which none is likelier than another
            likeliest = np.zeros_like(likeliest)
        chosen = likeliest if classes is None else _checked(classes, recording.scores.shape[1])
        score = tf.reduce_sum(tf.gather(recording.scores, chosen, axis=1, batch_dims=1))
    activation = recording.activations[layer]
    gradient = tape.gradient(score, activation)
    if gradient is None:
        raise ExportError(
            "the model's answer does not depend on this layer",
            f"{layer}: no gradient reaches it from the output",
            "explain another layer",
        )
    maps = _weigh(np.asarray(activation, np.float32), np.asarray(gradient, np.float32), method)
    return Heatmaps(maps, chosen, likeliest, recording.probabilities.numpy(), layer)


def _run(
    model: keras.Model,
    images: Any,
    path: str,
    tape: tf.GradientTape,
    recording: _Recording,
    tells_numbers: bool,
) -> None:
    """Run the model, keeping the activation at a path, the class scores and the probabilities."""
    layers = named_layers(model)
    candidates: dict[int, Any] = {}  # by identity of the output tensor

    def seen(name: str, given: Any, output: Any) -> None:
        if name == path:
            tape.watch(output)
            recording.activations[path] = output
        if tf.is_tensor(output) and output.shape.rank == 2:
            candidates[id(output)] = (layers[name], given, output)

    with watch(layers, seen):
        output = model(images, training=False)
    if not tf.is_tensor(output) or output.shape.rank != 2:
        raise ExportError(
            "the model is not a classifier with one output of shape [N, num_classes]",
            f"{model.name}: {getattr(output, 'shape', type(output).__name__)}",
            "give a model that classifies images",
        )
    if tells_numbers:
        recording.scores, recording.probabilities = output, tf.cast(output, tf.float32)
        return
    last, given, _ = candidates.get(id(output), (None, None, None))
    recording.scores, recording.probabilities = _read_output(last, given, output)


def _read_output(last: Any, given: Any, output: Any) -> tuple[Any, Any]:
    """Give the scores and the probabilities behind an output, a column a class each."""
    logits = _before_activation(last, given, output)
    answer = tf.cast(output, tf.float32)
    if logits is not output:
        return _two_sided(logits), _with_complement(answer)
    if _are_probabilities(last, answer.numpy()):  # made by an operation, say, not by a layer
        return _with_complement(output), _with_complement(answer)
    if output.shape[1] == 1:
        return _two_sided(output), _with_complement(tf.sigmoid(answer))
    return output, tf.nn.softmax(answer)


def _are_probabilities(last: Any, answer: NDArray[np.float32]) -> bool:
    """Say whether an output is a distribution, though no activation that makes one was seen."""
    if answer.min() < 0 or answer.max() > 1 + SUM_TOLERANCE:
        return False
    if answer.shape[1] == 1:  # which a logit may look like
        return getattr(last, "activation", None) in (None, keras.activations.hard_sigmoid)
    return bool((np.abs(answer.sum(axis=1) - 1) < SUM_TOLERANCE).all())


def _before_activation(last: Any, given: Any, output: Any) -> Any:
    """Give the logits behind the last layer's output; the output itself where it is logits."""
    if isinstance(last, keras.layers.Softmax):
        return given
    activation = getattr(last, "activation", None)
    if activation not in (SOFTMAX, SIGMOID):
        return output
    if isinstance(last, keras.layers.Activation):
        return given
    last.activation = keras.activations.linear
    try:
        return last(given)
    finally:
        last.activation = activation


def _two_sided(scores: Any) -> Any:
    """Give one score a class: a single output speaks for class 1 against class 0."""
    return tf.concat([-scores, scores], axis=1) if scores.shape[1] == 1 else scores


def _with_complement(probabilities: Any) -> Any:
    """Give one probability a class: a single output is that of class 1."""
    if probabilities.shape[1] > 1:
        return probabilities
    return tf.concat([1 - probabilities, probabilities], axis=1)


def _checked(classes: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    if classes.min() < 0 or classes.max() >= num_classes:
        raise ConfigError(
            f"a class must be a number from 0 to {num_classes - 1}",
            f"{classes.min()} to {classes.max()}",
            "name a class of the model",
        )
    return classes.astype(np.int64)


def _weigh(
    activation: NDArray[np.float32], gradient: NDArray[np.float32], method: Method
) -> NDArray[np.float32]:
    """Give maps float32 [N, h, w] in [0, 1] from two arrays float32 [N, h, w, channels]."""
    if method == "grad-cam":
        weights = gradient.mean(axis=(1, 2), keepdims=True)
    else:
        # Scaled for each image, which takes nothing from the map, since cubes of small gradients
        # underflow.
        largest = np.abs(gradient).max(axis=(1, 2, 3), keepdims=True)
        unit = gradient / np.where(largest > 0, largest, 1)
        total = activation.sum(axis=(1, 2), keepdims=True) * np.where(largest > 0, largest, 1)
        bottom = 2 * unit**2 + total * unit**3
        alpha = np.divide(unit**2, bottom, out=np.zeros_like(unit), where=bottom != 0)
        weights = (alpha * np.maximum(unit, 0)).sum(axis=(1, 2), keepdims=True)
    maps = np.maximum((weights * activation).sum(axis=3), 0)
    peak = maps.max(axis=(1, 2), keepdims=True)
    scaled: NDArray[np.float32] = np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)
    return scaled

"""Backbones from files of the user's own: .keras files and SavedModel folders.

A .keras file is opened in Keras' safe mode, which runs no code of the file's own. A SavedModel
is a TensorFlow program: it can be cut at its output only, and is refused where it has ops that
touch files, Python or the network.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from headstart.errors import BackboneError
from headstart.tasks.backbones.content import digest_folder
from headstart.tasks.backbones.copying import copy_weights
from headstart.tasks.backbones.foreign_files import (
    keras_problem,
    saved_model_problem,
    within_bounds,
)

_DEFAULT_IMAGE_SIZE = 224


@dataclass(frozen=True)
class LoadedFile:
    """A user's network, brought to the form of a backbone.

    Attributes:
        model: Functional model from float32 [N, image_size, image_size, 3] to [N, C].
        image_size: Side of its input in pixels.
        notes: What was changed or assumed, one sentence each.
        content_digest: Digest of all the files of a SavedModel, whose layers cannot be read;
            None for a .keras file.
    """

    model: Any
    image_size: int
    notes: tuple[str, ...] = ()
    content_digest: str | None = None


def load_backbone_file(path: Path, image_size: int | None = None) -> LoadedFile:
    """Load a user's network up to its pooled features.

    A feature map [N, height, width, C] is averaged over its pixels; a classifier's last layer
    (a Dense layer that ends in softmax or sigmoid) is left out; anything else of rank 2 is
    taken as it is.

    Args:
        path: A .keras file or a SavedModel folder.
        image_size: Side of the input in pixels, where the file leaves it open.

    Returns:
        The network with one square RGB input and one output [N, C].

    Raises:
        BackboneError: The file cannot be read safely, or has another form.
    """
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return _load_saved_model(path, image_size)
    if path.is_file() and path.suffix == ".keras":
        return _load_keras_file(path, image_size)
    raise BackboneError(
        "not a backbone file: expected a .keras file or a SavedModel folder with "
        "saved_model.pb in it",
        f"{path}" + ("" if path.exists() else ", which does not exist"),
        "save a model with model.save('NAME.keras'); `headstart backbones` lists the names",
    )


def _load_keras_file(path: Path, image_size: int | None) -> LoadedFile:
    if problem := keras_problem(path):
        raise BackboneError(
            "the .keras file was refused",
            f"{path}: {problem}",
            "save the model again with model.save('NAME.keras')",
        )
    try:
        with within_bounds(path):
            model = keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise BackboneError(
            "the .keras file has layers that are not stock Keras layers; Lambda and custom "
            "layers carry code and are not loaded",
            f"{path}: {_first_line(error)}",
            "replace such layers with stock ones or with keras.ops, and save again",
        ) from None
    model = _as_functional(path, model)
    size = _choose_size(path, model.inputs[0].shape, image_size)
    if None in model.inputs[0].shape[1:3]:
        model = _fix_input_size(model, size)
    model, notes = _end_in_features(path, model)
    return LoadedFile(model, size, notes)


def _as_functional(path: Path, model: Any) -> Any:
    """Check that a model is a graph of layers with one input and one output."""
    if not hasattr(model, "operations"):
        if not isinstance(model, keras.Sequential) or not model.built:
            raise BackboneError(
                "the backbone is not a functional or sequential model with a known input shape",
                f"{path}: {type(model).__name__}",
                "build it with keras.Input and keras.Model, and save it again",
            )
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise BackboneError(
            "the backbone does not have exactly one input and one output",
            f"{path}: {len(model.inputs)} inputs, {len(model.outputs)} outputs",
            "save keras.Model(images, features), with one of each",
        )
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def _choose_size(path: Path, shape: tuple[int | None, ...], image_size: int | None) -> int:
    """Agree on the side of a square RGB input."""
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise BackboneError(
            "the backbone does not take square RGB images, [N, size, size, 3]",
            f"{path}: an input of shape {shape}",
            "save the model with keras.Input((size, size, 3))",
        )
    own_size = shape[1]
    if own_size and image_size and own_size != image_size:
        raise BackboneError(
            f"this backbone only takes images of {own_size} x {own_size} pixels",
            f"{path}: image_size={image_size}",
            f"--set views.image_size={own_size}, or leave it out",
        )
    return own_size or image_size or _DEFAULT_IMAGE_SIZE


def _fix_input_size(model: Any, size: int) -> Any:
    """Copy a model that takes images of any size as one that takes a certain size."""
    images = keras.Input((size, size, 3), name="images", dtype=model.inputs[0].dtype)
    copy = keras.models.clone_model(model, input_tensors=images)
    copy_weights(copy, model)
    return copy


def _end_in_features(path: Path, model: Any) -> tuple[Any, tuple[str, ...]]:
    """Bring a model's output to [N, C], and say what was done for it."""
    features, notes = model.outputs[0], []
    classifier = _find_classifier(model)
    if classifier is not None:
        features = classifier.input
        notes.append(
            f"{path.name} ends in a classifier: its layer {classifier.name!r} is removed, and its "
            "input is the pooled top."
        )
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="headstart_pool")(features)
        notes.append(f"{path.name} gives a feature map: the top is its average over all positions.")
    if len(features.shape) != 2:
        raise BackboneError(
            "the backbone gives neither features [N, C] nor a feature map [N, height, width, C]",
            f"{path}: an output of shape {features.shape}",
            "save the model up to such a layer",
        )
    return keras.Model(model.inputs[0], features, name=model.name), tuple(notes)


def _find_classifier(model: Any) -> Any | None:
    """Find the Dense layer whose probabilities, if any, are the model's output."""
    layers = keras.layers
    probabilities = (keras.activations.softmax, keras.activations.sigmoid)
    last = model.operations[-1]
    if isinstance(last, layers.Softmax) or (
        isinstance(last, layers.Activation) and last.activation in probabilities
    ):
        source = last.input
        last = next(layer for layer in model.operations if layer.output is source)
        return last if isinstance(last, layers.Dense) else None
    is_classifier = isinstance(last, layers.Dense) and last.activation in probabilities
    return last if is_classifier else None


def _load_saved_model(path: Path, image_size: int | None) -> LoadedFile:
    if problem := saved_model_problem(path):
        raise BackboneError(
            "the SavedModel was refused: it does more than compute, or is damaged",
            f"{path}: {problem}",
            "give the .keras file of the same network, or export it without such ops",
        )
    try:
        layer = keras.layers.TFSMLayer(
            str(path), call_endpoint="serving_default", name="saved_model"
        )
    except (ValueError, OSError) as error:
        raise BackboneError(
            "the SavedModel has no usable signature serving_default",
            f"{path}: {_first_line(error)}",
            "write it with model.export(path)",
        ) from None
    signature = layer.call_endpoint_fn
    inputs = list(signature.structured_input_signature[1].values())
    if len(inputs) != 1 or len(signature.structured_outputs) != 1:
        raise BackboneError(
            "the SavedModel's signature serving_default does not have exactly one input "
            "and one output",
            f"{path}: {len(inputs)} inputs, {len(signature.structured_outputs)} outputs",
            "export the model with one of each, or give its .keras file",
        )
    size = _choose_size(path, tuple(inputs[0].shape.as_list()), image_size)
    images = keras.Input((size, size, 3), name="images", dtype=inputs[0].dtype.name)
    (features,) = layer(images).values()
    model, notes = _end_in_features(path, keras.Model(images, features))
    notes += (f"{path.name} is a SavedModel, so top is its only cut.",)
    return LoadedFile(model, size, notes, digest_folder(path))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

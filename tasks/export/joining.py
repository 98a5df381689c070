"""Backbone and head joined into the one model that is exported.

The joined model is flat: every layer of the backbone stands in it by itself, none inside a model
inside the model, so that tools which look layers up by name (Grad-CAM, TensorBoard, tfdbg) see
them all. It is made of stock Keras layers and operations only, so that
``keras.models.load_model`` reads it where headstart is not installed.
"""

import itertools
from typing import Any

import keras

from headstart.errors import ExportError
from headstart.tasks.backbones.copying import copy_weights
from headstart.tasks.views.augment import Resize

IMAGE, VIEW, BOTTLENECK, LOGITS, PROBABILITIES = (
    "image",
    "view",
    "bottleneck",
    "logits",
    "probabilities",
)
"""Names of the layers between the parts of a joined model; its own layers never take them."""

RESIZED = "resized"
"""Name of the stock Resizing layer, which knows the size of a view and how it is made."""


def join(
    extractor: keras.Model,
    head: keras.Model,
    image_size: int,
    resize: Resize,
    storage_dtype: str = "float16",
) -> keras.Model:
    """Join preprocessing, backbone and head into one flat model.

    The head was trained on bottlenecks that were rounded to the storage dtype, so the joined
    model rounds them too: only then does it give the pipeline's own predictions, up to the noise
    of another batch size. (XLA may drop the rounding: it counts it as excess precision.)

    Args:
        extractor: Functional model, RGB float32 [N, image_size, image_size, 3] in [0, 255] ->
            bottleneck float32 [N, *shape], with the preprocessing in it.
        head: Functional model, bottleneck float32 [N, *shape] -> logits float32
            [N, num_classes]; its last layer is named "logits".
        image_size: Side of a view in pixels.
        resize: How an image becomes a view; see `headstart.tasks.views.augment.plain_view`.
        storage_dtype: "float16" or "float32": how the bottlenecks were stored.

    Returns:
        A model to write to a file, images uint8 [N, H, W, 3] -> probabilities float32
        [N, num_classes]. Its layers are still those of extractor and head, so that their
        ``output`` may be that of the model they were built in. As it reads back from the file it
        has layers of its own; "view" (rounded pixels, float32 [N, image_size, image_size, 3]),
        "bottleneck" and "logits" can be looked up by these names.

    Raises:
        ExportError: The head does not take what the extractor gives.
    """
    _check_fit(extractor, head)
    taken = {IMAGE, RESIZED, VIEW, BOTTLENECK, LOGITS, PROBABILITIES}
    image = keras.Input((None, None, 3), dtype="uint8", name=IMAGE)
    bottleneck = _flatten(extractor, taken).call(_view(image, image_size, resize))
    if storage_dtype != "float32":
        bottleneck = keras.ops.cast(bottleneck, storage_dtype)
    bottleneck = keras.ops.cast(bottleneck, "float32")
    bottleneck = keras.layers.Identity(name=BOTTLENECK, dtype="float32")(bottleneck)
    taken.remove(LOGITS)  # the head's last layer owns that name
    logits = _flatten(head, taken).call(bottleneck)
    probabilities = keras.layers.Softmax(name=PROBABILITIES, dtype="float32")(logits)
    return keras.Model(image, probabilities, name="headstart")


def _view(image: Any, image_size: int, resize: Resize) -> Any:
    # As plain_view: the same op, rounded half to even. float32 even under mixed precision.
    resizing = keras.layers.Resizing(
        image_size,
        image_size,
        interpolation="bilinear",
        antialias=True,
        crop_to_aspect_ratio=resize == "crop",
        pad_to_aspect_ratio=resize == "pad",
        name=RESIZED,
        dtype="float32",
    )
    pixels = keras.ops.cast(image, "float32")  # Resizing hands uint8 of the right size on as it is
    # Its training argument defaults to True, and Keras hands the first value it meets on to all
    # later layers: model(images) would drop out and renormalise.
    resized = resizing(pixels, training=False)
    rounded = keras.ops.clip(keras.ops.round(resized), 0.0, 255.0)
    return keras.layers.Identity(name=VIEW, dtype="float32")(rounded)


def _flatten(model: keras.Model, taken: set[str]) -> keras.Model:
    """Give a model of the same layers with none nested and no name in ``taken``.

    A layer whose name is taken is copied under a new one. The names used are added to ``taken``.
    """
    if len(model.inputs) == len(model.outputs) == 1:  # bare tensors, not lists; Sequential too
        model = keras.Model(model.inputs[0], model.outputs[0])

    def rename(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return layer  # taken apart when it is called
        renamed = layer if layer.name not in taken else _copy(layer, taken)
        taken.add(renamed.name)
        return renamed

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(layer, keras.Model):
            return _flatten(layer, taken).call(*arguments)
        return layer(*arguments, **options)

    return keras.models.clone_model(model, clone_function=rename, call_function=call)


def _copy(layer: Any, taken: set[str]) -> Any:
    copy = type(layer).from_config(layer.get_config())
    names = (f"{layer.name}_{number}" for number in itertools.count(1))
    copy.name = next(name for name in names if name not in taken)
    if getattr(layer, "weights", None):  # bare operations have none
        copy.build_from_config(layer.get_build_config())
        copy_weights(copy, layer)
    return copy


def _check_fit(extractor: keras.Model, head: keras.Model) -> None:
    given = tuple(keras.tree.flatten(extractor.outputs)[0].shape[1:])
    wanted = tuple(head.inputs[0].shape[1:])
    if len(extractor.outputs) != 1 or given != wanted:
        raise ExportError(
            f"The head takes the bottlenecks of one cut, each of shape {list(wanted)}.",
            f"an extractor of {len(extractor.outputs)} cuts, the first of shape {list(given)}",
            "join the head with the extractor of the cut it was trained on",
        )
    if LOGITS not in [layer.name for layer in head.layers]:
        raise ExportError(
            f'The head ends in a layer named "{LOGITS}".', f"its last is {head.layers[-1].name!r}"
        )

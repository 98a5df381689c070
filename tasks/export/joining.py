"""Backbone and head joined into the one model that is exported.

The joined model is flat: every layer of the backbone stands in it by itself, none inside a model
inside the model, so that tools which look layers up by name (Grad-CAM, TensorBoard, tfdbg) see
them all. It is made of stock Keras layers and operations only, so that
``keras.models.load_model`` reads it where headstart is not installed.
"""

import keras

from headstart.errors import ExportError
from headstart.tasks.backbones.chaining import apply, with_free_names
from headstart.tasks.views.recipes import Resize

IMAGE, VIEW, BOTTLENECK, LOGITS, PROBABILITIES, NUMBERS = (
    "image",
    "view",
    "bottleneck",
    "logits",
    "probabilities",
    "numbers",
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
    answer: keras.layers.Layer | None = None,
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
        answer: The layer that makes the answer of the logits; a softmax where not given.

    Returns:
        A model to write to a file, images uint8 [N, H, W, 3] -> probabilities (or numbers)
        float32 [N, num_classes]. Its layers are still those of extractor and head, so that their
        ``output`` may be that of the model they were built in. As it reads back from the file it
        has layers of its own; "view" (rounded pixels, float32 [N, image_size, image_size, 3]),
        "bottleneck" and "logits" can be looked up by these names.

    Raises:
        ExportError: The head does not take what the extractor gives.
    """
    _check_fit(extractor, head)
    taken = {IMAGE, RESIZED, VIEW, BOTTLENECK, LOGITS, PROBABILITIES, NUMBERS}
    parts: tuple[tuple[keras.Model, set[str]], ...] = (
        (_view(image_size, resize), {RESIZED, VIEW}),
        (extractor, set()),
        (_stored(head.inputs[0].shape[1:], storage_dtype), {BOTTLENECK}),
        (head, {LOGITS}),
    )
    image = x = keras.Input((None, None, 3), dtype="uint8", name=IMAGE)
    for part, own_names in parts:
        taken -= own_names
        x = apply(with_free_names(part, taken, flat=True), x)
    if answer is None:
        answer = keras.layers.Softmax(name=PROBABILITIES, dtype="float32")
    return keras.Model(image, answer(x), name="headstart")


def _view(image_size: int, resize: Resize) -> keras.Model:
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
    image = keras.Input((None, None, 3), dtype="uint8")
    pixels = keras.ops.cast(image, "float32")  # Resizing hands uint8 of the right size on as it is
    # Its training argument defaults to True, and Keras hands the first value it meets on to all
    # later layers: model(images) would drop out and renormalise.
    resized = resizing(pixels, training=False)
    rounded = keras.ops.clip(keras.ops.round(resized), 0.0, 255.0)
    return keras.Model(image, keras.layers.Identity(name=VIEW, dtype="float32")(rounded))


def _stored(shape: tuple[int, ...], storage_dtype: str) -> keras.Model:
    """Round bottlenecks as the store did."""
    bottleneck = x = keras.Input(shape)
    if storage_dtype != "float32":
        x = keras.ops.cast(x, storage_dtype)
    x = keras.ops.cast(x, "float32")
    return keras.Model(bottleneck, keras.layers.Identity(name=BOTTLENECK, dtype="float32")(x))


def _check_fit(extractor: keras.Model, head: keras.Model) -> None:
    given = tuple(keras.tree.flatten(extractor.outputs)[0].shape[1:])
    wanted = tuple(head.inputs[0].shape[1:])
    if len(extractor.outputs) != 1 or given != wanted:
        raise ExportError(
            "the head does not fit the extractor: it takes the bottlenecks of one cut, "
            f"each of shape {list(wanted)}",
            f"an extractor of {len(extractor.outputs)} cuts, the first of shape {list(given)}",
            "join the head with the extractor of the cut it was trained on",
        )
    if LOGITS not in [layer.name for layer in head.layers]:
        raise ExportError(
            f'the head does not end in a layer named "{LOGITS}"',
            f"its last is {head.layers[-1].name!r}",
        )

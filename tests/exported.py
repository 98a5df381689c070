"""A small classifier and its exported files, for the tests of export and prediction."""

from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
from numpy.typing import NDArray

from headstart.tasks.export.file_names import QUANTISED, Format
from headstart.tasks.export.joining import join
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.writing import export_model
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.views.augment import plain_view
from headstart.tasks.views.recipes import Resize

SIZE = 24
EXACT = tuple(kind for kind in get_args(Format) if kind not in QUANTISED)
"""The formats that keep all bits of the weights."""
CLASS_NAMES = ("daisy", "日本 ünï", "two\nlines", "back\\slash")


def image_of(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw smooth noise: patches of colour, so that resizing keeps most of it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height, width, 3)) // 3
    patch = np.random.default_rng(seed + 1).integers(0, 170, (1, 1, 3))
    return (coarse + patch).astype(np.uint8)


def tiny_extractor(size: int = SIZE) -> keras.Model:
    """RGB -> bottleneck [N, 8]; the network is nested, as in the extractors of backbones."""
    keras.utils.set_random_seed(3)
    inner_input = keras.Input((size, size, 3))
    # It holds its statistics as tensors, not as variables (EfficientNet begins so).
    x = keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.9, 1.0, 1.1])(inner_input)
    x = keras.layers.Conv2D(8, 3, 2, name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Activation("swish", name="dropout")(x)  # a name that the head has too
    inner = keras.Model([inner_input], [keras.layers.GlobalAveragePooling2D(name="logits")(x)])
    images = keras.Input((size, size, 3), name="images")
    pixels = keras.layers.Rescaling(1 / 128, -127 / 128)(keras.ops.cast(images, "float32"))
    return keras.Model(images, inner(pixels))


def tiny_head() -> keras.Model:
    """Bottleneck [N, 8] -> logits [N, 4]."""
    keras.utils.set_random_seed(4)
    bottleneck = keras.Input((8,), name="bottleneck")
    x = keras.layers.Dropout(0.5, name="dropout")(bottleneck)
    x = keras.layers.Dense(16, activation="relu", name="conv")(x)  # a name of the extractor's
    logits = keras.layers.Dense(len(CLASS_NAMES), kernel_initializer="he_normal", name="logits")(x)
    return keras.Model(bottleneck, logits, name="head")


def pipeline_logits(
    extractor: Any,
    head: Any,
    images: list[NDArray[np.uint8]],
    resize: Resize = "squash",
    dtype: str = "float16",
) -> NDArray[np.float32]:
    """Give what the pipeline says: head(stored(backbone(plain view)))."""
    size = extractor.input_shape[1]
    views = np.stack([plain_view(image, size, resize) for image in images])
    stored = extractor(views.astype(np.float32)).numpy().astype(dtype)
    logits: NDArray[np.float32] = head(stored.astype(np.float32), training=False).numpy()
    return logits


def export_tiny(
    folder: Path,
    formats: tuple[str, ...],
    resize: Resize = "squash",
    size: int = SIZE,
    **fields: Any,
) -> ModelCard:
    """Export the small classifier."""
    card = ModelCard(
        class_names=CLASS_NAMES, image_size=size, resize=resize, backbone="tiny", **fields
    )
    answer = TARGETS[card.target].answer_layer(card.fit, TARGETS[card.target].answer_name)
    joined = join(tiny_extractor(size), tiny_head(), size, resize, answer=answer)
    export_model(joined, formats, folder, card)
    return card

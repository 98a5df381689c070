"""The model that is explained, and images as it takes them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.errors import ConfigError, ExportError
from headstart.tasks.dataset.decode import decode_image
from headstart.tasks.export.file_names import FILE_NAMES
from headstart.tasks.export.image_files import read_image_file
from headstart.tasks.export.model_files import (
    MAX_PIXELS,
    check_content,
    check_safe,
    read_card,
    read_keras,
)
from headstart.tasks.views.augment import plain_view
from headstart.tasks.views.recipes import Resize


@dataclass(frozen=True)
class Subject:
    """A classifier that can be explained.

    Attributes:
        class_names: Name of each output.
        image_size: Side of a view in pixels.
        resize: How an image becomes a view.
        channels: 3, or 1 for a model of gray images.
        is_ours: Whether headstart exported it; preprocessing is inside it then.
        tells_numbers: Whether it answers with numbers; class_names are theirs then.
        max_pixels: Images with more pixels are refused.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    image_size: int
    resize: Resize
    channels: int
    is_ours: bool
    tells_numbers: bool = False
    max_pixels: int = MAX_PIXELS

    def view(self, path: str | os.PathLike[str]) -> NDArray[np.uint8]:
        """Read an image file as the model sees it.

        Returns:
            RGB, uint8 [image_size, image_size, 3].

        Raises:
            DatasetError: It is not a usable image.
        """
        pixels = tf.constant(decode_image(read_image_file(path, self.max_pixels), self.max_pixels))
        view: NDArray[np.uint8] = plain_view(pixels, self.image_size, self.resize).numpy()
        return view

    def batch(self, views: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        """Put views together as the model takes them.

        Args:
            views: RGB, uint8 [image_size, image_size, 3] each.

        Returns:
            [N, image_size, image_size, channels] of the type of the model's input, in [0, 255].
        """
        stacked = np.stack(views)
        if self.channels == 1:
            stacked = tf.image.rgb_to_grayscale(stacked).numpy()
        return stacked.astype(self.model.inputs[0].dtype)

    def class_number(self, name: str) -> int:
        """Find a class by its name or number.

        Args:
            name: As in class_names, or a number from 0.

        Raises:
            ConfigError: There is no such class.
        """
        if name in self.class_names:
            return self.class_names.index(name)
        if name.isdecimal() and int(name) < len(self.class_names):
            return int(name)
        raise ConfigError(
            "the model has no such class",
            repr(name),
            f"give one of {', '.join(self.class_names[:20])}",
        )


def load_subject(path: Path, image_size: int | None = None) -> Subject:
    """Load a model to explain: one of headstart's, or any Keras classifier.

    Args:
        path: A .keras file, or the folder of a run.
        image_size: Side of a view in pixels, for a model that takes any size.

    Raises:
        ExportError: There is none, or it cannot be explained.
        ConfigError: The model takes any size, and none was given, or takes another one than
            was given.
    """
    file = path / FILE_NAMES["keras"] if path.is_dir() else path
    if not file.is_file():
        raise ExportError(
            "there is no Keras model to explain: expected a .keras file, or a run's folder "
            "with one",
            f"{path}: {'a folder without ' + FILE_NAMES['keras'] if path.is_dir() else 'no file'}",
            "give the model.keras that was exported with it",
        )
    check_safe(file)
    try:
        card = read_card(file)
    except ExportError:
        card = None
    if card is not None:
        check_content(file, card)
    model = read_keras(file)
    if card is None:
        return _foreign(model, file, image_size)
    side = _agreed_side(file, card.image_size, image_size)
    tells_numbers = card.target == "number"
    return Subject(
        model, card.class_names, side, card.resize, 3, True, tells_numbers, card.max_pixels
    )


def _foreign(model: keras.Model, file: Path, image_size: int | None) -> Subject:
    shapes = [tuple(each.shape) for each in getattr(model, "inputs", None) or []]
    outputs = [tuple(each.shape) for each in getattr(model, "outputs", None) or []]
    takes_images = len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][3] in (1, 3)
    classifies = len(outputs) == 1 and len(outputs[0]) == 2 and outputs[0][1] is not None
    if not takes_images or not classifies:
        raise ExportError(
            "the model is not a classifier from images [N, height, width, 1 or 3] to [N, "
            "num_classes]",
            f"{file}: {shapes or 'no inputs'} to {outputs or 'no outputs'}",
            "explain another model",
        )
    _, height, width, channels = shapes[0]
    if None not in (height, width) and height != width:
        raise ExportError(
            "the model does not take square images",
            f"{file}: input {height} x {width}",
            "explain a model of square images, or of any size",
        )
    side = _agreed_side(file, height or width, image_size)
    count = outputs[0][-1]
    names = tuple(str(number) for number in range(2 if count == 1 else count))
    return Subject(model, names, side, "squash", channels, is_ours=False)


def _agreed_side(file: Path, fixed: int | None, asked: int | None) -> int:
    """Settle the side of a view in pixels between what a model takes and what was asked for."""
    if asked is not None and fixed not in (None, asked):
        raise ConfigError(
            f"the model only takes images of {fixed} x {fixed} pixels",
            f"{file} with --image-size {asked}",
            "leave --image-size out",
        )
    side = fixed or asked
    if side is None:
        raise ConfigError(
            "the model takes images of any size, so --image-size is needed",
            f"{file}: no size",
            "give the size it was trained with: --image-size 224",
        )
    return side

"""The bottlenecks that an exported model computes on the way to its answer."""

from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.errors import DatasetError
from headstart.tasks.export.image_files import find_images
from headstart.tasks.export.joining import BOTTLENECK, VIEW
from headstart.tasks.export.model_files import ModelCard, read_card, read_whole_keras
from headstart.tasks.export.predict import BATCH_SIZE, Predictor, as_items


class Embedder(Predictor):
    """An exported .keras model up to the layer where its head begins.

    Args:
        card: What the model says of itself.
        network: Views to bottlenecks, float32 [n, C].
    """

    @classmethod
    def load(cls, path: Any) -> Self:
        """Load a .keras file that headstart has exported.

        Raises:
            ExportError: It cannot be loaded, or is not headstart's.
        """
        card = read_card(Path(path))
        return cls(card, _network(read_whole_keras(Path(path)), card))

    def embed(self, images: Any) -> NDArray[np.float32]:
        """Compute bottlenecks.

        Returns:
            float32 [n, C].

        Raises:
            DatasetError: One of them is not a usable image, or there is none.
        """
        if isinstance(images, str | Path) and Path(images).is_dir():
            images = [found.path for found in find_images([images]) if not found.problem]
        items, _ = as_items(images)
        if not items:
            raise DatasetError("there is no image to embed", "an empty list", "give at least one")
        blocks = []
        for start in range(0, len(items), BATCH_SIZE):
            part = items[start : start + BATCH_SIZE]
            views = [self._view_or_raise(item, start + i) for i, item in enumerate(part)]
            blocks.append(self._network(np.stack(views)))
        return np.concatenate(blocks)


def _network(model: Any, card: ModelCard) -> Any:
    part = keras.Model(model.get_layer(VIEW).output, model.get_layer(BOTTLENECK).output)
    spec = tf.TensorSpec([None, card.image_size, card.image_size, 3], tf.uint8)
    forward = tf.function(
        lambda views: part(tf.cast(views, tf.float32), training=False), input_signature=[spec]
    )

    def network(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = forward(tf.constant(views)).numpy()
        averaged: NDArray[np.float32] = rows.mean(axis=tuple(range(1, rows.ndim - 1)))
        return averaged

    return network

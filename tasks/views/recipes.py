"""What decides the pixels of a view, and where views are kept."""

from typing import Any, Literal

from headstart.config import ViewsConfig
from headstart.tasks.dataset.codecs import codecs_digest
from headstart.tasks.dataset.decode import DECODER_VERSION
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.records import RowCollection
from headstart.tasks.store.versions import version_of

VIEWS_VERSION = 1
"""Bump by hand when the same recipe gives other pixels."""

Resize = Literal["squash", "crop", "pad"]
MAX_PADDED_PIXELS = 2**26
"""Of the square that an image is padded to and then resized; of a larger one, the long side is
resized before the padding. Resizing is separable: the last bit of a float may differ, no more."""


def plain_recipe(config: ViewsConfig, image_size: int) -> dict[str, Any]:
    """Return everything that decides the pixels of a plain view, besides the image.

    Returns:
        Data that has a canonical JSON.
    """
    return {
        "version": VIEWS_VERSION,
        "decoder": DECODER_VERSION,
        "codecs": codecs_digest(),
        "tensorflow": version_of("tensorflow"),
        "image_size": image_size,
        "resize": config.resize,
    }


def augmented_recipe(config: ViewsConfig, image_size: int) -> dict[str, Any]:
    """Return everything that decides the pixels of an augmented view, besides image and number.

    Returns:
        Data that has a canonical JSON.
    """
    return {**plain_recipe(config, image_size), **randomness(config)}


def plain_collection(config: ViewsConfig, image_size: int, store: Store) -> RowCollection:
    """Return the collection of the views 0: rows of uint8 ``[image_size, image_size, 3]``."""
    return _collection(plain_recipe(config, image_size), image_size, store)


def augmented_collection(config: ViewsConfig, image_size: int, store: Store) -> RowCollection:
    """Return the collection of the views 1 and up, with rows as those of `plain_collection`."""
    return _collection(augmented_recipe(config, image_size), image_size, store)


def randomness(config: ViewsConfig) -> dict[str, Any]:
    """Return what decides the random numbers of augmented views, besides image and number."""
    augmentations = [operation.model_dump(mode="json") for operation in config.augmentations]
    return {"augmentations": augmentations, "seed": config.seed}


def _collection(recipe: dict[str, Any], image_size: int, store: Store) -> RowCollection:
    return RowCollection(store, "views", recipe, (image_size, image_size, 3), "uint8")

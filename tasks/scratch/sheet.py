"""Training images beside the views of the first epochs, on one sheet."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import EpochViewsConfig
from headstart.tasks.dataset.pixels import PixelsManifest, open_images, open_labels
from headstart.tasks.evaluation.report_content import PictureFile
from headstart.tasks.runs.run_folder import SHEET_FILE
from headstart.tasks.store.fingerprint import digest
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.views.contact_sheet import Tile, contact_sheet
from headstart.tasks.views.epoch_augment import epoch_views
from headstart.tasks.views.epoch_draws import as_uint64, image_keys, view_key
from headstart.tasks.views.epoch_stage import fields_of, recipe_of
from headstart.tasks.views.sheet import QUALITY

NUM_IMAGES, NUM_VIEWS = 8, 4


def draw_views(
    folder: Path, pixels: PixelsManifest, config: EpochViewsConfig, num_views: int
) -> PictureFile:
    """Draw what the network is shown.

    Args:
        folder: Where the sheet is written.
        pixels: Manifest of the data set.
        config: Augmentations of the views.
        num_views: Number of views of each image, of which the first few are drawn.
    """
    images, labels = open_images(pixels, "train"), open_labels(pixels, "train")
    shown = np.linspace(0, len(images) - 1, min(NUM_IMAGES, len(images)), dtype=int)
    picked = np.asarray(images[shown])
    recipe, recipe_digest = recipe_of(pixels, config), digest(fields_of(pixels, config))
    target = TARGETS[pixels.kind]
    rows = [
        [Tile(_in_colour(image), f"{target.words(label, pixels.class_names)}\noriginal")]
        for image, label in zip(picked, labels[shown], strict=True)
    ]
    keys = as_uint64(image_keys(picked))
    for view in range(1, min(NUM_VIEWS, num_views) + 1):
        key = as_uint64([view_key(view, recipe_digest)])[0]
        made = epoch_views(tf.constant(picked), keys, key, recipe).numpy()
        for row, image in zip(rows, made, strict=True):
            row.append(Tile(_in_colour(image), f"view {view}"))
    path = folder / SHEET_FILE
    contact_sheet(rows).save(path, format="JPEG", quality=QUALITY)
    steps = [f"shifted by up to {recipe.padding} pixels each way"] if recipe.padding else []
    steps += ["mirrored in half of the cases"] if recipe.flip else []
    steps += [f"painted over in a square of {recipe.cutout} pixels"] if recipe.cutout else []
    told = f"Each view is the image {', then '.join(steps) or 'as it is'}."
    return PictureFile(path, "What the network sees", told)


def _in_colour(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.broadcast_to(image, (*image.shape[:2], 3))

"""Views beside the images that they are of, on one sheet: what the network is shown."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
from PIL import Image

from headstart.config import (
    Augmentation,
    ColorJitter,
    Cutout,
    Flip,
    PadAndRandomCrop,
    RandomResizedCrop,
    Rotation,
    ViewsConfig,
)
from headstart.errors import DatasetError
from headstart.tasks.dataset.decode import decode_image
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.dataset.printable import printable
from headstart.tasks.store.remembered import remember, remembered
from headstart.tasks.views.contact_sheet import TILE_SIDE, Tile, contact_sheet
from headstart.tasks.views.recipes import augmented_recipe

QUALITY = 85
"""Of the JPEG: 20 to 30 kB an image with four views."""
SHEET_VERSION = 1
"""Bump by hand when the same images give another sheet."""
NUM_PLAIN_BESIDE = 3
"""Images that stand beside each other where each has its plain view alone."""


def draw_sheet(
    index: DatasetIndex,
    root: Path,
    config: ViewsConfig,
    image_size: int,
    max_pixels: int,
    num_images: int,
) -> bytes:
    """Draw some images, each with its plain view and its augmented ones.

    The sheet of the same images and recipe is remembered in the store in use.

    Args:
        index: The data set; images to train on are shown, where it has any.
        root: Folder that its paths start at.
        config: How images become pixels.
        image_size: Side of a view in pixels.
        max_pixels: Images with more pixels are refused.
        num_images: How many to show.

    Raises:
        DatasetError: An image is gone, changed or cannot be decoded.
    """
    rows = _pick(index, num_images)
    names = [[row.digest, row.path] for row in rows]
    recipe = augmented_recipe(config, image_size)
    about = [SHEET_VERSION, names, recipe, config.num_augmented, image_size]
    known = remembered("view_sheets", about)
    if known is not None:
        return base64.b64decode(known)
    drawn = _draw(rows, root, config, image_size, max_pixels)
    remember("view_sheets", about, base64.b64encode(drawn).decode())
    return drawn


def describe(config: ViewsConfig) -> str:
    """Say in a sentence how the views of a sheet come about."""
    resized = {
        "squash": "squashed to a square",
        "crop": "their middle cut out",
        "pad": "padded with black",
    }
    plain = (
        f"The plain view, on which the model is evaluated, is the image {resized[config.resize]}"
    )
    if not config.num_augmented:
        return f"{plain}. There are no augmented views: --views asks for some."
    steps = ", then ".join(words(one) for one in config.augmentations)
    return f"{plain}. The augmented views are {steps or 'as the plain one'}."


def words(augmentation: Augmentation) -> str:
    """Say what an augmentation does to a view."""
    if isinstance(augmentation, Flip):
        return f"mirrored in {augmentation.probability:.0%} of the cases"
    if isinstance(augmentation, PadAndRandomCrop):
        return f"shifted by up to {augmentation.padding} pixels each way"
    if isinstance(augmentation, RandomResizedCrop):
        return (
            f"cropped to {augmentation.min_area:.0%} to 100% of the area with up to "
            f"{augmentation.max_aspect_ratio:.2f} times the aspect ratio"
        )
    if isinstance(augmentation, ColorJitter):
        parts = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
        shares = ", ".join(f"{part:.0%}" for part in parts)
        return f"changed in brightness, contrast and saturation by up to {shares}"
    if isinstance(augmentation, Rotation):
        return f"rotated by up to {augmentation.max_degrees:g} degrees"
    if isinstance(augmentation, Cutout):
        return (
            f"overwritten with {augmentation.fill} on {augmentation.min_area:.0%} to "
            f"{augmentation.max_area:.0%} of the area in {augmentation.probability:.0%} of the "
            "cases"
        )
    assert_never(augmentation)


def _pick(index: DatasetIndex, number: int) -> Sequence[ImageRow]:
    """Pick images by their content, which is as good as at random, and the same each time."""
    return (index.rows_of("train") or index.rows)[:number]


def _draw(
    rows: Sequence[ImageRow], root: Path, config: ViewsConfig, image_size: int, max_pixels: int
) -> bytes:
    from headstart.tasks.running.tensorflow import import_tensorflow

    import_tensorflow()
    from headstart.tasks.views.writing import ImageJob, ViewMaker

    make = ViewMaker(config, image_size, max_pixels)
    numbers = tuple(range(1 + config.num_augmented))
    lines = []
    for row in rows:
        try:
            original = Image.fromarray(decode_image((root / row.path).read_bytes(), max_pixels))
        except OSError as error:
            reason = f"{root / row.path}: {error.strerror or error}"
            raise DatasetError("an image cannot be read", reason) from None
        original.thumbnail((TILE_SIDE, TILE_SIDE))
        name = printable(Path(row.path).name)
        tiles = [Tile(np.asarray(original), f"{name}\noriginal")]
        for number, view in zip(
            numbers, make(ImageJob(root / row.path, row.digest, numbers)), strict=True
        ):
            tiles.append(Tile(view, f"view {number}" if number else "plain view"))
        lines.append(tiles)
    sheet = contact_sheet(lines, 1 if config.num_augmented else NUM_PLAIN_BESIDE)
    file = io.BytesIO()
    sheet.save(file, format="JPEG", quality=QUALITY)
    return file.getvalue()

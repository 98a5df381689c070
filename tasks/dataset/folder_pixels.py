"""Image files as arrays of one size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headstart.config import SPLITS, ScratchDatasetConfig, Split
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.codecs import codecs_digest
from headstart.tasks.dataset.decode import DECODER_VERSION, UndecodableImage, decode_image
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.dataset.pixel_source import Images, Labels, PixelSource, folder_config
from headstart.tasks.dataset.splits import split_position
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.progress import reporter
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.targets.choice import TARGETS


def decoding() -> dict[str, Any]:
    """Return what decides the pixels of an image file besides its bytes and their size."""
    import tensorflow as tf

    return {
        "decoder": DECODER_VERSION,
        "codecs": codecs_digest(),
        "tensorflow": tf.__version__,
    }


def folder_source(
    config: ScratchDatasetConfig, dataset: DatasetManifest, folder: Path
) -> PixelSource:
    """Decode and resize image files into arrays on disk.

    Args:
        config: Which folder or manifest, and the side of the images in pixels.
        dataset: Manifest of its index.
        folder: Where ``train.npy`` and ``test.npy`` are written, image by image, so that the set
            need not fit into memory.

    Raises:
        DatasetError: The folder has no usable images, a split has none, or a file is gone or not
            the one that was indexed.
    """
    source = folder_config(config)
    index = index_of(dataset)
    root, target = dataset_root(source), TARGETS[index.kind]
    labels: dict[str, Any] = {}
    for split, rows in rows_by_split(index, config).items():
        _write_split(rows, root, split, config.image_size, source.max_pixels, folder)
        labels[split] = target.to_array(rows, len(index.class_names))

    def read(split: str) -> tuple[Images, Labels]:
        return np.load(folder / f"{split}.npy", mmap_mode="r"), labels[split]

    images = Path(config.images).resolve()
    name = images.name if images.is_dir() else images.stem
    # What is at the left, or at an angle, may be what a number says.
    flips = index.kind != "number"
    return PixelSource(name, (), read, index.class_names, flips, index.kind, tuple(labels))


def rows_by_split(
    index: DatasetIndex, config: ScratchDatasetConfig
) -> dict[Split, tuple[ImageRow, ...]]:
    """Divide the images in two: what is meant for validation is trained on, or tested on.

    No epoch is selected here, so nothing is validated; where the data brings no test images, its
    validation images are those that nothing was trained on. Thresholds of labels and intervals of
    numbers need images that were not trained on: those for validation, or else a part of the
    training images that is drawn by their contents.
    """
    train, val, test = (index.rows_of(split) for split in SPLITS)
    if index.kind == "class":
        return {"train": train + val, "test": test} if test else {"train": train, "test": val}
    if not test:
        val, test = (), val
    if not val:
        drawn = {row.unit: _is_val(row, config) for row in train}
        val = tuple(row for row in train if drawn[row.unit])
        train = tuple(row for row in train if not drawn[row.unit])
    return {"train": train, "test": test, **({"val": val} if val else {})}


def _is_val(row: ImageRow, config: ScratchDatasetConfig) -> bool:
    # Not the digest alone, by which the test split may have been drawn.
    return split_position(f"val {row.unit}", config.split_seed) < config.val_fraction


def _write_split(
    rows: tuple[ImageRow, ...],
    root: Path,
    split: str,
    image_size: int,
    max_pixels: int,
    folder: Path,
) -> None:
    if not rows:
        raise DatasetError(
            "both training and test images are needed",
            f"{root}: no {split} images",
            "add a folder test/ beside train/; without either, add images or change "
            "dataset.test_fraction",
        )
    shape = (len(rows), image_size, image_size, 3)
    out = np.lib.format.open_memmap(folder / f"{split}.npy", "w+", np.uint8, shape)
    with reporter().track(f"{split} images", len(rows), "images") as advance:
        for number, pixels in enumerate(_resized(rows, root, image_size, max_pixels)):
            out[number] = pixels
            advance(1)
    out.flush()


def _resized(
    rows: tuple[ImageRow, ...], root: Path, image_size: int, max_pixels: int
) -> Iterator[Images]:
    import tensorflow as tf

    for row in rows:
        pixels = _decode(root / row.path, row.digest, max_pixels)
        # As the plain view of a transfer run: bilinear with antialiasing, rounded half to even.
        resized = tf.image.resize(pixels, (image_size, image_size), antialias=True)
        yield tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8).numpy()


def _decode(path: Path, digest: str, max_pixels: int) -> Images:
    next_step = "run the command again: it reads the images again"
    try:
        data = path.read_bytes()
    except OSError as error:
        received = f"{path}: {error.strerror or error}"
        raise DatasetError("an image cannot be read", received, next_step) from error
    if bytes_digest(data) != digest:
        problem = "an image was changed after the run had begun"
        raise DatasetError(problem, f"{path}: other bytes than were indexed", next_step)
    try:
        return decode_image(data, max_pixels)
    except UndecodableImage as error:
        received = f"{path}: {error.reason}"
        raise DatasetError("an indexed image cannot be decoded", received, next_step) from None

"""The pixels stage: a whole data set as arrays of one image size, for training from scratch.

Small images are read once from whatever format they come in and kept as NumPy files, which are
mapped into memory, not loaded: the set may be larger than memory. Image files of a folder are
resized as for the plain view of a transfer run.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.config import ScratchDatasetConfig, TargetKind
from headstart.errors import DatasetError
from headstart.tasks.dataset.folder_pixels import decoding, folder_source
from headstart.tasks.dataset.pixel_source import (
    Images,
    Labels,
    PixelSource,
    folder_config,
    has_image_files,
    open_source,
)
from headstart.tasks.dataset.stage import DatasetManifest
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest, artefact
from headstart.tasks.store.fingerprint import file_digest
from headstart.tasks.targets.choice import TARGETS

SPLITS = ("train", "test")
CHUNK_PIXELS = 2**22
"""Pixels summed at a time for mean and deviation, 4,096 images of 32 x 32; each takes 8 bytes."""
_NAMES: dict[TargetKind, str] = {"class": "classes", "labels": "labels", "number": "numbers"}


class PixelsManifest(Manifest):
    """A data set as arrays."""

    name: str
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    """By split: images of each class, in the order of the class names. Of labels, the images that
    have each; of numbers, all images for each."""
    sizes: dict[str, int] = {}
    """By split: images, where targets are no classes."""
    kind: TargetKind = "class"
    image_shape: tuple[int, int, int]
    """Height, width and channels (1 or 3)."""
    mean: tuple[float, ...]
    """Of each channel over the training images, in [0, 255]."""
    std: tuple[float, ...]
    flips: bool
    """Whether a mirror image is as good as the image."""
    pixels_digest: str
    """Of the training images and their order; labels do not matter."""

    def num_images(self, split: str) -> int:
        """Return how many images a split has."""
        return self.sizes.get(split, sum(self.counts[split]))


def index_images(config: ScratchDatasetConfig) -> DatasetManifest | None:
    """Index a data set of image files; None for one in a format of its own."""
    if not has_image_files(config):
        return None
    return dataset_stage(folder_config(config))


def _pixels_key(config: ScratchDatasetConfig, index: DatasetManifest | None) -> dict[str, Any]:
    if index is not None:
        fields = {"index": index.key, "image_size": config.image_size, **decoding()}
        if index.kind != "class":
            fields["val"] = [config.val_fraction, config.split_seed]
        return fields
    source = open_source(config)
    return {
        "name": source.name,
        "files": [_file_digest(path) for path in source.files],
        "class_names": source.class_names,
    }


def _file_digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise DatasetError(
            "the data set's files cannot be read", f"{path}: {error.strerror or error}"
        ) from None


def _write_pixels(
    folder: Path, config: ScratchDatasetConfig, index: DatasetManifest | None
) -> Made:
    source = open_source(config) if index is None else folder_source(config, index, folder)
    splits = {split: source.read(split) for split in source.splits}
    names = source.class_names or _number_names(splits["train"][1])
    _check(source, splits, len(names))
    for split, (images, labels) in splits.items():
        if not (folder / f"{split}.npy").exists():
            np.save(folder / f"{split}.npy", images)
        np.save(folder / f"{split}-labels.npy", labels)
    images = splits["train"][0]
    mean, std = channel_statistics(images)
    num_rows = sum(len(labels) for _, labels in splits.values())
    return Made(
        num_rows,
        num_rows,
        fields={
            "name": source.name,
            "class_names": names,
            "counts": {
                split: _counts(source.kind, labels, len(names))
                for split, (_, labels) in splits.items()
            },
            **_told_of(source.kind, splits),
            "image_shape": images.shape[1:],
            "mean": mean,
            "std": std,
            "flips": source.flips,
            "pixels_digest": file_digest(folder / "train.npy"),
        },
    )


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel.

    Args:
        images: uint8 [n, h, w, c], n at least 1.

    Returns:
        Both in [0, 255]; summed as integers, so the same in any order. A channel without any
        deviation gets 1, so that it can be divided by.
    """
    num_channels = images.shape[-1]
    total, squares = np.zeros(num_channels), np.zeros(num_channels)
    num_rows = max(1, CHUNK_PIXELS // math.prod(images.shape[1:3]))
    for start in range(0, len(images), num_rows):
        rows = images[start : start + num_rows].reshape(-1, num_channels)
        for channel in range(num_channels):
            counts = np.bincount(rows[:, channel], minlength=256)
            total[channel] += (counts * np.arange(256)).sum()
            squares[channel] += (counts * np.arange(256) ** 2).sum()
    number = images[..., 0].size
    mean = total / number
    std = np.sqrt(np.maximum(squares / number - mean**2, 0.0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def open_images(pixels: PixelsManifest, split: str) -> Images:
    """Map the images of a split into memory: uint8 [n, h, w, c]."""
    images: Images = np.load(artefact(pixels, f"{split}.npy"), mmap_mode="r")
    return images


def open_labels(pixels: PixelsManifest, split: str) -> Labels:
    """Read the targets of a split, an image a row: int32 [n] of classes, else [n, outputs]."""
    labels: Labels = np.load(artefact(pixels, f"{split}-labels.npy"))
    return labels


def _told_of(kind: TargetKind, splits: Mapping[str, tuple[Images, Labels]]) -> dict[str, Any]:
    """Say of other targets than classes how many images there are, which the counts do not."""
    if kind == "class":
        return {}
    return {"kind": kind, "sizes": {split: len(labels) for split, (_, labels) in splits.items()}}


def _counts(kind: TargetKind, labels: Labels, num_names: int) -> tuple[int, ...]:
    if kind == "class":
        return tuple(np.bincount(labels, minlength=num_names).tolist())
    if kind == "labels":
        return tuple(labels.sum(axis=0, dtype=np.int64).tolist())
    return (len(labels),) * num_names


def _number_names(labels: Labels) -> tuple[str, ...]:
    return tuple(str(number) for number in range(int(labels.max(initial=-1)) + 1))


def _check(source: PixelSource, splits: dict[str, tuple[Images, Labels]], num_classes: int) -> None:
    shapes = {split: images.shape[1:] for split, (images, _) in splits.items()}
    if len(set(shapes.values())) > 1:
        sizes = (f"{split} {' x '.join(map(str, shape))}" for split, shape in shapes.items())
        raise DatasetError(
            "training and test images differ in size",
            f"{source.name}: {', '.join(sizes)}",
            "fetch the files again from one source",
        )
    height, width, _ = shapes["train"]
    if height != width or not height:
        raise DatasetError(
            f"the images of {source.name} are not square",
            f"{height} x {width} pixels",
            "crop or pad them; image files of any shape in a folder are resized",
        )
    for split, (images, _) in splits.items():
        if len(images) == 0:
            raise DatasetError("a split has no images", f"{split} of {source.name} has none")
    if source.kind != "class":
        val = splits["val"][1] if "val" in splits else None
        TARGETS[source.kind].check(splits["train"][1], val, num_classes)
        return
    for split, (_, labels) in splits.items():
        if labels.min() < 0 or labels.max() >= num_classes:
            raise DatasetError(
                f"the labels of {source.name} do not all lie between 0 and {num_classes - 1}",
                f"{split}: labels from {labels.min()} to {labels.max()}",
                "fetch the files again",
            )
    empty = list(_classes_without_images(splits["train"][1], num_classes))
    if num_classes < 2 or empty:
        raise DatasetError(
            "training images are missing: at least two classes are needed, each with images",
            f"{num_classes} classes, none of class {empty[:10]}" if empty else "one class",
            "add images of it, or remove the class",
        )


def _classes_without_images(labels: Labels, num_classes: int) -> Iterator[int]:
    yield from np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0).tolist()


def _describe(made: PixelsManifest) -> str:
    height, width, channels = made.image_shape
    kind = "gray" if channels == 1 else "colour"
    # In this order also where the manifest was read from its sorted JSON.
    has = [split for split in (*SPLITS, "val") if split in made.counts]
    splits = " / ".join(f"{split} {made.num_images(split):,}" for split in has)
    names = f"{len(made.class_names)} {_NAMES[made.kind]}"
    return f"{made.name}, {height} x {width} {kind}, {names}, {splits}"


stage = Stage("pixels", 3, PixelsManifest, _write_pixels, _pixels_key, _describe)

"""Where a data set's pixels come from: its own files, or image files.

MNIST's and CIFAR's formats are read at once; image files, of a folder or a manifest, go through
the data set's index first, which lists what cannot be used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import DatasetConfig, ReadingConfig, ScratchDatasetConfig, TargetKind
from headstart.errors import DatasetError
from headstart.tasks.dataset.cifar import LAYOUTS, find_cifar, read_cifar, read_class_names
from headstart.tasks.dataset.idx import IdxPair, find_idx, read_idx_pair
from headstart.tasks.dataset.manifest_table import MANIFEST_SUFFIXES
from headstart.tasks.dataset.sources import SOURCES, locate

_READING = set(ReadingConfig.model_fields) - {"images"}
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[Any]
"""Of classes int32 [n]; see `headstart.tasks.targets.target.Target.to_array`."""


@dataclass(frozen=True)
class PixelSource:
    """A data set's files, found.

    Attributes:
        files: All its files, in a fixed order.
        read: Reads one split: images uint8 [n, h, w, c] and `Labels`.
        class_names: In the order of the labels, or names of labels or numbers; empty where it has
            none of its own.
        flips: Whether a mirror image is as good as the image.
        kind: What is learned of an image.
        splits: Names of the splits it has, such as "train".
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[str], tuple[Images, Labels]]
    class_names: tuple[str, ...]
    flips: bool = True
    kind: TargetKind = "class"
    splits: tuple[str, ...] = ("train", "test")


def has_image_files(config: ScratchDatasetConfig) -> bool:
    """Say whether a data set is image files, rather than files in a format of its own."""
    if config.images in SOURCES:
        return False
    folder = Path(config.images).expanduser()
    if folder.suffix.lower() in MANIFEST_SUFFIXES and not folder.is_dir():
        return True
    formats = find_idx(folder) or any(find_cifar(folder, layout) for layout in LAYOUTS.values())
    return folder.is_dir() and not formats


def open_source(config: ScratchDatasetConfig) -> PixelSource:
    """Find the files of a named data set, or of a folder in one of their formats.

    Raises:
        DatasetError: There is no such name or folder, or the files are not all there.
    """
    _refuse_reading(config)
    named = SOURCES.get(config.images)
    if named is not None:
        folder = locate(named, config.data)
        if named.is_idx:
            return _idx_source(named.name, folder, named.class_names, named.flips)
        return _cifar_source(named.name, folder)
    _refuse_data(config)
    folder = Path(config.images).expanduser()
    if find_idx(folder) is not None:
        return _idx_source(folder.resolve().name, folder, (), True)
    for name, layout in LAYOUTS.items():
        if find_cifar(folder, layout) is not None:
            return _cifar_source(name, folder)
    raise DatasetError(
        f"unknown data set: expected {', '.join(SOURCES)}, a folder, or a manifest",
        f"{config.images!r}",
        "check the name or the path",
    )


def _idx_source(name: str, folder: Path, class_names: tuple[str, ...], flips: bool) -> PixelSource:
    pairs: dict[str, IdxPair] = find_idx(folder) or {}
    files = tuple(path for pair in pairs.values() for path in pair)
    return PixelSource(name, files, lambda split: read_idx_pair(pairs[split]), class_names, flips)


def _cifar_source(name: str, folder: Path) -> PixelSource:
    layout = LAYOUTS[name]
    place = find_cifar(folder, layout) or folder
    files = tuple(place / file for names in layout.files.values() for file in names)
    return PixelSource(
        name,
        (*files, place / layout.names_file),
        lambda split: read_cifar(place, layout, split),
        read_class_names(place, layout),
    )


def folder_config(config: ScratchDatasetConfig) -> DatasetConfig:
    """Return how image files are indexed: all that is not test is trained on.

    Raises:
        DatasetError: A folder with a named data set's files is given besides.
    """
    _refuse_data(config)
    return DatasetConfig(
        images=Path(config.images),
        val_fraction=0.0,
        test_fraction=config.test_fraction,
        split_seed=config.split_seed,
        **{name: getattr(config, name) for name in _READING},
    )


def _refuse_reading(config: ScratchDatasetConfig) -> None:
    fields = ReadingConfig.model_fields
    told = [name for name in sorted(_READING) if getattr(config, name) != fields[name].default]
    if told:
        raise DatasetError(
            f"{', '.join(f'dataset.{name}' for name in told)}: only for image files",
            f"{config.images}, a data set in a format of its own",
            "leave it out",
        )


def _refuse_data(config: ScratchDatasetConfig) -> None:
    if config.data is not None:
        raise DatasetError(
            f"--data only goes with a data set that has a name: {', '.join(SOURCES)}",
            f"--data {config.data} with {config.images!r}",
            "give the name, or the folder alone",
        )

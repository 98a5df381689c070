"""CIFAR-10 and CIFAR-100 in their binary version (never the pickled one).

A file is records of equal length: the label (CIFAR-100: the coarse one, then the fine one), then
1,024 bytes each of red, green and blue, row by row.

Source: Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html ("Binary version").
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.errors import DatasetError

SIDE = 32
NUM_PIXEL_BYTES = 3 * SIDE * SIDE


class CifarLayout(NamedTuple):
    """How one of the two data sets is laid out.

    Attributes:
        files: Names of each split's files.
        names_file: Class names, one a line.
        num_label_bytes: Bytes of labels before the pixels; the last one is the label used.
    """

    folder: str
    files: dict[str, tuple[str, ...]]
    names_file: str
    num_label_bytes: int


LAYOUTS = {
    "cifar10": CifarLayout(
        "cifar-10-batches-bin",
        {
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        "batches.meta.txt",
        1,
    ),
    "cifar100": CifarLayout(
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        "fine_label_names.txt",
        2,
    ),
}


def find_cifar(folder: Path, layout: CifarLayout) -> Path | None:
    """Look for the files of a data set in a folder, or in its archive's folder below it.

    Args:
        folder: Tried first; then the archive's folder in it.
        layout: Names of the files and folders of the data set.

    Returns:
        The folder that holds them all; None where one is missing.
    """
    names = [name for files in layout.files.values() for name in files] + [layout.names_file]
    for place in (folder, folder / layout.folder):
        if all((place / name).is_file() for name in names):
            return place
    return None


def read_cifar(
    folder: Path, layout: CifarLayout, split: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Read one split.

    Args:
        folder: As `find_cifar` gives it.
        layout: Names of the files and folders of the data set.
        split: "train" or "test".

    Returns:
        Images uint8 [n, 32, 32, 3] and labels int32 [n].

    Raises:
        DatasetError: A file cannot be read, or is not whole records.
    """
    record = layout.num_label_bytes + NUM_PIXEL_BYTES
    parts = []
    for name in layout.files[split]:
        data = np.frombuffer(_read(folder / name), np.uint8)
        if data.size == 0 or data.size % record:
            raise DatasetError(
                f"the CIFAR file is damaged: its size is not a multiple of {record:,} bytes",
                f"{folder / name}: {data.size:,} bytes",
                "fetch the archive again",
            )
        parts.append(data.reshape(-1, record))
    rows = np.concatenate(parts)
    labels = rows[:, layout.num_label_bytes - 1].astype(np.int32)
    planes = rows[:, layout.num_label_bytes :].reshape(-1, 3, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def read_class_names(folder: Path, layout: CifarLayout) -> tuple[str, ...]:
    """Read the class names, in the order of the labels.

    Args:
        folder: As `find_cifar` gives it.
        layout: Names of the files and folders of the data set.

    Raises:
        DatasetError: The file cannot be read.
    """
    text = _read(folder / layout.names_file).decode("utf-8", errors="replace")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(
            "the CIFAR file cannot be read",
            f"{path}: {error.strerror or error}",
            "fetch the archive again",
        ) from None

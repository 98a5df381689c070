"""IDX files, the format of MNIST and its successors, plain or gzipped.

Layout: two zero bytes, one byte for the type (8 is uint8), one for the number of dimensions, the
dimensions as big-endian 32-bit integers, then the values.

Source: LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/ ("File formats").
"""

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.errors import DatasetError

_UINT8 = 8
_GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 2**33
"""Most bytes of values read: a header, or a small gzip file, can claim to be endless."""
PIECE_BYTES = 2**20
"""Bytes read at a time: asked for more, a file object takes the memory for all of them first."""


class IdxPair(NamedTuple):
    """The two files of one split."""

    images: Path
    labels: Path


IDX_STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""File names of a data set in this format, without .gz."""


def find_idx(folder: Path) -> dict[str, IdxPair] | None:
    """Look for a data set in this format.

    Args:
        folder: Where its files would lie.

    Returns:
        The files of "train" and "test", the plain ones before the gzipped; None where one of the
        four is missing.
    """
    found = {}
    for split, stems in IDX_STEMS.items():
        files = [
            next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)
            for stem in stems
        ]
        if files[0] is None or files[1] is None:
            return None
        found[split] = IdxPair(files[0], files[1])
    return found


def read_idx(path: Path, num_dimensions: int) -> npt.NDArray[np.uint8]:
    """Read a file of unsigned bytes.

    Args:
        path: The file, gzipped or not (its first bytes tell).
        num_dimensions: 1 for labels [n], 3 for gray images [n, height, width].

    Returns:
        uint8, read-only.

    Raises:
        DatasetError: It is no such file, or is cut short or damaged.
    """
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if is_gzip else file
            shape = _read_header(stream, path, num_dimensions)
            data = _read_values(stream, math.prod(shape))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DatasetError(
            "the IDX file cannot be read", f"{path}: {reason}", "fetch the file again"
        ) from None
    if len(data) != math.prod(shape):
        sides = " x ".join(map(str, shape))
        number = f"{len(data):,}" if len(data) < math.prod(shape) else f"at least {len(data):,}"
        reason = f"its header says {sides}, but {number} values follow"
        raise _wrong(path, num_dimensions, reason)
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_idx_pair(pair: IdxPair) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Read the images and labels of one split.

    Returns:
        Images uint8 [n, height, width, 1] and labels int32 [n].

    Raises:
        DatasetError: A file cannot be read, or there is not one label an image.
    """
    images, labels = read_idx(pair.images, 3), read_idx(pair.labels, 1)
    if len(images) != len(labels):
        raise DatasetError(
            "the numbers of images and labels differ",
            f"{len(images):,} images in {pair.images}, {len(labels):,} labels in {pair.labels}",
            "fetch both files again from one source",
        )
    return images[..., np.newaxis], labels.astype(np.int32)


def _read_header(stream: BufferedIOBase, path: Path, num_dimensions: int) -> tuple[int, ...]:
    header = stream.read(4 + 4 * num_dimensions)
    is_whole = len(header) == 4 + 4 * num_dimensions
    if not is_whole or header[:4] != bytes((0, 0, _UINT8, num_dimensions)):
        raise _wrong(path, num_dimensions, f"it begins with the bytes {header[:4].hex(' ')}")
    shape: tuple[int, ...] = struct.unpack(f">{num_dimensions}I", header[4:])
    if math.prod(shape) > MAX_BYTES:
        raise DatasetError(
            f"the IDX file claims to hold more than {MAX_BYTES:,} bytes",
            f"{path}: its header says {' x '.join(map(str, shape))}",
            "check the file",
        )
    return shape


def _read_values(stream: BufferedIOBase, num_values: int) -> memoryview:
    """Read as many values as there should be, and one more where there is one."""
    data = bytearray()
    while piece := stream.read(min(PIECE_BYTES, num_values + 1 - len(data))):
        data += piece
    return memoryview(data).toreadonly()


def _wrong(path: Path, num_dimensions: int, reason: str) -> DatasetError:
    return DatasetError(
        f"this is not an IDX file of unsigned bytes in {num_dimensions} dimensions",
        f"{path}: {reason}",
        "fetch the file again, or give the right folder with --data",
    )

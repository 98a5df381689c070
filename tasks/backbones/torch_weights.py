"""Reading weights from a PyTorch file without PyTorch and without trusting it.

A ``.pth`` file is a pickle, and unpickling runs whatever the file says. This reader admits
ordered dictionaries and float or integer tensors, and refuses every other name before anything
of it is imported. It reads the format that PyTorch wrote until version 1.5: five pickles one
after another (magic number, protocol, machine, tensors, storage keys), then the raw bytes of
each storage.

Source: torch/serialization.py, `_legacy_save`.
"""

import io
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import BackboneError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_STORAGE_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    num_elements: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the tensors of a PyTorch state dictionary.

    Args:
        path: A file that ``torch.save(model.state_dict(), path)`` of PyTorch 1.5 or earlier
            wrote.

    Returns:
        Arrays by parameter name, in the file's order; their memory is the reader's own.

    Raises:
        BackboneError: The file cannot be read, holds anything but tensors, or is cut short.
    """
    try:
        with path.open("rb") as file:
            return _read(io.BytesIO(file.read()))
    except (
        OSError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
        struct.error,
    ) as error:
        raise BackboneError(
            "the weights file cannot be read: expected named tensors in PyTorch's legacy "
            "format, nothing else",
            f"{path}: {error}",
            "get the file again from where it was published; do not open it with other tools",
        ) from None


class _Unpickler(pickle.Unpickler):
    """Unpickle ordered dictionaries and tensors; refuse everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolve one of the few admitted names."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """Resolve a reference to a storage, whose bytes come later in the file."""
        kind, dtype, key, _location, num_elements, view = pid
        if kind != "storage" or view is not None or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"it refers to {kind!r} rather than to a whole storage")
        return _Storage(str(key), dtype, int(num_elements))


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor refers to no storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _read(file: io.BytesIO) -> dict[str, npt.NDArray[Any]]:
    magic, protocol, machine, tensors, keys = (_Unpickler(file).load() for _ in range(5))
    if magic != _MAGIC_NUMBER or protocol != _PROTOCOL_VERSION or not machine["little_endian"]:
        raise ValueError("its header is not that of PyTorch's legacy format, little-endian")
    if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
        raise ValueError("it holds more than tensors by name")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    arrays = {key: _read_storage(file, storages[key]) for key in keys}
    return {name: _view(tensor, arrays[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_storage(file: io.BytesIO, storage: _Storage) -> npt.NDArray[Any]:
    (num_elements,) = struct.unpack("<q", file.read(8))
    num_bytes = storage.num_elements * storage.dtype.itemsize
    data = file.read(num_bytes)
    if num_elements != storage.num_elements or len(data) != num_bytes:
        raise ValueError(f"storage {storage.key} is cut short")
    return np.frombuffer(data, storage.dtype)


def _view(tensor: _Tensor, storage: npt.NDArray[Any]) -> npt.NDArray[Any]:
    extents = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in extents)
    if min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0 or last >= len(storage):
        raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides).copy()

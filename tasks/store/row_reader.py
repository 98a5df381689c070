"""Reading chosen rows of a collection, in any order, from however many shards."""

import contextlib
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from headstart.errors import DamagedShardError
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.row_index import RowId, Shard, locate

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper


RESIDENT_BYTES = 2**30
"""Rows of up to this many bytes are read into memory at once; more are read from the files'
pages as they are needed. What is read is the same."""
MAX_OPEN_SHARDS = 64
"""Shards that a reader keeps open at once; a process may have 1,024 files open by default."""
SETTLED_S = 2.0
"""A file that was changed no longer ago than this may be changed again under the same time."""
_hashed: dict[Path, tuple[object, ...]] = {}
"""Shards that this process has hashed, and what marked their state then: a run's head, evaluation
and export open the same ones, gigabytes of them."""


class Rows(Protocol):
    """What a reader asks of the collection that it reads."""

    kind: str
    store: Store
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    row_bytes: int

    def set_aside(self, path: Path) -> None:
        """Take a damaged shard out of use."""

    def set_damaged_aside(self) -> Sequence[str]:
        """Take every damaged shard out of use."""


class RowReader:
    """Random access to chosen rows of a collection; made by `RowCollection.select`."""

    def __init__(self, collection: Rows, row_ids: Sequence[RowId], shards: Sequence[Shard]) -> None:
        self.row_ids = list(row_ids)
        self.shape = collection.shape
        self.dtype = collection.dtype
        self._row_bytes = collection.row_bytes
        self._numbers, self._offsets = locate(shards, self.row_ids)
        if len(absent := np.flatnonzero(self._numbers < 0)):
            # A manifest vouched for them: their shard, or its index, was damaged since.
            collection.set_damaged_aside()
            raise DamagedShardError(
                f"the {collection.kind} of some of {len(self.row_ids)} rows are missing from "
                "the store",
                f"{len(absent)} are missing, the first of image "
                f"{self.row_ids[absent[0]].image_digest}",
                "run the command again: it computes them",
            )
        self._open = _check_and_open(collection, shards, set(self._numbers.tolist()))
        self._resident: npt.NDArray[Any] | None = None
        if len(self) * self._row_bytes <= RESIDENT_BYTES:
            self._resident = self._read(range(len(self)))
            self._open.cache_clear()  # closes the shards

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.row_ids)

    @property
    def resident(self) -> npt.NDArray[Any] | None:
        """All rows, in the order of `row_ids`, where they are in memory; not to be written to."""
        return self._resident

    def gather(self, positions: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
        """Read rows.

        Args:
            positions: Positions in `row_ids`, any order, repeats allowed; shape [n].

        Returns:
            A new array of shape [n, *shape] of the collection's dtype.
        """
        if self._resident is not None:
            return self._resident[np.asarray(positions, np.int64)]
        return self._read(positions)

    def _read(self, positions: Any) -> npt.NDArray[Any]:
        positions = np.asarray(positions, np.int64)
        rows = np.empty((len(positions), self._row_bytes), np.uint8)
        numbers = self._numbers[positions]
        # Shard by shard, so that each is opened once however few may be open.
        order = np.argsort(numbers, kind="stable")
        ends = np.flatnonzero(np.diff(numbers[order])) + 1
        for places in np.split(order, ends) if len(order) else ():
            file = self._open(int(numbers[places[0]]))
            rows[places] = sliding_window_view(file, self._row_bytes)[
                self._offsets[positions[places]]
            ]
        return rows.view(self.dtype).reshape(len(positions), *self.shape)


def _is_whole(collection: Rows, shard: Shard) -> bool:
    """Hash a shard, unless this process has, and nothing was written into its file since."""
    path = collection.store.root / shard.entry.path
    known = _state(path, shard)
    if known is not None and _hashed.get(path) == known:
        return True
    if not collection.store.holds(shard.entry, thorough=True):
        return False
    if known is not None and _state(path, shard) == known:
        _hashed[path] = known
    return True


def _state(path: Path, shard: Shard) -> tuple[object, ...] | None:
    """Return what changes with every write to a shard; None where it was written just now."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        if time.time() - stat.st_ctime > SETTLED_S:
            times = (stat.st_mtime_ns, stat.st_ctime_ns)
            return (stat.st_dev, stat.st_ino, stat.st_size, *times, shard.entry.sha256)
    return None


def _check_and_open(
    collection: Rows, shards: Sequence[Shard], numbers: set[int]
) -> "_lru_cache_wrapper[npt.NDArray[np.uint8]]":
    """Hash shards, and return what opens one by its number, a few of them at once."""
    root = collection.store.root
    damaged = [
        shards[number].entry.path
        for number in sorted(numbers)
        if not _is_whole(collection, shards[number])
    ]
    for path in damaged:
        collection.set_aside(root / path)
    if damaged:
        raise DamagedShardError(
            "a shard is damaged: it no longer holds the bytes that were written",
            f"{', '.join(damaged)} in {root}, now set aside",
            "run the command again: it computes the rows of this shard, and only those",
        )

    @lru_cache(maxsize=MAX_OPEN_SHARDS)
    def open_shard(number: int) -> npt.NDArray[np.uint8]:
        entry = shards[number].entry
        try:
            return np.memmap(root / entry.path, np.uint8, "r")
        except FileNotFoundError:  # a store that is elsewhere may fetch it again
            if collection.store.holds(entry, thorough=True):
                return np.memmap(root / entry.path, np.uint8, "r")
        raise DamagedShardError(
            "a shard disappeared from the store while its rows were being read",
            f"{root / entry.path} is gone",
            "run the command again: it computes the rows of this shard, and only those",
        )

    return open_shard

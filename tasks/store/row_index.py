"""Which rows a shard holds: its index file, and finding rows among millions.

Rows are compared as keys of 36 bytes (digest and view), in arrays: a million of them take 36 MB,
where as many Python objects would take a quarter of a gigabyte.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.tasks.store.artifacts import FileEntry

DIGEST_BYTES = 32
KEY_BYTES = DIGEST_BYTES + 4
"""A SHA-256 and the number of a view, big-endian."""
NUM_REMEMBERED = 4096
"""Indexes of shards kept in memory once they have been read."""
ROWS_AT_ONCE = 2**16
"""Rows looked up at once, so that the memory for it does not grow with their number."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that views of one image hash apart. Source: the golden ratio times 2**64, as in
Fibonacci hashing (Knuth, The Art of Computer Programming 3, section 6.4)."""

Keys = npt.NDArray[np.bytes_]
"""[n] of type S36; a row each."""


class RowId(NamedTuple):
    """Address of a row in a collection."""

    image_digest: str
    """SHA-256 of the image file, 64 hexadecimal characters."""
    view: int
    """0 for the plain view, 1 and up for augmented ones."""


class ShardIndex(NamedTuple):
    """What the index file of a shard says."""

    keys: Keys
    offsets: npt.NDArray[np.int64]
    """Where in the shard each row's tensor begins, in bytes."""
    num_bytes: int
    sha256: str
    mtime_ns: int

    def fits(self, row_bytes: int) -> bool:
        """Say whether all rows lie inside the shard.

        Args:
            row_bytes: Size of a row's tensor.
        """
        offsets = self.offsets
        return len(offsets) == len(self.keys) and bool(
            np.all((offsets >= 0) & (offsets <= self.num_bytes - row_bytes))
        )


class Shard(NamedTuple):
    """One published shard and what its index says."""

    entry: FileEntry
    keys: Keys
    """[n]: which rows it holds."""
    offsets: npt.NDArray[np.int64]
    """[n]: where in the file each row's tensor begins, in bytes."""

    @property
    def row_ids(self) -> list[RowId]:
        """The rows it holds; made anew each time, and large."""
        return row_ids_of(self.keys)

    @property
    def name(self) -> str:
        """Name of its file in the collection's folder, without the ending."""
        return Path(self.entry.path).stem


def keys_of(row_ids: Sequence[RowId]) -> Keys:
    """Turn addresses into keys.

    Returns:
        Keys [n], in the same order.
    """
    digests = bytes.fromhex("".join([row_id.image_digest for row_id in row_ids]))
    views = np.fromiter((row_id.view for row_id in row_ids), np.uint32, len(row_ids))
    return _join(np.frombuffer(digests, np.uint8).reshape(len(row_ids), DIGEST_BYTES), views)


def row_ids_of(keys: Keys) -> list[RowId]:
    """Turn keys back into addresses; the inverse of `keys_of`."""
    columns = _bytes(keys)
    views = columns[:, DIGEST_BYTES:].copy().view(">u4").reshape(-1).tolist()
    digests = columns[:, :DIGEST_BYTES].tobytes().hex()
    width = 2 * DIGEST_BYTES
    return [RowId(digests[n * width : (n + 1) * width], view) for n, view in enumerate(views)]


def write_index(path: Path, index: ShardIndex) -> None:
    """Write an index file: an npz of plain arrays."""
    columns = _bytes(index.keys)
    np.savez(
        path,
        digests=columns[:, :DIGEST_BYTES],
        views=columns[:, DIGEST_BYTES:].copy().view(">u4").reshape(-1).astype(np.int32),
        offsets=index.offsets,
        num_bytes=np.int64(index.num_bytes),
        sha256=np.frombuffer(bytes.fromhex(index.sha256), np.uint8),
        mtime_ns=np.int64(index.mtime_ns),
    )


def read_index(path: Path) -> ShardIndex | None:
    """Read an index file, or remember what it said where it has not changed since.

    Returns:
        What it says; None where it is gone or is not such a file.
    """
    try:
        stat = path.stat()
    except OSError:
        return None
    return _read(path, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))


class RowLookup:
    """Finds rows by their keys.

    Args:
        keys: [n], those there are.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        hashes = _hash(keys)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Find rows.

        Args:
            keys: [m], keys of the rows wanted.

        Returns:
            int64 [m]: where in the keys there are each of them lies; -1 where it is not there.
        """
        hashes = _hash(keys)
        places = np.searchsorted(self._hashes, hashes)
        found = np.full(len(keys), -1, np.int64)
        unsettled = np.arange(len(keys))
        # One turn, but for keys that share a hash with another one.
        while len(unsettled):
            unsettled = unsettled[places[unsettled] < len(self._hashes)]
            unsettled = unsettled[self._hashes[places[unsettled]] == hashes[unsettled]]
            candidates = self._order[places[unsettled]]
            same = self._keys[candidates] == keys[unsettled]
            found[unsettled[same]] = candidates[same]
            unsettled = unsettled[~same]
            places[unsettled] += 1
        return found


def locate(
    shards: Sequence[Shard], row_ids: Sequence[RowId]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find rows in shards.

    Returns:
        int64 [n]: the shard that holds each row, -1 where none does; and int64 [n]: where in
        that shard's file its tensor begins, in bytes.
    """
    numbers = np.full(len(row_ids), -1, np.int64)
    offsets = np.zeros(len(row_ids), np.int64)
    if not shards:
        return numbers, offsets
    lookup = RowLookup(np.concatenate([shard.keys for shard in shards]))
    shard_of = np.repeat(np.arange(len(shards)), [len(shard.keys) for shard in shards])
    offset_of = np.concatenate([shard.offsets for shard in shards])
    for start in range(0, len(row_ids), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        found = lookup.find(keys_of(row_ids[part]))
        numbers[part] = np.where(found < 0, -1, shard_of[found])
        offsets[part] = offset_of[found]
    return numbers, offsets


@lru_cache(maxsize=NUM_REMEMBERED)
def _read(path: Path, stamp: tuple[int, ...]) -> ShardIndex | None:
    try:
        # Opened here: of a file that is no npz, np.load would leave its own open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return ShardIndex(
                _join(arrays["digests"], arrays["views"]),
                arrays["offsets"].astype(np.int64, casting="safe"),
                int(arrays["num_bytes"]),
                arrays["sha256"].tobytes().hex(),
                int(arrays["mtime_ns"]),
            )
    except Exception:  # of a damaged file, whatever zipfile, zlib and NumPy stumble on
        return None


def _join(digests: npt.NDArray[np.uint8], views: npt.NDArray[Any]) -> Keys:
    columns = np.empty((len(digests), KEY_BYTES), np.uint8)
    columns[:, :DIGEST_BYTES] = digests
    columns[:, DIGEST_BYTES:] = views.astype(">u4").view(np.uint8).reshape(-1, 4)
    return columns.reshape(-1).view(f"S{KEY_BYTES}")


def _bytes(keys: Keys) -> npt.NDArray[np.uint8]:
    """Return keys as uint8 [n, KEY_BYTES], without copying."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)


def _hash(keys: Keys) -> npt.NDArray[np.uint64]:
    columns = _bytes(keys)
    start = columns[:, :8].copy().view(np.uint64).reshape(-1)
    views = columns[:, DIGEST_BYTES:].copy().view(">u4").reshape(-1).astype(np.uint64)
    hashes: npt.NDArray[np.uint64] = start ^ (views * _SPREAD)
    return hashes

"""TFRecord shards of rows: written once, found by row, checked, mended row by row.

A *collection* holds one tensor for each (image digest, view), all of one shape and type: the
views of one recipe, or the bottlenecks of one backbone at one cut. It is a folder of shards,
each a plain TFRecord file of tf.train.Example (readable by anything that reads those), beside a
small index that says which rows it holds and where each tensor's bytes begin. Collections only
grow: a run that needs rows which are not there adds shards, and never writes a row twice.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from headstart.errors import DamagedShardError, RecordError
from headstart.tasks.store.artifacts import FileEntry, Store
from headstart.tasks.store.fingerprint import digest
from headstart.tasks.store.row_index import (
    RowId,
    Shard,
    ShardIndex,
    keys_of,
    locate,
    read_index,
    write_index,
)
from headstart.tasks.store.row_reader import RowReader
from headstart.tasks.store.sealing import read_sealed
from headstart.tasks.store.tfrecord import scan_tfrecord, write_tfrecord

__all__ = [
    "RowCollection",
    "RowId",
    "RowReader",
    "RowWriter",
    "Shard",
    "open_collection",
    "shards_of",
]

MAX_SHARD_BYTES = 96 * 2**20
"""Shards of about 100 MB: "ideally … at least 10 MB+ (and ideally 100 MB+)" a file.
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord"""
MIN_SHARD_ROWS = 512
"""Several seconds of work for a core, which is what a shard is worth as a task of its own."""
SHARDS_A_PASS = 256
"""A pass is cut into about this many shards where they would be larger otherwise, so that a
killed run loses little, and so many workers find something to do."""


class Compaction(NamedTuple):
    """What merging the small shards of a collection came to."""

    old: tuple[FileEntry, ...]
    """Shards and indexes whose rows all lie in the new ones."""
    new: tuple[FileEntry, ...]


class RowCollection:
    """The rows of one recipe, in the store.

    Args:
        store: Where the collection is kept.
        kind: "views" or "bottlenecks"; names the folder it lies in.
        recipe: Everything that decides what a row holds, as canonical JSON data; its digest
            names the collection.
        shape: Shape of a row's tensor.
        dtype: NumPy name of its type.
    """

    def __init__(
        self, store: Store, kind: str, recipe: Any, shape: Sequence[int], dtype: str
    ) -> None:
        self.store = store
        self.kind = kind
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        self.recipe = {"recipe": recipe, "shape": list(self.shape), "dtype": dtype}
        self.digest = digest(self.recipe)
        self.folder = store.root / "rows" / kind / self.digest
        self.row_bytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def _lock_name(self) -> str:
        return f"{self.kind}/{self.digest}"

    @property
    def lock_path(self) -> Path:
        """The file of the lock that who writes rows holds."""
        return self.store.lock_path(self._lock_name)

    def describe(self) -> str:
        """Say in a few words what a row is."""
        return f"{self.dtype} {'x'.join(map(str, self.shape))}"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the collection for writing: look what is missing, and write it, inside.

        Damaged shards are set aside first, so that what is written takes their place.
        """
        with self.store.lock(self._lock_name):
            if self.folder.exists():
                self.write_recipe()
            self.set_damaged_aside()
            yield

    def write_recipe(self) -> None:
        """Write the recipe where it is not there, or damaged."""
        path = self.folder / "recipe.json"
        self.store.pull(path)
        if open_collection(self.store, self.kind, self.folder) is None and self.store.is_writable:
            self.store.write_json(path, self.recipe)

    def shards(self) -> list[Shard]:
        """Return the intact shards, by name; damaged ones are left out, and left where they are."""
        return list(self._intact(self._indexes()))

    def num_rows(self) -> int:
        """Count the rows that the indexes name, without looking at the shards."""
        indexes = [read_index(path) for path in self._indexes()]
        return sum(len(index.keys) for index in indexes if index is not None)

    def missing(self, row_ids: Sequence[RowId]) -> list[RowId]:
        """Return those of the rows that no intact shard holds, in the order given."""
        numbers, _ = locate(self.shards(), row_ids)
        return [row_ids[position] for position in np.flatnonzero(numbers < 0).tolist()]

    def shard_names(self, row_ids: Sequence[RowId]) -> list[str | None]:
        """Return the name (`Shard.name`) of the intact shard that holds each of the rows."""
        shards = self.shards()
        numbers, _ = locate(shards, row_ids)
        names = [*(shard.name for shard in shards), None]  # -1, where none holds it, is the last
        return [names[number] for number in numbers.tolist()]

    def writer(self, num_rows: int) -> "RowWriter":
        """Return a writer for a pass over this many rows; use it under `lock`, in a with."""
        return RowWriter(self, num_rows)

    def shard_rows(self, num_rows: int) -> int:
        """Return how many rows a full shard has in a pass over so many rows."""
        fitting = max(1, MAX_SHARD_BYTES // max(1, self.row_bytes))
        return min(fitting, max(MIN_SHARD_ROWS, -(-num_rows // SHARDS_A_PASS)))

    def holds(self, row_ids: Sequence[RowId], num_rows: int) -> bool:
        """Say whether a pass has written these rows, in shards of exactly these, without a search.

        Args:
            row_ids: Rows in the order in which they were or will be written.
            num_rows: As given to `writer`.
        """
        size = self.shard_rows(num_rows)
        parts = (row_ids[start : start + size] for start in range(0, len(row_ids), size))
        shards = (self._read_index(self._index_path(_shard_name(part))) for part in parts)
        return all(shard is not None and self.store.holds(shard.entry) for shard in shards)

    def select(
        self, row_ids: Sequence[RowId], shard_names: Sequence[str] | None = None
    ) -> RowReader:
        """Open rows for reading, each shard's bytes checked in full.

        Args:
            row_ids: The rows wanted; position i of the reader is the i-th of them.
            shard_names: Where they are, if that is known (`Shard.name`): spares looking into
                every index of a large collection.

        Raises:
            DamagedShardError: A shard or its index is not what was written, or is gone. It has
                been set aside, so that another extraction computes its rows, and only those.
        """
        if shard_names is None:
            shards = self.shards()
        else:
            shards = list(self._intact(map(self._index_path, shard_names)))
        reader = RowReader(self, row_ids, shards)
        with contextlib.suppress(OSError):
            os.utime(self.folder / "recipe.json")  # when it was last used, for `cache gc`
        return reader

    def set_damaged_aside(self) -> list[str]:
        """Move shards whose size is wrong, or whose time and bytes are, out of the way.

        Returns:
            Their paths, relative to the store.
        """
        damaged = []
        for index in self._indexes():
            shard = self._read_index(index)
            if shard is None or not self.store.holds(shard.entry):
                path = _shard_path(index)
                damaged.append(self.store.relative(path))
                self.set_aside(path)
        return damaged

    def checked_shards(self) -> Iterator[tuple[Path, FileEntry | None]]:
        """Yield each shard's path and what its index says of it.

        None where there is no telling: the index is damaged, and so is the shard, from which it
        would be made again.
        """
        for index in self._indexes():
            shard = self._read_index(index)
            yield _shard_path(index), shard.entry if shard is not None else None

    def discard(self, row_ids: Sequence[RowId]) -> None:
        """Set aside the shards that hold any of some rows, so that they are computed again."""
        shards = self.shards()
        numbers, _ = locate(shards, row_ids)
        for number in set(numbers.tolist()) - {-1}:
            self.set_aside(self.store.root / shards[number].entry.path)

    def write_merged(self) -> Compaction | None:
        """Write the rows of small shards into larger ones; use it under `lock`.

        Returns:
            The shards and indexes that may be removed now, and those that hold their rows; None
            where there are not two small shards.
        """
        fitting = min(MIN_SHARD_ROWS, MAX_SHARD_BYTES // max(1, self.row_bytes))
        small = [shard for shard in self.shards() if len(shard.keys) < fitting]
        if len(small) < 2:
            return None
        rows = sorted({row_id for shard in small for row_id in shard.row_ids})
        with self.writer(len(rows)) as writer:
            reader = self.select(rows, [shard.name for shard in small])
            for position, row_id in enumerate(rows):
                writer.write(row_id, reader.gather([position])[0])
        merged = [shard for shard in self.shards() if shard.name in writer.names]
        old = [shard for shard in small if shard.name not in writer.names]
        return Compaction(tuple(self.files_of(old)), tuple(self.files_of(merged)))

    def files_of(self, shards: Iterable[Shard]) -> Iterator[FileEntry]:
        """Describe the files of shards: each shard, and its index."""
        for shard in shards:
            yield shard.entry
            yield self.store.entry((self.store.root / shard.entry.path).with_suffix(".index.npz"))

    def _indexes(self) -> list[Path]:
        self.store.refresh(self.folder)
        return sorted(self.folder.glob("*.index.npz"))

    def _index_path(self, name: str) -> Path:
        return self.folder / f"{name}.index.npz"

    def _intact(self, indexes: Iterable[Path]) -> Iterator[Shard]:
        for index in indexes:
            shard = self._read_index(index)
            if shard is not None and self.store.holds(shard.entry):
                yield shard

    def set_aside(self, path: Path) -> None:
        """Move a damaged shard and its index out of the way."""
        # The shard first: an index without its shard reads as damaged, should this be cut short.
        self.store.set_aside(path)
        self.store.set_aside(path.with_suffix(".index.npz"))

    def _read_index(self, path: Path) -> Shard | None:
        self.store.pull(path)
        index = read_index(path)
        if index is None or not index.fits(self.row_bytes):
            index = self._rebuild_index(path)
        if index is None:
            return None
        entry = FileEntry(
            path=self.store.relative(_shard_path(path)),
            num_bytes=index.num_bytes,
            sha256=index.sha256,
            mtime_ns=index.mtime_ns,
        )
        return Shard(entry, index.keys, index.offsets)

    def _rebuild_index(self, path: Path) -> ShardIndex | None:
        """Make a damaged index again from its shard, which has a checksum for each row."""
        if not path.exists():
            return None
        shard, name = _shard_path(path), path.name.removesuffix(".index.npz")
        try:
            row_ids, offsets = scan_tfrecord(shard, self.row_bytes)
            entry = self.store.entry(shard)
        except (OSError, ValueError):
            return None
        if _shard_name(row_ids) != name:
            return None
        index = ShardIndex(keys_of(row_ids), offsets, entry.num_bytes, entry.sha256, entry.mtime_ns)
        if self.store.is_writable:
            with contextlib.suppress(OSError), self.store.staging() as folder:
                write_index(folder / path.name, index)
                self.store.publish(folder / path.name, path)
        return index


def _shard_path(index: Path) -> Path:
    return index.with_name(index.name.replace(".index.npz", ".tfrecord"))


def open_collection(store: Store, kind: str, folder: Path) -> RowCollection | None:
    """Open a collection by its folder.

    Args:
        store: Store that holds it.
        kind: "views" or "bottlenecks", which it was written as.
        folder: Folder of the collection.

    Returns:
        The collection; None where its recipe cannot be read or is not the folder's own.
    """
    try:
        fields = read_sealed(folder / "recipe.json")
        collection = RowCollection(store, kind, fields["recipe"], fields["shape"], fields["dtype"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return collection if collection.digest == folder.name else None


class RowWriter:
    """Writes rows into new shards, each published as soon as it is full.

    A shard is closed at `MAX_SHARD_BYTES`, or earlier where the pass would otherwise be cut
    into fewer than `SHARDS_A_PASS`. Which rows share a shard depends on the order and number of
    the rows alone.
    """

    def __init__(self, collection: RowCollection, num_rows: int) -> None:
        self._collection = collection
        self._rows_a_shard = collection.shard_rows(num_rows)
        self.names: set[str] = set()
        """Of the shards published so far."""
        self._rows: list[tuple[RowId, npt.NDArray[Any]]] = []

    def __enter__(self) -> Self:
        """Begin the pass."""
        self._collection.write_recipe()
        return self

    def __exit__(self, *exception: object) -> None:
        """Publish the last rows, also when the pass ends early: they are whole."""
        self.flush()

    def write(self, row_id: RowId, tensor: npt.NDArray[Any]) -> None:
        """Add a row.

        Args:
            row_id: Image digest and number of the view.
            tensor: The collection's shape and dtype exactly.

        Raises:
            RecordError: The tensor has another shape or dtype.
        """
        collection = self._collection
        if tensor.shape != collection.shape or tensor.dtype != collection.dtype:
            raise RecordError(
                f"a row of this collection must be {collection.dtype} {collection.shape}",
                f"{tensor.dtype} {tensor.shape} for image {row_id.image_digest}",
            )
        self._rows.append((row_id, tensor))
        if len(self._rows) >= self._rows_a_shard:
            self.flush()

    def flush(self) -> None:
        """Publish the rows written so far, as a shard that is not full."""
        if not self._rows:
            return
        collection, rows = self._collection, self._rows
        self._rows = []
        with collection.store.staging() as folder:
            staged = folder / "shard"
            offsets = write_tfrecord(staged, rows)
            name = _shard_name([row_id for row_id, _ in rows])
            target = collection.folder / f"{name}.tfrecord"
            collection.store.publish(staged, target)
            entry = collection.store.entry(target)
            index = folder / "index.npz"
            keys = keys_of([row_id for row_id, _ in rows])
            write_index(
                index, ShardIndex(keys, offsets, entry.num_bytes, entry.sha256, entry.mtime_ns)
            )
            # The index comes last: a shard without one does not exist for any reader.
            collection.store.publish(index, target.with_name(f"{name}.index.npz"))
        self.names.add(name)


def _shard_name(row_ids: Sequence[RowId]) -> str:
    return digest([list(row_id) for row_id in row_ids])[:16]


def shards_of(wanted: Iterable[tuple[RowCollection, Iterable[RowId]]]) -> tuple[FileEntry, ...]:
    """List the shards that hold rows and their indexes, so that a manifest vouches for them.

    Raises:
        DamagedShardError: Rows are in no shard, for instance because they were removed while
            the run that made them went on.
    """
    entries: list[FileEntry] = []
    for collection, rows in wanted:
        row_ids, shards = list(rows), collection.shards()
        numbers, _ = locate(shards, row_ids)
        if len(absent := np.flatnonzero(numbers < 0)):
            raise DamagedShardError(
                f"the {collection.kind} of some of {len(row_ids)} rows are gone from the store",
                f"{len(absent)} are missing, the first of image {row_ids[absent[0]].image_digest}",
                "run the command again, and do not run `headstart cache gc` at the same time",
            )
        entries += collection.files_of(shards[number] for number in sorted(set(numbers.tolist())))
    return tuple(entries)

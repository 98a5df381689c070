"""TFRecord shards of rows: written once, found by row, checked, mended row by row.

A *collection* holds one tensor for each (image digest, view), all of one shape and type: the
views of one recipe, or the bottlenecks of one backbone at one cut. It is a folder of shards,
each a plain TFRecord file of tf.train.Example (readable by anything that reads those), beside a
small index that says which rows it holds and where each tensor's bytes begin. Collections only
grow: a run that needs rows which are not there adds shards, and never writes a row twice.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from headstart.errors import DamagedShardError, RecordError
from headstart.tasks.artifacts import FileEntry, Store
from headstart.tasks.fingerprint import digest

MAX_SHARD_BYTES = 96 * 2**20
"""Shards of about 100 MB: "ideally … at least 10 MB+ (and ideally 100 MB+)" a file.
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord"""
MIN_SHARD_ROWS = 128
SHARDS_A_PASS = 64
"""A pass is cut into about this many shards where they would be larger otherwise, so that a
killed run loses at most 1/64 of its work."""
RESIDENT_BYTES = 2**30
"""Rows of up to this many bytes are read into memory at once; more are read from the files'
pages as they are needed. What is read is the same."""


class RowId(NamedTuple):
    """Address of a row in a collection."""

    image_digest: str
    """SHA-256 of the image file, 64 hexadecimal characters."""
    view: int
    """0 for the plain view, 1 and up for augmented ones."""


class Shard(NamedTuple):
    """One published shard and what its index says."""

    entry: FileEntry
    row_ids: tuple[RowId, ...]
    offsets: npt.NDArray[np.int64]
    """Where in the file each row's tensor begins, in bytes."""


class RowCollection:
    """The rows of one recipe, in the store.

    Args:
        store: Where the collection is kept.
        kind: "views" or "bottlenecks".
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

    def describe(self) -> str:
        """Say in a few words what a row is."""
        return f"{self.dtype} {'x'.join(map(str, self.shape))}"

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the collection for writing: look what is missing, and write it, inside."""
        return self.store.lock(f"{self.kind}/{self.digest}")

    def shards(self) -> list[Shard]:
        """Return the intact shards, by name; a damaged one is set aside and left out."""
        return list(self._published())

    def missing(self, row_ids: Sequence[RowId]) -> list[RowId]:
        """Return those of the rows that no intact shard holds, in the order given."""
        found = {row_id for shard in self.shards() for row_id in shard.row_ids}
        return [row_id for row_id in row_ids if row_id not in found]

    def writer(self, num_rows: int) -> "RowWriter":
        """Return a writer for a pass over this many rows; use it under `lock`, in a with."""
        return RowWriter(self, num_rows)

    def select(self, row_ids: Sequence[RowId]) -> "RowReader":
        """Open rows for reading, each shard's bytes checked in full.

        Args:
            row_ids: The rows wanted; position i of the reader is the i-th of them.

        Returns:
            A reader.

        Raises:
            DamagedShardError: A shard or its index is not what was written, or is gone. It has
                been set aside, so that another extraction computes its rows, and only those.
        """
        reader = RowReader(self, row_ids)
        with contextlib.suppress(OSError):
            os.utime(self.folder / "recipe.json")  # when it was last used, for `cache gc`
        return reader

    def verify(self) -> tuple[int, list[str]]:
        """Hash every shard.

        Returns:
            The number of shards, and the paths of the damaged ones, which are set aside.
        """
        indexes = list(self.folder.glob("*.index.npz"))
        damaged = []
        for index in indexes:
            path = index.with_name(index.name.replace(".index.npz", ".tfrecord"))
            shard = self._read_index(index)
            if shard is None or not shard.entry.is_intact(self.store.root, thorough=True):
                damaged.append(self.store.relative(path))
                self._set_aside(path)
        return len(indexes), damaged

    def discard(self, row_ids: Sequence[RowId]) -> None:
        """Set aside the shards that hold any of some rows, so that they are computed again."""
        for shard in self.shards():
            if not set(row_ids).isdisjoint(shard.row_ids):
                self._set_aside(self.store.root / shard.entry.path)

    def _published(self) -> Iterator[Shard]:
        for index in sorted(self.folder.glob("*.index.npz")):
            shard = self._read_index(index)
            if shard is None or not shard.entry.is_intact(self.store.root):
                self._set_aside(index.with_name(index.name.replace(".index.npz", ".tfrecord")))
            else:
                yield shard

    def _set_aside(self, path: Path) -> None:
        # The shard first: an index without its shard reads as damaged, should this be cut short.
        self.store.set_aside(path)
        self.store.set_aside(path.with_suffix(".index.npz"))

    def _read_index(self, index: Path) -> Shard | None:
        name = index.name.replace(".index.npz", ".tfrecord")
        try:
            with np.load(index, allow_pickle=False) as arrays:
                digests = [row.tobytes().hex() for row in arrays["digests"]]
                views = arrays["views"].tolist()
                offsets = arrays["offsets"]
                entry = FileEntry(
                    path=self.store.relative(index.with_name(name)),
                    num_bytes=int(arrays["num_bytes"]),
                    sha256=arrays["sha256"].tobytes().hex(),
                    mtime_ns=int(arrays["mtime_ns"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        rows = tuple(RowId(*pair) for pair in zip(digests, views, strict=True))
        return Shard(entry, rows, offsets)


def open_collection(store: Store, kind: str, folder: Path) -> RowCollection | None:
    """Open a collection by its folder.

    Args:
        store: That holds it.
        kind: "views" or "bottlenecks".
        folder: Of the collection.

    Returns:
        The collection; None where its recipe cannot be read or is not the folder's own.
    """
    try:
        fields = json.loads((folder / "recipe.json").read_text())
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
        fitting = max(1, MAX_SHARD_BYTES // max(1, collection.row_bytes))
        wanted = max(MIN_SHARD_ROWS, -(-num_rows // SHARDS_A_PASS))
        self._collection = collection
        self._rows_a_shard = min(fitting, wanted)
        self._rows: list[tuple[RowId, npt.NDArray[Any]]] = []

    def __enter__(self) -> Self:
        """Begin the pass."""
        if not (self._collection.folder / "recipe.json").exists():
            path = self._collection.folder / "recipe.json"
            self._collection.store.write_json(path, self._collection.recipe)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publish the last rows, also when the pass ends early: they are whole."""
        self._flush()

    def write(self, row_id: RowId, tensor: npt.NDArray[Any]) -> None:
        """Add a row.

        Args:
            row_id: Its address.
            tensor: The collection's shape and dtype exactly.

        Raises:
            RecordError: The tensor has another shape or dtype.
        """
        collection = self._collection
        if tensor.shape != collection.shape or tensor.dtype != collection.dtype:
            raise RecordError(
                f"A row of this collection is {collection.dtype} {collection.shape}.",
                f"{tensor.dtype} {tensor.shape} for image {row_id.image_digest}",
            )
        self._rows.append((row_id, tensor))
        if len(self._rows) >= self._rows_a_shard:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        collection, rows = self._collection, self._rows
        self._rows = []
        with collection.store.staging() as folder:
            staged = folder / "shard"
            offsets = _write_tfrecord(staged, rows)
            name = digest([list(row_id) for row_id, _ in rows])[:16]
            target = collection.folder / f"{name}.tfrecord"
            collection.store.publish(staged, target)
            entry = collection.store.entry(target)
            index = folder / "index.npz"
            np.savez(
                index,
                digests=np.array(
                    [list(bytes.fromhex(row_id.image_digest)) for row_id, _ in rows], np.uint8
                ),
                views=np.array([row_id.view for row_id, _ in rows], np.int32),
                offsets=offsets,
                num_bytes=np.int64(entry.num_bytes),
                sha256=np.frombuffer(bytes.fromhex(entry.sha256), np.uint8),
                mtime_ns=np.int64(entry.mtime_ns),
            )
            # The index comes last: a shard without one does not exist for any reader.
            collection.store.publish(index, target.with_name(f"{name}.index.npz"))


def _write_tfrecord(
    path: Path, rows: Sequence[tuple[RowId, npt.NDArray[Any]]]
) -> npt.NDArray[np.int64]:
    import tensorflow as tf

    offsets, position = [], 0
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for row_id, tensor in rows:
            data = np.ascontiguousarray(tensor).tobytes()
            feature = {
                "image_digest": _bytes_feature(row_id.image_digest.encode()),
                "view": tf.train.Feature(int64_list=tf.train.Int64List(value=[row_id.view])),
                "tensor": _bytes_feature(data),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            record = example.SerializeToString()
            writer.write(record)
            # A TFRecord frames each record with 12 bytes before and 4 behind. Source:
            # https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
            offsets.append(position + 12 + record.find(data))
            position += 12 + len(record) + 4
    return np.array(offsets, np.int64)


def _bytes_feature(value: bytes) -> Any:
    import tensorflow as tf

    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


class RowReader:
    """Random access to chosen rows of a collection; made by `RowCollection.select`."""

    def __init__(self, collection: RowCollection, row_ids: Sequence[RowId]) -> None:
        self.row_ids = list(row_ids)
        self.shape = collection.shape
        self.dtype = collection.dtype
        self._row_bytes = collection.row_bytes
        places: dict[RowId, tuple[int, int]] = {}
        shards = collection.shards()
        for number, shard in enumerate(shards):
            places.update(
                (row_id, (number, offset))
                for row_id, offset in zip(shard.row_ids, shard.offsets.tolist(), strict=True)
            )
        if absent := [row_id for row_id in self.row_ids if row_id not in places]:
            # A manifest vouched for them: an index was damaged, and its shard set aside above.
            raise DamagedShardError(
                f"The {collection.kind} of {len(self.row_ids)} rows are in the store.",
                f"{len(absent)} are not, the first of image {absent[0].image_digest}",
                "run the command again: it computes them",
            )
        self._places = [places[row_id] for row_id in self.row_ids]
        self._files = self._open(collection, shards, {number for number, _ in self._places})
        self._resident: npt.NDArray[Any] | None = None
        if len(self) * self._row_bytes <= RESIDENT_BYTES:
            self._resident = self._read(range(len(self)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.row_ids)

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
        rows = np.empty((len(positions), self._row_bytes), np.uint8)
        for row, position in enumerate(positions):
            number, offset = self._places[position]
            rows[row] = self._files[number][offset : offset + self._row_bytes]
        return rows.view(self.dtype).reshape(len(positions), *self.shape)

    @staticmethod
    def _open(
        collection: RowCollection, shards: Sequence[Shard], numbers: set[int]
    ) -> dict[int, npt.NDArray[np.uint8]]:
        files: dict[int, npt.NDArray[np.uint8]] = {}
        damaged: list[str] = []
        for number in sorted(numbers):
            entry = shards[number].entry
            path = collection.store.root / entry.path
            if entry.is_intact(collection.store.root, thorough=True):
                files[number] = np.memmap(path, np.uint8, "r")
            else:
                collection._set_aside(path)
                damaged.append(entry.path)
        if damaged:
            raise DamagedShardError(
                "A shard holds the bytes that were written.",
                f"{', '.join(damaged)} in {collection.store.root} does not; it was set aside",
                "run the command again: it computes the rows of this shard, and only those",
            )
        return files


def shards_of(wanted: Iterable[tuple[RowCollection, Iterable[RowId]]]) -> tuple[FileEntry, ...]:
    """List the shards that hold rows and their indexes, so that a manifest vouches for them."""
    entries = []
    for collection, rows in wanted:
        needed, store = set(rows), collection.store
        for shard in collection.shards():
            if not needed.isdisjoint(shard.row_ids):
                index = (store.root / shard.entry.path).with_suffix(".index.npz")
                entries += [shard.entry, store.entry(index)]
    return tuple(entries)

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from headstart.errors import DamagedShardError, RecordError
from headstart.tasks.store import artifacts, records, row_reader
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.records import RowCollection, RowId, RowReader

SHAPE = (2, 3)


def row_ids(count: int, view: int = 0, first: int = 0) -> list[RowId]:
    return [RowId(bytes_digest(b"%d" % n), view) for n in range(first, first + count)]


def tensor_of(row_id: RowId) -> npt.NDArray[np.float16]:
    seed = int(row_id.image_digest[:8], 16) + row_id.view
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float16)


def make(store: Store, recipe: Any = "recipe") -> RowCollection:
    return RowCollection(store, "bottlenecks", recipe, SHAPE, "float16")


def fill(collection: RowCollection, rows: Sequence[RowId]) -> None:
    with collection.lock(), collection.writer(len(rows)) as writer:
        for row_id in rows:
            writer.write(row_id, tensor_of(row_id))


def assert_holds(reader: RowReader, rows: Sequence[RowId]) -> None:
    expected = np.stack([tensor_of(row_id) for row_id in rows])
    np.testing.assert_array_equal(reader.gather(range(len(rows))), expected)


@pytest.fixture(params=["resident", "paged"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "paged":
        monkeypatch.setattr(row_reader, "RESIDENT_BYTES", 0)


@pytest.mark.usefixtures("memory")
def test_rows_come_back_in_the_order_asked_for(store: Store) -> None:
    collection, rows = make(store), row_ids(300)
    fill(collection, rows)
    assert_holds(collection.select(rows[::-1]), rows[::-1])
    reader = collection.select(rows)
    picked = reader.gather(np.array([5, 299, 5]))
    np.testing.assert_array_equal(picked, np.stack([tensor_of(rows[i]) for i in (5, 299, 5)]))
    assert picked.dtype == np.float16


def test_shards_are_plain_tfrecords_of_examples(store: Store) -> None:
    import tensorflow as tf

    collection, rows = make(store), row_ids(3, view=7)
    fill(collection, rows)
    (shard,) = collection.folder.glob("*.tfrecord")
    spec = {
        "image_digest": tf.io.FixedLenFeature([], tf.string),
        "view": tf.io.FixedLenFeature([], tf.int64),
        "tensor": tf.io.FixedLenFeature([], tf.string),
    }
    for row_id, record in zip(rows, tf.data.TFRecordDataset(os.fspath(shard)), strict=True):
        parsed = tf.io.parse_single_example(record, spec)
        assert parsed["image_digest"].numpy().decode() == row_id.image_digest
        assert parsed["view"].numpy() == 7
        values = tf.reshape(tf.io.decode_raw(parsed["tensor"], tf.float16), SHAPE)
        np.testing.assert_array_equal(values, tensor_of(row_id))


def test_only_rows_that_are_not_there_are_missing(store: Store) -> None:
    collection = make(store)
    fill(collection, row_ids(5))
    assert collection.missing(row_ids(7)) == row_ids(2, first=5)
    assert collection.missing(row_ids(5, view=1)) == row_ids(5, view=1)
    fill(collection, row_ids(2, first=5))
    assert collection.missing(row_ids(7)) == []
    assert_holds(collection.select(row_ids(7)), row_ids(7))


def test_another_recipe_is_another_collection(store: Store) -> None:
    fill(make(store, "one"), row_ids(3))
    assert make(store, "two").missing(row_ids(3)) == row_ids(3)


def test_a_pass_is_cut_into_shards_so_that_a_killed_run_keeps_most_of_it(store: Store) -> None:
    collection, rows = make(store), row_ids(records.MIN_SHARD_ROWS * 3 + 1)
    fill(collection, rows)
    sizes = [len(shard.row_ids) for shard in collection.shards()]
    assert sorted(sizes) == [1, *[records.MIN_SHARD_ROWS] * 3]


def test_shards_stay_under_their_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = make(store)
    monkeypatch.setattr(records, "MAX_SHARD_BYTES", 10 * collection.row_bytes)
    fill(collection, row_ids(25))
    assert sorted(len(shard.row_ids) for shard in collection.shards()) == [5, 10, 10]


def test_an_interrupted_pass_keeps_its_whole_rows(store: Store) -> None:
    collection, rows = make(store), row_ids(10)
    with pytest.raises(KeyboardInterrupt), collection.writer(10) as writer:
        for row_id in rows[:4]:
            writer.write(row_id, tensor_of(row_id))
        raise KeyboardInterrupt
    assert collection.missing(rows) == rows[4:]
    assert_holds(collection.select(rows[:4]), rows[:4])


def test_a_shard_without_its_index_does_not_exist(store: Store) -> None:
    collection = make(store)
    fill(collection, row_ids(5))
    (index,) = collection.folder.glob("*.index.npz")
    index.unlink()
    assert collection.missing(row_ids(5)) == row_ids(5)
    fill(collection, row_ids(5))
    assert_holds(collection.select(row_ids(5)), row_ids(5))


@pytest.mark.parametrize("damage", ["delete", "shorten", "flip", "index_flip", "index_empty"])
def test_damage_loses_the_rows_of_its_shard_only(store: Store, damage: str) -> None:
    collection = make(store)
    fill(collection, row_ids(5))
    fill(collection, row_ids(5, first=5))
    hurt = next(s for s in collection.shards() if s.row_ids[0] == row_ids(1)[0])
    path = store.root / hurt.entry.path
    index = path.with_name(path.stem + ".index.npz")
    target = index if damage.startswith("index") else path
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "delete":
        target.unlink()
    elif damage in ("shorten", "index_empty"):
        target.write_bytes(b"" if damage == "index_empty" else bytes(data[:-1]))
    else:
        target.write_bytes(data)
    lost = [] if target is index else row_ids(5)  # an index is made again from its shard
    assert collection.missing(row_ids(10)) == lost
    fill(collection, lost)
    assert_holds(collection.select(row_ids(10)), row_ids(10))


def test_a_flipped_bit_under_an_unchanged_time_is_found_when_read(store: Store) -> None:
    collection = make(store)
    fill(collection, row_ids(5))
    (path,) = collection.folder.glob("*.tfrecord")
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DamagedShardError, match="set aside"):
        collection.select(row_ids(5))
    assert collection.missing(row_ids(5)) == row_ids(5)
    assert list((store.root / "set-aside").rglob("*.tfrecord"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are hashed."""
    names: list[str] = []
    original = artifacts.file_digest

    def counting(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(artifacts, "file_digest", counting)
    return names


def test_a_shard_is_hashed_once_however_often_it_is_opened(
    store: Store, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make(store)
    fill(collection, row_ids(5))
    (path,) = collection.folder.glob("*.tfrecord")
    hashed.clear()
    for _ in range(2):  # written just now: it may be written again under the same time
        assert_holds(collection.select(row_ids(5)), row_ids(5))
    assert hashed == [path.name] * 2
    monkeypatch.setattr(row_reader, "SETTLED_S", -1.0)
    for _ in range(3):
        assert_holds(collection.select(row_ids(5)), row_ids(5))
    assert hashed == [path.name] * 3


def test_a_shard_that_is_damaged_after_it_was_hashed_is_found(
    store: Store, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_reader, "SETTLED_S", -1.0)
    collection = make(store)
    fill(collection, row_ids(5))
    (path,) = collection.folder.glob("*.tfrecord")
    collection.select(row_ids(5))
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    while path.stat().st_ctime_ns == stat.st_ctime_ns:  # the file system's clock ticks slowly
        path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DamagedShardError, match="set aside"):
        collection.select(row_ids(5))


def test_a_copied_store_is_read_without_computing_again(store: Store, tmp_path: Path) -> None:
    fill(make(store), row_ids(5))
    shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = make(Store(tmp_path / "copy"))
    assert copy.missing(row_ids(5)) == []
    assert_holds(copy.select(row_ids(5)), row_ids(5))


def test_a_row_of_another_shape_or_type_is_refused(store: Store) -> None:
    with make(store).writer(1) as writer:
        with pytest.raises(RecordError, match=r"float16 \(2, 3\)"):
            writer.write(row_ids(1)[0], np.zeros((3, 2), np.float16))
        with pytest.raises(RecordError, match="float32"):
            writer.write(row_ids(1)[0], np.zeros(SHAPE, np.float32))


def test_asking_for_a_row_that_is_not_there_is_an_error(store: Store) -> None:
    collection = make(store)
    fill(collection, row_ids(2))
    with pytest.raises(RecordError, match="1 are missing"):
        collection.select(row_ids(3))


def test_a_reader_of_many_shards_keeps_few_files_open(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MIN_SHARD_ROWS", 1)
    monkeypatch.setattr(records, "SHARDS_A_PASS", 1000)
    monkeypatch.setattr(row_reader, "MAX_OPEN_SHARDS", 3)
    collection, rows = make(store), row_ids(40)
    fill(collection, rows)
    assert len(collection.shards()) == 40

    def num_open() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        files = [link.readlink() for link in links]
        # Of this store: readers of other tests may not have been collected yet.
        return sum(file.is_relative_to(store.root) and file.suffix == ".tfrecord" for file in files)

    in_memory = collection.select(rows)
    assert num_open() == 0
    monkeypatch.setattr(row_reader, "RESIDENT_BYTES", 0)
    paged = collection.select(rows)
    assert_holds(paged, rows)
    assert num_open() <= 3
    assert_holds(in_memory, rows)


def test_a_shard_that_is_removed_under_a_reader_is_told_of(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_reader, "RESIDENT_BYTES", 0)
    collection = make(store)
    fill(collection, row_ids(5))
    reader = collection.select(row_ids(5))
    (path,) = collection.folder.glob("*.tfrecord")
    path.unlink()
    with pytest.raises(DamagedShardError, match="is gone"):
        reader.gather([0])


def test_looking_leaves_damage_where_it_is(store: Store) -> None:
    collection = make(store)
    fill(collection, row_ids(5))
    (path,) = collection.folder.glob("*.tfrecord")
    path.write_bytes(b"?")
    assert collection.shards() == []
    assert collection.missing(row_ids(5)) == row_ids(5)
    assert collection.num_rows() == 5
    assert path.read_bytes() == b"?"
    assert not (store.root / "set-aside").exists()
    with collection.lock():
        assert not path.exists()


def test_small_shards_are_merged_and_large_ones_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MIN_SHARD_ROWS", 4)
    collection = make(store)
    for first, count in ((0, 4), (4, 2), (6, 1), (7, 3)):
        fill(collection, row_ids(count, first=first))
    before = {shard.name for shard in collection.shards()}
    with collection.lock():
        compaction = collection.write_merged()
    assert compaction is not None
    assert len(compaction.old) == 2 * 3
    for entry in compaction.old:
        (store.root / entry.path).unlink()
    after = {shard.name: shard.row_ids for shard in collection.shards()}
    assert sorted(len(rows) for rows in after.values()) == [2, 4, 4]
    assert len(before & after.keys()) == 1
    assert_holds(collection.select(row_ids(10)), row_ids(10))
    with collection.lock():
        assert collection.write_merged() is None  # one small shard alone is left

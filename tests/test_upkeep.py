import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import FileEntry, Manifest, Store
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.inventory import list_holdings, usage
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.store.row_index import read_index, write_index
from headstart.tasks.store.sealing import read_sealed
from headstart.tasks.store.verifying import verify

ROWS = [RowId(bytes_digest(bytes([number])), 0) for number in range(4)]


def fill(store: Store, kind: str) -> RowCollection:
    collection = RowCollection(store, kind, {"made": "so"}, (2,), "float16")
    with collection.lock(), collection.writer(len(ROWS)) as writer:
        for row_id in ROWS:
            writer.write(row_id, np.ones(2, np.float16))
    return collection


def make_greeting(store: Store) -> Manifest:
    def compute(folder: Path) -> Made:
        (folder / "greeting.txt").write_text("hello")
        return Made(num_rows=1, num_rows_computed=1)

    return Stage("greeting", 1, Manifest, compute, lambda: {})()


@pytest.fixture
def full(store: Store) -> Store:
    fill(store, "views")
    fill(store, "bottlenecks")
    make_greeting(store)
    return store


def flip(path: Path, place: int = 0, bit: int = 0) -> None:
    """Flip a bit, as a disk does that says nothing: size and time stay as they were."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_holdings_say_what_there_is(full: Store) -> None:
    holdings = {holding.kind: holding for holding in list_holdings(full)}
    assert set(holdings) == {"views", "bottlenecks", "greeting"}
    assert holdings["views"].num_rows == 4
    assert holdings["views"].what == "float16 2"
    assert holdings["greeting"].num_bytes == len("hello")


def test_usage_adds_up_to_what_is_on_disk(full: Store) -> None:
    on_disk = sum(path.stat().st_size for path in full.root.rglob("*") if path.is_file())
    totals = usage(full, list_holdings(full))
    assert sum(totals.values()) == on_disk
    assert list(totals.values()) == sorted(totals.values(), reverse=True)


def test_a_whole_store_verifies(full: Store) -> None:
    verdict = verify(full)
    assert (verdict.num_files, verdict.damaged) == (3, [])


@pytest.mark.parametrize("kind", ["rows", "artefacts"])
def test_a_flipped_bit_is_found_and_set_aside(full: Store, kind: str) -> None:
    pattern = "views/*/*.tfrecord" if kind == "rows" else "greeting/*/greeting.txt"
    (path,) = (full.root / kind).glob(pattern)
    flip(path)
    assert verify(full).damaged == [full.relative(path)]
    assert verify(full).damaged == []  # it has been set aside
    if kind == "rows":
        assert fill(full, "views").missing(ROWS) == []
    else:
        make_greeting(full)
        assert path.read_text() == "hello"


def test_a_manifest_that_cannot_be_read_is_set_aside(full: Store) -> None:
    (path,) = (full.root / "manifests" / "greeting").glob("*")
    path.write_text("{")
    assert verify(full).num_files == 2
    assert not path.exists()


def test_a_damaged_recipe_is_set_aside_and_costs_no_rows(full: Store) -> None:
    for number in range(2):
        (recipe,) = (full.root / "rows" / "views").glob("*/recipe.json")
        recipe.write_text(recipe.read_text().replace("so", "no"))
        assert verify(full).damaged == [full.relative(recipe)]
        assert len(list((full.root / "set-aside" / "rows" / "views").glob("*/*"))) == number + 1
        collection = RowCollection(full, "views", {"made": "so"}, (2,), "float16")
        with collection.lock():
            assert collection.missing(ROWS) == []
        assert verify(full).damaged == []


def test_listing_changes_nothing(full: Store) -> None:
    (shard,) = (full.root / "rows" / "views").glob("*/*.tfrecord")
    shard.write_bytes(b"?")
    before = {path: path.stat().st_mtime_ns for path in full.root.rglob("*")}
    usage(full, list_holdings(full))
    assert {path: path.stat().st_mtime_ns for path in full.root.rglob("*")} == before


def test_listing_goes_on_where_files_vanish(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.rglob

    def rglob(self: Path, pattern: str) -> list[Path]:
        return [*original(self, pattern), self / "gone.json"]

    monkeypatch.setattr(Path, "rglob", rglob)
    sizes = {holding.kind: holding.num_bytes for holding in list_holdings(full)}
    assert sizes["greeting"] == len("hello")


NOBODY = 65534


@pytest.fixture
def owned(full: Store) -> Iterator[Store]:
    """Return the store as its owner sees it, who is not the superuser: that one may read all."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(shutil.copytree(full.root, Path(folder) / "store")))
        if os.geteuid() != 0:
            yield store
            return
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, NOBODY, -1)
        os.seteuid(NOBODY)
        try:
            yield store
        finally:
            os.seteuid(0)


def test_what_one_may_not_read_is_no_damage(owned: Store) -> None:
    (shard,) = (owned.root / "rows" / "views").glob("*/*.tfrecord")
    shard.chmod(0)
    check = verify(owned)
    assert (check.damaged, check.unreadable) == ([], [owned.relative(shard)])
    assert shard.exists()


def test_what_is_being_written_is_no_damage(full: Store) -> None:
    collection = RowCollection(full, "views", {"made": "so"}, (2,), "float16")
    (shard,) = (full.root / "rows" / "views").glob("*/*.tfrecord")
    with collection.lock():
        shard.write_bytes(b"another's, whose index is about to follow")
        check = verify(full)
    assert (check.damaged, check.busy) == ([], [full.relative(shard)])
    assert verify(full).damaged == [full.relative(shard)]


def test_a_nightly_check_leaves_out_what_was_hashed_not_long_ago(full: Store) -> None:
    assert verify(full).num_recent == 0
    (shard,) = (full.root / "rows" / "views").glob("*/*.tfrecord")
    flip(shard)
    check = verify(full, older_than_days=1)
    assert (check.num_recent, check.damaged) == (2, [])
    assert verify(full, older_than_days=0).damaged == [full.relative(shard)]


def test_a_check_that_is_interrupted_goes_on_from_where_it_was(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = Store.holds, []

    def holds(self: Store, entry: FileEntry, *, thorough: bool = False) -> bool:
        seen.append(entry.path)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(self, entry, thorough=thorough)

    monkeypatch.setattr(Store, "holds", holds)
    with pytest.raises(KeyboardInterrupt):
        verify(full)
    assert verify(full, older_than_days=1).num_recent == 1
    assert [path.name for path in (full.root / "tmp").iterdir()] == []


@pytest.mark.parametrize("name", ["manifests/greeting/*.json", "rows/views/*/recipe.json"])
def test_any_other_digit_in_a_json_file_is_damage(full: Store, name: str) -> None:
    (path,) = full.root.glob(name)
    text = path.read_text()
    digits = [place for place, letter in enumerate(text) if letter.isdigit()]
    for place in digits:
        other = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        if json.loads(other) == json.loads(text):  # the last digit of a number of seconds
            continue
        path.write_text(other)
        with pytest.raises(ValueError, match="checksum"):
            read_sealed(path)
    path.write_text(text)
    assert digits
    assert verify(full).damaged == []


def test_a_manifest_in_anothers_place_is_damage(full: Store) -> None:
    (path,) = (full.root / "manifests" / "greeting").glob("*")
    other = path.rename(path.with_name(f"{'0' * 64}.json"))
    assert full.read_manifest("greeting", other.stem, Manifest) is None
    assert verify(full).damaged == [full.relative(other)]


def test_a_folder_vanishes_from_the_store_in_one_step(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    (folder,) = (full.root / "rows" / "views").iterdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("headstart.tasks.store.artifacts.shutil.rmtree", stop)
        full.remove(folder)
    assert not folder.exists()
    assert verify(full).damaged == []


def test_every_flip_in_an_index_is_mended_from_its_shard(full: Store) -> None:
    collection = RowCollection(full, "views", {"made": "so"}, (2,), "float16")
    (path,) = (full.root / "rows" / "views").glob("*/*.index.npz")
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.choice(len(whole), 120, replace=False):
        flip(path, int(place), bit=int(random.integers(8)))
        np.testing.assert_array_equal(collection.select(ROWS).gather(range(4)), np.ones((4, 2)))
        assert verify(full).damaged == []
        path.write_bytes(whole)


def test_a_damaged_index_is_made_again_byte_by_byte(full: Store) -> None:
    (path,) = (full.root / "rows" / "views").glob("*/*.index.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert verify(full).damaged == []
    assert path.read_bytes() == whole


def test_offsets_beyond_the_shard_are_damage(full: Store) -> None:
    collection = RowCollection(full, "views", {"made": "so"}, (2,), "float16")
    (path,) = (full.root / "rows" / "views").glob("*/*.index.npz")
    index = read_index(path)
    assert index is not None
    write_index(path, index._replace(offsets=index.offsets + 10**6))
    np.testing.assert_array_equal(collection.select(ROWS).gather(range(4)), np.ones((4, 2)))

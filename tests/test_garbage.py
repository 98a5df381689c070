"""What may go from the store, what must stay, and that runs and removal keep out of each other."""

import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import RecordError
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store import records
from headstart.tasks.store.artifacts import Manifest, Store, use_store
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.garbage import (
    Criteria,
    collect_garbage,
    list_garbage,
    merge_small_shards,
)
from headstart.tasks.store.inventory import list_holdings
from headstart.tasks.store.records import RowCollection, RowId, shards_of
from headstart.tasks.store.verifying import verify

ROWS = [RowId(bytes_digest(bytes([number])), 0) for number in range(4)]


def fill(store: Store, kind: str, rows: list[RowId] = ROWS) -> RowCollection:
    collection = RowCollection(store, kind, {"made": "so"}, (2,), "float16")
    with collection.lock(), collection.writer(len(rows)) as writer:
        for row_id in rows:
            writer.write(row_id, np.full(2, row_id.image_digest[0] > "7", np.float16))
    return collection


def make_greeting(store: Store) -> Manifest:
    def compute(folder: Path) -> Made:
        (folder / "greeting.txt").write_text("hello")
        return Made(num_rows=1, num_rows_computed=1)

    with use_store(store):
        return Stage("greeting", 1, Manifest, compute, lambda: {})()


def make_rows(store: Store, rows: list[RowId] = ROWS) -> Manifest:
    """Run a stage that refers to rows, as the bottlenecks stage does."""

    def compute(folder: Path) -> Made:
        collection = RowCollection(store, "bottlenecks", {"made": "so"}, (2,), "float16")
        return Made(len(rows), 0, shards_of([(collection, rows)]))

    with use_store(store):
        return Stage("bottlenecks", 1, Manifest, compute, lambda: {"num": len(rows)})()


@pytest.fixture
def full(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    fill(store, "views")
    fill(store, "bottlenecks")
    make_greeting(store)
    make_rows(store)
    return store


def age(path: Path, days: float) -> None:
    then_s = time.time() - days * 24 * 3600
    os.utime(path, (then_s, then_s))


def removed(store: Store, views: bool = False, unused_days: float | None = None) -> list[str]:
    criteria = Criteria(views, unused_days)
    listed = list_garbage(store, criteria)
    assert collect_garbage(store, criteria) == listed
    return [path for path, _ in listed]


def test_what_is_in_use_is_no_garbage(full: Store) -> None:
    assert removed(full) == []
    assert len(list_holdings(full)) == 3
    assert [path.name for path in (full.root / "locks").iterdir()] == ["in-use.lock"]


def test_garbage_is_what_killed_runs_and_damage_left(full: Store) -> None:
    for folder in ("tmp", "set-aside", "prefect"):
        (full.root / folder).mkdir(exist_ok=True)
        (full.root / folder / "left").write_text("?")
    (collection,) = (full.root / "rows" / "views").iterdir()
    (collection / "never-indexed.tfrecord").write_text("?")
    name = full.relative(collection)
    expected = ["tmp/left", "set-aside/left", f"{name}/never-indexed.tfrecord", "prefect/left"]
    assert removed(full) == expected
    assert removed(full) == []
    assert len(list_holdings(full)) == 3


def test_nothing_is_removed_while_a_run_goes_on(full: Store) -> None:
    with use_store(Store(full.root)), full.staging() as folder:
        with pytest.raises(RecordError, match="a run is using"):
            collect_garbage(full, Criteria(views=True))
        with pytest.raises(RecordError, match="a run is using"):
            merge_small_shards(full)
        assert list_garbage(full, Criteria())[0][0] == f"tmp/{folder.name}"
    assert removed(full) == []


def test_views_go_on_request_alone(full: Store) -> None:
    assert removed(full) == []
    (path,) = removed(full, views=True)
    assert path.startswith("rows/views/")
    assert {holding.kind for holding in list_holdings(full)} == {"bottlenecks", "greeting"}


def test_what_no_run_has_used_for_long_goes_with_its_manifest(full: Store) -> None:
    manifests = [*(full.root / "manifests").glob("*/*")]
    (recipe,) = (full.root / "rows" / "bottlenecks").glob("*/recipe.json")
    for path in (*manifests, recipe):
        age(path, days=10)
    assert removed(full, unused_days=20) == []
    assert len(removed(full, unused_days=5)) == 4
    assert not any(path.exists() for path in manifests)
    assert {holding.kind for holding in list_holdings(full)} == {"views"}


def test_a_hit_and_a_read_count_as_use(full: Store) -> None:
    recipes = [*(full.root / "rows").glob("*/*/recipe.json")]
    for path in (*recipes, *(full.root / "manifests").glob("*/*")):
        age(path, days=10)
    make_greeting(full)
    make_rows(full)  # a hit, of rows that are not read
    fill(full, "views").select(ROWS)
    assert removed(full, unused_days=5) == []


def test_a_hit_counts_as_use_of_another_stages_files(full: Store) -> None:
    greeting = make_greeting(full)

    def compute(folder: Path) -> Made:
        return Made(1, 0, greeting.files)

    def make_letter() -> None:
        with use_store(full):
            Stage("letter", 1, Manifest, compute, lambda: {})()

    make_letter()
    for path in (full.root / "manifests").glob("*/*"):
        age(path, days=10)
    make_letter()
    gone = removed(full, unused_days=5)
    assert not any("greeting" in path for path in gone)
    assert any("bottlenecks" in path for path in gone)


def test_a_manifest_whose_rows_are_gone_goes_too(full: Store) -> None:
    for path in (full.root / "rows" / "bottlenecks").glob("*/*.tfrecord"):
        path.unlink()
    (path,) = removed(full)
    assert path.startswith("manifests/bottlenecks/")


def test_merging_many_small_shards_makes_nothing_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MIN_SHARD_ROWS", 30)
    store = Store(tmp_path / "store")
    rows = [RowId(bytes_digest(b"%d" % number), 0) for number in range(50)]
    for night in range(10):
        collection = fill(store, "bottlenecks", rows[5 * night : 5 * night + 5])
        manifest = make_rows(store, rows[: 5 * night + 5])
    before = collection.select(rows).gather(range(50))
    assert len(collection.shards()) == 10
    (merged,) = merge_small_shards(store)
    assert (len(merged.old), len(merged.new)) == (2 * 10, 2 * 2)
    assert len(collection.shards()) == 2
    np.testing.assert_array_equal(collection.select(rows).gather(range(50)), before)
    with use_store(store):
        kept = store.read_manifest("bottlenecks", manifest.key, Manifest)
    assert kept is not None
    assert kept.num_rows == 50
    assert removed(store) == []
    assert merge_small_shards(store) == []


def test_a_store_whose_garbage_was_removed_half_way_is_whole(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after each removal in turn."""
    remaining = 0
    original = Store.remove

    def remove(self: Store, path: Path) -> None:
        nonlocal remaining
        if remaining == 0:
            raise KeyboardInterrupt
        remaining -= 1
        original(self, path)

    monkeypatch.setattr(Store, "remove", remove)
    for number in range(6):
        make_greeting(full)
        fill(full, "views")
        fill(full, "bottlenecks")
        make_rows(full)
        remaining = number
        with suppress(KeyboardInterrupt):
            collect_garbage(full, Criteria(views=True, unused_days=0.0))
        assert verify(full).damaged == []
    assert list_holdings(full) == []


def test_a_merge_that_is_killed_half_way_leaves_a_whole_store(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(full, "bottlenecks", [RowId(bytes_digest(b"another"), 0)])
    removals = 0
    original = Store.remove

    def remove(self: Store, path: Path) -> None:
        nonlocal removals
        removals += 1
        original(self, path)
        if removals == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "remove", remove)
    with pytest.raises(KeyboardInterrupt):
        merge_small_shards(full)
    assert verify(full).damaged == []

import os
from pathlib import Path

import numpy as np
import pytest

from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest, Store
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.inventory import list_holdings, usage, verify
from headstart.tasks.store.records import RowCollection, RowId

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
    assert (verdict.num_files, verdict.damaged) == (3, ())


@pytest.mark.parametrize("kind", ["rows", "artefacts"])
def test_a_flipped_bit_is_found_and_set_aside(full: Store, kind: str) -> None:
    pattern = "views/*/*.tfrecord" if kind == "rows" else "greeting/*/greeting.txt"
    (path,) = (full.root / kind).glob(pattern)
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert verify(full).damaged == (full.relative(path),)
    assert verify(full).damaged == ()  # it has been set aside
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


def test_a_damaged_folder_is_set_aside_as_often_as_it_is_damaged(full: Store) -> None:
    for number in range(2):
        fill(full, "views")
        (recipe,) = (full.root / "rows" / "views").glob("*/recipe.json")
        recipe.write_text("?")
        assert verify(full).damaged == (full.relative(recipe.parent),)
        assert len(list((full.root / "set-aside" / "rows" / "views").iterdir())) == number + 1


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

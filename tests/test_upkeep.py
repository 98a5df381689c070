import os
import time
from pathlib import Path

import numpy as np
import pytest

from headstart.tasks.artifacts import Manifest, Store
from headstart.tasks.fingerprint import bytes_digest
from headstart.tasks.records import RowCollection, RowId
from headstart.tasks.stage import Made, Stage
from headstart.tasks.upkeep import collect_garbage, list_holdings, usage, verify

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


def age(path: Path, days: float) -> None:
    then_s = time.time() - days * 24 * 3600
    os.utime(path, (then_s, then_s))


def removed(store: Store, **options: object) -> list[str]:
    chosen = {"views": False, "unused_days": None, "dry_run": False, **options}
    return [path for path, _ in collect_garbage(store, **chosen)]  # type: ignore[arg-type]


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


def test_garbage_is_what_killed_runs_and_damage_left(full: Store) -> None:
    (full.root / "tmp" / "old").mkdir()
    age(full.root / "tmp" / "old", days=2)
    (full.root / "tmp" / "of-a-run-that-goes-on").mkdir()
    (full.root / "set-aside").mkdir()
    (full.root / "set-aside" / "damaged").write_text("?")
    assert removed(full, dry_run=True) == ["tmp/old", "set-aside/damaged"]
    assert (full.root / "tmp" / "old").exists()
    assert removed(full) == ["tmp/old", "set-aside/damaged"]
    assert not (full.root / "tmp" / "old").exists()
    assert (full.root / "tmp" / "of-a-run-that-goes-on").exists()
    assert len(list_holdings(full)) == 3


def test_views_go_on_request_alone(full: Store) -> None:
    assert removed(full) == []
    (path,) = removed(full, views=True)
    assert path.startswith("rows/views/")
    assert {holding.kind for holding in list_holdings(full)} == {"bottlenecks", "greeting"}


def test_what_no_run_has_used_for_long_goes_with_its_manifest(full: Store) -> None:
    (manifest,) = (full.root / "manifests" / "greeting").glob("*")
    (recipe,) = (full.root / "rows" / "bottlenecks").glob("*/recipe.json")
    age(manifest, days=10)
    age(recipe, days=10)
    assert removed(full, unused_days=20) == []
    assert len(removed(full, unused_days=5)) == 3
    assert not manifest.exists()
    assert {holding.kind for holding in list_holdings(full)} == {"views"}


def test_a_hit_and_a_read_count_as_use(full: Store) -> None:
    (manifest,) = (full.root / "manifests" / "greeting").glob("*")
    (recipe,) = (full.root / "rows" / "bottlenecks").glob("*/recipe.json")
    age(manifest, days=10)
    age(recipe, days=10)
    make_greeting(full)
    fill(full, "bottlenecks").select(ROWS)
    assert removed(full, unused_days=5) == []

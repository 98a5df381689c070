"""Finding rows: by digest and view, among keys that share a hash, and in files that changed."""

from pathlib import Path

import numpy as np
import pytest

from headstart.tasks.store import row_index
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.row_index import (
    RowId,
    RowLookup,
    ShardIndex,
    keys_of,
    read_index,
    row_ids_of,
    write_index,
)

ROWS = [RowId(bytes_digest(b"%d" % (number // 3)), number % 3) for number in range(60)]


def test_keys_and_addresses_are_one_to_one() -> None:
    edges = [RowId("00" * 32, 0), RowId("ff" * 31 + "00", 256), RowId("00" * 32, 2**31)]
    assert row_ids_of(keys_of([*ROWS, *edges])) == [*ROWS, *edges]
    assert row_ids_of(keys_of([])) == []


@pytest.mark.parametrize("collide", [False, True])
def test_each_row_is_found_where_it_is(collide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if collide:
        monkeypatch.setattr(row_index, "_hash", lambda keys: np.zeros(len(keys), np.uint64))
    lookup = RowLookup(keys_of(ROWS[:40]))
    wanted = [*ROWS[::-1], RowId(ROWS[0].image_digest, 7)]
    assert lookup.find(keys_of(wanted)).tolist() == [*[-1] * 20, *range(39, -1, -1), -1]


def test_nothing_is_found_among_no_rows() -> None:
    assert RowLookup(keys_of([])).find(keys_of(ROWS[:2])).tolist() == [-1, -1]
    assert RowLookup(keys_of(ROWS)).find(keys_of([])).tolist() == []


def test_an_index_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    assert read_index(path) is None
    for rows in (ROWS[:3], ROWS[3:5]):
        new = tmp_path / "new.npz"
        write_index(new, ShardIndex(keys_of(rows), np.arange(len(rows)), 10, "ab" * 32, 123))
        new.replace(path)
        read = read_index(path)
        assert read is not None
        assert row_ids_of(read.keys) == rows
        assert (read.num_bytes, read.sha256, read.mtime_ns) == (10, "ab" * 32, 123)
    path.write_bytes(path.read_bytes()[:-30])
    assert read_index(path) is None

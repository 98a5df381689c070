"""A store in a bucket: the same hits, nothing half-visible, damage noticed, nothing overwritten."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import ScratchConfig, SpreadConfig, build_config
from headstart.errors import ConfigError, DamagedShardError, RecordError
from headstart.tasks.running.spreading import use_spreading
from headstart.tasks.runs.run_folder import RunSummary
from headstart.tasks.store import remote_store
from headstart.tasks.store.artifacts import Store, default_root
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.garbage import Criteria, list_garbage
from headstart.tasks.store.inventory import list_holdings, usage
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.store.remote_store import RemoteStore, folder_here, open_store
from headstart.tasks.store.verifying import verify
from tests.pipeline import NUM_IMAGES, Pipeline, computed, statuses
from tests.scratch_data import SCRATCH, write_idx

ROWS = [RowId(bytes_digest(bytes([number])), 0) for number in range(6)]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return a bucket in this process's memory."""
    name = f"memory://{tmp_path.name}/prefix"
    monkeypatch.setenv("HEADSTART_MIRROR", str(tmp_path / "first machine"))
    yield name
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what opens a bucket as another machine would, with a mirror of its own."""

    def open_there(url: str, **options: Any) -> RemoteStore:
        monkeypatch.setenv("HEADSTART_MIRROR", str(tmp_path / "second machine"))
        return RemoteStore(url, **options)

    return open_there


def collection(store: Store) -> RowCollection:
    return RowCollection(store, "bottlenecks", "recipe", (4,), "float32")


def write(store: Store, rows: list[RowId] = ROWS, value: float = 1.0) -> RowCollection:
    kept = collection(store)
    with kept.lock(), kept.writer(len(rows)) as writer:
        for number, row_id in enumerate(rows):
            writer.write(row_id, np.full(4, value + number, np.float32))
    return kept


def objects(url: str, ending: str = "") -> list[str]:
    files, prefix = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return sorted(name for name in files.find(prefix) if name.endswith(ending))


def first_values(kept: RowCollection, rows: list[RowId] = ROWS) -> list[float]:
    values: list[float] = kept.select(rows).gather(range(len(rows)))[:, 0].tolist()
    return values


def test_a_folder_and_a_url_are_told_apart(tmp_path: Path, url: str) -> None:
    assert type(open_store(tmp_path / "folder")) is Store
    for given in (url, Path(url)):  # a Path takes a slash away
        store = open_store(given)
        assert isinstance(store, RemoteStore)
        assert store.location == url
    assert type(open_store(None)) is Store


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_a_url_of_a_folder_is_that_folder(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    url = f"{scheme}://{folder}"
    for given in (url, Path(url), f"{scheme}:{folder}", f"{url}/"):
        store = open_store(given)
        assert (type(store), store.root, folder_here(given)) == (Store, folder, folder)
    monkeypatch.setenv("HEADSTART_STORE", url)
    assert open_store(None).location == str(folder)


@pytest.mark.parametrize("place", ["file:///", "local:", Path("file://")])
def test_a_url_of_no_folder_is_refused(place: Any) -> None:
    with pytest.raises(ConfigError, match="does not name a folder"):
        open_store(place)


@pytest.mark.parametrize("place", ["s3://", "gs:/", Path("s3://")])
def test_a_url_without_a_bucket_is_refused(place: Any) -> None:
    with pytest.raises(ConfigError, match="does not name a bucket"):
        open_store(place)


def test_the_variable_may_name_a_bucket(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STORE", url)
    assert open_store(None).location == url
    assert str(default_root()) != url  # which is why it goes through open_store


def test_rows_written_here_are_read_elsewhere(url: str, elsewhere: Any) -> None:
    write(open_store(url))
    there = collection(elsewhere(url))
    assert not there.folder.exists()
    assert there.missing([*ROWS, RowId(ROWS[0].image_digest, 1)]) == [(ROWS[0].image_digest, 1)]
    assert not list(there.folder.glob("*.tfrecord"))  # not before they are read
    assert first_values(there) == [1, 2, 3, 4, 5, 6]


def test_rows_written_elsewhere_appear_here(url: str, elsewhere: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(remote_store, "LISTING_S", 0.0)
    here = collection(open_store(url))
    assert here.missing(ROWS) == ROWS
    write(elsewhere(url))
    assert here.missing(ROWS) == []


def test_an_old_listing_is_forgotten_once_workers_have_written(url: str, elsewhere: Any) -> None:
    here = open_store(url)
    assert collection(here).missing(ROWS) == ROWS
    write(elsewhere(url))
    here.look_again()
    assert collection(here).missing(ROWS) == []


def test_an_old_listing_is_no_reason_to_forget_an_index_or_to_remove_a_shard(
    url: str, elsewhere: Any
) -> None:
    here, same_machine = RemoteStore(url), RemoteStore(url)
    assert collection(here).missing(ROWS) == ROWS  # which lists the folder
    write(same_machine)
    (path,) = collection(here).folder.glob("*.tfrecord")
    assert collection(here).missing(ROWS) == []
    there = elsewhere(url)
    shard = collection(there).shards()[0]
    assert not (there.root / shard.entry.path).exists()
    for sizes in there._listings.values():  # made while the shard arrived, before its index
        sizes[1].clear()
    assert there.holds(shard.entry)
    assert path.exists()


@pytest.mark.parametrize("text", ["50GB", "-1", "0", ""])
def test_a_mirror_of_no_size_is_refused(
    text: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(url)
    monkeypatch.setenv("HEADSTART_MIRROR_BYTES", text)
    with pytest.raises(ConfigError, match="number of bytes"):
        open_store(url)


@pytest.mark.parametrize("sent", ["half", "nothing", "wrong"])
def test_an_upload_that_goes_wrong_leaves_nothing_visible(
    url: str, elsewhere: Any, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(url)
    put_file = store._files.put_file  # type: ignore[attr-defined]

    def put(path: str, key: str) -> None:
        if not key.endswith(".tfrecord"):
            return put_file(path, key)
        data = Path(path).read_bytes()
        if sent == "half":
            store._files.pipe_file(key, data[: len(data) // 2])  # type: ignore[attr-defined]
            raise ConnectionResetError("the line is dead")
        store._files.pipe_file(key, data[:-1] + b"?" if sent == "wrong" else b"")  # type: ignore[attr-defined]
        return None

    with monkeypatch.context() as patch:
        patch.setattr(store._files, "put_file", put)  # type: ignore[attr-defined]
        with pytest.raises(RecordError, match="cannot be read or written"):
            write(store)
    assert objects(url, ".index.npz") == []
    assert collection(store).missing(ROWS) == ROWS  # here neither
    assert collection(elsewhere(url)).missing(ROWS) == ROWS
    write(store)
    assert first_values(collection(elsewhere(url))) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("damage", ["flip", "shorten", "remove"])
def test_a_damaged_object_is_noticed_and_its_rows_are_missing(
    url: str, elsewhere: Any, damage: str
) -> None:
    write(open_store(url))
    files = fsspec.filesystem("memory")
    (name,) = objects(url, ".tfrecord")
    data = bytearray(files.cat_file(name))
    data[len(data) // 2] ^= 1
    files.rm_file(name)
    if damage != "remove":
        files.pipe_file(name, bytes(data[:-1] if damage == "shorten" else data))
    store = elsewhere(url)
    with pytest.raises(DamagedShardError):
        collection(store).select(ROWS)
    assert collection(store).missing(ROWS) == ROWS
    assert objects(url, ".tfrecord") == []
    assert first_values(write(store, value=1.0)) == [1, 2, 3, 4, 5, 6]


def test_a_damaged_copy_is_fetched_anew(url: str, elsewhere: Any) -> None:
    write(open_store(url))
    there = collection(elsewhere(url))
    first_values(there)
    (path,) = there.folder.glob("*.tfrecord")
    path.write_bytes(b"?" * path.stat().st_size)
    assert first_values(there) == [1, 2, 3, 4, 5, 6]
    assert len(objects(url, ".tfrecord")) == 1


def test_two_machines_that_write_the_same_rows_do_not_spoil_them(
    url: str, elsewhere: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = open_store(url)
    there = elsewhere(url)
    write(here, value=1.0)
    write(there, value=1.5)  # as another kind of processor might have it
    assert len(objects(url, ".tfrecord")) == 2
    assert len(objects(url, ".index.npz")) == 1
    assert first_values(collection(here))[0] == 1.0  # its own copy is whole
    monkeypatch.setenv("HEADSTART_MIRROR", str(tmp_path / "third machine"))
    assert first_values(collection(RemoteStore(url)))[0] == 1.5  # who came last


def test_shards_used_least_recently_are_evicted_and_fetched_again(url: str) -> None:
    store = RemoteStore(url)
    for row_id in ROWS[:2]:
        write(store, [row_id])
    kept = collection(store)
    first, second = (store.root / shard.entry.path for shard in kept.shards())
    for path, age_s in ((first, 1000), (second, 2000)):
        os.utime(path, ns=(path.stat().st_atime_ns - age_s * 10**9, path.stat().st_mtime_ns))
    small = RemoteStore(url, max_cache_bytes=2 * first.stat().st_size)
    write(small, [ROWS[2]])
    assert (first.exists(), second.exists()) == (True, False)
    assert first_values(collection(small), ROWS[:3]) == [1, 1, 1]
    assert len(objects(url, ".tfrecord")) == 3


def test_a_shard_in_use_is_not_evicted(url: str) -> None:
    store = RemoteStore(url, max_cache_bytes=1)
    kept = write(store)
    assert len(list(kept.folder.glob("*.tfrecord"))) == 1


def test_upkeep_sees_what_is_in_the_bucket_and_removes_nothing(url: str, elsewhere: Any) -> None:
    write(open_store(url))
    store = elsewhere(url)
    (holding,) = list_holdings(store)
    sizes = {name: fsspec.filesystem("memory").size(name) for name in objects(url)}
    in_rows = sum(size for name, size in sizes.items() if "/rows/" in name)
    assert (holding.kind, holding.num_rows, holding.num_bytes) == ("bottlenecks", 6, in_rows)
    assert usage(store, [holding])["bottlenecks"] == in_rows
    assert verify(store).damaged == []
    with (
        pytest.raises(RecordError, match="does not remove anything from a store in a bucket"),
        store.unused(),
    ):
        pass
    with pytest.raises(RecordError, match="does not remove anything from a store in a bucket"):
        list_garbage(store, Criteria(views=True))  # nor is it said what would go
    (name,) = objects(url, ".tfrecord")
    fsspec.filesystem("memory").pipe_file(name, b"?")
    shutil.rmtree(store.root / "rows")
    assert len(verify(elsewhere(url)).damaged) == 1


def test_a_bucket_with_another_layout_is_refused(url: str) -> None:
    open_store(url)
    files, prefix = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{prefix}/store.json", b'{"layout": 99}')
    with pytest.raises(RecordError, match="a different layout"):
        open_store(url)


def test_a_protocol_that_is_unknown_or_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match="check the spelling"):
        open_store("s5://bucket/prefix")
    with pytest.raises(ConfigError, match=r"pip install 'headstart\[gcs\]'"):
        open_store("gs://bucket/prefix")


def test_no_error_and_no_command_shows_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_MIRROR", str(tmp_path / "mirrors"))
    secret, shown = (f"memory://{user}{tmp_path.name}/prefix" for user in ("user:secret@", ""))
    store = open_store(secret)
    assert store.location == secret  # which is what is opened elsewhere
    with pytest.raises(ConfigError) as refused:
        open_store("sftpp://user:secret@host/folder")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(f"{secret} is gone")

    with monkeypatch.context() as patch, pytest.raises(RecordError) as failed:
        patch.setattr(type(store._files), "find", fail)  # type: ignore[attr-defined]
        store.folders("rows/*/*")
    with pytest.raises(RecordError) as kept:
        store.check_removable()
    for error in (refused, failed, kept):
        assert "secret" not in str(error.value)
    assert shown in failed.value.received
    result = CliRunner().invoke(app, ["cache", "du", "--store", secret])
    assert result.exit_code == 0, result.output
    assert "secret" not in result.output
    result = CliRunner().invoke(app, ["cache", "du", "--json", "--store", secret])
    assert json.loads(result.output)["store"] == shown
    fsspec.filesystem("memory").rm(f"/user:secret@{tmp_path.name}", recursive=True)


def test_a_second_machine_computes_nothing(pipeline: Pipeline, url: str, elsewhere: Any) -> None:
    pipeline.store = open_store(url)
    assert pipeline.extract().status == "miss"
    assert pipeline.num_passed() == NUM_IMAGES
    pipeline.store = elsewhere(url)
    outcome = pipeline.extract()
    assert (outcome.status, pipeline.num_passed()) == ("hit", 0)
    index = next((pipeline.store.root / "rows/bottlenecks").rglob("*.index.npz"))
    kept = pipeline.collections()[0]
    kept.discard(kept.shards()[0].row_ids[:1])
    assert not index.exists() or len(kept.shards()) == 3
    outcome = pipeline.extract()
    assert (outcome.status, outcome.rows_computed, pipeline.num_passed()) == ("miss", 10, 10)


def test_threads_that_open_the_bucket_themselves_are_seen_at_once(
    pipeline: Pipeline, url: str
) -> None:
    # Each has a listing of its own; the one that gave out the pieces must look anew.
    pipeline.store = open_store(url)
    with use_spreading(SpreadConfig(runner="thread", num_workers=2)):
        outcome = pipeline.extract()
    assert (outcome.status, outcome.rows_computed) == ("miss", NUM_IMAGES)
    assert pipeline.extract().status == "hit"


def test_a_whole_run_is_a_hit_elsewhere(pipeline: Pipeline, url: str, elsewhere: Any) -> None:
    from headstart.flows.transfer import transfer

    out = pipeline.store.root / "out"
    first = transfer.fn(pipeline.config(), Path(url), out / "1")
    elsewhere(url)
    second = transfer.fn(pipeline.config(), Path(url), out / "2")
    assert {outcome.status for outcome in second.stages if outcome.name != "dataset"} == {"hit"}
    assert computed(second)["bottlenecks"] == 0
    assert second.metrics == first.metrics


def test_views_of_epochs_are_found_and_read_elsewhere(
    tmp_path: Path, url: str, elsewhere: Any
) -> None:
    from headstart.flows.scratch import scratch

    def train(number: int) -> RunSummary:
        settings = (*SCRATCH, "training.epochs=2", f"training.seed={number}")
        config = build_config(ScratchConfig, str(data), settings=settings)
        return scratch.fn(config, Path(url), tmp_path / f"run {number}")

    data = write_idx(tmp_path / "bars")
    train(1)
    there = elsewhere(url)
    assert verify(there).damaged == []
    second = statuses(train(2))
    assert (second["epoch_views"], second["training"]) == ("hit", "miss")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Return the address of an S3 that lives in a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "HEADSTART_MIRROR": str(tmp_path / "first machine"),
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{os.urandom(4).hex()}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}/a/prefix"


def test_rows_in_s3_are_read_elsewhere_and_damage_there_is_mended(
    bucket: str, elsewhere: Any
) -> None:
    write(open_store(bucket))
    store = elsewhere(bucket)
    there = collection(store)
    assert there.missing(ROWS) == []
    assert first_values(there) == [1, 2, 3, 4, 5, 6]
    assert list_holdings(store)[0].num_rows == 6
    (name,) = objects(bucket, ".tfrecord")
    store._files.pipe_file(name, b"?" * store._files.info(name)["size"])
    shutil.rmtree(store.root)
    again = collection(elsewhere(bucket))
    with pytest.raises(DamagedShardError):
        again.select(ROWS)
    assert again.missing(ROWS) == ROWS
    assert first_values(write(elsewhere(bucket))) == [1, 2, 3, 4, 5, 6]


def test_a_multipart_upload_that_is_cut_off_leaves_no_object(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(bucket)
    files = store._files  # type: ignore[attr-defined]
    call_s3 = files._call_s3
    parts: list[int] = []

    async def cut_off(method: str, *arguments: Any, **options: Any) -> Any:
        if method == "upload_part":
            parts.append(options["PartNumber"])
            if len(parts) == 2:
                raise ConnectionResetError("the line is dead")
        return await call_s3(method, *arguments, **options)

    monkeypatch.setattr(files, "_call_s3", cut_off)
    put_file = files.put_file
    monkeypatch.setattr(
        files,
        "put_file",
        lambda path, key: put_file(path, key, chunksize=5 * 2**20, max_concurrency=1),
    )
    kept = RowCollection(store, "views", "large", (1024, 1024, 3), "uint8")
    with pytest.raises(RecordError, match="the line is dead"), kept.writer(5) as writer:
        for row_id in ROWS[:5]:
            writer.write(row_id, np.zeros(kept.shape, np.uint8))
    assert len(parts) >= 2
    assert objects(bucket, ".tfrecord") == objects(bucket, ".index.npz") == []
    assert kept.missing(ROWS) == ROWS


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(RecordError, match="s3://no-such-bucket/prefix"):
        open_store("s3://no-such-bucket/prefix")


@pytest.fixture
def google_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return a bucket of a Google Cloud Storage that lives in a thread of this process."""
    pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    import gcsfs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = f"bucket-{os.urandom(4).hex()}"
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=name)
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("HEADSTART_MIRROR", str(tmp_path / "first machine"))
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield f"gs://{name}/a/prefix"
    server.stop()
    gcsfs.GCSFileSystem.clear_instance_cache()


def test_rows_in_googles_storage_are_read_elsewhere_and_damage_there_is_mended(
    google_bucket: str, elsewhere: Any
) -> None:
    write(open_store(google_bucket))
    store = elsewhere(google_bucket)
    assert collection(store).missing(ROWS) == []
    assert first_values(collection(store)) == [1, 2, 3, 4, 5, 6]
    (name,) = objects(google_bucket, ".tfrecord")
    store._files.pipe_file(name, b"?" * store._files.info(name)["size"])
    shutil.rmtree(store.root)
    again = collection(elsewhere(google_bucket))
    with pytest.raises(DamagedShardError):
        again.select(ROWS)
    assert first_values(write(elsewhere(google_bucket))) == [1, 2, 3, 4, 5, 6]

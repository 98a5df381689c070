import errno
import multiprocessing
import os
import shutil
import signal
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from headstart.errors import RecordError
from headstart.tasks.store.artifacts import Manifest, Store, default_root, use_store
from headstart.tasks.store.fingerprint import digest

KEY = digest({"a": 1})


def make_manifest(store: Store, text: str = "made") -> Manifest:
    with store.staging() as folder:
        (folder / "file").write_text(text)
        target = store.artefact_path("stage", KEY) / "file"
        store.publish(folder / "file", target)
    manifest = Manifest(
        stage="stage",
        key=KEY,
        key_fields={"a": 1},
        files=(store.entry(target),),
        num_rows=1,
        num_rows_computed=1,
    )
    store.write_manifest(manifest)
    return manifest


def test_a_manifest_comes_back_as_it_was_written(store: Store) -> None:
    manifest = make_manifest(store)
    assert store.read_manifest("stage", KEY, Manifest) == manifest
    assert store.read_manifest("stage", "other", Manifest) is None


@pytest.mark.parametrize("damage", ["delete", "shorten", "flip", "flip_and_restore_time"])
def test_a_manifest_whose_file_is_damaged_is_not_replayed(store: Store, damage: str) -> None:
    manifest = make_manifest(store)
    file = store.root / manifest.files[0].path
    before = file.stat()
    if damage == "delete":
        file.unlink()
    elif damage == "shorten":
        file.write_text("mad")
    else:
        file.write_text("mode")
    if damage == "flip_and_restore_time":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.read_manifest("stage", KEY, Manifest) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": 1}'])
def test_a_manifest_that_cannot_be_read_is_a_miss(store: Store, text: str) -> None:
    make_manifest(store)
    store.manifest_path("stage", KEY).write_text(text)
    assert store.read_manifest("stage", KEY, Manifest) is None


def test_a_store_can_be_moved(store: Store, tmp_path: Path) -> None:
    make_manifest(store)
    store.root.rename(tmp_path / "moved")
    with use_store(Store(tmp_path / "moved")) as moved:
        manifest = moved.read_manifest("stage", KEY, Manifest)
        assert manifest is not None
        os.utime(moved.root / manifest.files[0].path)  # as a copy would have it
        assert moved.read_manifest("stage", KEY, Manifest) == manifest


def test_no_file_of_the_store_names_where_it_is(store: Store) -> None:
    make_manifest(store)
    texts = [path.read_text() for path in store.root.rglob("*.json")]
    assert texts
    assert not any(str(store.root) in text for text in texts)


def test_what_is_staged_but_not_published_leaves_no_trace(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.staging() as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert not folder.exists()


def test_publishing_a_folder_replaces_the_one_that_is_there(store: Store) -> None:
    target = store.root / "artefacts" / "x"
    for text in ("old", "new"):
        with store.staging() as folder:
            (folder / "made").mkdir()
            (folder / "made" / text).write_text(text)
            store.publish(folder / "made", target)
    assert [path.name for path in target.iterdir()] == ["new"]


def test_a_folder_that_is_no_store_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RecordError, match="holds other files"):
        Store(tmp_path)


def test_a_store_of_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"layout": 99}')
    with pytest.raises(RecordError, match="layout 99"):
        Store(tmp_path)


def test_a_file_in_the_place_of_the_store_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="--store"):
        Store(tmp_path / "file")


def test_the_default_store_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STORE", "somewhere")
    assert default_root() == Path("somewhere")
    monkeypatch.delenv("HEADSTART_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert default_root() == Path("cache/headstart")


def test_without_a_home_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADSTART_STORE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)  # as in a container that is given any number
    with pytest.raises(RecordError) as caught:
        default_root()
    assert "HEADSTART_STORE" in caught.value.next_step


def hold_lock(root: Path, ready: Any) -> None:
    with Store(root).lock("stage/key"):
        ready.set()
        time.sleep(60)


def test_a_lock_dies_with_its_holder(store: Store) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    holder = spawn.Process(target=hold_lock, args=(store.root, ready))
    holder.start()
    assert ready.wait(60)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with store.lock("stage/key"):
        pass


@pytest.fixture
def read_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store with a manifest in it that says it cannot be written.

    Permissions would not keep the superuser, as whom tests may run, from writing.
    """
    make_manifest(store)
    monkeypatch.setattr(Store, "is_writable", False)
    return store


def test_a_store_that_cannot_be_written_is_read_and_left_as_it_is(read_only: Store) -> None:
    before = sorted(read_only.root.rglob("*"))
    manifest = read_only.read_manifest("stage", KEY, Manifest)
    assert manifest is not None
    with read_only.lock("stage/key"), read_only.staging() as folder:
        (folder / "file").write_text("made for nothing")
    read_only.set_aside(read_only.root / manifest.files[0].path)
    assert sorted(read_only.root.rglob("*")) == before
    with pytest.raises(RecordError, match="read-only"):
        read_only.check_writable("head")
    with pytest.raises(RecordError, match="read-only"), read_only.unused():
        pass


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Can't write data (file write failed: errno = 28, error message = '...')"),
        RuntimeError("/x/shard; No space left on device"),  # as TensorFlow's, which are no OSError
    ],
)
def test_a_full_disk_is_told_in_plain_words(store: Store, error: Exception) -> None:
    with pytest.raises(RecordError, match="MB free") as caught, store.staging() as folder:
        (folder / "half").write_text("half")
        raise error
    assert caught.value.__cause__ is error
    assert "headstart cache" in caught.value.next_step
    assert not folder.exists()


def test_other_failures_are_left_as_they_are(store: Store) -> None:
    with pytest.raises(PermissionError), store.staging():
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_run_waits_while_garbage_is_collected(tmp_path: Path) -> None:
    store = Store(tmp_path / "other")
    begun = threading.Event()

    def run() -> None:
        with use_store(store):
            begun.set()

    with store.unused():
        thread = threading.Thread(target=run)
        thread.start()
        assert not begun.wait(0.2)
    thread.join(60)
    assert begun.is_set()


def test_a_new_volume_can_be_a_store(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert (Store(tmp_path).root / "store.json").exists()


@pytest.mark.parametrize("text", [None, "", '{"layout": 3, "checksum": "0"}'])
def test_a_store_that_has_lost_its_layout_gets_it_back(store: Store, text: str | None) -> None:
    make_manifest(store)
    layout = store.root / "store.json"
    whole = layout.read_text()
    layout.unlink() if text is None else layout.write_text(text)
    assert Store(store.root).read_manifest("stage", KEY, Manifest) is not None
    assert layout.read_text() == whole


def test_a_store_that_is_deleted_during_a_run_is_not_begun_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "other")
    with store.staging() as folder:
        (folder / "file").write_text("made")
        shutil.rmtree(store.root)
        with pytest.raises(RecordError, match="moved or deleted"):
            store.publish(folder / "file", store.root / "artefacts" / "file")
    with pytest.raises(RecordError, match="moved or deleted"), store.staging():
        pass
    with pytest.raises(RecordError, match="moved or deleted"), store.lock("a"):
        pass
    assert not store.root.exists()


def half_make(root: Path, ready: Any) -> None:
    with Store(root).staging() as folder:
        (folder / "half").write_text("half")
        ready.set()
        time.sleep(60)


def test_the_next_run_removes_what_killed_ones_left(tmp_path: Path) -> None:
    store = Store(tmp_path / "other")
    spawn = multiprocessing.get_context("spawn")
    ready = [spawn.Event(), spawn.Event()]
    makers = [spawn.Process(target=half_make, args=(store.root, one)) for one in ready]
    for maker, one in zip(makers, ready, strict=True):
        maker.start()
        assert one.wait(60)
    assert len(list((store.root / "tmp").iterdir())) == 2
    os.kill(makers[0].pid or 0, signal.SIGKILL)
    makers[0].join()
    with use_store(Store(store.root)):
        assert len(list((store.root / "tmp").iterdir())) == 1
    os.kill(makers[1].pid or 0, signal.SIGKILL)
    makers[1].join()


def test_a_folder_swept_before_its_maker_holds_it_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "other")
    stop = threading.Event()

    def sweep_on() -> None:
        while not stop.is_set():
            store.sweep()

    sweeper = threading.Thread(target=sweep_on)
    sweeper.start()
    try:
        for number in range(300):
            with store.staging() as folder:
                (folder / "file").write_text(str(number))
                store.publish(folder / "file", store.root / "artefacts" / str(number))
    finally:
        stop.set()
        sweeper.join()
    made = {path.name for path in (store.root / "artefacts").iterdir()}
    assert made == {str(number) for number in range(300)}


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o775), (0o022, 0o755), (0o077, 0o700)])
def test_folders_have_the_mode_that_is_asked_for(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        store = Store(tmp_path / "other")
        target = store.root / "artefacts" / "stage" / "key"
        with store.staging() as folder:
            (folder / "file").write_text("made")
            store.publish(folder, target)
        with store.lock("a"):
            pass
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == mode
    assert (target / "file").stat().st_mode & 0o777 == mode & 0o666
    assert (store.root / "locks" / "a.lock").stat().st_mode & 0o777 == mode & 0o666


def test_folders_keep_the_group_of_a_shared_store(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2775)
    store = Store(tmp_path / "shared")
    target = store.root / "artefacts" / "stage" / "key"
    with store.staging() as folder:
        store.publish(folder, target)
    assert target.stat().st_mode & 0o2000


def test_folders_inherit_the_access_list_of_a_shared_store(tmp_path: Path) -> None:
    nobody, default = 65534, "system.posix_acl_default"
    entries = ((0x01, 7, -1), (0x02, 7, nobody), (0x04, 5, -1), (0x10, 7, -1), (0x20, 0, -1))
    # Source: linux/posix_acl_xattr.h; owner, a user by number, group, mask, others.
    wanted = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    (tmp_path / "shared").mkdir()
    try:
        os.setxattr(tmp_path / "shared", default, wanted)
    except OSError:
        pytest.skip("this file system keeps no access lists")
    store = Store(tmp_path / "shared")
    target = store.root / "artefacts" / "stage" / "key"
    with store.staging() as folder:
        store.publish(folder, target)
    assert os.getxattr(target, default) == wanted
    assert struct.pack("<HHi", 0x02, 7, nobody) in os.getxattr(target, "system.posix_acl_access")

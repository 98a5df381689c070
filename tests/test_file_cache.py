"""The file cache: what is not read again, what is, and what may go wrong with the cache itself."""

import io
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import pytest
from PIL import Image

from headstart.config import DatasetConfig
from headstart.tasks.dataset import file_cache, inspection
from headstart.tasks.dataset.building import build_index
from headstart.tasks.dataset.file_cache import FileCache, Verdict

DIGEST = "ab" * 32


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def images(tmp_path):
    """Two classes of three images."""
    for number, name in enumerate(("cat/0", "cat/1", "cat/2", "dog/0", "dog/1", "dog/2")):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path / "images"


@pytest.fixture
def trusting(monkeypatch):
    """Trust stats at once: tests cannot wait two seconds for files to grow old."""
    monkeypatch.setattr(file_cache, "RACY_WINDOW_NS", 0)


def run(images, path, **options):
    """Build the index as a run of its own; give (index, files read, files decoded)."""
    options = {"test_fraction": 0.0, "val_fraction": 0.0} | options
    with FileCache(path) as cache:
        index = build_index(DatasetConfig(images=images, **options), cache)
    return index, index.num_hashed, index.num_decoded


def let_clock_tick(file):
    """Touch a scratch file until the file system's clock has passed the file's last change."""
    scratch = file.with_name(".tick")
    while True:
        scratch.write_bytes(b"")
        if scratch.stat().st_ctime_ns > file.stat().st_ctime_ns:
            return


def test_second_run_reads_and_decodes_nothing(images, tmp_path, trusting):
    let_clock_tick(images / "dog" / "2.png")
    first, *counts = run(images, tmp_path / "files.sqlite")
    assert counts == [6, 6]
    second, *counts = run(images, tmp_path / "files.sqlite")
    assert counts == [0, 0]
    assert second.rows == first.rows


def test_added_image_is_the_only_one_read(images, tmp_path, trusting):
    let_clock_tick(images / "dog" / "2.png")
    run(images, tmp_path / "files.sqlite")
    (images / "cat" / "new.png").write_bytes(png(77))
    assert run(images, tmp_path / "files.sqlite")[1:] == (1, 1)


def test_known_bytes_under_a_new_name_are_read_but_not_decoded(images, tmp_path, trusting):
    let_clock_tick(images / "dog" / "2.png")
    run(images, tmp_path / "files.sqlite")
    (images / "cat" / "copy.png").write_bytes(png(0))
    assert run(images, tmp_path / "files.sqlite")[1:] == (1, 0)


def test_duplicates_in_one_run_are_decoded_once(images, tmp_path, monkeypatch):
    def decode_slowly(data, max_pixels):
        time.sleep(0.05)  # while one thread decodes, another reads a copy
        return inspect_image(data, max_pixels)

    inspect_image = inspection.inspect_image
    monkeypatch.setattr(inspection, "inspect_image", decode_slowly)
    for number in range(20):
        (images / "cat" / f"0 copy {number}.png").write_bytes(png(0))
    assert run(images, tmp_path / "files.sqlite")[1:] == (26, 6)


def test_recent_files_are_read_again_but_not_decoded(images, tmp_path):
    run(images, tmp_path / "files.sqlite")
    assert run(images, tmp_path / "files.sqlite")[1:] == (6, 0)


def test_edit_in_place_with_size_and_mtime_restored_is_noticed(images, tmp_path, trusting):
    file = images / "dog" / "2.png"
    let_clock_tick(file)
    first, *_ = run(images, tmp_path / "files.sqlite")
    let_clock_tick(file)
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[-20] ^= 0xFF  # breaks a checksum, keeps the size
    with file.open("r+b") as stream:
        stream.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert after.st_ino == before.st_ino
    second, *counts = run(images, tmp_path / "files.sqlite")
    assert counts == [1, 1]
    assert [problem.path for problem in second.left_out] == ["dog/2.png"]
    assert len(second.rows) == len(first.rows) - 1


def test_refused_file_is_not_decoded_again(images, tmp_path):
    (images / "cat" / "cut.png").write_bytes(png(9)[:-30])
    assert run(images, tmp_path / "files.sqlite")[2] == 7
    index, _, num_decoded = run(images, tmp_path / "files.sqlite")
    assert num_decoded == 0
    assert [problem.kind for problem in index.left_out] == ["truncated"]


def test_another_pixel_limit_is_another_verdict(images, tmp_path):
    run(images, tmp_path / "files.sqlite")
    Image.new("RGB", (50, 50)).save(images / "cat" / "large.png")
    index, _, num_decoded = run(images, tmp_path / "files.sqlite", max_pixels=100)
    assert num_decoded == 7
    assert [problem.kind for problem in index.left_out] == ["too_large"]


def test_killed_run_keeps_its_finished_batches(images, tmp_path, monkeypatch, trusting):
    monkeypatch.setattr(inspection, "BATCH_FILES", 2)
    let_clock_tick(images / "dog" / "2.png")

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    cache = FileCache(tmp_path / "files.sqlite")  # never closed, as after kill -9
    with pytest.raises(KeyboardInterrupt):
        build_index(DatasetConfig(images=images), cache, stop)
    assert run(images, tmp_path / "files.sqlite")[1:] == (2, 2)


def test_file_read_within_the_window_of_its_change_is_not_remembered(tmp_path):
    file = tmp_path / "image"
    file.write_bytes(b"x")
    stat = file.stat()
    changed_ns = max(stat.st_mtime_ns, stat.st_ctime_ns)
    with FileCache(tmp_path / "files.sqlite") as cache:
        cache.remember_digest(str(file), stat, changed_ns + 2_000_000_000, DIGEST)
        cache.flush()
        assert cache.digest_of(str(file), stat) is None
        cache.remember_digest(str(file), stat, changed_ns + 2_000_000_001, DIGEST)
        cache.flush()
        assert cache.digest_of(str(file), stat) == DIGEST


def test_refusal_by_another_pillow_does_not_count(tmp_path, monkeypatch):
    with FileCache(tmp_path / "files.sqlite") as cache:
        cache.remember_verdict(DIGEST, 10, Verdict(flaw="corrupt", reason="why"))
        cache.remember_verdict("cd" * 32, 10, Verdict(2, 3, "PNG"))
        cache.flush()
        assert cache.verdict_of(DIGEST, 10) == Verdict(flaw="corrupt", reason="why")
        monkeypatch.setattr(file_cache, "_DECODER", f"{PIL.__version__}+1")
        assert cache.verdict_of(DIGEST, 10) is None
        assert cache.verdict_of("cd" * 32, 10) == Verdict(2, 3, "PNG")
        assert cache.verdict_of("cd" * 32, 11) is None


def test_cache_file_holds_no_path(images, tmp_path, trusting):
    let_clock_tick(images / "dog" / "2.png")
    run(images, tmp_path / "store" / "files.sqlite")
    data = b"".join(file.read_bytes() for file in (tmp_path / "store").iterdir())
    assert b"cat" not in data
    assert os.fsencode(tmp_path) not in data


def damaged(path):
    return [file for file in path.parent.iterdir() if ".damaged-" in file.name]


@pytest.mark.parametrize("data", [b"not a database at all" * 100, b"\0" * 8192, b"SQLite"])
def test_damaged_cache_is_set_aside_and_begun_anew(images, tmp_path, trusting, data):
    path = tmp_path / "files.sqlite"
    path.write_bytes(data)
    let_clock_tick(images / "dog" / "2.png")
    assert run(images, path)[1:] == (6, 6)
    assert damaged(path)[0].read_bytes() == data
    assert run(images, path)[1:] == (0, 0)


def test_a_flipped_bit_is_never_taken_for_what_is_known(images, tmp_path, trusting):
    path = tmp_path / "files.sqlite"
    let_clock_tick(images / "dog" / "2.png")
    expected = run(images, path)[0].rows
    data = path.read_bytes()
    assert run(images, path)[1:] == (0, 0)
    chance = random.Random(0)
    digests = [bytes.fromhex(row.digest) for row in expected]
    known = [found.start() for one in digests for found in re.finditer(re.escape(one), data)]
    assert len(known) == 2 * len(digests)
    texts = [found.start() for found in re.finditer(b"PNG|digest BLOB", data)]
    for place in (*known, *texts, *(chance.randrange(len(data)) for _ in range(60))):
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        for file in path.parent.glob("files.sqlite*"):
            file.unlink()
        path.write_bytes(changed)
        for _ in range(2):
            assert run(images, path)[0].rows == expected
        assert run(images, path)[1:] == (0, 0)


def test_folder_in_the_caches_place_is_set_aside(images, tmp_path):
    path = tmp_path / "files.sqlite"
    path.mkdir()
    assert run(images, path)[1:] == (6, 6)
    assert path.is_file()
    assert damaged(path)[0].is_dir()


def test_damage_inside_the_file_costs_a_run_not_an_error(images, tmp_path):
    path = tmp_path / "files.sqlite"
    run(images, path)
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))  # the header is still good
    index, *counts = run(images, path)
    assert counts == [6, 6]
    assert len(index.rows) == 6
    assert run(images, path)[2] == 0


def test_cache_of_another_schema_is_set_aside(images, tmp_path, caplog):
    path = tmp_path / "files.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert run(images, path)[1:] == (6, 6)
    assert len(damaged(path)) == 1
    assert "is of another version (schema 99, not" in caplog.text
    assert "is damaged" not in caplog.text


def test_place_that_cannot_be_written_costs_a_warning(images, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    index, *_ = run(images, tmp_path / "file" / "files.sqlite")
    assert len(index.rows) == 6
    assert "this run keeps no file cache" in caplog.text


def test_locked_cache_is_left_in_place(images, tmp_path, monkeypatch, caplog):
    path = tmp_path / "files.sqlite"
    run(images, path)
    monkeypatch.setattr(file_cache, "_BUSY_TIMEOUT_S", 0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    (images / "cat" / "new.png").write_bytes(png(78))
    index, *_ = run(images, path)
    other.execute("ROLLBACK")
    other.close()
    assert len(index.rows) == 7
    assert not damaged(path)
    assert "this run keeps no file cache" in caplog.text


WRITER = """
import sys
from pathlib import Path
from headstart.tasks.dataset.file_cache import FileCache, Verdict

path, start = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
with FileCache(path) as cache:
    for number in range(start, start + 50):
        cache.remember_verdict(f"{number:064x}", 1, Verdict(number, 1, "PNG"))
        cache.flush()
"""


def test_processes_write_at_once_without_loss(tmp_path):
    path = tmp_path / "files.sqlite"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    commands = [[sys.executable, "-c", WRITER, str(path), start] for start in ("0", "100", "200")]
    writers = [subprocess.Popen(command, text=True, **pipes) for command in commands]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    errors = [writer.communicate()[1] for writer in writers]
    assert errors == ["", "", ""]  # neither a traceback nor a warning that the cache is off
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert not damaged(path)
    with FileCache(path) as cache:
        for start in (0, 100, 200):
            for number in range(start, start + 50):
                found = cache.verdict_of(f"{number:064x}", 1)
                assert found == Verdict(number, 1, "PNG")


def test_threads_share_one_cache(tmp_path):
    with FileCache(tmp_path / "files.sqlite") as cache:

        def remember(number):
            cache.remember_verdict(f"{number:064x}", 1, Verdict(number, 1, "PNG"))
            cache.flush()
            return cache.verdict_of(f"{number:064x}", 1)

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(remember, range(64)))
    assert found == [Verdict(number, 1, "PNG") for number in range(64)]

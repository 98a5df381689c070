"""Named data sets: found on this machine, or downloaded and checked."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import DatasetError
from headstart.tasks.dataset import sources
from headstart.tasks.dataset.sources import SOURCES, NamedSource, locate
from tests.scratch_data import idx_files

FILES = {name: gzip.compress(data, mtime=0) for name, data in idx_files(20, 10).items()}


class Handler(BaseHTTPRequestHandler):
    """Serves FILES: as they are, other bytes, fewer than promised (truncated) or not (short)."""

    def do_GET(self) -> None:
        kind, name = self.path.strip("/").split("/")
        data = FILES.get(name)
        if data is None or kind == "refused":
            self.send_error(403)
            return
        sent = {"wrong": b"x" + data[1:], "right": data}.get(kind, data[:-9])
        self.send_response(200)
        self.send_header("Content-Length", str(len(data if kind == "truncated" else sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _only_own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LOCAL_FOLDERS", (tmp_path / "system", tmp_path / "cache"))


def source(address: str, kind: str) -> NamedSource:
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    return NamedSource("mini", f"{address}/{kind}/", hashes)


def test_the_right_files_are_downloaded_once(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    folder = locate(source(address, "right"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert capfd.readouterr().out == ""  # stdout is for results
    assert locate(source("http://127.0.0.1:1", "right")) == folder


@pytest.mark.parametrize(
    ("kind", "reason"), [("wrong", "SHA-256"), ("truncated", "retrieval incomplete")]
)
def test_other_bytes_than_the_pinned_ones_are_not_kept(
    address: str, tmp_path: Path, kind: str, reason: str
) -> None:
    with pytest.raises(DatasetError, match=reason):
        locate(source(address, kind))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_bytes_that_were_cut_short_without_a_word_are_not_kept(
    address: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="SHA-256"):
        locate(source(address, "short"))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_refused_download_says_what_to_do(address: str) -> None:
    with pytest.raises(DatasetError, match="403") as caught:
        locate(source(address, "refused"))
    assert "--data" in caught.value.next_step


def test_without_a_connection_it_says_what_to_do() -> None:
    with pytest.raises(DatasetError, match="download failed") as caught:
        locate(source("http://127.0.0.1:1", "right"))
    assert "--data" in caught.value.next_step


def test_a_local_copy_is_used_first(tmp_path: Path) -> None:
    folder = tmp_path / "system" / "mini"
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    assert locate(source("http://127.0.0.1:1", "right")) == folder


def test_a_folder_that_is_named_must_hold_the_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte"):
        locate(SOURCES["mnist"], tmp_path)
    with pytest.raises(DatasetError, match=r"data_batch_1\.bin"):
        locate(SOURCES["cifar10"], tmp_path)


def test_every_file_is_pinned_by_a_sha256() -> None:
    hashes = [value for one in SOURCES.values() for value in one.sha256.values()]
    assert len(set(hashes)) == len(hashes) == 10
    assert all(len(value) == 64 and int(value, 16) for value in hashes)


def test_digits_are_not_mirrored() -> None:
    assert [one.name for one in SOURCES.values() if not one.flips] == ["mnist"]
    assert np.all([one.is_idx == ("mnist" in one.name) for one in SOURCES.values()])

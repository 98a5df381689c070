"""What people hand over is read within bounds: no FIFO, no device, no YAML without an end."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from headstart.config import DatasetConfig, build_config, load_config
from headstart.config.transfer import TransferConfig
from headstart.errors import ConfigError, DatasetError, ExportError, HeadstartError
from headstart.reading import check_growth, load_yaml, read_regular
from headstart.results import Run
from headstart.tasks.dataset.building import build_index
from headstart.tasks.dataset.exclusion import read_exclusions
from headstart.tasks.dataset.own_outputs import own_output
from headstart.tasks.export.seen_images import SEEN_FILE, seen_splits
from headstart.tasks.runs.overview import read_run

NO_FILE = "a folder, FIFO, socket or device"
READERS: dict[str, Callable[[Path], object]] = {
    "configuration": lambda path: build_config(TransferConfig, "photos", path),
    "exclude list": read_exclusions,
    "manifest": lambda path: build_index(DatasetConfig(images=path)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_fifo_is_not_waited_for(tmp_path: Path, reader: str, suffix: str) -> None:
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    with pytest.raises(HeadstartError) as caught:
        READERS[reader](path)
    assert NO_FILE in str(caught.value) or "neither" in str(caught.value), caught.value


@pytest.mark.parametrize("reader", READERS)
def test_a_device_without_an_end_is_not_read(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "zero.csv"
    path.symlink_to("/dev/zero")
    with pytest.raises(HeadstartError):
        READERS[reader](path)


def test_a_file_larger_than_what_it_is_for_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(path, 4)
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole: it takes no room on the disk
    with pytest.raises(OSError, match="larger than"):
        read_regular(path, 2**31)
    with pytest.raises(OSError, match="larger than"):  # which says that it has 0 bytes
        read_regular(Path("/proc/self/status"), 10)


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "more than 100,000 values"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested"),
        ("".join(f"{' ' * n}a:\n" for n in range(5000)), "nested"),
        ("a: &a [*a]", "refers to a value that contains it"),
        ("&a {b: {*a : 1}}", "refers to a value that contains it"),
    ],
    ids=["aliases", "brackets", "indents", "itself", "itself as a key"],
)
def test_yaml_that_means_more_than_a_memory_holds_is_refused(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(yaml.YAMLError, match=told):
        load_yaml(text)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        build_config(TransferConfig, "photos", tmp_path / "config.yaml")
    # Found among images, it is nobody's configuration.
    assert own_output(str(tmp_path), {"config.yaml"}) == ""


def test_an_alias_that_people_write_is_read() -> None:
    text = "a: &one {x: 1}\nb: *one\nc: {<<: *one, y: 2}"
    assert load_yaml(text) == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize("name", ["~no-such-user/photos", "photos\0"])
@pytest.mark.parametrize("field", ["dataset.images", "dataset.root", "dataset.exclude"])
def test_a_path_that_can_be_none_is_told_by_its_field(name: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: .*(no such user|NUL)"):
        load_config("photos" if field != "dataset.images" else None, overrides={field: name})


def test_a_manifest_line_of_an_unknown_user_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "photos.csv"
    path.write_text("path,label\n~no-such-user/a.png,a\nb\x01.png,b\n")
    with pytest.raises(DatasetError):
        build_index(DatasetConfig(images=path))


def test_a_table_whose_cells_come_to_more_than_a_memory_holds_is_not_read(tmp_path: Path) -> None:
    word = pa.DictionaryArray.from_arrays(np.zeros(100_000, np.int32), ["x" * 2**20])
    table = pa.table({"path": word, "label": pa.array(["a"] * 100_000)})
    # Without the schema, it says no more that the words are kept once.
    pq.write_table(table, tmp_path / "photos.parquet", store_schema=False)
    assert (tmp_path / "photos.parquet").stat().st_size < 2**20
    with pytest.raises(DatasetError, match="cells take more than"):
        build_index(DatasetConfig(images=tmp_path / "photos.parquet"))


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
def test_a_fifo_in_a_runs_folder_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("head: {}")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    read_run(tmp_path)
    with pytest.raises(ConfigError):
        Run.load(tmp_path)


def test_a_runs_configuration_that_has_no_end_is_no_run(tmp_path: Path) -> None:
    for text in (BOMB, "a: " + "[" * 5000 + "]" * 5000):
        (tmp_path / "config.yaml").write_text(text)
        assert read_run(tmp_path) is None


def test_an_archive_of_arrays_that_grows_without_measure_is_not_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / SEEN_FILE, train=np.zeros(2**24, np.uint64))
    with pytest.raises(ExportError, match="becomes 134,217"):
        seen_splits(tmp_path, ["0" * 64])


def test_an_archive_that_is_none_or_grows_too_much_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not a zip file"):
        check_growth(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(80 * 2**20))
    with pytest.raises(ValueError, match="83,886,080 bytes"):
        check_growth(path)

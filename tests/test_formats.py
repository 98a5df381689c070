"""IDX and CIFAR files: what is read, and what is refused."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import DatasetError
from headstart.tasks.dataset.cifar import LAYOUTS, find_cifar, read_cifar, read_class_names
from headstart.tasks.dataset.idx import PIECE_BYTES, IdxPair, find_idx, read_idx, read_idx_pair
from tests.scratch_data import idx_bytes


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_reads_back(tmp_path: Path, suffix: str) -> None:
    images = random_bytes(5, 4, 3)
    data = idx_bytes(images)
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(data) if suffix else data)
    np.testing.assert_array_equal(read_idx(path, 3), images)


def test_a_gzipped_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(gzip.compress(idx_bytes(np.arange(7))))
    assert read_idx(path, 1).tolist() == list(range(7))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (idx_bytes(random_bytes(5, 4, 3))[:-1], "59 values follow"),
        (idx_bytes(random_bytes(5, 4, 3)) + b"x", "61 values follow"),
        (idx_bytes(random_bytes(5)), "begins with the bytes"),
        (b"\x00\x00\x0d\x03" + bytes(12), "begins with the bytes"),
        (b"", "begins with the bytes"),
        (gzip.compress(idx_bytes(random_bytes(50, 40, 3)))[:-40], "images"),
        (b"\x1f\x8bnot gzip", "images"),
    ],
)
def test_what_is_no_idx_file_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=reason):
        read_idx(path, 3)


def test_a_header_that_claims_more_than_a_file_may_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(random_bytes(1, 1, 1))[:4] + b"\xff" * 12)
    with pytest.raises(DatasetError, match="claims to hold more than 8,589,934,592"):
        read_idx(path, 3)


def test_reading_takes_memory_for_the_values_alone(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(np.zeros(2 * PIECE_BYTES + 5)))
    tracemalloc.start()
    try:
        assert read_idx(path, 1).shape == (2 * PIECE_BYTES + 5,)
        assert tracemalloc.get_traced_memory()[1] < 8 * PIECE_BYTES
    finally:
        tracemalloc.stop()


def test_a_pair_needs_a_label_for_each_image(tmp_path: Path) -> None:
    pair = IdxPair(tmp_path / "images", tmp_path / "labels")
    pair.images.write_bytes(idx_bytes(random_bytes(3, 2, 2)))
    pair.labels.write_bytes(idx_bytes(np.arange(3)))
    images, labels = read_idx_pair(pair)
    assert images.shape == (3, 2, 2, 1)
    assert labels.tolist() == [0, 1, 2]
    pair.labels.write_bytes(idx_bytes(np.arange(4)))
    with pytest.raises(DatasetError, match=r"3 images .* 4 labels"):
        read_idx_pair(pair)


def test_an_idx_data_set_has_four_files(tmp_path: Path) -> None:
    names = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"]
    names += ["t10k-images-idx3-ubyte.gz"]
    for name in names:
        (tmp_path / name).touch()
    assert find_idx(tmp_path) is None
    (tmp_path / "t10k-labels-idx1-ubyte").touch()
    found = find_idx(tmp_path)
    assert found is not None
    assert found["train"].images.name == "train-images-idx3-ubyte"


def write_cifar(folder: Path, name: str, num_records: int = 2) -> Path:
    layout = LAYOUTS[name]
    place = folder / layout.folder
    place.mkdir(parents=True)
    (place / layout.names_file).write_text("cat\ndog\n\n")
    for number, file in enumerate(f for files in layout.files.values() for f in files):
        rows = [
            bytes([9] * (layout.num_label_bytes - 1) + [row % 2]) + random_planes(number, row)
            for row in range(num_records)
        ]
        (place / file).write_bytes(b"".join(rows))
    return place


def random_planes(*seed: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, 3072, dtype=np.uint8).tobytes()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_binary_cifar_reads_back(tmp_path: Path, name: str) -> None:
    place = write_cifar(tmp_path, name)
    layout = LAYOUTS[name]
    assert find_cifar(tmp_path, layout) == place == find_cifar(place, layout)
    assert read_class_names(place, layout) == ("cat", "dog")
    images, labels = read_cifar(place, layout, "train")
    assert images.shape == (2 * len(layout.files["train"]), 32, 32, 3)
    assert labels.tolist() == [0, 1] * len(layout.files["train"])
    planes = np.frombuffer(random_planes(0, 1), np.uint8).reshape(3, 32, 32)
    np.testing.assert_array_equal(images[1], planes.transpose(1, 2, 0))


def test_a_cifar_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    place = write_cifar(tmp_path, "cifar10")
    path = place / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"multiple of 3,073 bytes"):
        read_cifar(place, LAYOUTS["cifar10"], "test")
    path.unlink()
    assert find_cifar(tmp_path, LAYOUTS["cifar10"]) is None

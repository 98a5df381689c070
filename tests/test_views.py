import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image

from headstart.config import ColorJitter, Flip, PadAndRandomCrop, ViewsConfig
from headstart.errors import ConfigError, DatasetError
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.progress import Advance, Reporter, use_reporter
from headstart.tasks.running.spreading import available_cores
from headstart.tasks.running.task_options import is_worth_retrying
from headstart.tasks.store import records
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.fingerprint import digest
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.views import writing as views
from headstart.tasks.views.augment import augmented_view, plain_view, view_seed
from headstart.tasks.views.recipes import (
    augmented_collection,
    augmented_recipe,
    plain_collection,
    plain_recipe,
)
from headstart.tasks.views.writing import ViewCounts, write_views

SIZE = 16
MAX_PIXELS = 10_000
PLAIN_ONLY = ViewsConfig()


def with_views(num_augmented: int, **fields: Any) -> ViewsConfig:
    return ViewsConfig(num_augmented=num_augmented, **fields)


def write_image(root: Path, number: int, sides: tuple[int, int] = (19, 23)) -> Path:
    pixels = np.random.default_rng(number).integers(0, 256, (*sides, 3), dtype=np.uint8)
    file = root / f"{number:03}.png"
    Image.fromarray(pixels).save(file)
    return file


def index_of(root: Path) -> DatasetIndex:
    rows = tuple(
        ImageRow(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), 0, "train", 0, 0, "PNG")
        for file in sorted(root.glob("*.png"))
    )
    return DatasetIndex(class_names=("only",), rows=rows)


def test_an_image_that_the_file_server_fails_on_is_worth_another_try(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_image(tmp_path, 0)
    index, read = index_of(tmp_path), Path.read_bytes

    def fail(self: Path) -> bytes:
        if self == file:
            raise OSError(errno.ESTALE, "Stale file handle", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DatasetError, match="Stale file handle") as caught:
        write_views(index, tmp_path, PLAIN_ONLY, SIZE, store, MAX_PIXELS, 1)
    assert is_worth_retrying(caught.value)


def write(root: Path, config: ViewsConfig, store: Store, num_workers: int = 2) -> ViewCounts:
    return write_views(index_of(root), root, config, SIZE, store, MAX_PIXELS, num_workers)


def read(collection: RowCollection, rows: Sequence[RowId]) -> npt.NDArray[np.uint8]:
    return collection.select(rows).gather(range(len(rows)))


def shards_of(store: Store) -> dict[str, bytes]:
    files = store.root.rglob("*.tfrecord")
    return {store.relative(file): file.read_bytes() for file in files}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        write_image(folder, number)
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MIN_SHARD_ROWS", 5)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the number of bytes of each image that is decoded."""
    sizes: list[int] = []
    use_pixels = views.use_pixels

    def decode(data: bytes, max_pixels: int, use: Callable[[Any], Any]) -> Any:
        sizes.append(len(data))
        return use_pixels(data, max_pixels, use)

    monkeypatch.setattr(views, "use_pixels", decode)
    return sizes


class InterruptedReporter(Reporter):
    """Behaves as though Ctrl-C were pressed after some images."""

    def __init__(self, num_images: int) -> None:
        super().__init__()
        self._num_images = num_images

    @contextlib.contextmanager
    def track(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if done == self._num_images:
                raise KeyboardInterrupt

        yield advance


def test_rows_hold_the_views_of_their_images(root: Path, store: Store) -> None:
    config = with_views(2, seed=3)
    assert write(root, config, store) == ViewCounts(36, 36, 12)
    seeds_digest = digest(
        {"augmentations": [item.model_dump() for item in config.augmentations], "seed": 3}
    )
    plain = plain_collection(config, SIZE, store)
    augmented = augmented_collection(config, SIZE, store)
    for row in index_of(root).rows:
        image = np.array(Image.open(root / row.path))
        rows = read(plain, [RowId(row.digest, 0)])
        np.testing.assert_array_equal(rows[0], plain_view(image, SIZE, "squash"))
        for view in (1, 2):
            seed = tf.constant(view_seed(row.digest, view, seeds_digest))
            expected = augmented_view(image, SIZE, "squash", config.augmentations, seed)
            rows = read(augmented, [RowId(row.digest, view)])
            np.testing.assert_array_equal(rows[0], expected)


def test_an_image_that_has_the_size_of_a_view_is_kept_as_it_is(root: Path, store: Store) -> None:
    file = write_image(root, 50, (SIZE, SIZE))
    write(root, PLAIN_ONLY, store)
    image_digest = hashlib.sha256(file.read_bytes()).hexdigest()
    rows = read(plain_collection(PLAIN_ONLY, SIZE, store), [RowId(image_digest, 0)])
    np.testing.assert_array_equal(rows[0], np.array(Image.open(file)))


@pytest.mark.usefixtures("small_shards")
def test_any_number_of_workers_writes_the_same_files(root: Path, tmp_path: Path) -> None:
    written = []
    for num_workers in (1, 4):
        store = Store(tmp_path / f"store-{num_workers}")
        write(root, with_views(2), store, num_workers)
        written.append(shards_of(store))
    assert len(written[0]) == 3 + 5  # 12 plain and 24 augmented rows, 5 a shard
    assert written[0] == written[1]


def test_a_second_pass_reads_no_image(root: Path, store: Store, decoded: list[int]) -> None:
    write(root, with_views(1), store)
    before, decoded[:] = shards_of(store), []
    assert write(root, with_views(1), store) == ViewCounts(24, 0, 0)
    assert not decoded
    assert shards_of(store) == before


def test_added_images_are_the_only_ones_made(root: Path, store: Store, decoded: list[int]) -> None:
    write(root, with_views(1), store)
    before, decoded[:] = shards_of(store), []
    added = [write_image(root, number) for number in (70, 71)]
    assert write(root, with_views(1), store) == ViewCounts(28, 4, 2)
    assert sorted(decoded) == sorted(file.stat().st_size for file in added)
    assert before.items() < shards_of(store).items()


def test_copies_of_an_image_are_made_once(root: Path, store: Store) -> None:
    (root / "copy.png").write_bytes((root / "000.png").read_bytes())
    assert write(root, PLAIN_ONLY, store) == ViewCounts(12, 12, 12)


def test_one_more_view_makes_that_view_alone(root: Path, store: Store) -> None:
    write(root, with_views(2), store)
    before = shards_of(store)
    assert write(root, with_views(3), store) == ViewCounts(48, 12, 12)
    added = shards_of(store).keys() - before.keys()
    shards = augmented_collection(PLAIN_ONLY, SIZE, store).shards()
    rows = [row for shard in shards if shard.entry.path in added for row in shard.row_ids]
    assert [row.view for row in rows] == [3] * 12


def test_views_do_not_depend_on_the_pass_that_made_them(root: Path, tmp_path: Path) -> None:
    at_once, stepwise = Store(tmp_path / "at-once"), Store(tmp_path / "stepwise")
    write(root, with_views(3), at_once)
    for num_augmented in (0, 1, 3):
        write(root, with_views(num_augmented), stepwise)
    rows = [RowId(name, view) for name in index_of(root).digests for view in (1, 2, 3)]
    np.testing.assert_array_equal(
        read(augmented_collection(PLAIN_ONLY, SIZE, at_once), rows),
        read(augmented_collection(PLAIN_ONLY, SIZE, stepwise), rows),
    )


def test_augmented_views_asked_for_later_leave_the_plain_ones(root: Path, store: Store) -> None:
    write(root, PLAIN_ONLY, store)
    before = shards_of(store)
    assert write(root, with_views(1, seed=9), store) == ViewCounts(24, 12, 12)
    assert before.items() < shards_of(store).items()


@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_pass_keeps_what_is_whole_and_resumes(
    root: Path, store: Store, decoded: list[int]
) -> None:
    for number in range(12, 40):
        write_image(root, number)
    with use_reporter(InterruptedReporter(7)), pytest.raises(KeyboardInterrupt):
        write(root, with_views(1), store)
    # Seven images are written; beyond them, only those in hand were decoded.
    assert len(decoded) <= 7 + 2 * views.IMAGES_AHEAD_A_WORKER + 1
    assert write(root, with_views(1), store) == ViewCounts(80, 66, 33)


@pytest.mark.usefixtures("small_shards")
def test_a_damaged_shard_has_only_its_own_views_made_again(root: Path, store: Store) -> None:
    write(root, with_views(1), store)
    shard = plain_collection(PLAIN_ONLY, SIZE, store).shards()[0]
    file = store.root / shard.entry.path
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(0, 0))
    num_lost = len(shard.row_ids)
    assert write(root, with_views(1), store) == ViewCounts(24, num_lost, num_lost)


def test_a_file_changed_since_it_was_indexed_is_refused(root: Path, store: Store) -> None:
    index = index_of(root)
    write_image(root, 3, (20, 20))
    with pytest.raises(DatasetError, match=r"003\.png: other bytes") as caught:
        write_views(index, root, PLAIN_ONLY, SIZE, store, MAX_PIXELS)
    assert "run the command again" in caught.value.next_step


def test_a_file_gone_since_it_was_indexed_is_refused(root: Path, store: Store) -> None:
    index = index_of(root)
    (root / "003.png").unlink()
    with pytest.raises(DatasetError, match=r"003\.png: No such file"):
        write_views(index, root, PLAIN_ONLY, SIZE, store, MAX_PIXELS)


def test_an_image_that_cannot_be_decoded_is_named(root: Path, store: Store) -> None:
    (root / "003.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"003\.png: not an image"):
        write(root, PLAIN_ONLY, store)


def test_an_image_of_more_pixels_than_allowed_is_refused(root: Path, store: Store) -> None:
    write_image(root, 60, (101, 100))
    with pytest.raises(DatasetError, match=r"060\.png: .*10,100 pixels"):
        write(root, PLAIN_ONLY, store)


def test_padding_not_smaller_than_a_view_is_refused_before_any_is_made(
    root: Path, store: Store
) -> None:
    config = with_views(1, augmentations=(PadAndRandomCrop(padding=SIZE),))
    with pytest.raises(ConfigError, match="smaller than the view"):
        write(root, config, store)
    assert not shards_of(store)


def test_recipes_hold_what_decides_pixels_and_nothing_else() -> None:
    plain, augmented = plain_recipe(PLAIN_ONLY, SIZE), augmented_recipe(PLAIN_ONLY, SIZE)
    other_views = (with_views(5), with_views(0, image_size=64))
    for config in other_views:
        assert plain_recipe(config, SIZE) == plain
        assert augmented_recipe(config, SIZE) == augmented
    for config in (with_views(0, seed=1), with_views(0, augmentations=(Flip(), ColorJitter()))):
        assert plain_recipe(config, SIZE) == plain
        assert augmented_recipe(config, SIZE) != augmented
    swapped = with_views(0, augmentations=PLAIN_ONLY.augmentations[::-1])
    assert augmented_recipe(swapped, SIZE) != augmented
    for config, size in ((with_views(0, resize="crop"), SIZE), (PLAIN_ONLY, SIZE + 1)):
        assert plain_recipe(config, size) != plain
        assert augmented_recipe(config, size) != augmented
    assert plain != augmented


def test_recipes_differ_where_there_is_no_augmentation() -> None:
    config = with_views(1, augmentations=())
    assert plain_recipe(config, SIZE) != augmented_recipe(config, SIZE)


def test_default_workers_are_the_cores_this_process_may_use() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)

"""Views of epochs: the same bytes however they are made, different from view to view."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from headstart.config import EpochViewsConfig, ScratchDatasetConfig
from headstart.errors import ConfigError, RecordError
from headstart.tasks.dataset.pixels import PixelsManifest, open_images
from headstart.tasks.dataset.pixels import stage as make_pixels
from headstart.tasks.store.artifacts import Store
from headstart.tasks.views import epoch_shards, epoch_stage
from headstart.tasks.views.epoch_augment import EpochRecipe, cutout, epoch_views, flip, pad_and_crop
from headstart.tasks.views.epoch_draws import (
    as_uint64,
    block_order,
    draw_integers,
    image_keys,
    view_key,
)
from headstart.tasks.views.epoch_shards import BLOCK_ROWS, Layout, read_blocks
from headstart.tasks.views.epoch_stage import layout_of, recipe_of, shard_paths
from headstart.tasks.views.epoch_stage import stage as make_views
from tests.scratch_data import write_idx

RECIPE = EpochRecipe(padding=3, flip=True, cutout=4, fill=(7, 8, 9))
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 12, 3), dtype=np.uint8)
KEYS = image_keys(IMAGES)
OPERATIONS = {
    "pad_and_crop": lambda images, keys, view: pad_and_crop(images, keys, view, 3),
    "flip": flip,
    "cutout": lambda images, keys, view: cutout(images, keys, view, 4, (7, 8, 9)),
    "all": lambda images, keys, view: epoch_views(images, keys, view, RECIPE),
}


@pytest.fixture(params=OPERATIONS)
def operation(request: pytest.FixtureRequest):
    return OPERATIONS[request.param]


def view(number: int):
    return as_uint64([view_key(number, "recipe")])[0]


def test_an_operation_gives_the_same_bytes_eagerly_in_a_graph_and_in_tf_data(operation) -> None:
    eager = operation(tf.constant(IMAGES), as_uint64(KEYS), view(1)).numpy()
    graph = tf.function(operation)(tf.constant(IMAGES), as_uint64(KEYS), view(1)).numpy()
    rows = tf.data.Dataset.from_tensor_slices((IMAGES, KEYS)).batch(7)
    mapped = rows.map(lambda images, keys: operation(images, keys, view(1)), num_parallel_calls=3)
    assert eager.dtype == np.uint8
    assert eager.shape == IMAGES.shape
    np.testing.assert_array_equal(graph, eager)
    np.testing.assert_array_equal(np.concatenate(list(mapped)), eager)


def test_an_operation_does_not_depend_on_the_images_beside(operation) -> None:
    together = operation(tf.constant(IMAGES), as_uint64(KEYS), view(1)).numpy()
    order = np.random.default_rng(1).permutation(len(IMAGES))
    shuffled = operation(tf.constant(IMAGES[order]), as_uint64(KEYS[order]), view(1)).numpy()
    np.testing.assert_array_equal(shuffled, together[order])
    alone = operation(tf.constant(IMAGES[5:6]), as_uint64(KEYS[5:6]), view(1)).numpy()
    np.testing.assert_array_equal(alone[0], together[5])


def test_views_of_an_operation_differ(operation) -> None:
    first, second = (
        operation(tf.constant(IMAGES), as_uint64(KEYS), view(number)).numpy() for number in (1, 2)
    )
    changed = (first != second).any(axis=(1, 2, 3))
    assert changed.mean() > 0.3
    assert (first != IMAGES).any(axis=(1, 2, 3)).mean() > 0.3


def test_a_crop_is_a_window_of_the_reflected_image() -> None:
    made = pad_and_crop(tf.constant(IMAGES), as_uint64(KEYS), view(1), 2).numpy()
    for image, crop in zip(IMAGES, made, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
        windows = [padded[y : y + 16, x : x + 12] for y in range(5) for x in range(5)]
        assert any(np.array_equal(crop, window) for window in windows)


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    images = np.random.default_rng(2).integers(0, 256, (400, 2, 8, 1), dtype=np.uint8)
    made = flip(tf.constant(images), as_uint64(image_keys(images)), view(1)).numpy()
    mirrored = (made == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (made == images).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 140 < mirrored.sum() < 260


def test_a_cutout_is_a_square_of_the_fill_inside_the_image() -> None:
    made = cutout(tf.constant(IMAGES), as_uint64(KEYS), view(1), 4, (7, 8, 9)).numpy()
    for image, cut in zip(IMAGES, made, strict=True):
        filled = (cut == (7, 8, 9)).all(axis=-1)
        rows, columns = filled.any(axis=1).nonzero()[0], filled.any(axis=0).nonzero()[0]
        assert rows.max() - rows.min() == columns.max() - columns.min() == 3
        np.testing.assert_array_equal(cut[~filled], image[~filled])


def test_draws_are_uniform_and_apart() -> None:
    keys = np.random.default_rng(3).integers(0, 2**63, 6000).astype(np.uint64)
    first = draw_integers(keys, view(1), 0, 6).numpy()
    second = draw_integers(keys, view(1), 1, 6).numpy()
    assert np.abs(np.bincount(first, minlength=6) - 1000).max() < 150
    table = np.histogram2d(first, second, bins=6)[0]
    assert np.abs(table - 6000 / 36).max() < 70  # no draw tells of another
    assert draw_integers(keys, view(1), 0, 1).numpy().max() == 0


def test_a_draw_has_the_value_it_always_had() -> None:
    # Another value would change every view: bump EPOCH_VIEWS_VERSION then.
    drawn = draw_integers(as_uint64([1, 2, 2**64 - 1]), as_uint64([3])[0], 4, 1000).numpy()
    assert drawn.tolist() == [623, 695, 169]


def test_equal_images_have_equal_keys() -> None:
    keys = image_keys(np.stack([IMAGES[0], IMAGES[1], IMAGES[0]]))
    assert keys[0] == keys[2] != keys[1]
    assert keys.dtype == np.uint64


# Shards


@pytest.fixture
def pixels(store: Store, tmp_path: Path) -> PixelsManifest:
    return make_pixels(ScratchDatasetConfig(images=str(write_idx(tmp_path / "bars"))), None)


CONFIG = EpochViewsConfig(padding=2, cutout=3)


def read_view(manifest, pixels: PixelsManifest, number: int) -> tuple[np.ndarray, np.ndarray]:
    paths = shard_paths(manifest, layout_of(pixels))[number - 1]
    blocks = list(read_blocks(paths, pixels.image_shape).as_numpy_iterator())
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])


def test_a_view_holds_each_image_once_augmented_in_an_order_of_its_own(
    pixels: PixelsManifest,
) -> None:
    manifest = make_views(pixels, CONFIG, 2)
    images = open_images(pixels, "train")
    fields_digest = epoch_shards.digest(manifest.recipe)
    orders = []
    for number in (1, 2):
        made, positions = read_view(manifest, pixels, number)
        assert sorted(positions.tolist()) == list(range(300))
        key = as_uint64([view_key(number, fields_digest)])[0]
        expected = epoch_views(
            tf.constant(images[positions]),
            image_keys(images[positions]),
            key,
            recipe_of(pixels, CONFIG),
        )
        np.testing.assert_array_equal(made, expected.numpy())
        orders.append(positions.tolist())
    assert orders[0] != orders[1]


def test_more_views_compute_the_new_ones_alone(pixels: PixelsManifest) -> None:
    two, three = make_views(pixels, CONFIG, 2), make_views(pixels, CONFIG, 3)
    assert (two.num_rows_computed, three.num_rows_computed) == (600, 300)
    assert three.view_keys[:2] == two.view_keys
    assert make_views(pixels, CONFIG, 3) == three


@pytest.mark.parametrize("num_workers", [1, 4])
def test_shards_are_the_same_bytes_for_any_number_of_workers(
    pixels: PixelsManifest, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_stage, "available_cores", lambda: num_workers)
    digests = [entry.sha256 for entry in make_views(pixels, CONFIG, 4).files]
    writer = epoch_shards.ViewWriter(
        np.asarray(open_images(pixels, "train")),
        image_keys(open_images(pixels, "train")),
        recipe_of(pixels, CONFIG),
        epoch_stage.fields_of(pixels, CONFIG),
    )
    expected = []
    for number in (1, 2, 3, 4):
        folder = epoch_stage.current_store().root / f"again-{number}"
        folder.mkdir()
        writer.write(folder, number)
        paths = sorted(folder.iterdir())
        expected += [epoch_stage.current_store().entry(path).sha256 for path in paths]
    assert digests == expected


def test_a_run_that_ends_early_keeps_the_views_that_are_whole(
    pixels: PixelsManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = epoch_shards.ViewWriter.write

    def write(self: epoch_shards.ViewWriter, folder: Path, number: int) -> None:
        written(self, folder, number)
        if number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(epoch_stage, "available_cores", lambda: 1)
        patch.setattr(epoch_shards.ViewWriter, "write", write)
        with pytest.raises(KeyboardInterrupt):
            make_views(pixels, CONFIG, 5)
    missing = epoch_stage.missing_views(pixels, CONFIG, 5)
    assert 3 in missing
    assert not {1, 2} & set(missing)
    assert make_views(pixels, CONFIG, 5).num_rows_computed == len(missing) * 300


def test_a_damaged_view_is_made_again_alone(pixels: PixelsManifest) -> None:
    before = make_views(pixels, CONFIG, 3)
    path = shard_paths(before, layout_of(pixels))[1][0]
    path.write_bytes(path.read_bytes()[:-1])
    after = make_views(pixels, CONFIG, 3)
    assert after.num_rows_computed == 300
    assert [entry.sha256 for entry in after.files] == [entry.sha256 for entry in before.files]


def test_views_that_do_not_fit_on_the_disk_are_refused_beforehand(
    pixels: PixelsManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = epoch_stage.DISK_RESERVE_BYTES + 1000

    monkeypatch.setattr(epoch_stage.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(RecordError, match="3 views take"):
        make_views(pixels, CONFIG, 3)


def test_padding_and_cutout_must_fit_the_images(pixels: PixelsManifest) -> None:
    with pytest.raises(ConfigError, match="20 pixels"):
        make_views(pixels, EpochViewsConfig(padding=20), 1)


def test_a_view_has_two_shards_at_least_and_no_more_bytes_than_foretold(
    pixels: PixelsManifest,
) -> None:
    layout = layout_of(pixels)
    assert layout.num_shards == 2
    manifest = make_views(pixels, CONFIG, 1)
    total = sum(entry.num_bytes for entry in manifest.files)
    assert 0.95 * layout.view_bytes < total <= layout.view_bytes
    large = Layout(60_000, (28, 28, 1))
    assert large.num_shards == 3
    assert large.num_blocks == -(-60_000 // BLOCK_ROWS)


def test_records_of_large_images_hold_fewer_of_them(tmp_path: Path) -> None:
    assert Layout(10, (32, 32, 3)).block_rows == BLOCK_ROWS
    assert Layout(10, (224, 224, 3)).block_rows == 6
    assert Layout(10, (1024, 1024, 3)).block_rows == 1
    images = np.random.default_rng(4).integers(0, 256, (50, 160, 160, 1), dtype=np.uint8)
    recipe = EpochRecipe(padding=0, flip=False, cutout=0, fill=())
    writer = epoch_shards.ViewWriter(images, image_keys(images), recipe, {})
    writer.write(tmp_path, 1)
    blocks = list(read_blocks(sorted(tmp_path.iterdir()), (160, 160, 1)).as_numpy_iterator())
    assert sorted(len(positions) for _, positions in blocks) == [10, 40]
    for pixels, positions in blocks:
        np.testing.assert_array_equal(pixels, images[positions])


def test_an_order_is_drawn_over_the_whole_set() -> None:
    order = block_order(1000, 1, "recipe")
    assert sorted(order.tolist()) == list(range(1000))
    assert np.abs(order[:100].mean() - 500) < 150
    assert (order != block_order(1000, 2, "recipe")).any()

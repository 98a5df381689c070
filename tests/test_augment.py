import subprocess
import sys
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from headstart.config import (
    Augmentation,
    ColorJitter,
    Cutout,
    Flip,
    PadAndRandomCrop,
    RandomResizedCrop,
    Rotation,
)
from headstart.errors import ConfigError
from headstart.tasks.views import augment
from headstart.tasks.views.augment import augmented_view, plain_view, view_seed
from headstart.tasks.views.recipes import Resize

Pixels = npt.NDArray[np.uint8]

RESIZES: tuple[Resize, ...] = ("squash", "crop", "pad")
SIZE = 24
IMAGE_SPEC = tf.TensorSpec([None, None, 3], tf.uint8)
SEED_SPEC = tf.TensorSpec([2], tf.int32)
RECIPES: dict[str, tuple[Augmentation, ...]] = {
    "flip": (Flip(),),
    "pad_and_random_crop": (PadAndRandomCrop(),),
    "random_resized_crop": (RandomResizedCrop(),),
    "color_jitter": (ColorJitter(),),
    "rotation": (Rotation(),),
    "cutout_gray": (Cutout(fill="gray"),),
    "cutout_noise": (Cutout(fill="noise"),),
    "crop_first": (RandomResizedCrop(), Flip(), ColorJitter(), Rotation(), Cutout(fill="noise")),
    "crop_last": (Cutout(), Rotation(), ColorJitter(), PadAndRandomCrop(), RandomResizedCrop()),
}
NEUTRAL: dict[str, Augmentation] = {
    "flip": Flip(probability=0.0),
    "random_resized_crop": RandomResizedCrop(min_area=1.0),
    "color_jitter": ColorJitter(brightness=0.0, contrast=0.0, saturation=0.0),
    "rotation": Rotation(max_degrees=0.0),
    "cutout": Cutout(probability=0.0, fill="noise"),
}


def image_of(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def seeds_of(count: int) -> npt.NDArray[np.int32]:
    return np.array([view_seed("ab" * 32, view, "recipe") for view in range(count)], np.int32)


def view_of(
    image: Pixels, seed: npt.NDArray[np.int32], *augmentations: Augmentation, size: int = SIZE
) -> Pixels:
    view: Pixels = augmented_view(image, size, "squash", augmentations, tf.constant(seed)).numpy()
    return view


def graph_of(augmentations: tuple[Augmentation, ...], resize: Resize = "squash") -> Any:
    return tf.function(
        lambda image, seed: augmented_view(image, SIZE, resize, augmentations, seed),
        input_signature=[IMAGE_SPEC, SEED_SPEC],
    )


def stock_resizing(size: int, resize: Resize) -> keras.layers.Layer:
    return keras.layers.Resizing(
        size,
        size,
        interpolation="bilinear",
        antialias=True,
        crop_to_aspect_ratio=resize == "crop",
        pad_to_aspect_ratio=resize == "pad",
    )


@pytest.mark.parametrize("resize", RESIZES)
def test_plain_view_is_the_stock_layer_rounded_half_to_even(resize: Resize) -> None:
    rng = np.random.default_rng(7)
    sides = [(1, 1), (1, 90), (90, 1), (46, 40), (40, 46), *rng.integers(1, 130, (30, 2)).tolist()]
    for height, width in sides:
        size = int(rng.integers(8, 64))
        image = image_of(height, width)
        resized = stock_resizing(size, resize)(image[np.newaxis].astype(np.float32))
        expected = np.clip(np.round(np.asarray(resized)), 0, 255)[0]
        np.testing.assert_array_equal(plain_view(image, size, resize), expected)


@pytest.mark.parametrize("size", [32, 60])
@pytest.mark.parametrize("resize", RESIZES)
def test_plain_view_is_the_stock_layer_inside_a_model_of_any_image_size(
    resize: Resize, size: int
) -> None:
    inputs = keras.Input((None, None, 3), dtype="uint8")
    pixels = keras.ops.round(stock_resizing(size, resize)(keras.ops.cast(inputs, "float32")))
    model = keras.Model(inputs, keras.ops.clip(pixels, 0, 255))
    serve = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    graph = tf.function(lambda image: plain_view(image, size, resize), input_signature=[IMAGE_SPEC])
    for height, width in np.random.default_rng(1).integers(1, 130, (20, 2)).tolist():
        image = image_of(height, width)
        np.testing.assert_array_equal(graph(image), serve(image[np.newaxis])[0])


@pytest.mark.parametrize("resize", RESIZES)
def test_plain_view_of_an_image_that_has_the_size_is_the_image(resize: Resize) -> None:
    image = image_of(SIZE, SIZE)
    graph = tf.function(lambda image: plain_view(image, SIZE, resize), input_signature=[IMAGE_SPEC])
    np.testing.assert_array_equal(plain_view(image, SIZE, resize), image)
    np.testing.assert_array_equal(graph(image), image)


@pytest.mark.parametrize(("height", "width"), [(40, 46), (36, 31), (57, 23)])
@pytest.mark.parametrize("resize", RESIZES)
def test_plain_view_is_the_same_in_a_graph_where_float_division_is_not(
    resize: Resize, height: int, width: int
) -> None:
    # 61 and 41 are sizes s for which x * s * float32(1 / s) falls short of x.
    image = image_of(height, width)
    for size in (41, 61):
        graph = tf.function(lambda image, size=size: plain_view(image, size, resize))
        dynamic = graph.get_concrete_function(IMAGE_SPEC)
        np.testing.assert_array_equal(dynamic(tf.constant(image)), plain_view(image, size, resize))


def test_crop_cuts_the_middle_and_pad_adds_black_on_both_sides() -> None:
    image = np.full((16, 32, 3), 200, np.uint8)
    image[:, :8] = image[:, -8:] = 50
    cropped = plain_view(image, 16, "crop").numpy()
    padded = plain_view(image, 32, "pad").numpy()
    np.testing.assert_array_equal(cropped, np.full((16, 16, 3), 200, np.uint8))
    np.testing.assert_array_equal(padded[8:24], image)
    assert not padded[:8].any()
    assert not padded[24:].any()


@pytest.mark.parametrize(
    ("recipe", "resize"),
    [*((recipe, "squash") for recipe in RECIPES), ("crop_first", "crop"), ("crop_last", "pad")],
)
def test_augmented_view_is_the_same_eagerly_in_a_graph_and_in_a_parallel_pipeline(
    recipe: str, resize: Resize
) -> None:
    augmentations, image, seeds = RECIPES[recipe], image_of(37, 51), seeds_of(40)
    graph = graph_of(augmentations, resize)
    pipeline = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: augmented_view(tf.constant(image), SIZE, resize, augmentations, seed),
        num_parallel_calls=4,
    )
    in_pipeline = np.stack(list(pipeline.as_numpy_iterator()))
    in_graph = np.stack([graph(image, seed).numpy() for seed in reversed(seeds)])[::-1]
    np.testing.assert_array_equal(in_graph, in_pipeline)
    for seed, expected in zip(seeds[:12], in_graph, strict=False):
        eager = augmented_view(image, SIZE, resize, augmentations, tf.constant(seed))
        assert eager.dtype == tf.uint8
        assert eager.shape == (SIZE, SIZE, 3)
        np.testing.assert_array_equal(eager, expected)
    num_different = len({view.tobytes() for view in in_graph})
    assert num_different == 2 if recipe == "flip" else num_different >= 25


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("kind", NEUTRAL)
def test_neutral_parameters_give_the_plain_view(kind: str, resize: Resize) -> None:
    image = image_of(37, 51)
    for seed in seeds_of(4):
        view = augmented_view(image, SIZE, resize, (NEUTRAL[kind],), tf.constant(seed))
        np.testing.assert_array_equal(view, plain_view(image, SIZE, resize))


def test_no_augmentations_give_the_plain_view() -> None:
    image = image_of(37, 51)
    np.testing.assert_array_equal(view_of(image, seeds_of(1)[0]), plain_view(image, SIZE, "squash"))


def test_the_same_operation_at_another_place_draws_anew() -> None:
    image, flip = image_of(SIZE, SIZE), Flip()
    once = [view_of(image, seed, flip) for seed in seeds_of(40)]
    twice = [view_of(image, seed, flip, flip) for seed in seeds_of(40)]
    assert any((one != two).any() for one, two in zip(once, twice, strict=True))
    assert any((two != image).any() for two in twice)


def test_flip_mirrors_about_as_often_as_told() -> None:
    image, graph = image_of(SIZE, SIZE), graph_of((Flip(probability=0.25),))
    views = [graph(image, seed).numpy() for seed in seeds_of(400)]
    mirrored = sum(np.array_equal(view, image[:, ::-1]) for view in views)
    kept = sum(np.array_equal(view, image) for view in views)
    assert mirrored + kept == 400
    assert 70 <= mirrored <= 130  # 100 expected, 3.5 standard deviations either way


def test_pad_and_random_crop_shifts_and_reflects() -> None:
    image, padding = image_of(SIZE, SIZE), 3
    padded = np.pad(image, [(padding, padding), (padding, padding), (0, 0)], mode="reflect")
    shifts = {
        padded[top : top + SIZE, left : left + SIZE].tobytes(): (top, left)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    }
    graph = graph_of((PadAndRandomCrop(padding=padding),))
    seen = {shifts[graph(image, seed).numpy().tobytes()] for seed in seeds_of(400)}
    assert len(seen) == 49


def test_random_resized_crop_covers_the_area_it_is_told_and_reaches_every_border() -> None:
    # A ramp shows where a crop lies: red is the row, green the column, both 0 to 250.
    ramp = np.zeros((251, 251, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(251)[:, None], np.arange(251)
    graph = graph_of((RandomResizedCrop(min_area=0.25, max_aspect_ratio=4 / 3),))
    views = np.stack([graph(ramp, seed).numpy() for seed in seeds_of(200)]).astype(int)
    # The outer pixels of a view lie half a pixel inside the crop: SIZE - 1 of SIZE steps.
    height = np.ptp(views[..., 0], axis=(1, 2)) / 250 * SIZE / (SIZE - 1)
    width = np.ptp(views[..., 1], axis=(1, 2)) / 250 * SIZE / (SIZE - 1)
    assert (height * width).min() == pytest.approx(0.25, abs=0.03)
    assert 0.85 < (height * width).max() <= 1.03
    assert (width / height).min() == pytest.approx(3 / 4, abs=0.04)
    assert (width / height).max() == pytest.approx(4 / 3, abs=0.06)
    assert views[..., :2].min() <= 8
    assert views[..., :2].max() >= 242


def test_random_resized_crop_that_comes_first_keeps_the_detail_of_the_image() -> None:
    stripes = np.zeros((8 * SIZE, 8 * SIZE, 3), np.uint8)
    stripes[:, ::8] = 255  # gone in a view of 1/8 of the side, there in a crop of 1/64 the area
    crop = RandomResizedCrop(min_area=1 / 64, max_aspect_ratio=1.0)
    first = [view_of(stripes, seed, crop).std() for seed in seeds_of(40)]
    second = [view_of(stripes, seed, Flip(probability=0.0), crop).std() for seed in seeds_of(40)]
    assert max(first) > 20
    assert max(second) < 5  # the border is all that is left to see


def test_color_jitter_scales_brightness_alone_when_told_so() -> None:
    gray = np.full((SIZE, SIZE, 3), 100, np.uint8)
    jitter = ColorJitter(brightness=0.5, contrast=0.0, saturation=0.0)
    levels = [view_of(gray, seed, jitter) for seed in seeds_of(60)]
    assert all(np.ptp(level) == 0 for level in levels)
    means = np.array([level.mean() for level in levels])
    assert 50 <= means.min() < 60
    assert 140 < means.max() <= 150


def test_color_jitter_takes_contrast_about_each_channels_mean() -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[: SIZE // 2], image[SIZE // 2 :] = (100, 70, 40), (120, 100, 80)
    jitter = ColorJitter(brightness=0.0, contrast=0.9, saturation=0.0)
    for seed in seeds_of(10):
        top, bottom = view_of(image, seed, jitter)[[0, -1], 0].astype(int)
        np.testing.assert_allclose((top + bottom) / 2, (110, 85, 60), atol=1)
        factors = (bottom - top) / np.array([20, 30, 40])
        np.testing.assert_allclose(factors, factors[2], atol=0.1)
        assert 0.0 <= factors[2] <= 2.0


def test_color_jitter_changes_saturation_as_tf_image_does() -> None:
    image = np.tile(np.array([200, 100, 50], np.uint8), (SIZE, SIZE, 1))
    jitter = ColorJitter(brightness=0.0, contrast=0.0, saturation=1.0)
    for seed in seeds_of(10):
        red, green, blue = view_of(image, seed, jitter)[0, 0].astype(int)
        factor = (200 - blue) / 150  # saturation is 1 - min / max, and max stays
        expected = tf.image.adjust_saturation(image / np.float32(255), factor) * 255
        assert red == 200
        assert green == pytest.approx(float(expected[0, 0, 1]), abs=1.0)


def test_rotation_turns_about_the_centre_within_its_limit() -> None:
    size = 65
    image = np.zeros((size, size, 3), np.uint8)
    image[32, 32], image[31:34, 51:54] = 255, 200  # the centre, and a spot 20 pixels right of it
    angles = []
    for seed in seeds_of(60):
        view = view_of(image, seed, Rotation(max_degrees=30.0), size=size)[..., 0].astype(float)
        assert view[32, 32] == 255
        view[28:37, 28:37] = 0
        rows, columns = np.indices(view.shape)
        up = 32 - (rows * view).sum() / view.sum()
        right = (columns * view).sum() / view.sum() - 32
        assert np.hypot(up, right) == pytest.approx(20, abs=0.3)
        angles.append(np.degrees(np.arctan2(up, right)))
    assert -30.5 < min(angles) < -20
    assert 20 < max(angles) < 30.5


def test_rotation_leaves_no_black_corners() -> None:
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    for seed in seeds_of(20):
        np.testing.assert_array_equal(view_of(white, seed, Rotation(max_degrees=180.0)), white)


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.15), (0.5, 0.9)])
def test_cutout_overwrites_one_gray_rectangle_of_the_area_told(low: float, high: float) -> None:
    image, size = np.zeros((64, 64, 3), np.uint8), 64
    for seed in seeds_of(40):
        view = view_of(image, seed, Cutout(min_area=low, max_area=high), size=size)
        rows, columns = (np.flatnonzero(view.any(axis=(axis, 2))) for axis in (1, 0))
        rectangle = view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.testing.assert_array_equal(rectangle, np.full_like(rectangle, 128))
        area = rectangle[..., 0].size / size**2
        assert low - 0.02 <= area <= high + 0.02  # sides are whole pixels


def test_cutout_fills_with_uniform_noise_when_told_so() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    view = view_of(image, seeds_of(1)[0], Cutout(min_area=0.5, max_area=0.5, fill="noise"), size=64)
    noise = view[view.any(axis=2)].astype(float)
    assert noise.mean() == pytest.approx(127.5, abs=4)
    assert noise.std() == pytest.approx(255 / np.sqrt(12), abs=3)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.1


def test_cutout_happens_about_as_often_as_told() -> None:
    image, graph = image_of(SIZE, SIZE), graph_of((Cutout(probability=0.25),))
    changed = sum((graph(image, seed).numpy() != image).any() for seed in seeds_of(400))
    assert 70 <= changed <= 130


def test_padding_not_smaller_than_the_view_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"smaller than the view \(24 px\)"):
        view_of(image_of(30, 30), seeds_of(1)[0], PadAndRandomCrop(padding=SIZE))


def test_augmented_views_hold_the_bytes_they_always_held() -> None:
    # A change here is a change of every augmented view in every store: bump VIEWS_VERSION.
    image = (np.arange(8 * 8 * 3) % 251).astype(np.uint8).reshape(8, 8, 3)
    view = view_of(image, np.array([1, 2], np.int32), PadAndRandomCrop(), Flip(), size=8)
    assert view[0, :, 0].tolist() == [30, 27, 24, 27, 30, 33, 36, 39]


def test_view_seed_is_pinned() -> None:
    assert view_seed("00" * 32, 1, "ff" * 32) == (-462603793, -878606613)


def test_view_seed_depends_on_image_view_and_recipe() -> None:
    seeds = {
        view_seed(image, view, recipe)
        for image in ("aa", "bb")
        for view in (1, 11)
        for recipe in ("cc", "1cc")
    }
    assert len(seeds) == 8


@pytest.mark.parametrize("shape", [(900, 7), (7, 900), (301, 300), (40, 40), (1, 333)])
def test_a_strip_is_padded_without_its_square(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    square = plain_view(image, 32, "pad").numpy().astype(int)
    monkeypatch.setattr(augment, "MAX_PADDED_PIXELS", 1)
    strip = plain_view(image, 32, "pad").numpy().astype(int)
    assert np.abs(strip - square).max() <= 1
    assert np.mean(strip != square) < 0.001


def test_a_strip_takes_no_memory_for_its_square() -> None:
    code = (
        "import resource, numpy as np\n"
        "from headstart.tasks.views.augment import plain_view\n"
        "plain_view(np.zeros((64, 64, 3), np.uint8), 32, 'pad')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "plain_view(np.zeros((30_000, 32, 3), np.uint8), 32, 'pad')\n"
        "print('KB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(made.stdout.rpartition("KB")[2]) < 400_000  # the square's bytes are 2,700,000 KB

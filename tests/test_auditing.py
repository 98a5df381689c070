"""Hashes, near-duplicates, label errors and oddities, each by itself."""

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from headstart.config import ChecksConfig
from headstart.tasks.auditing.duplicates import Pair, find_pairs, group_pairs
from headstart.tasks.auditing.findings import KINDS, counted
from headstart.tasks.auditing.hashing import hash_distances, perceptual_hashes
from headstart.tasks.auditing.labels import judge_labels
from headstart.tasks.auditing.oddities import blur, robust_deviations, size_ratios, thin_classes
from headstart.tasks.auditing.pictures import describe_pixels

SIDE = 64


def picture(seed: int) -> Image.Image:
    """A few soft blobs: what a photo is at low frequencies."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def pixels(*images: Image.Image) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(image.resize((SIDE, SIDE))) for image in images])


def test_a_hash_has_64_bits_half_of_them_set() -> None:
    hashes = perceptual_hashes(np.random.default_rng(0).normal(size=(3, 32, 32)))
    assert hashes.shape == (3, 64)
    assert (abs(hashes[:, 1:].sum(axis=1).astype(int) - 31) <= 1).all()


def test_a_hash_hardly_changes_with_size_brightness_and_contrast() -> None:
    image = picture(0)
    changed = [
        image.resize((20, 20)),
        Image.fromarray((np.asarray(image) * 0.7 + 20).astype(np.uint8)),
        image.filter(ImageFilter.GaussianBlur(1)),
    ]
    hashes = describe_pixels(pixels(image, *changed, picture(1)))["hashes"]
    distances = hash_distances(hashes[:1], hashes)[0]
    assert distances[0] == 0
    assert (distances[1:4] <= 6).all()
    assert distances[4] > 12


def test_a_mirrored_image_has_the_mirrored_hash() -> None:
    image = picture(2)
    turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    described = describe_pixels(pixels(image, turned))
    assert (described["mirrored_hashes"][0] == described["hashes"][1]).all()


def test_close_pairs_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    plain = generator.integers(0, 2, (30, 64), np.uint8)
    plain[7] = plain[21]
    mirrored = generator.integers(0, 2, (30, 64), np.uint8)
    mirrored[25] = plain[3]
    config = ChecksConfig(max_hash_distance=2, sure_hash_distance=2)
    expected = [(3, 25, 0, True), (7, 21, 0, False)]
    for values in (2**22, 4 * len(plain)):
        monkeypatch.setattr("headstart.tasks.auditing.duplicates.CHUNK_VALUES", values)
        pairs = find_pairs(np.ones((len(plain), 3)), plain, mirrored, config)
        assert [(p.first, p.second, p.distance, p.is_mirrored) for p in sorted(pairs)] == expected


def test_very_many_duplicates_are_told_in_little_memory_and_hide_no_leak() -> None:
    number = 4000
    splits = np.arange(number) % 3
    hashes, features = np.zeros((number, 64), np.uint8), np.ones((number, 4), np.float32)
    tracemalloc.start()
    try:
        pairs = find_pairs(features, hashes, hashes, ChecksConfig(), splits)
        assert tracemalloc.get_traced_memory()[1] < 300e6  # all pairs would be 8 million
    finally:
        tracemalloc.stop()
    assert len(pairs) <= number * 3 * 8
    assert [len(group) for group in group_pairs(pairs)] == [number]
    leaks = {
        one for p in pairs if splits[p.first] != splits[p.second] for one in (p.first, p.second)
    }
    assert len(leaks) == number


def test_a_pair_needs_both_witnesses() -> None:
    hashes = np.zeros((6, 64), np.uint8)
    hashes[3:, :32] = 1
    hashes[4, 60:] = 1
    hashes[5, 32:46] = 1
    features = np.array(
        [[1, 0, 0], [1, 0.2, 0], [0, 1, 0], [0, 0, 1], [0, 0.01, 1], [0, 0.01, 1]], float
    )
    far = np.random.default_rng(0).integers(0, 2, hashes.shape, np.uint8)
    config = ChecksConfig(sure_hash_distance=1, max_hash_distance=3)
    # 0, 1 and 2 share their hash, but 2 shows something else; 3 and 4 differ in four bits, which
    # their features excuse; 5 differs in too many for that.
    pairs = find_pairs(features, hashes, far, config)
    assert [(pair.first, pair.second, pair.distance) for pair in pairs] == [(3, 4, 4), (0, 1, 0)]


def test_pairs_that_share_an_image_make_a_group() -> None:
    pairs = [Pair(a, b, 1.0, 0, False) for a, b in ((1, 2), (5, 6), (2, 3), (0, 3))]
    assert group_pairs(pairs) == [(0, 1, 2, 3), (5, 6)]


def test_label_errors_are_those_confidently_of_another_class() -> None:
    probabilities = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9], [0.2, 0.8], [0.95, 0.05]]
    )
    labels = np.array([0, 0, 0, 1, 1, 1])
    # Thresholds: (0.9 + 0.8 + 0.3) / 3 and (0.9 + 0.8 + 0.05) / 3.
    quality = judge_labels(probabilities, labels)
    assert quality.is_error.tolist() == [False, False, True, False, False, True]
    assert quality.suggested.tolist() == [0, 0, 1, 1, 1, 0]
    np.testing.assert_allclose(quality.margin, [0.8, 0.6, -0.4, 0.8, 0.6, -0.9])


def test_an_unsure_prediction_is_no_label_error() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.1, 0.9]])
    assert not judge_labels(probabilities, np.array([0, 0, 0, 1, 1])).is_error.any()


def test_a_label_that_is_itself_the_likeliest_class_is_no_error() -> None:
    # The third image reaches the threshold of class 1, (0.3 + 0.4 + 0.2) / 3, and not its own.
    probabilities = np.array(
        [[0.95, 0.05], [0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.6, 0.4], [0.8, 0.2]]
    )
    quality = judge_labels(probabilities, np.array([0, 0, 0, 1, 1, 1]))
    assert quality.is_error.tolist() == [False, False, False, False, False, False]


def test_the_only_image_of_a_class_is_no_error() -> None:
    # No head that did not see it has seen its class.
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.95, 0.05, 0.0]])
    quality = judge_labels(probabilities, np.array([0, 0, 1, 2]))
    assert not quality.is_error.any()


def test_flipped_labels_are_found_among_clusters() -> None:
    from headstart.tasks.ranking.probes import probe_probabilities

    generator = np.random.default_rng(0)
    truth = np.arange(200) % 4
    features = 3 * np.eye(16)[truth] + generator.normal(size=(200, 16))
    wrong = generator.choice(200, 10, replace=False)
    labels = truth.copy()
    labels[wrong] = (labels[wrong] + 1) % 4
    quality = judge_labels(probe_probabilities(features, labels, 4, 0), labels)
    first_tenth = np.argsort(quality.margin)[:20]
    assert np.isin(wrong, first_tenth).mean() >= 0.8


def test_robust_deviations_are_not_moved_by_outliers() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(5, 2, 1001), [1e6, 1e6]])
    deviations = robust_deviations(values)
    assert abs(deviations[values == np.median(values)][0]) < 1e-9
    assert deviations[:-2].std() == pytest.approx(1.0, abs=0.1)
    assert (deviations[-2:] > 1e4).all()


def test_equal_values_deviate_by_nothing() -> None:
    assert (robust_deviations(np.array([1.0, 1.0, 1.0, 9.0])) == 0).all()


def test_a_blurred_image_is_blurrier_and_a_black_one_dark() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, SIDE, SIDE, 3), np.uint8)
    images = [Image.fromarray(one) for one in noise]
    images[3] = images[3].filter(ImageFilter.GaussianBlur(4))
    images[5] = Image.new("RGB", (SIDE, SIDE), (8, 8, 8))
    described = describe_pixels(pixels(*images))
    assert set(np.argsort(-blur(described["sharpness"]))[:2].tolist()) == {3, 5}
    assert described["brightness"][5] == pytest.approx(8 / 255)
    assert (np.delete(described["brightness"], 5) > 0.25).all()


def test_size_ratios_see_size_and_aspect() -> None:
    widths = np.array([100, 100, 100, 400, 400])
    heights = np.array([100, 100, 100, 400, 25])
    np.testing.assert_allclose(size_ratios(widths, heights), [1, 1, 1, 4, 16])


def test_thin_classes_come_thinnest_first() -> None:
    assert thin_classes(np.array([100, 0, 30, 10]), 5.0) == [(1, float("inf")), (3, 10.0)]


def test_findings_are_counted_in_words() -> None:
    assert counted("label_error", 1) == "label error"
    assert counted("label_error", 4) == "label errors"
    assert counted("thin_class", 2) == "thin classes"
    assert all(counted(kind, 1) for kind in KINDS)

"""Folds, k nearest neighbours, the linear probe, and the agreement of scores."""

from typing import Any

import numpy as np
import pytest

from headstart.tasks.head.folds import stratified_folds
from headstart.tasks.ranking.agreement import weighted_tau
from headstart.tasks.ranking.features import draw_images
from headstart.tasks.ranking.probes import (
    knn_accuracy,
    nearest_mean_accuracy,
    nearest_neighbours,
    probe_accuracy,
    probe_probabilities,
)


def clusters(num_rows: int = 60, num_classes: int = 3, spread: float = 0.1) -> tuple[Any, Any]:
    labels = np.arange(num_rows) % num_classes
    noise = np.random.default_rng(0).normal(0, spread, (num_rows, 8))
    return np.eye(8)[labels] + noise, labels


def test_folds_spread_each_class_and_are_equally_large() -> None:
    labels = np.array([0] * 10 + [1] * 7 + [2] * 4)
    folds = stratified_folds(labels, 3, seed=0)
    assert np.ptp(np.bincount(folds, minlength=3)) <= 1
    for label in range(3):
        assert np.ptp(np.bincount(folds[labels == label], minlength=3)) <= 1


def test_folds_depend_on_the_seed_alone() -> None:
    labels = np.arange(40) % 4
    assert (stratified_folds(labels, 4, 1) == stratified_folds(labels, 4, 1)).all()
    assert (stratified_folds(labels, 4, 1) != stratified_folds(labels, 4, 2)).any()


def test_clusters_are_told_apart() -> None:
    features, labels = clusters()
    assert knn_accuracy(features, labels, 5) == 1.0
    assert probe_accuracy(features, labels, 3, 0) == 1.0


def test_probabilities_come_from_the_other_folds() -> None:
    features, labels = clusters()
    wrong = labels.copy()
    wrong[5] = (labels[5] + 1) % 3
    probabilities = probe_probabilities(features, wrong, 4, 0)
    # Trained on itself, the probe could have learned the wrong label of image 5.
    assert probabilities[5].argmax() == labels[5]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_a_class_of_one_image_gets_no_probability_in_its_own_fold() -> None:
    features, labels = clusters()
    labels = labels.copy()
    labels[0] = 3
    probabilities = probe_probabilities(features, labels, 3, 0)
    assert probabilities.shape == (60, 4)
    assert probabilities[0, 3] == 0.0


def test_neighbours_are_those_of_the_largest_cosine() -> None:
    features = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 3.0], [1.0, 1.0]])
    positions, similarities = nearest_neighbours(features, 2)
    assert positions[0].tolist() == [1, 3]
    assert similarities[0, 1] == pytest.approx(np.sqrt(0.5))


def test_neighbours_are_fewer_where_there_are_fewer_images() -> None:
    positions, _ = nearest_neighbours(np.eye(3), 10)
    assert positions.shape == (3, 2)


def test_neighbours_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = clusters(50)
    whole, _ = nearest_neighbours(features, 4)
    monkeypatch.setattr("headstart.tasks.ranking.probes.CHUNK_ROWS", 7)
    assert (nearest_neighbours(features, 4)[0] == whole).all()


def test_a_tie_of_votes_goes_to_the_nearer() -> None:
    features = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.4]])
    labels = np.array([0, 0, 1])
    # Image 0 sees its own class first, then the other: one vote each.
    assert knn_accuracy(features, labels, 2) == pytest.approx(2 / 3)


def test_tau_is_1_for_the_same_order_and_minus_1_for_the_reverse() -> None:
    accuracies = [0.9, 0.8, 0.7, 0.5]
    assert weighted_tau([4.0, 3.0, 2.0, 1.0], accuracies) == pytest.approx(1.0)
    assert weighted_tau([1.0, 2.0, 3.0, 4.0], accuracies) == pytest.approx(-1.0)


def test_tau_counts_a_swap_at_the_top_for_more() -> None:
    accuracies = [0.9, 0.8, 0.7, 0.6, 0.5]
    top = weighted_tau([4.0, 5.0, 3.0, 2.0, 1.0], accuracies)
    bottom = weighted_tau([5.0, 4.0, 3.0, 1.0, 2.0], accuracies)
    assert top is not None
    assert bottom is not None
    assert top < bottom < 1.0


def test_tau_looks_at_candidates_that_have_the_score() -> None:
    assert weighted_tau([3.0, None, 2.0, 1.0], [0.9, 0.1, 0.8, 0.7]) == pytest.approx(1.0)
    assert weighted_tau([3.0, None, 2.0], [0.9, 0.1, 0.8]) is None
    assert weighted_tau([1.0, 1.0, 1.0], [0.9, 0.1, 0.8]) is None


def test_all_images_are_looked_at_unless_there_are_too_many() -> None:
    assert draw_images(5, 10, 0).tolist() == [0, 1, 2, 3, 4]
    drawn = draw_images(100, 10, 0)
    assert len(set(drawn.tolist())) == 10
    assert drawn.tolist() == sorted(draw_images(100, 10, 0).tolist())


def test_the_nearest_mean_leaves_each_image_out_of_its_own() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = generator.normal(size=(60, 8)) + 3 * np.eye(3, 8)[labels]
    assert nearest_mean_accuracy(features, labels) > 0.9
    # Of noise an image that is in its own mean would nearly always be nearest to it.
    noise = generator.normal(size=(60, 500))
    assert nearest_mean_accuracy(noise, labels) < 0.6
    assert nearest_mean_accuracy(features[:3], labels[:3]) == 0.0

"""The scores against closed forms, brute force and small worked examples."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from headstart.tasks.ranking.transferability import h_score, leep, logme, nce, regularised_h_score

Array = npt.NDArray[np.float64]


def features(num_rows: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(num_rows, width))


def log_evidence(matrix: Array, target: Array, alpha: float, beta: float) -> float:
    """The definition: the target is normal with covariance F F^T / alpha + I / beta."""
    covariance = matrix @ matrix.T / alpha + np.eye(len(target)) / beta
    return float(multivariate_normal(np.zeros(len(target)), covariance).logpdf(target))


@pytest.mark.parametrize(("num_rows", "width"), [(12, 3), (8, 20)])
def test_logme_is_the_evidence_at_its_maximum(num_rows: int, width: int) -> None:
    matrix = features(num_rows, width)
    labels = np.arange(num_rows) % 2
    if width < num_rows:
        matrix[:, 0] += labels * 2.0

    def largest(target: Array) -> float:
        found = [
            minimize(
                lambda log: -log_evidence(matrix, target, *np.exp(log)),
                start,
                method="Nelder-Mead",
                options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000},
            ).fun
            for start in ((0.0, 0.0), (2.0, 1.0))
        ]
        return -float(min(found))

    expected = np.mean([largest((labels == k).astype(float)) for k in (0, 1)]) / num_rows
    assert logme(matrix, labels) == pytest.approx(expected, abs=2e-3)


def test_logme_prefers_features_that_tell_the_classes_apart() -> None:
    labels = np.repeat([0, 1, 2], 20)
    noise = features(60, 5)
    telling = noise.copy()
    telling[:, :3] += 3 * np.eye(3)[labels]
    assert logme(telling, labels) > logme(noise, labels) + 0.1


def test_logme_does_not_depend_on_the_order_or_sign_of_the_features() -> None:
    labels = np.arange(30) % 3
    matrix = features(30, 6)
    turned = -matrix[:, ::-1]
    assert logme(turned, labels) == pytest.approx(logme(matrix, labels), rel=1e-9)


def test_h_score_of_one_feature_is_the_share_of_variance_between_classes() -> None:
    # Class means -1 and 1, so the variance between is 1; that within is 0.25.
    matrix = np.array([[-1.5], [-0.5], [0.5], [1.5]])
    labels = np.array([0, 0, 1, 1])
    assert h_score(matrix, labels) == pytest.approx(1 / 1.25)


def test_h_score_of_one_hot_features_is_the_number_of_classes_less_one() -> None:
    labels = np.repeat(np.arange(4), 5)
    matrix = np.eye(4)[labels]
    assert h_score(matrix, labels) == pytest.approx(3.0)


def test_h_score_does_not_depend_on_a_linear_map_of_the_features() -> None:
    labels = np.arange(40) % 4
    matrix = features(40, 5)
    mapped = matrix @ features(5, 5, seed=1) + 7.0
    assert h_score(mapped, labels) == pytest.approx(h_score(matrix, labels))


def test_regularised_h_score_is_its_formula() -> None:
    from sklearn.covariance import ledoit_wolf

    labels = np.arange(20) % 2
    matrix = features(20, 4)
    centred = matrix - matrix.mean(axis=0)
    means = np.stack([centred[labels == label].mean(axis=0) for label in labels])
    covariance, shrinkage = ledoit_wolf(centred)
    between = means.T @ means / 20
    expected = np.trace(np.linalg.inv(covariance) @ ((1 - shrinkage) * between))
    assert regularised_h_score(matrix, labels) == pytest.approx(expected)


def test_regularised_h_score_tells_noise_from_signal_where_images_are_few() -> None:
    labels = np.arange(20) % 2
    noise = features(20, 100)
    signal = noise + 3 * np.outer(labels, np.ones(100))
    assert h_score(noise, labels) == pytest.approx(1.0)  # says that noise is perfect
    assert regularised_h_score(noise, labels) < 0.5 < regularised_h_score(signal, labels)


def test_leep_of_a_worked_example() -> None:
    # Two images of class 0 and one of class 1; the source has two classes.
    theta = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    labels = np.array([0, 0, 1])
    # P(y, z): [[1.4, 0.6], [0.1, 0.9]] / 3, so P(0 | z) = 1.4 / 1.5 and 0.6 / 1.5.
    given = np.array([[1.4 / 1.5, 0.6 / 1.5], [0.1 / 1.5, 0.9 / 1.5]])
    expected = np.log(
        [
            0.8 * given[0, 0] + 0.2 * given[0, 1],
            0.6 * given[0, 0] + 0.4 * given[0, 1],
            0.1 * given[1, 0] + 0.9 * given[1, 1],
        ]
    ).mean()
    assert leep(theta, labels) == pytest.approx(expected)


def test_leep_and_nce_are_0_where_the_source_knows_the_classes() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    source = np.array([7, 3, 5, 7, 3, 5])
    assert leep(np.eye(8)[source], labels) == pytest.approx(0.0, abs=1e-12)
    assert nce(source, labels) == pytest.approx(0.0, abs=1e-12)


def test_nce_of_a_source_that_knows_nothing_is_minus_the_labels_entropy() -> None:
    labels = np.array([0, 0, 0, 1])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert nce(np.zeros(4, int), labels) == pytest.approx(-entropy)
    assert leep(np.full((4, 5), 0.2), labels) == pytest.approx(-entropy)


def test_nce_is_leep_of_hard_predictions() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, 50)
    source = generator.integers(0, 6, 50)
    assert leep(np.eye(6)[source], labels) == pytest.approx(nce(source, labels))

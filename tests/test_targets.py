"""What each kind of target makes of its values, and the figures of labels and numbers."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from headstart.config import EvaluationConfig, HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.evaluation.judges import JUDGES, judge_of
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.labels import choose_threshold
from headstart.tasks.targets.numbers import conformal_radius
from headstart.tasks.targets.target import NO_FIT, Fit

CONFIG = EvaluationConfig(num_bootstrap=200)
KINDS = sorted(TARGETS)


def some_labels(seed: int = 0, count: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, 4)) < [0.5, 0.2, 0.0, 1.0]).astype(np.uint8)
    logits = np.round(rng.normal(size=targets.shape) + 2.0 * targets - 1, 1)  # with ties
    return logits.astype(np.float32), targets


def test_figures_of_labels_are_scikit_learns() -> None:
    logits, targets = some_labels()
    fit = Fit(thresholds=(0.4, 0.3, 0.5, 0.6))
    names = ("half", "few", "never", "always")
    ours = JUDGES["labels"].evaluate(logits, targets, names, fit, CONFIG)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    said = probabilities >= fit.thresholds
    precisions = [
        sklearn_metrics.average_precision_score(targets[:, k], probabilities[:, k])
        for k in (0, 1, 3)
    ]
    assert [one.average_precision for one in ours.per_label] == pytest.approx(
        [*precisions[:2], None, precisions[2]]
    )
    assert ours.mean_average_precision == pytest.approx(np.mean(precisions))
    assert ours.f1_micro == pytest.approx(sklearn_metrics.f1_score(targets, said, average="micro"))
    assert ours.hamming_loss == pytest.approx(sklearn_metrics.hamming_loss(targets, said))
    assert ours.subset_accuracy == pytest.approx(sklearn_metrics.accuracy_score(targets, said))
    assert ours.loss == pytest.approx(
        np.mean([sklearn_metrics.log_loss(targets[:, k], probabilities[:, k], labels=[0, 1])
                 for k in range(4)])
    )  # fmt: skip
    for name in ("mean_average_precision", "f1_micro", "f1_macro", "hamming_loss"):
        low, high = getattr(ours, f"{name}_interval")
        assert low <= getattr(ours, name) <= high
    assert judge_of(ours.model_dump()) is JUDGES["labels"]


def test_figures_of_numbers_are_scikit_learns_in_the_users_unit() -> None:
    rng = np.random.default_rng(1)
    targets = rng.normal((1e9, 0.5), (3e8, 0.1), (90, 2))
    fit = TARGETS["number"].fit(targets).model_copy(update={"radius": (2e8, 1.0)})
    outputs = TARGETS["number"].outputs(targets + rng.normal(0, (1e8, 0.05), (90, 2)), fit)
    outputs = outputs.astype(np.float32)
    answers = TARGETS["number"].answers(outputs, fit)
    ours = JUDGES["number"].evaluate(outputs, targets, ("big", "small"), fit, CONFIG)
    for k, one in enumerate(ours.per_number):
        pair = targets[:, k], answers[:, k]
        assert one.mae == pytest.approx(sklearn_metrics.mean_absolute_error(*pair))
        assert one.rmse == pytest.approx(sklearn_metrics.root_mean_squared_error(*pair))
        assert one.r2 == pytest.approx(sklearn_metrics.r2_score(*pair))
        assert one.median_absolute_error == pytest.approx(
            sklearn_metrics.median_absolute_error(*pair)
        )
        assert one.mae_interval[0] <= one.mae <= one.mae_interval[1]
        assert one.constant_mae > one.mae
    assert ours.per_number[0].coverage == pytest.approx(
        (np.abs(answers - targets) <= 2e8)[:, 0].mean()
    )
    assert ours.r2 == pytest.approx(sklearn_metrics.r2_score(targets, answers))


@pytest.mark.parametrize("kind", ["labels", "number"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_figure_is_nan(kind: str, count: int) -> None:
    if kind == "labels":
        logits, targets = some_labels(count=count)
        fit = NO_FIT
    else:
        targets, fit = np.full((count, 2), 7.0), Fit(offset=(7.0, 1.0), scale=(1.0, 2.0))
        logits = np.zeros((count, 2), np.float32)
    names = [str(k) for k in range(targets.shape[1])]
    with np.errstate(all="raise"):
        figures = JUDGES[kind].evaluate(logits, targets, names, fit, CONFIG)  # type: ignore[index]
        JUDGES[kind].worst(logits, targets, fit, CONFIG)  # type: ignore[index]
    text = figures.model_dump_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert isinstance(JUDGES[kind].line(figures.model_dump()), str)  # type: ignore[index]


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_layer_answers_as_the_pipeline_does(kind: str) -> None:
    target = TARGETS[kind]  # type: ignore[index]
    fit = Fit(offset=(5e4, 0.0, 1.0), scale=(2e4, 1e-3, 7.0)) if kind == "number" else NO_FIT
    outputs = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    layer = target.answer_layer(fit, "probabilities")
    layer = type(layer).from_config(layer.get_config())
    given = np.asarray(layer(outputs))
    np.testing.assert_allclose(given, target.answers(outputs, fit), rtol=1e-5)
    assert target.agree(given, target.answers(outputs, fit), fit).all()
    back = target.answers(target.outputs(given, fit), fit)
    np.testing.assert_allclose(back, given, rtol=1e-5)


def test_a_threshold_is_that_of_the_best_f1_or_of_the_precision() -> None:
    probabilities = np.array([0.9, 0.8, 0.7, 0.6, 0.2])
    truth = np.array([1, 0, 1, 1, 0])
    assert choose_threshold(probabilities, truth, None) == pytest.approx(0.4)
    assert choose_threshold(probabilities, truth, 0.9) == pytest.approx(0.85)
    assert choose_threshold(probabilities, np.zeros(5), None) == 0.5
    assert 0 < choose_threshold(probabilities, np.ones(5), None) < 0.2


def test_conformal_intervals_hold_their_share_of_new_images() -> None:
    rng = np.random.default_rng(3)
    held = [
        (
            np.abs(rng.laplace(size=200)) <= conformal_radius(np.abs(rng.laplace(size=(60, 1))))
        ).mean()
        for _ in range(200)
    ]
    assert 0.94 < np.mean(held) < 0.97
    assert conformal_radius(np.ones((18, 1))) == ()


def test_numbers_that_cannot_be_learned_are_refused() -> None:
    check = TARGETS["number"].check
    with pytest.raises(TrainingError, match="the same in all"):
        check(np.full((9, 1), 4.0), None, 1)
    with pytest.raises(TrainingError, match="float32"):
        check(1e9 + np.arange(9.0)[:, None], None, 1)
    check(1e9 * np.arange(9.0)[:, None], None, 1)


def test_balanced_labels_weigh_both_sides_alike() -> None:
    _, targets = some_labels()
    weights = np.asarray(TARGETS["labels"].balance(targets, 4)(targets))
    assert weights.mean(axis=0) == pytest.approx(np.ones(4), rel=1e-5)
    assert (weights * targets).sum(axis=0)[:2] == pytest.approx([40, 40])
    loss = TARGETS["labels"].loss(HeadConfig(class_weights="balanced"))
    logits, _ = some_labels()
    plain = TARGETS["labels"].loss(HeadConfig())
    wanted = targets.astype(np.float32)
    assert float(loss(wanted, logits)) == pytest.approx(float(plain(wanted, logits)), rel=1e-5)
    assert float(loss(wanted, logits, weights)) != pytest.approx(float(loss(wanted, logits)))

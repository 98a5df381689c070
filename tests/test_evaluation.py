"""Every figure against a hand-worked example, and against scikit-learn on random logits."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from headstart.config import EvaluationConfig
from headstart.errors import DatasetError, TrainingError
from headstart.tasks.evaluation import metrics as evaluation
from headstart.tasks.evaluation.metrics import SplitMetrics, evaluate, top_losses
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.evaluation.stage import stage as evaluation_stage

CONFIG = EvaluationConfig()
NAMES = ("cat", "dog", "owl")

# Six images by hand. Rows of logits are logs of probabilities, so that the softmax is known:
# predictions are cat, cat, dog, owl, dog, cat.
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.5, 0.3, 0.2],
        [0.3, 0.6, 0.1],
        [0.1, 0.2, 0.7],
        [0.2, 0.7, 0.1],
        [0.5, 0.1, 0.4],
    ]
)
LOGITS = np.log(PROBABILITIES).astype(np.float32)
LABELS = np.array([0, 0, 0, 2, 1, 1], np.int32)


def random_split(num_images: int, num_classes: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, num_classes, num_images).astype(np.int32)
    logits = rng.normal(0, 2, (num_images, num_classes)).astype(np.float32)
    logits[np.arange(num_images), labels] += 2
    return logits, labels, [f"class {index}" for index in range(num_classes)]


def test_the_hand_worked_split() -> None:
    result = evaluate(LOGITS, LABELS, NAMES, CONFIG.model_copy(update={"top_k": 2}))
    assert result.num_images == 6
    assert result.accuracy == pytest.approx(4 / 6)
    # The labels rank 1st, 1st, 2nd, 1st, 1st, 3rd.
    assert (result.top_k.k, result.top_k.accuracy) == (2, pytest.approx(5 / 6))
    of_label = [0.8, 0.5, 0.3, 0.7, 0.7, 0.1]
    assert result.loss == pytest.approx(-sum(map(math.log, of_label)) / 6, rel=1e-6)
    assert result.confusion == ((2, 1, 0), (1, 1, 0), (0, 0, 1))
    cat, dog, owl = result.per_class
    assert (cat.name, cat.support) == ("cat", 3)
    assert (cat.precision, cat.recall, cat.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (dog.precision, dog.recall, dog.f1) == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    assert (owl.precision, owl.recall, owl.f1) == (1.0, 1.0, 1.0)
    assert result.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    # One image each way: it is half of the dogs but only a third of the cats.
    assert [(pair.true, pair.predicted, pair.count) for pair in result.most_confused] == [
        ("dog", "cat", 1),
        ("cat", "dog", 1),
    ]
    assert [pair.share for pair in result.most_confused] == pytest.approx([1 / 2, 1 / 3])


def test_the_hand_worked_calibration() -> None:
    # Confidences 0.8 0.5 0.6 0.7 0.7 0.5 in (0, ¼] (¼, ½] (½, ¾] (¾, 1]; float32 logs may put a
    # ½ on either side of its edge, so the two rows with ½ are nudged below it first.
    nudged = LOGITS.copy()
    nudged[[1, 5], 0] -= 1e-3
    result = evaluate(nudged, LABELS, NAMES, EvaluationConfig(num_calibration_bins=4))
    assert [one.count for one in result.calibration] == [0, 2, 3, 1]
    assert [(one.low, one.high) for one in result.calibration] == [
        (0, 0.25),
        (0.25, 0.5),
        (0.5, 0.75),
        (0.75, 1),
    ]
    assert [one.accuracy for one in result.calibration] == [
        None,
        pytest.approx(1 / 2),
        pytest.approx(2 / 3),
        pytest.approx(1),
    ]
    assert result.calibration[0].confidence is None
    assert result.calibration[2].confidence == pytest.approx(2 / 3, rel=1e-6)
    assert result.ece == pytest.approx((2 * 0.0 + 3 * 0.0 + 1 * 0.2) / 6, abs=1e-3)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_it() -> None:
    logits = np.array([[0.0, 0.0]], np.float32)  # confidence is exactly ½
    result = evaluate(
        logits,
        np.array([0], np.int32),
        ("a", "b"),
        CONFIG.model_copy(update={"num_calibration_bins": 2}),
    )
    assert [one.count for one in result.calibration] == [1, 0]
    assert result.ece == 0.5


def test_a_confidence_of_one_falls_in_the_last_bin() -> None:
    logits = np.array([[200.0, 0.0]], np.float32)
    result = evaluate(logits, np.array([0], np.int32), ("a", "b"), CONFIG)
    assert result.calibration[-1].count == 1
    assert result.ece == 0.0


@pytest.mark.parametrize(("num_images", "num_classes"), [(400, 5), (300, 40), (9000, 3)])
def test_agrees_with_scikit_learn(num_images: int, num_classes: int) -> None:
    logits, labels, names = random_split(num_images, num_classes)
    result = evaluate(logits, labels, names, CONFIG.model_copy(update={"top_k": 2}))
    predicted = logits.argmax(axis=1)
    all_classes = np.arange(num_classes)
    exact = logits.astype(np.float64)
    softmax = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    assert result.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert result.top_k.accuracy == pytest.approx(
        reference.top_k_accuracy_score(labels, logits, k=2, labels=all_classes)
    )
    assert result.loss == pytest.approx(reference.log_loss(labels, softmax, labels=all_classes))
    assert np.array_equal(
        result.confusion, reference.confusion_matrix(labels, predicted, labels=all_classes)
    )
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predicted, labels=all_classes, zero_division=np.nan
    )
    for index, one in enumerate(result.per_class):
        assert one.support == support[index]
        for ours, theirs in ((one.precision, precision), (one.recall, recall), (one.f1, f1)):
            if ours is None:
                assert np.isnan(theirs[index])
            else:
                assert ours == pytest.approx(theirs[index])
    assert result.macro_f1 == pytest.approx(
        reference.f1_score(labels, predicted, average="macro", zero_division=0)
    )


def test_macro_f1_counts_a_predicted_class_without_images_as_scikit_learn_does() -> None:
    logits = np.eye(4, dtype=np.float32)[[0, 1, 2]]
    labels = np.array([0, 1, 1], np.int32)
    result = evaluate(logits, labels, "abcd", CONFIG)
    assert result.macro_f1 == pytest.approx(
        reference.f1_score(labels, [0, 1, 2], average="macro", zero_division=0)
    )


def test_what_is_undefined_is_none_and_not_zero() -> None:
    logits = np.eye(4, dtype=np.float32)[[0, 0, 2]]  # b is never predicted, d has no part at all
    result = evaluate(logits, np.array([0, 1, 0], np.int32), "abcd", CONFIG)
    _, never_predicted, no_images, absent = result.per_class
    assert (never_predicted.precision, never_predicted.recall, never_predicted.f1) == (None, 0, 0)
    assert (no_images.precision, no_images.recall, no_images.f1) == (0, None, 0)
    assert (absent.precision, absent.recall, absent.f1) == (None, None, None)
    assert json.loads(result.model_dump_json())["per_class"][3]["f1"] is None


def test_a_split_without_images_has_no_figures() -> None:
    result = evaluate(np.empty((0, 3), np.float32), np.empty(0, np.int32), NAMES, CONFIG)
    assert result.num_images == 0
    assert result.accuracy is None
    assert result.accuracy_interval is None
    assert result.top_k.accuracy is None
    assert result.loss is None
    assert result.macro_f1 is None
    assert result.ece is None
    assert result.confusion == ((0, 0, 0),) * 3
    assert result.most_confused == ()
    assert top_losses(np.empty((0, 3), np.float32), np.empty(0, np.int32), CONFIG) == []


def test_the_line_of_a_run_without_held_out_images_says_so() -> None:
    nothing = EvaluationManifest.model_construct(metrics={}, top_losses=())
    assert "no images are held out" in evaluation_stage.describe(nothing)


def test_a_data_set_of_one_class() -> None:
    result = evaluate(np.ones((4, 1), np.float32), np.zeros(4, np.int32), ("only",), CONFIG)
    assert (result.accuracy, result.loss, result.ece, result.macro_f1) == (1, 0, 0, 1)
    assert result.top_k.k == 1
    assert math.copysign(1, result.loss) == 1


def test_a_perfect_split_has_no_confused_pairs() -> None:
    result = evaluate(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32), NAMES, CONFIG)
    assert result.most_confused == ()
    assert result.accuracy_interval is not None
    assert (result.accuracy_interval[0] < 1.0, result.accuracy_interval[1]) == (True, 1.0)


def test_confused_pairs_are_capped_and_the_most_frequent_come_first() -> None:
    logits, labels, names = random_split(500, 12)
    pairs = evaluate(logits, labels, names, CONFIG).most_confused
    counts = [pair.count for pair in pairs]
    assert len(pairs) == evaluation.NUM_CONFUSED_PAIRS
    assert counts == sorted(counts, reverse=True)


def test_top_k_is_capped_by_the_number_of_classes() -> None:
    result = evaluate(LOGITS, LABELS, NAMES, EvaluationConfig(top_k=5))
    assert (result.top_k.k, result.top_k.accuracy) == (3, 1.0)


def test_ties_go_to_the_class_with_the_lower_index() -> None:
    logits = np.zeros((3, 3), np.float32)
    labels = np.arange(3, dtype=np.int32)
    for k in (1, 2, 3):
        result = evaluate(logits, labels, NAMES, EvaluationConfig(top_k=k))
        assert result.top_k.accuracy == pytest.approx(k / 3)
        assert result.accuracy == pytest.approx(1 / 3)
        assert [row[0] for row in result.confusion] == [1, 1, 1]


def test_extreme_logits_neither_overflow_nor_warn() -> None:
    logits = np.array([[3e38, -3e38], [-3e38, 3e38]], np.float32)
    result = evaluate(logits, np.array([0, 0], np.int32), ("a", "b"), CONFIG)
    assert result.loss == pytest.approx(6e38 / 2, rel=1e-6)
    (worst, best) = top_losses(logits, np.array([0, 0], np.int32), CONFIG)
    assert (worst.position, worst.probability_of_label, worst.predicted_probability) == (1, 0, 1)
    assert (best.loss, best.probability_of_label) == (0, 1)


def test_the_interval_matches_a_bootstrap_that_resamples_the_images() -> None:
    correct = np.arange(200) < 150
    logits = np.where(correct[:, np.newaxis], [[1.0, 0.0]], [[0.0, 1.0]]).astype(np.float32)
    config = EvaluationConfig(num_bootstrap=20_000)
    result = evaluate(logits, np.zeros(200, np.int32), ("a", "b"), config)
    resampled = np.random.default_rng(1).choice(correct, (20_000, 200)).mean(axis=1)
    assert result.accuracy_interval is not None
    # Both are Monte Carlo estimates on a grid of 1/200.
    assert result.accuracy_interval == pytest.approx(
        np.quantile(resampled, (0.025, 0.975)), abs=0.01
    )


@pytest.mark.parametrize("num_images", [1, 10, 1000])
def test_all_right_or_all_wrong_leave_doubt_as_few_images_do(num_images: int) -> None:
    labels = np.zeros(num_images, np.int32)
    right = np.tile(np.array([[1.0, 0.0]], np.float32), (num_images, 1))
    z_squared = 1.959964**2  # of 95 %; n / (n + z^2) is Wilson's lower bound of n right of n
    for logits, expected in (
        (right, (num_images / (num_images + z_squared), 1.0)),
        (-right, (0.0, z_squared / (num_images + z_squared))),
    ):
        assert evaluate(logits, labels, ("a", "b"), CONFIG).accuracy_interval == pytest.approx(
            expected, abs=1e-6
        )


def test_the_interval_is_seeded_and_widens_with_confidence() -> None:
    def interval(**changes: float) -> tuple[float, float]:
        result = evaluate(LOGITS, LABELS, NAMES, CONFIG.model_copy(update=changes))
        assert result.accuracy_interval is not None
        return result.accuracy_interval

    assert interval() == interval()
    wide, narrow = interval(confidence=0.99), interval(confidence=0.5)
    assert wide[0] <= narrow[0] <= 4 / 6 <= narrow[1] <= wide[1]
    assert wide != narrow


def test_figures_survive_json() -> None:
    result = evaluate(LOGITS, LABELS, NAMES, CONFIG)
    assert SplitMetrics.model_validate_json(result.model_dump_json()) == result


def test_chunks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels, names = random_split(50, 4)
    whole = evaluate(logits, labels, names, CONFIG)
    monkeypatch.setattr(evaluation, "CHUNK_ROWS", 7)
    assert evaluate(logits, labels, names, CONFIG) == whole


def test_top_losses_are_worst_first_and_ties_keep_the_order_of_rows() -> None:
    logits = np.concatenate([LOGITS, LOGITS])
    labels = np.concatenate([LABELS, LABELS])
    found = top_losses(logits, labels, EvaluationConfig(num_top_losses=4))
    assert [one.position for one in found] == [5, 11, 2, 8]
    first = found[0]
    assert (first.label, first.predicted) == (1, 0)
    assert first.probability_of_label == pytest.approx(0.1)
    assert first.predicted_probability == pytest.approx(0.5)
    assert first.loss == pytest.approx(-math.log(0.1))


def test_no_top_losses_where_none_are_wanted() -> None:
    assert top_losses(LOGITS, LABELS, EvaluationConfig(num_top_losses=0)) == []


def test_a_nan_logit_is_refused() -> None:
    logits = LOGITS.copy()
    logits[2, 1] = np.nan
    with pytest.raises(TrainingError, match="1 of 6 rows"):
        evaluate(logits, LABELS, NAMES, CONFIG)


def test_a_label_that_is_no_class_is_refused() -> None:
    labels = np.array([0, 0, 0, 3, 1, 1], np.int32)
    with pytest.raises(DatasetError, match="label 3 in row 3"):
        evaluate(LOGITS, labels, NAMES, CONFIG)
    with pytest.raises(DatasetError, match="label -1 in row 0"):
        top_losses(LOGITS, np.full(6, -1, np.int32), CONFIG)


@pytest.mark.parametrize(
    ("logits", "labels", "names"),
    [(LOGITS, LABELS[:5], NAMES), (LOGITS[0], LABELS, NAMES), (LOGITS, LABELS, NAMES[:2])],
)
def test_shapes_that_do_not_fit_are_refused(
    logits: np.ndarray, labels: np.ndarray, names: tuple[str, ...]
) -> None:
    with pytest.raises(TrainingError, match=r"logits"):
        evaluate(logits, labels, names, CONFIG)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 10), st.integers(0, 2**16))
def test_figures_hold_together(num_images: int, num_classes: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, (num_images, num_classes)).astype(np.float32)  # many ties
    labels = rng.integers(0, num_classes, num_images).astype(np.int32)
    names = [str(index) for index in range(num_classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate(logits, labels, names, EvaluationConfig(top_k=k))
    confusion = np.array(result.confusion)
    stable = np.argsort(-logits, axis=1, kind="stable")[:, : result.top_k.k]
    assert result.top_k.accuracy == pytest.approx((stable == labels[:, np.newaxis]).any(1).mean())
    assert confusion.sum() == sum(one.count for one in result.calibration) == num_images
    assert result.accuracy == pytest.approx(confusion.trace() / num_images)
    assert result.top_k.accuracy >= result.accuracy
    assert 0 <= result.ece <= 1
    assert result.loss >= 0

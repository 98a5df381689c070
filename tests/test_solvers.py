"""Heads for labels and numbers without epochs: solvers beside scikit-learn's, neighbours, means."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.few_shot import fit_head
from headstart.tasks.head.lbfgs import solve_head
from headstart.tasks.head.settings import settings_in_effect
from headstart.tasks.head.training import predict_logits
from tests.test_head import make_rows

LBFGS, RIDGE = HeadConfig(solver="lbfgs"), HeadConfig(solver="ridge")
NUM_TRAIN, NUM_VALUES = 150, 40


def rows_of(folder: Path, values: npt.NDArray[Any], targets: npt.NDArray[Any], kind: Any) -> Any:
    plain = make_rows(folder, values.astype(np.float32)[:, None], np.zeros(len(values), np.int64))
    return replace(plain, labels=targets, kind=kind)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[LabelledRows]]:
    """Rows to train on and to test by, of labels (one always on, one never) and of numbers."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(450, NUM_VALUES)) * rng.lognormal(sigma=0.3, size=NUM_VALUES)
    told = values @ (rng.normal(size=(NUM_VALUES, 4)) / values.std(axis=0)[:, None])
    values[:, 7] = 3.3  # says nothing
    noisy = told + 4 * rng.normal(size=told.shape)
    labels = (noisy > [0, 3, -1e9, 1e9]).astype(np.uint8)
    numbers = noisy[:, :2] * [3e8, 1e-3] + [1e9, 0]
    folder = tmp_path_factory.mktemp("rows")
    return {
        kind: [
            rows_of(folder / f"{kind}{part.start}", values[part], targets[part], kind)
            for part in (slice(0, NUM_TRAIN), slice(NUM_TRAIN, None))
        ]
        for kind, targets in (("labels", labels), ("number", numbers))
    }


def test_labels_are_told_as_well_as_by_scikit_learn(data: Any, tmp_path: Path) -> None:
    train, test = data["labels"]
    solved = solve_head(train, test, LBFGS, 4, tmp_path / "log")
    every = [rows.gather(np.arange(len(rows)), 0) for rows in (train, test)]
    each = LogisticRegressionCV(
        Cs=np.logspace(-5, 1, 7), cv=4, scoring="neg_log_loss", l1_ratios=(0,),
        use_legacy_attributes=False,
    )  # fmt: skip
    peer = make_pipeline(StandardScaler(), OneVsRestClassifier(each))
    theirs = peer.fit(every[0], train.labels[:, :2]).predict_proba(every[1])
    outputs = predict_logits(solved.model, test)
    ours = average_precision_score(test.labels[:, :2], outputs[:, :2])
    assert ours > average_precision_score(test.labels[:, :2], theirs) - 0.005
    assert (outputs[:, 2] > 4).all()  # always on
    assert (outputs[:, 3] < -4).all()  # never
    (figures,) = solved.history
    assert figures.metric == "f1_micro"
    assert figures.val_loss is not None
    assert len(solved.fit.thresholds) == 4
    assert np.isfinite(outputs).all()


def test_numbers_are_told_as_well_as_by_scikit_learn(data: Any, tmp_path: Path) -> None:
    train, test = data["number"]
    solved = solve_head(train, test, RIDGE, 2, tmp_path / "log")
    every = [rows.gather(np.arange(len(rows)), 0) for rows in (train, test)]
    said = train.target.answers(predict_logits(solved.model, test), solved.fit)
    for number in range(2):
        peer = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 25)))
        theirs = peer.fit(every[0], train.labels[:, number]).predict(every[1])
        errors = [np.abs(one - test.labels[:, number]).mean() for one in (said[:, number], theirs)]
        assert errors[0] < 1.01 * errors[1]
    (figures,) = solved.history
    assert figures.val_metric == pytest.approx(np.abs(said - test.labels).mean(), rel=1e-3)
    assert len(solved.fit.radius) == 2


def test_views_of_an_image_are_left_out_together(data: Any, tmp_path: Path) -> None:
    train, _ = data["number"]
    values = train.gather(np.arange(NUM_TRAIN), 0)
    repeated = make_rows(tmp_path, np.stack([values] * 4, axis=1), np.zeros(NUM_TRAIN, np.int64))
    repeated = replace(repeated, labels=train.labels, kind="number")
    one, other = (solve_head(rows, None, RIDGE, 2, tmp_path / "log") for rows in (train, repeated))
    assert one.penalty is not None
    assert other.penalty is not None
    assert other.penalty / 3 == pytest.approx(one.penalty, rel=0.8)  # three views, thrice the sum
    weights = [each.model.get_layer("logits").get_weights()[0] for each in (one, other)]
    assert np.corrcoef(weights[0].ravel(), weights[1].ravel())[0, 1] > 0.98


@pytest.mark.parametrize("num_views", [1, 4])
def test_a_label_of_one_image_leaves_nothing_to_cross_validate(
    tmp_path: Path, num_views: int
) -> None:
    values = np.stack([np.eye(5, dtype=np.float32)] * num_views, axis=1)
    labels = np.eye(5, 2, dtype=np.uint8)
    plain = make_rows(tmp_path, values, np.zeros(5, np.int64))
    rows = replace(plain, labels=labels, kind="labels")
    solved = solve_head(rows, None, LBFGS, 2, tmp_path / "log")
    assert solved.penalty == 1.0
    outputs = predict_logits(solved.model, rows)
    assert (outputs.argmax(axis=0) == [0, 1]).all()


@pytest.mark.parametrize(("name", "kind"), [("knn", "labels"), ("knn", "number"),
                                            ("nearest_mean", "labels")])  # fmt: skip
def test_heads_that_are_not_trained_know_labels_and_numbers(
    data: Any, tmp_path: Path, name: Any, kind: str
) -> None:
    train, test = data[kind]
    made = fit_head(train, test, HeadConfig(kind=name, num_neighbors=15), train.labels.shape[1],
                    tmp_path / "log")  # fmt: skip
    outputs = predict_logits(made.model, test)
    assert np.isfinite(outputs).all()
    if kind == "labels":
        chance = test.labels[:, :2].mean(axis=0).mean()
        assert average_precision_score(test.labels[:, :2], outputs[:, :2]) > chance + 0.05
        assert len(made.fit.thresholds) == 4
    else:
        off = np.abs(train.target.answers(outputs, made.fit) - test.labels).mean(axis=0)
        constant = np.abs(train.labels.mean(axis=0) - test.labels).mean(axis=0)
        assert (off < constant).all()


def test_numbers_have_no_means_to_be_near_to(data: Any, tmp_path: Path) -> None:
    train, _ = data["number"]
    with pytest.raises(TrainingError, match="numbers have no class means") as caught:
        fit_head(train, None, HeadConfig(kind="nearest_mean"), 2, tmp_path / "log")
    assert "head.kind=knn" in (caught.value.next_step or "")


def test_keys_have_what_is_read() -> None:
    assert settings_in_effect(RIDGE) == {"kind": "linear", "solver": "ridge", "seed": 0}
    strict = LBFGS.model_copy(update={"min_precision": 0.9})
    assert settings_in_effect(strict)["min_precision"] == 0.9
    assert settings_in_effect(strict, "min_precision") == settings_in_effect(LBFGS)
    assert settings_in_effect(HeadConfig(kind="nearest_mean")) == {"kind": "nearest_mean"}

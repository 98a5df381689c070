"""Images of one group do not vouch for one another, wherever images are held out of a training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.config import ChecksConfig, DatasetConfig, EvaluationConfig, HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.auditing.findings import Images
from headstart.tasks.auditing.labels import judge_labels
from headstart.tasks.auditing.targets import judge_targets
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.dataset.units import units_among
from headstart.tasks.evaluation.label_metrics import evaluate_labels
from headstart.tasks.evaluation.metrics import evaluate
from headstart.tasks.evaluation.number_metrics import evaluate_numbers
from headstart.tasks.head.folds import number_folds, stratified_folds
from headstart.tasks.head.lbfgs import solve_head
from headstart.tasks.head.solvers import RIDGE_PENALTIES, label_folds, solve_numbers
from headstart.tasks.ranking.probes import (
    knn_accuracy,
    mean_of_neighbours,
    nearest_mean_accuracy,
    nearest_neighbours,
    predict_numbers,
    probe_accuracy,
    probe_labels,
    probe_numbers,
    probe_probabilities,
)
from headstart.tasks.store.artifacts import Store
from headstart.tasks.sweeping.pooled import hold_out
from headstart.tasks.targets.target import Fit
from tests.test_head import make_rows

NUM_GROUPS, IN_GROUP = 24, 5
UNITS = np.repeat(np.arange(NUM_GROUPS), IN_GROUP)


def patients() -> tuple[Any, Any]:
    """Pictures that tell which patient they are of, and nothing of the class: float [n, 32]."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(NUM_GROUPS, 32))[UNITS]
    return own + 0.05 * rng.normal(size=own.shape), rng.permutation(np.arange(NUM_GROUPS) % 2)[
        UNITS
    ]


def test_a_group_is_in_one_fold_and_classes_are_spread() -> None:
    labels = (np.arange(NUM_GROUPS) % 3)[UNITS]
    folds = stratified_folds(labels, 4, 0, UNITS)
    assert all(len(set(folds[unit == UNITS])) == 1 for unit in range(NUM_GROUPS))
    for label in range(3):
        assert set(np.bincount(folds[labels == label], minlength=4)) == {2 * IN_GROUP}


def test_images_that_stand_alone_fall_as_they_do_without_groups() -> None:
    labels = np.random.default_rng(1).integers(0, 3, 50)
    alone = np.arange(50)
    assert (stratified_folds(labels, 4, 3, alone) == stratified_folds(labels, 4, 3)).all()


def test_groups_of_labels_are_in_one_fold_with_the_labels_of_all_their_images() -> None:
    targets = np.zeros((len(UNITS), 3), np.int64)
    targets[UNITS % 3 == 0, 0] = 1
    targets[::IN_GROUP, 1] = 1  # of each group's first image alone
    folds = label_folds(targets, UNITS, 4, 0)
    assert all(len(set(folds[unit == UNITS])) == 1 for unit in range(NUM_GROUPS))
    assert set(np.bincount(folds, weights=targets[:, 0])) == {2.0 * IN_GROUP}


def test_what_tells_patients_apart_alone_is_worth_nothing() -> None:
    features, labels = patients()
    for accuracy in (
        lambda units: knn_accuracy(features, labels, 3, units),
        lambda units: probe_accuracy(features, labels, 4, 0, units),
        lambda units: nearest_mean_accuracy(features, labels, units),
    ):
        assert accuracy(UNITS) < accuracy(None) - 0.15
    assert knn_accuracy(features, labels, 3, UNITS) < 0.7
    of_labels = np.stack([labels, 1 - labels], axis=1)
    assert probe_labels(features, of_labels, 4, 0) > 0.95
    assert probe_labels(features, of_labels, 4, 0, UNITS) < 0.75
    numbers = labels[:, None].astype(np.float64)
    assert probe_numbers(features, numbers, 4, 0) > 0.7
    assert probe_numbers(features, numbers, 4, 0, UNITS) < 0.2


def test_a_class_of_one_group_has_no_neighbour() -> None:
    features, _ = patients()
    one_group = (UNITS == 0).astype(np.int64)
    assert knn_accuracy(features, one_group, 3) == 1.0
    assert knn_accuracy(features, one_group, 3, UNITS) <= 1 - IN_GROUP / len(UNITS)
    neighbours, similarities = nearest_neighbours(features[:IN_GROUP], 3, UNITS[:IN_GROUP])
    assert np.isneginf(similarities).all()
    targets = np.arange(IN_GROUP, dtype=np.float64)[:, None]
    assert (mean_of_neighbours(targets, neighbours, similarities) == targets.mean()).all()


def test_the_penalty_of_a_solved_head_is_that_for_new_groups(tmp_path: Path) -> None:
    features, labels = patients()
    rows = make_rows(tmp_path / "store", features[:, None].astype(np.float32), labels)
    config = HeadConfig(solver="lbfgs")
    alone = solve_head(rows, None, config, 2, tmp_path / "alone")
    grouped = solve_head(replace(rows, units=UNITS), None, config, 2, tmp_path / "grouped")
    assert alone.penalty is not None
    assert grouped.penalty is not None
    assert grouped.penalty >= 10 * alone.penalty


def test_the_penalty_of_a_ridge_is_that_for_new_groups() -> None:
    features, labels = patients()
    standard = (labels - labels.mean())[:, None] / labels.std()
    config = HeadConfig(solver="ridge")
    alone = solve_numbers(features, standard, np.arange(len(labels)), config)[2]
    assert solve_numbers(features, standard, UNITS, config)[2] > 100 * alone


def test_fewer_groups_than_folds_are_a_fold_each_and_one_group_is_none() -> None:
    few = np.array([0, 0, 1, 1, 2, 2])
    assert len(number_folds(few, 4, 0)) == 3
    assert number_folds(few * 0, 4, 0) == []
    features = np.random.default_rng(0).normal(size=(6, 4))
    kernel, _, penalty = solve_numbers(features, features[:, :1], few * 0, HeadConfig())
    assert penalty in RIDGE_PENALTIES
    assert np.isfinite(kernel).all()
    assert predict_numbers(features, features[:, :1], 4, 0, few * 0) is None


def test_a_class_of_one_group_leaves_the_penalty_at_its_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, _ = patients()
    labels = (UNITS == 0).astype(np.int64)
    rows = make_rows(tmp_path / "store", features[:, None].astype(np.float32), labels)
    solved = solve_head(
        replace(rows, units=UNITS), None, HeadConfig(solver="lbfgs"), 2, tmp_path / "log"
    )
    assert solved.penalty == 1.0
    assert "one group of images" in "".join(capsys.readouterr())


@pytest.mark.parametrize("kind", ["class", "number"])
def test_a_sweep_holds_out_whole_groups(kind: Any, tmp_path: Path) -> None:
    features, _ = patients()
    labels = np.where(UNITS == 0, 1, np.where(UNITS < 3, 2, 0))
    rows = make_rows(tmp_path, features[:, None].astype(np.float32), labels)
    if kind == "number":
        rows = replace(rows, labels=labels[:, None].astype(np.float32))
    fit, held_out = hold_out(replace(rows, units=UNITS, kind=kind), 0)
    assert not set(fit.unit_numbers) & set(held_out.unit_numbers)
    assert len(fit) + len(held_out) == len(rows)
    if kind == "class":
        assert set(fit.labels) == {0, 1, 2}


def test_a_sweep_that_cannot_hold_out_a_group_says_so(tmp_path: Path) -> None:
    features, _ = patients()
    rows = make_rows(tmp_path, features[:10, None].astype(np.float32), UNITS[:10])
    with pytest.raises(TrainingError, match="or one group of images"):
        hold_out(replace(rows, units=UNITS[:10]), 0)


def index_of_patients(wrong: int, kind: Any = "class") -> DatasetIndex:
    """An index in which all images of one patient are labelled as the others are not."""
    rows = []
    for image, unit in enumerate(UNITS):
        value = float((unit % 2) ^ (unit == wrong))
        rows.append(
            ImageRow(
                f"{image:03}.png", f"{image:064x}", int(value), "train", 8, 8, "PNG",
                values=() if kind == "class" else (value,), group=f"patient {unit}",
            )
        )  # fmt: skip
    return DatasetIndex(("no", "yes") if kind == "class" else ("dose",), tuple(rows), kind=kind)


@pytest.mark.parametrize("kind", ["class", "number"])
def test_an_audit_finds_a_group_that_is_labelled_wrong_as_a_whole(kind: Any) -> None:
    rng = np.random.default_rng(0)
    features = np.eye(2)[UNITS % 2] @ rng.normal(size=(2, 16)) * 2
    features = features + rng.normal(size=(NUM_GROUPS, 16))[UNITS] * 0.2
    images = Images(index_of_patients(wrong=4, kind=kind))
    assert images.units is not None
    if kind == "class":
        told = probe_probabilities(features, images.labels, 4, 0, images.units)
        is_error = judge_labels(told, images.labels).is_error
    else:
        is_error = judge_targets(images, features, ChecksConfig()).is_error
    assert is_error[UNITS == 4].all()
    assert not is_error[UNITS != 4].any()


def test_a_data_set_whose_groups_were_mended_is_another(store: Store, tmp_path: Path) -> None:
    for number in range(8):
        Image.new("RGB", (8, 8), (number * 30, 0, 0)).save(tmp_path / f"{number}.png")
    keys = []
    for patients in ("AABBCCDE", "AABBCCDE", "AABCBCDE", "ABCDEFGH", ""):
        lines = ["path,label,split" + (",patient" if patients else "")]
        for number, split in enumerate(["train"] * 6 + ["val", "test"]):
            own = f",{patients[number]}" if patients else ""
            lines.append(f"{number}.png,{number % 2},{split}{own}")
        (tmp_path / "m.csv").write_text("\n".join(lines))
        config = DatasetConfig(
            images=tmp_path / "m.csv", group_column="patient" if patients else None
        )
        keys.append(dataset_stage(config).key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_groups_are_part_of_a_key_only_where_there_are_any() -> None:
    index = index_of_patients(wrong=-1)
    alone = replace(index, rows=tuple(row._replace(group="") for row in index.rows))
    assert alone.unit_fields("train") == {}
    assert units_among(alone.rows) is None
    others = replace(index, rows=tuple(row._replace(group=row.path[:2]) for row in index.rows))
    assert index.unit_fields("train") != others.unit_fields("train")
    assert index.unit_fields("val") == {}


def test_intervals_are_as_wide_as_the_number_of_groups_says() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(NUM_GROUPS) < 0.7)[UNITS]  # all of a patient's images, or none
    logits = np.where(right, 1.0, -1.0).astype(np.float32)[:, None] * [[0.0, 1.0]]
    config, names = EvaluationConfig(), ("no", "yes")
    ones = np.ones(len(UNITS), np.int32)
    alone = evaluate(logits.astype(np.float32), ones, names, config)
    grouped = evaluate(logits.astype(np.float32), ones, names, config, UNITS)
    one_each = evaluate(logits[::IN_GROUP].astype(np.float32), ones[::IN_GROUP], names, config)
    assert alone.accuracy == grouped.accuracy == one_each.accuracy

    def width(made: Any) -> float:
        low, high = made.accuracy_interval
        return float(high - low)

    assert width(grouped) > 1.8 * width(alone)
    assert width(grouped) == pytest.approx(width(one_each), rel=0.15)
    perfect = np.tile(np.float32([[0.0, 1.0]]), (len(UNITS), 1))
    lows = [evaluate(perfect, ones, names, config, units).accuracy_interval
            for units in (None, UNITS)]  # fmt: skip
    assert lows[0] is not None
    assert lows[1] is not None
    assert lows[1][0] < lows[0][0]


def test_intervals_of_labels_and_numbers_draw_groups_as_well() -> None:
    rng = np.random.default_rng(0)
    off = rng.normal(size=NUM_GROUPS)[UNITS, None]
    targets = rng.normal(size=(len(UNITS), 1))
    fit, config = Fit(scale=(1.0,), offset=(0.0,)), EvaluationConfig()
    numbers = [evaluate_numbers(targets + off, targets, ("age",), fit, config, units)
               for units in (None, UNITS)]  # fmt: skip
    widths = [one.mae_interval[1] - one.mae_interval[0] for one in numbers if one.mae_interval]
    assert widths[1] > 1.5 * widths[0]
    truth = rng.integers(0, 2, (len(UNITS), 2)).astype(np.uint8)
    said = np.where((off > 0) | (truth > 0), 0.9, 0.1)
    labels = [evaluate_labels(said, truth, said, ("a", "b"), (), config, units)
              for units in (None, UNITS)]  # fmt: skip
    widths = [one.f1_micro_interval[1] - one.f1_micro_interval[0] for one in labels
              if one.f1_micro_interval]  # fmt: skip
    assert widths[1] > 1.3 * widths[0]

"""What a run's figures are said to mean, and to ask for."""

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from headstart.config import EvaluationConfig, load_config
from headstart.tasks.evaluation.advice import caveats, next_steps
from headstart.tasks.evaluation.findings import (
    DatasetSummary,
    EpochFigures,
    HardImage,
    LeftOut,
    Report,
)
from headstart.tasks.evaluation.metrics import SplitMetrics, TopLoss, evaluate

NAMES = ("cat", "dog", "owl")


def judge(labels: list[int], predicted: list[int]) -> SplitMetrics:
    logits = 20 * np.eye(len(NAMES), dtype=np.float32)[np.array(predicted, int)]
    return evaluate(logits, np.array(labels, np.int32), NAMES, EvaluationConfig())


EMPTY = judge([], [])
PERFECT = judge([0, 1, 2] * 20, [0, 1, 2] * 20)
FLAWED = judge([0, 0, 0, 1, 1, 1, 2, 2, 2, 2], [0, 0, 1, 0, 0, 1, 2, 2, 2, 2])


def report_of(**metrics: SplitMetrics) -> Report:
    return Report(
        title="a run",
        created=datetime(2024, 5, 6, 7, 8),
        class_names=NAMES,
        metrics=metrics,
        dataset=DatasetSummary("images", {}),
    )


def epoch(number: int, train: float | None = 0.9, val: float | None = 0.9) -> EpochFigures:
    return EpochFigures(number, 0.1, train, 0.2, val, 1e-3, 0.5)


def test_the_split_that_chose_the_epoch_is_called_optimistic() -> None:
    (only,) = caveats(replace(report_of(val=FLAWED), selected_on="val"))
    assert only.startswith("The val split also chose which epoch was kept")
    assert "optimistic" in only
    assert "dataset.test_fraction" in only


def test_a_test_split_beside_it_is_not_called_optimistic() -> None:
    (only,) = caveats(replace(report_of(val=FLAWED, test=FLAWED), selected_on="val"))
    assert only.endswith("optimistic; the test figures are not.")


def test_nothing_is_optimistic_where_nothing_was_selected() -> None:
    assert caveats(report_of(val=FLAWED)) == []
    assert caveats(replace(report_of(val=EMPTY), selected_on="val")) == []


def test_an_interval_without_width_is_explained_by_the_rule_of_three() -> None:
    (only,) = caveats(report_of(test=PERFECT))
    assert "60 images" in only
    assert only.endswith("5.0 %.")  # 3/60


def test_notes_of_the_run_are_caveats() -> None:
    assert caveats(replace(report_of(), notes=("as said",))) == ["as said"]


def test_next_steps_name_the_weakest_class_and_the_most_confused_pair() -> None:
    confusion, weakest = next_steps(report_of(test=FLAWED))[:2]
    assert "Compare “dog” with “cat”: 2 images (66.7 % of “dog”)" in confusion
    assert "“dog” is the weakest class: recall 33.3 %, precision 50.0 %, 3 images" in weakest


def test_a_perfect_run_has_nothing_to_do() -> None:
    assert next_steps(report_of(test=PERFECT)) == []
    assert next_steps(report_of(test=EMPTY)) == []


def test_files_left_out_come_first() -> None:
    left_out = (LeftOut("a.jpg", "empty"), LeftOut("b.jpg", "empty"))
    report = replace(report_of(), dataset=DatasetSummary("images", {}, left_out))
    assert next_steps(report)[0].startswith("2 files were left out")


def test_confident_mistakes_are_counted() -> None:
    images = [
        HardImage(Path("a"), "val", TopLoss(position=0, label=0, predicted=predicted, loss=4,
                  probability_of_label=0.02, predicted_probability=confidence))
        for predicted, confidence in ((1, 0.98), (1, 0.5), (0, 0.98))
    ]  # fmt: skip
    (step,) = next_steps(replace(report_of(), hard_images=images))
    assert "1 of the 3 shown is wrong at a probability of 90% or more" in step
    assert next_steps(replace(report_of(), hard_images=images[2:])) == []


def test_a_best_epoch_at_the_end_asks_for_more_epochs() -> None:
    report = replace(report_of(), history=[epoch(1), epoch(2)], selected_on="val")
    assert "--set head.epochs=4" in next_steps(replace(report, best_epoch=2))[0]
    assert next_steps(replace(report, best_epoch=1)) == []
    assert next_steps(replace(report, best_epoch=2, selected_on=None)) == []


def test_a_wide_gap_is_called_so() -> None:
    report = replace(report_of(), best_epoch=1)
    (step,) = next_steps(replace(report, history=[epoch(1, 0.99, 0.8)]))
    assert "Train accuracy (99.0 %) is far above val accuracy (80.0 %)" in step
    assert next_steps(replace(report, history=[epoch(1, 0.99, 0.95)])) == []
    assert next_steps(replace(report, history=[epoch(1, 0.99, None)])) == []


def test_bad_calibration_is_called_so() -> None:
    assert "off by 30.0 points" in next_steps(report_of(test=FLAWED))[-1]


def test_settings_that_are_advised_exist() -> None:
    report = replace(
        report_of(test=FLAWED), history=[epoch(1), epoch(2, 0.99, 0.5)], best_epoch=2,
        selected_on="val",
    )  # fmt: skip
    settings = re.findall(r"--set (\S+?=[\d.]+\d|\S+?=\d+)", " ".join(next_steps(report)))
    assert len(settings) == 3
    load_config(images="images", settings=tuple(settings))

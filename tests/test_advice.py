"""What a run's figures are said to mean, and to ask for."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.config import (
    BackboneConfig,
    Config,
    FinetuneConfig,
    HeadConfig,
    ScratchConfig,
    TuningConfig,
    build_config,
    load_config,
)
from headstart.errors import TrainingError
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.evaluation.advice import caveats, next_steps
from headstart.tasks.evaluation.metrics import TopLoss
from headstart.tasks.evaluation.report_content import (
    DatasetSummary,
    EpochFigures,
    HardImage,
    LeftOut,
    Report,
)
from headstart.tasks.finetuning.network import extend
from headstart.tasks.finetuning.training import train_network
from headstart.tasks.head.training import TrainedHead, build_head, train_head
from tests.judged import EMPTY, FLAWED, judge, report_of
from tests.test_finetuning import SIDE, normalised_network
from tests.test_head import make_rows

PERFECT = judge([0, 1, 2] * 20, [0, 1, 2] * 20)


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


def test_a_run_without_errors_is_told_how_far_its_own_interval_reaches() -> None:
    (only,) = caveats(report_of(test=PERFECT))
    assert "60 images" in only
    assert PERFECT.accuracy_interval is not None
    assert only.endswith(f"{100 * PERFECT.accuracy_interval[0]:.1f} %.")


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
        selected_on="val", config=load_config(images="images").model_dump(mode="json"),
    )  # fmt: skip
    settings = re.findall(r"--set (\S+?=[\d.]+\d|\S+?=\d+)", " ".join(next_steps(report)))
    assert len(settings) == 3
    load_config(images="images", settings=tuple(settings))


@pytest.mark.parametrize(
    ("model", "section", "advised"),
    [
        (FinetuneConfig, "tuning", {"tuning.epochs", "views.num_augmented"}),
        (ScratchConfig, "training", {"training.epochs"}),
    ],
)
def test_every_kind_of_training_is_advised_in_its_own_settings(
    model: type[Config], section: str, advised: set[str]
) -> None:
    report = replace(
        report_of(test=FLAWED), history=[epoch(1), epoch(2, 0.99, 0.5)], best_epoch=2,
        selected_on="val", trained_by=section,
        config=build_config(model, "images").model_dump(mode="json"),
    )  # fmt: skip
    settings = re.findall(r"--set (\S+?=[\d.]+\d|\S+?=\d+)", " ".join(next_steps(report)))
    assert {setting.partition("=")[0] for setting in settings} == advised
    build_config(model, "images", settings=tuple(settings))


def advised_value(report: Report, name: str) -> float:
    """Return the value that a report's advice gives a setting."""
    (found,) = re.findall(rf"--set {re.escape(name)}=([\d.e-]*\d)", " ".join(next_steps(report)))
    return float(found)


def trained(folder: Path, config: HeadConfig, num_values: int, noise: float) -> TrainedHead:
    """Train a head on few rows of many values, two of which say something."""
    rng = np.random.default_rng(0)
    splits = []
    for name, count in (("train", 60), ("val", 300)):
        labels = np.arange(count) % 3
        tensors = rng.normal(size=(count, 1, num_values)).astype(np.float32)
        tensors[:, 0, :2] += np.eye(3)[labels][:, :2] * (2.0 / noise)
        splits.append(make_rows(folder, tensors, labels, name=f"{name}-{num_values}"))
    return train_head(splits[0], splits[1], config, 3, None, folder / "logs")


def report_on(head: TrainedHead, config: HeadConfig) -> Report:
    full = load_config(images="images").model_copy(update={"head": config})
    return replace(
        report_of(), history=head.history, best_epoch=head.best_epoch, selected_on="val",
        config=full.model_dump(mode="json"),
    )  # fmt: skip


def test_the_advice_against_overfitting_helps(tmp_path: Path) -> None:
    config = HeadConfig(batch_size=20, epochs=40, patience=0)
    before = trained(tmp_path / "before", config, num_values=100, noise=1.0)
    decay = advised_value(report_on(before, config), "head.weight_decay")
    assert decay > config.weight_decay
    stronger = config.model_copy(update={"weight_decay": decay})
    after = trained(tmp_path / "after", stronger, num_values=100, noise=1.0)
    assert after.history[-1].val_loss < before.history[-1].val_loss
    last = [one.history[-1] for one in (before, after)]
    gaps = [one.train_accuracy - one.val_accuracy for one in last]
    assert gaps[1] <= gaps[0]


def test_the_advice_to_train_for_longer_helps(tmp_path: Path) -> None:
    config = HeadConfig(batch_size=20, epochs=3)
    before = trained(tmp_path / "before", config, num_values=4, noise=0.5)
    epochs = int(advised_value(report_on(before, config), "head.epochs"))
    longer = config.model_copy(update={"epochs": epochs})
    after = trained(tmp_path / "after", longer, num_values=4, noise=0.5)
    best = [one.history[one.best_epoch - 1].val_loss for one in (before, after)]
    assert best[1] < best[0]


def test_the_advice_to_tune_for_longer_helps(tmp_path: Path) -> None:
    normalised_network().save(tmp_path / "net.keras")
    backbone = load_backbone(BackboneConfig(name=str(tmp_path / "net.keras")))
    extractor, rng = backbone.extractor(["one_relu"]), np.random.default_rng(0)
    splits = []
    for name, count in (("train", 48), ("val", 48)):
        labels = np.arange(count) % 3
        pictures = rng.integers(60, 160, (count, SIDE, SIDE, 3))
        pictures[np.arange(count), :, :, labels] += 60  # each class has a colour
        rows = np.asarray(extractor(pictures.astype(np.uint8))).astype(np.float16)
        splits.append(make_rows(tmp_path / "rows", rows[:, None], labels, name=name))
    head = HeadConfig()

    def tuned(config: TuningConfig, folder: str) -> TrainedHead:
        network = extend(build_head(head, (8,), 3), (("logits",),), backbone, "one_relu", "top")
        rates = [1.0, 0.3]
        return train_network(network, rates, *splits, config, head, 3, tmp_path / folder)

    config = TuningConfig(epochs=2, batch_size=8)
    before = tuned(config, "before")
    report = replace(
        report_on(before, head), trained_by="tuning",
        config=build_config(FinetuneConfig, "images").model_dump(mode="json"),
    )  # fmt: skip
    epochs = int(advised_value(report, "tuning.epochs"))
    after = tuned(config.model_copy(update={"epochs": epochs}), "after")
    best = [one.history[one.best_epoch - 1].val_loss for one in (before, after)]
    assert best[1] < best[0]


def test_the_advice_of_more_views_helps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def head_of(num_augmented: int, config: HeadConfig) -> TrainedHead:
        splits = []
        for name, count in (("train", 60), ("val", 300)):
            labels = np.arange(count) % 3
            views = 1 + (num_augmented if name == "train" else 0)
            tensors = np.random.default_rng(len(name)).normal(size=(count, 1, 100))
            tensors[:, 0, :2] += 2.0 * np.eye(3)[labels][:, :2]
            # As augmentations do: each view keeps the class and changes the rest.
            changed = tensors + rng.normal(size=(count, views, 100))
            changed[:, 0] = tensors[:, 0]
            changed = changed.astype(np.float32)
            splits.append(make_rows(tmp_path, changed, labels, name=f"{name}-{num_augmented}"))
        return train_head(splits[0], splits[1], config, 3, None, tmp_path / "logs")

    config = HeadConfig(batch_size=20, epochs=40, patience=0, weight_decay=0.0)
    before = head_of(0, config)
    num_views = int(advised_value(report_on(before, config), "views.num_augmented"))
    after = head_of(num_views, config)
    assert after.history[-1].val_loss < before.history[-1].val_loss


def test_the_rate_that_is_advised_where_a_loss_breaks_trains(tmp_path: Path) -> None:
    labels = np.arange(60) % 3
    tensors = np.eye(3, dtype=np.float32)[labels][:, None]
    rows = make_rows(tmp_path / "rows", tensors, labels)
    # Each step takes 9 times itself off a weight, and more and more is left.
    config = HeadConfig(
        optimizer="sgd", momentum=0.0, learning_rate=10.0, weight_decay=1.0,
        schedule="constant", batch_size=4, epochs=10, patience=0,
    )  # fmt: skip
    with pytest.raises(TrainingError) as caught:
        train_head(rows, rows, config, 3, None, tmp_path / "broken")
    (rate,) = re.findall(r"--set head\.learning_rate=(\S+?),", caught.value.next_step)
    lower = config.model_copy(update={"learning_rate": float(rate)})
    trained = train_head(rows, rows, lower, 3, None, tmp_path / "whole")
    assert np.isfinite(trained.history[-1].val_loss)

"""Heads that are not trained: the nearest mean, and the nearest training images."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

import headstart
from headstart.config import HeadConfig
from headstart.errors import ConfigError, TrainingError
from headstart.tasks.head import few_shot
from headstart.tasks.head.few_shot import fit_head
from headstart.tasks.head.settings import settings_in_effect
from headstart.tasks.head.training import TrainedHead, predict_logits
from headstart.tasks.progress import Reporter, use_reporter
from tests.pipeline import Pipeline, add_images, computed, statuses
from tests.test_head import NUM_CLASSES, clusters, make_rows

KINDS = ("nearest_mean", "knn")


def fitted(folder: Path, kind: str, num_images: int = 15) -> tuple[TrainedHead, npt.NDArray]:
    """Return a head and, float32 [60, 6], the training and the judged images' directions."""
    train, labels = clusters(num_images, seed=1)
    judged, truth = clusters(45, seed=2)
    rows = make_rows(folder / "train", train, labels, name="train")
    val = make_rows(folder / "val", judged, truth, name="val")
    config = HeadConfig.model_validate({"kind": kind, "num_neighbors": 3})
    head = fit_head(rows, val, config, NUM_CLASSES, folder / "log")
    assert (
        head.history[0].val_accuracy
        == (predict_logits(head.model, val).argmax(axis=1) == truth).mean()
    )
    centred = np.concatenate([train[:, 0], judged[:, 0]]) - train[:, 0].mean(axis=0)
    return head, centred / np.linalg.norm(centred, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_are_scikit_learns(tmp_path: Path, kind: str) -> None:
    head, directions = fitted(tmp_path, kind)
    labels = clusters(15, seed=1)[1]
    judged = clusters(45, seed=2)[0][:, 0]
    peers = {"nearest_mean": NearestCentroid(), "knn": KNeighborsClassifier(3, weights="distance")}
    peer = peers[kind].fit(directions[:15], labels)
    received = head.model(judged.astype(np.float32), training=False).numpy()
    assert (received.argmax(axis=1) == peer.predict(directions[15:])).mean() > 0.95
    assert np.isfinite(received).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_a_class_is_enough(tmp_path: Path, kind: str) -> None:
    tensors = np.eye(3, 6, dtype=np.float32)[:, np.newaxis]
    rows = make_rows(tmp_path, tensors, [0, 1, 2])
    config = HeadConfig.model_validate({"kind": kind, "num_neighbors": 1})
    head = fit_head(rows, None, config, 3, tmp_path / "log")
    assert head.history[0].train_accuracy == 1.0


def test_spatial_bottlenecks_are_averaged_and_augmented_views_compared_with(
    tmp_path: Path,
) -> None:
    tensors = np.random.default_rng(0).normal(size=(6, 3, 2, 2, 4)).astype(np.float32)
    rows = make_rows(tmp_path, tensors, [0, 1, 0, 1, 0, 1])
    head = fit_head(rows, None, HeadConfig(kind="knn"), 2, tmp_path / "log")
    assert head.model.input_shape == (None, 2, 2, 4)
    assert head.model.get_layer("head_neighbours").kernel.shape == (4, 6 * 3)


def test_a_knn_head_that_would_hold_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, labels = clusters(15)
    monkeypatch.setattr(few_shot, "MAX_KNN_VALUES", 15 * 6 - 1)
    with pytest.raises(TrainingError, match=r"15 images[\s\S]*nearest_mean"):
        fitted_rows = make_rows(tmp_path, tensors, labels)
        fit_head(fitted_rows, None, HeadConfig(kind="knn"), NUM_CLASSES, tmp_path / "log")


def test_the_key_has_what_each_kind_reads() -> None:
    assert settings_in_effect(HeadConfig(kind="nearest_mean", epochs=3)) == {"kind": "nearest_mean"}
    assert settings_in_effect(HeadConfig(kind="knn")) == {"kind": "knn", "num_neighbors": 5}
    assert "num_neighbors" not in settings_in_effect(HeadConfig())


@pytest.mark.parametrize("setting", ["head.class_weights=balanced", "ladder.num_rungs=1"])
def test_what_needs_a_training_is_refused(pipeline: Pipeline, setting: str) -> None:
    from headstart.config import FinetuneConfig, build_config

    with pytest.raises(ConfigError, match="nearest_mean"):
        build_config(FinetuneConfig, pipeline.images, None, ["head.kind=nearest_mean", setting], {})


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_class_costs_its_own_images_alone_and_is_exported(
    finished: Pipeline, tmp_path: Path, kind: str
) -> None:
    settings = (f"head.kind={kind}", "export.formats=[onnx]")
    first = finished.run(*settings)
    assert statuses(first)["bottlenecks"] == "hit"
    assert first.metrics["val"]["accuracy"] == 1.0
    for seed in range(5):
        add_images(finished.images, "red", [900 + seed])
        path = finished.images / "red" / f"{900 + seed:04}.png"
        (finished.images / "white").mkdir(exist_ok=True)
        path.rename(finished.images / "white" / path.name)
    second = finished.run(*settings)
    assert computed(second)["bottlenecks"] == 5
    assert (Path(second.run_dir) / "labels.txt").read_text().split() == [
        "blue", "green", "red", "white",
    ]  # fmt: skip
    assert (Path(second.run_dir) / "model.onnx").exists()
    (explained,) = headstart.explain(
        Path(second.run_dir), finished.images / "green" / "0100.png", tmp_path / "explained"
    )
    assert explained.label == "green"
    assert Path(explained.overlay).exists()


def test_with_few_images_a_class_the_nearest_mean_is_proposed_with_its_figure(
    finished: Pipeline,
) -> None:
    for label in ("blue", "green", "red"):
        for path in sorted((finished.images / label).iterdir())[6:]:
            path.unlink()
    shown = io.StringIO()
    with use_reporter(Reporter(Console(file=shown, width=400))):
        finished.run("head.epochs=1", "head.learning_rate=1e-6", "dataset.val_fraction=0.3")
    assert "use --set head.kind=nearest_mean: of" in shown.getvalue()
    many = io.StringIO()
    with use_reporter(Reporter(Console(file=many, width=400))):
        finished.run("head.kind=nearest_mean", "dataset.val_fraction=0.3")
    assert "--set head.kind=nearest_mean" not in many.getvalue()

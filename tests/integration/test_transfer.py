"""The transfer flow from images to an exported model, without Prefect."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

import headstart
from headstart.config import HeadConfig, load_config
from headstart.flows.transfer import transfer
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import LabelledRows, open_backbone
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.head.training import train_head
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.runs.run_folder import RunSummary
from headstart.tasks.store.artifacts import use_store
from headstart.tasks.store.garbage import Criteria, collect_garbage
from headstart.tasks.store.sealing import read_sealed
from headstart.tasks.views.recipes import plain_collection
from tests.pipeline import NUM_IMAGES, Pipeline, computed, statuses

STAGES = ["dataset", "views", "bottlenecks", "head", "evaluation", "export"]


def test_the_first_run_computes_all_and_the_second_nothing(pipeline: Pipeline) -> None:
    first = pipeline.run()
    assert list(statuses(first)) == STAGES
    assert set(statuses(first).values()) == {"miss"}
    assert computed(first)["views"] == computed(first)["bottlenecks"] == NUM_IMAGES
    assert pipeline.num_passed() == NUM_IMAGES
    second = pipeline.run()
    assert list(statuses(second)) == STAGES
    assert set(statuses(second).values()) == {"hit"}
    assert set(computed(second).values()) == {0}
    assert pipeline.num_passed() == 0
    assert second.metrics == first.metrics
    assert second.run_dir != first.run_dir


def test_a_head_learns_what_tells_the_classes_apart(finished: Pipeline) -> None:
    summary = finished.run()
    assert set(summary.metrics) == {"val", "test"}
    assert all(metrics["accuracy"] == 1.0 for metrics in summary.metrics.values())


def test_a_change_of_the_head_reruns_nothing_before_it(finished: Pipeline) -> None:
    summary = finished.run("head.kind=mlp", "head.hidden_units=[8]")
    assert [name for name, status in statuses(summary).items() if status == "miss"] == [
        "head",
        "evaluation",
        "export",
    ]
    assert finished.num_passed() == 0
    reasons = {outcome.name: outcome.reason for outcome in summary.stages}
    assert "head.kind linear -> mlp" in reasons["head"]


def test_a_change_of_the_evaluation_retrains_nothing(finished: Pipeline) -> None:
    summary = finished.run("evaluation.seed=1")
    missed = [name for name, status in statuses(summary).items() if status == "miss"]
    assert missed == ["evaluation"]


def test_a_tail_trains_from_its_cut(finished: Pipeline) -> None:
    summary = finished.run("bottlenecks.cut=second", "head.kind=tail", "head.learning_rate=0.02")
    assert finished.num_passed() == NUM_IMAGES
    assert summary.metrics["val"]["accuracy"] > 0.5
    again = finished.run("bottlenecks.cut=second", "head.kind=tail", "head.learning_rate=0.01")
    assert statuses(again)["head"] == "miss"
    assert finished.num_passed() == 0


def test_views_that_were_removed_are_not_needed_for_another_head(finished: Pipeline) -> None:
    assert collect_garbage(finished.store, Criteria(views=True))
    assert not list((finished.store.root / "rows" / "views").glob("*/*"))
    summary = finished.run("head.seed=5")
    assert statuses(summary)["head"] == "miss"
    assert computed(summary)["views"] == computed(summary)["bottlenecks"] == 0
    assert not list((finished.store.root / "rows" / "views").glob("*/*"))


def test_views_that_were_removed_are_made_again_where_they_are_needed(finished: Pipeline) -> None:
    collect_garbage(finished.store, Criteria(views=True))
    summary = finished.run("bottlenecks.dtype=float32")
    assert computed(summary)["views"] == computed(summary)["bottlenecks"] == NUM_IMAGES


def test_the_run_folder_holds_all_that_a_run_made(finished: Pipeline, tmp_path: Path) -> None:
    config = finished.config("export.formats=[keras, saved_model]")
    summary = transfer.fn(config, finished.store.root, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {
        "model.keras",
        "saved_model",
        "labels.txt",
        "metrics.json",
        "report.html",
        "config.yaml",
        "run.json",
        "tensorboard",
    }
    assert Path(summary.run_dir) == tmp_path / "out"
    assert read_sealed(tmp_path / "out" / "run.json") == summary.model_dump(mode="json")
    assert (tmp_path / "out" / "labels.txt").read_text().split() == ["blue", "green", "red"]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["val"]["accuracy"] == summary.metrics["val"]["accuracy"]
    assert list((tmp_path / "out" / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_runs_configuration_replays_the_run(finished: Pipeline) -> None:
    config = Path(finished.run().run_dir) / "config.yaml"
    assert load_config(file=config) == finished.config()
    summary = transfer.fn(load_config(file=config), finished.store.root)
    assert set(statuses(summary).values()) == {"hit"}


def test_the_exported_model_gives_the_pipelines_predictions(finished: Pipeline) -> None:
    summary = finished.run("export.formats=[keras, saved_model]")
    folder = Path(summary.run_dir)
    run = headstart.Run(folder, summary.metrics, [], summary.seconds)
    with np.load(folder / "predictions.npz") as arrays:
        logits = arrays["val_logits"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    index = finished.index()
    paths = [finished.images / row.path for row in index.rows_of("val")]
    for path, row in zip(paths, expected, strict=True):
        prediction = run.predict(path)
        probabilities = dict(prediction.top)
        found = [probabilities[name] for name in index.class_names]
        np.testing.assert_allclose(found, row, atol=2e-3)
        assert prediction.label == path.parent.name
    assert [one.label for one in run.predict(paths)] == [path.parent.name for path in paths]


def test_three_lines_of_python_train_and_predict(finished: Pipeline) -> None:
    config = finished.config()
    run = headstart.train(config=config, store=finished.store.root)
    assert {stage["status"] for stage in run.stages} == {"hit"}
    assert run.metrics["val"]["accuracy"] == 1.0
    assert run.model_path.is_file()
    assert run.report.is_file()
    assert run.predict(next((finished.images / "red").iterdir())).label == "red"


def test_what_changes_no_result_is_not_in_the_keys(finished: Pipeline, tmp_path: Path) -> None:
    moved = shutil.copytree(finished.images, tmp_path / "elsewhere" / "photos")
    store = finished.store.root.rename(tmp_path / "moved-store")
    config = finished.config("bottlenecks.batch_size=7", images=moved)
    summary = transfer.fn(config, store, tmp_path / "results")
    assert statuses(summary) == dict.fromkeys(STAGES, "hit")
    assert finished.num_passed() == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("float32", 1e-5)])
def test_cached_and_uncached_training_have_the_same_loss_curve(
    pipeline: Pipeline, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    config = pipeline.config(f"bottlenecks.dtype={dtype}")
    pipeline.extract(f"bottlenecks.dtype={dtype}")
    with use_store(pipeline.store), use_reporter(Reporter(Console(file=io.StringIO()))):
        dataset = dataset_stage(config.dataset)
        cached = Features.of(dataset, config).open(("train", "val"))
        head = HeadConfig(epochs=4, batch_size=8, learning_rate=0.05, patience=0)
        curves = []
        for rows in (cached, {name: _Live(pipeline, of) for name, of in cached.items()}):
            log_dir = tmp_path / f"log{len(curves)}"
            trained = train_head(rows["train"], rows["val"], head, 3, None, log_dir)  # type: ignore[arg-type,index]
            curves.append([(one.train_loss, one.val_loss) for one in trained.history])
    np.testing.assert_allclose(curves[0], curves[1], atol=tolerance)
    assert curves[0][-1] < curves[0][0]


class _Live:
    """Labelled rows that are computed by the frozen backbone each time they are read."""

    def __init__(self, pipeline: Pipeline, stored: LabelledRows) -> None:
        config = pipeline.config()
        network = open_backbone(config.backbone, None)
        views = plain_collection(config.views, network.image_size, pipeline.store)
        row_ids = stored.readers[0].row_ids
        self._pixels = views.select(row_ids).gather(range(len(row_ids)))
        self._extract = network.extractor(["top"])
        self._positions = stored.positions[:, 0]
        self.labels, self.num_augmented = stored.labels, stored.num_augmented
        self.kind, self.target = stored.kind, stored.target
        self.readers = (self,)
        self.resident = None
        self.shape, self.dtype = stored.readers[0].shape, np.dtype("float32")

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, images: npt.NDArray[np.int64], view: int) -> npt.NDArray[np.float32]:
        pixels = self._pixels[self._positions[images]]
        activations: npt.NDArray[np.float32] = self._extract(pixels, training=False).numpy()
        return activations


def test_two_runs_with_the_same_seeds_are_the_same(finished: Pipeline, tmp_path: Path) -> None:
    first: RunSummary = finished.run("head.dropout=0.3")
    store = shutil.copytree(finished.store.root, tmp_path / "copy")
    for folder in ("head", "evaluation", "export"):
        shutil.rmtree(store / "manifests" / folder)
    second = transfer.fn(finished.config("head.dropout=0.3"), store)
    assert statuses(second)["head"] == "miss"
    assert second.metrics == first.metrics


def test_other_engines_are_proven_and_their_files_go_with_the_run(finished: Pipeline) -> None:
    pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")
    summary = finished.run("export.formats=[onnx, openvino, litert]")
    names = {path.name for path in Path(summary.run_dir).iterdir()}
    assert names >= {"model.keras", "model.onnx", "model.xml", "model.bin", "model.tflite"}
    found = finished.store.manifests("export")
    (manifest,) = (one for one in found if "onnx" in one["formats"])
    assert manifest["proofs"].keys() == {"keras", "onnx", "openvino", "litert"}
    for proof in manifest["proofs"].values():
        assert proof["num_same_labels"] == proof["num_images"] == 2
        assert proof["largest_difference"] <= manifest["largest_difference"] < 1e-3
    views = finished.run("export.formats=[onnx]", "export.input=views")
    assert statuses(views)["export"] == "miss"
    assert statuses(finished.run("export.input=views"))["export"] == "hit"

"""What holds for every kind of trained network: loaded from the store it is exported, and predicts.

The export of a training that is already there happens in a process that has built nothing before,
after a kill between the two or with another export option.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from headstart.config import FinetuneConfig, ScratchConfig, build_config
from headstart.tasks.bottlenecks.rows import _open_backbone
from headstart.tasks.export.predict import Predictor
from headstart.tasks.runs.run_folder import RunSummary
from tests.pipeline import LADDER, QUICK, SIDE, Pipeline, tiny_network
from tests.scratch_data import SCRATCH, write_idx

# Keras' own saving: np.array(variable) under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Run = Callable[[Pipeline], RunSummary]


def head(*settings: str) -> Run:
    return lambda pipeline: pipeline.run("backbone.preprocessing=torch", *settings)


def ladder(*settings: str) -> Run:
    def run(pipeline: Pipeline) -> RunSummary:
        from headstart.flows.finetune import finetune

        own = (f"backbone.name={pipeline.backbone}", "backbone.preprocessing=torch")
        every = (*QUICK, "head.epochs=1", "tuning.learning_rate=0.05", *LADDER[:3], *own)
        config = build_config(FinetuneConfig, pipeline.images, settings=(*every, *settings))
        summary = finetune.fn(config, pipeline.store.root)
        assert "kept" in [rung.status for rung in summary.rungs[1:]]
        assert isinstance(summary, RunSummary)
        return summary

    return run


def scratch(images: str) -> Run:
    def run(pipeline: Pipeline) -> RunSummary:
        from headstart.flows.scratch import scratch

        bars = pipeline.store.root.parent / "bars"
        data = str(pipeline.images) if images == "colour" else str(write_idx(bars))
        config = build_config(ScratchConfig, data, settings=(*SCRATCH, "training.epochs=2"))
        summary = scratch.fn(config, pipeline.store.root)
        assert isinstance(summary, RunSummary)
        return summary

    return run


KINDS = {
    "linear": head(),
    "mlp": head("head.kind=mlp", "head.hidden_units=[8]"),
    "tail": head("head.kind=tail", "bottlenecks.cut=second"),
    "rung behind a cut": ladder("ladder.end_to_end=never"),
    "rung end to end": ladder("ladder.cuts=[]", "ladder.end_to_end=always"),
    "scratch, gray": scratch("gray"),
    "scratch, colour": scratch("colour"),
}
TRAININGS = {"head", "rung", "training"}


def begin_anew() -> None:
    """Forget what this process has built, as a new one has built nothing."""
    _open_backbone.cache_clear()
    keras.utils.clear_session()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_from_the_store_is_exported_and_predicts_as_at_first(
    pipeline: Pipeline, kind: str
) -> None:
    begin_anew()
    first = KINDS[kind](pipeline)
    for name in ("export", "scratch_export"):
        shutil.rmtree(pipeline.store.root / "manifests" / name, ignore_errors=True)
    begin_anew()
    second = KINDS[kind](pipeline)
    status = {outcome.name: outcome.status for outcome in second.stages}
    assert {status[name] for name in TRAININGS & status.keys()} == {"hit"}
    assert status["export"] == "miss"
    image = next((pipeline.images / "red").iterdir())
    (said,), (again,) = (
        Predictor.load(Path(run.run_dir)).predict(image) for run in (first, second)
    )
    assert dict(said.top) == pytest.approx(dict(again.top), abs=1e-5)


def as_saved_model(folder: Path) -> Path:
    tiny_network().export(folder / "net", verbose=False)
    return folder / "net"


def as_keras_file(folder: Path, **fields: Any) -> Path:
    tiny_network(**fields).save(folder / "other.keras")
    return folder / "other.keras"


def as_classifier(folder: Path) -> Path:
    network = tiny_network()
    classes = keras.layers.Dense(5, activation="softmax")(network.output)
    keras.Model(network.input, classes).save(folder / "classifier.keras")
    return folder / "classifier.keras"


def as_sequential(folder: Path) -> Path:
    layers = keras.layers
    keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 64), layers.Conv2D(8, 3, 2)]
    ).save(folder / "sequential.keras")
    return folder / "sequential.keras"


FILES: dict[str, Callable[[Path], Path]] = {
    "keras": as_keras_file,
    "keras, any size": lambda folder: as_keras_file(folder, size=None),
    "keras, classifier": as_classifier,
    "keras, sequential with a map": as_sequential,
    "SavedModel": as_saved_model,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_backbone_of_every_kind_of_file_is_trained_on_to_the_end(
    pipeline: Pipeline, tmp_path: Path, kind: str
) -> None:
    file = FILES[kind](tmp_path)
    formats = "export.formats=[keras, litert]"
    summary = pipeline.run(
        f"backbone.name={file}", "views.image_size=16", "head.dropout=0.1", formats
    )
    exported = Path(summary.model)
    assert exported.exists()
    assert exported.name == ("saved_model" if kind == "SavedModel" else "model.keras")
    images = [next((pipeline.images / name).iterdir()) for name in ("blue", "green", "red")]
    of_run = Predictor.load(Path(summary.run_dir)).predict(images)
    of_litert = Predictor.load(Path(summary.run_dir) / "model.tflite").predict(images)
    for one, other in zip(of_run, of_litert, strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=2e-3)
        assert one.label == Path(str(one.path)).parent.name


def test_what_files_are_called_decides_no_training(pipeline: Pipeline) -> None:
    from headstart.tasks.store.artifacts import Store

    settings = ("head.epochs=2", "head.dropout=0.2")
    named = pipeline.run(*settings)
    for number, path in enumerate(sorted(pipeline.images.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"{number:04}.png"))
    other = Pipeline(pipeline.images, pipeline.backbone, Store(pipeline.store.root.parent / "new"))
    renamed = other.run(*settings)
    keys = [{one.name: one.key for one in run.stages} for run in (named, renamed)]
    assert keys[0]["head"] == keys[1]["head"]
    weights = [
        keras.models.load_model(run.model, safe_mode=True).get_layer("logits").get_weights()
        for run in (named, renamed)
    ]
    np.testing.assert_array_equal(weights[0][0], weights[1][0])
    logits = [
        np.load(Path(run.run_dir) / "predictions.npz")["val_logits"] for run in (named, renamed)
    ]
    np.testing.assert_array_equal(*logits)

"""headstart from Python, as a notebook uses it."""

import itertools
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
import headstart.debug
from headstart.api import _configure
from headstart.config import (
    AuditConfig,
    CompareConfig,
    FinetuneConfig,
    RankConfig,
    ScratchConfig,
    SweepConfig,
    TransferConfig,
)
from headstart.errors import ConfigError, ExportError, HeadstartError
from tests.documented import code_that_runs, documented
from tests.pipeline import LADDER, QUICK, SIDE, STUDY, Pipeline
from tests.scratch_data import SCRATCH


@pytest.fixture
def run(finished: Pipeline) -> Any:
    return headstart.train(config=finished.config(), store=finished.store.root)


def test_a_run_has_its_history_figures_and_pictures(run: Any) -> None:
    again = headstart.load(run.run_dir)
    assert (again.metrics, again.stages, again.seconds) == (run.metrics, run.stages, run.seconds)
    assert list(again.history["epoch"]) == list(range(1, len(again.history) + 1))
    assert len(again.top_losses) == 2
    assert set(again.top_losses["split"]) <= {"val", "test"}
    matrix = again.confusion_matrix
    assert list(matrix.columns) == again.class_names == ["blue", "green", "red"]
    assert matrix.to_numpy().sum() == again._figures(again.split)["num_images"]
    page = again._repr_html_()
    assert page.count("data:image/png;base64,") == 2
    assert "accuracy 100.0%" in page


def test_without_pandas_the_figures_of_a_run_are_plain_lists_and_arrays(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_pandas = (run.history.to_dict("records"), run.top_losses.to_dict("records"))
    counts = run.confusion_matrix.to_numpy()
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert isinstance(run.confusion_matrix, np.ndarray)
    np.testing.assert_array_equal(run.confusion_matrix, counts)
    for plain, framed in zip((run.history, run.top_losses), with_pandas, strict=True):
        assert isinstance(plain, list)
        assert [row.keys() for row in plain] == [row.keys() for row in framed]
    assert "accuracy 100.0%" in run._repr_html_()


def test_a_run_predicts_files_folders_pictures_arrays_and_generators(
    run: Any, finished: Pipeline
) -> None:
    paths = sorted((finished.images / "red").iterdir())[:2]
    pictures = [Image.open(path) for path in paths]
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    assert pixels.shape == (2, SIDE, SIDE, 3)
    for one in (paths[0], str(paths[0]), paths[0].read_bytes(), pictures[0], pixels[0]):
        assert run.predict(one).label == "red"
    for several in (paths, tuple(pictures), pixels, (picture for picture in pictures)):
        assert [each.label for each in run.predict(several)] == ["red", "red"]
    assert {each.label for each in run.predict(finished.images / "red")} == {"red"}
    probabilities = np.asarray(run.model(pixels))
    assert [run.class_names[i] for i in probabilities.argmax(axis=1)] == ["red", "red"]


def test_a_file_of_a_run_that_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text("[" * 100_000)
    with pytest.raises(HeadstartError, match="cannot be read"):
        _ = headstart.Run(tmp_path, {}, [], 0.0).history


def test_what_is_no_image_is_said(run: Any) -> None:
    grey = np.zeros((4, 5), np.uint8)
    for images in (None, 5, [[1, 2], [3, 4]], grey):
        words = r"uint8 \[4, 5\]" if images is grey else "this is not an image"
        for method in (run.predict, run.embed):
            with pytest.raises(HeadstartError, match=words):
                method(images)
    assert run.predict([]) == []
    with pytest.raises(HeadstartError, match="there is no image to embed"):
        run.embed([])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: headstart.train("i", settings=5), "settings are strings"),
        (lambda: headstart.train("i", settings={"head.epochs": 2}), "settings are strings"),
        (lambda: headstart.search("i", np.zeros((4, 4, 3), np.uint8)), "a query is an image file"),
        (lambda: headstart.search("i", None), "a query is an image file"),
        (lambda: headstart.search("i", "a.png", k=0), "at least one image must be asked for"),
    ],
)
def test_what_python_takes_for_no_argument_is_said(call: Any, words: str) -> None:
    with pytest.raises(HeadstartError, match=words):
        call()


def test_bottlenecks_are_those_that_training_has_cached(run: Any, finished: Pipeline) -> None:
    before = finished.num_passed()
    cached = headstart.bottlenecks(config=finished.config(), store=finished.store.root)
    assert finished.num_passed() == before
    assert {stage["status"] for stage in cached.stages} == {"hit"}
    assert cached.class_names == run.class_names
    train = cached["train"]
    features, labels = next(iter(train.dataset(batch_size=4)))
    np.testing.assert_array_equal(features, train.numpy()[:4].astype(np.float32))
    np.testing.assert_array_equal(labels, train.labels[:4])
    assert sum(len(split) for split in cached.splits.values()) == 36


def test_named_arguments_beat_the_configuration(finished: Pipeline) -> None:
    run = headstart.train(config=finished.config(), epochs=2, store=finished.store.root)
    assert len(run.history) == 2


def test_the_model_of_a_run_is_evaluated_and_explained(
    run: Any, finished: Pipeline, tmp_path: Path
) -> None:
    assert headstart.evaluate(run, finished.images).metrics.num_images > 0
    image = next((finished.images / "red").iterdir())
    (made,) = headstart.explain(run, image, tmp_path / "seen")
    assert made.label == "red"


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of a finished run"):
        headstart.load(tmp_path)


@pytest.mark.timeout(900)  # seven small runs; half a minute on a machine of its own
# Keras' own saving: np.array(variable) under NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_calls_of_the_documentation_run_and_do_what_they_say(
    finished: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As they stand, but on tiny images, by a tiny backbone; a clock that hurries spends the budget.
    net, bottlenecks = f"backbone.name={finished.backbone}", [one for one in QUICK if "bott" in one]
    tiny: dict[type, tuple[str, ...]] = {
        TransferConfig: (*QUICK, net),
        FinetuneConfig: (*QUICK, net, *LADDER[1:]),
        ScratchConfig: (*SCRATCH, "views.num_views=2"),
        RankConfig: (
            *bottlenecks, f"candidates.backbones=[{finished.backbone}]", "baseline.max_seconds=0.5",
            "baseline.image_size=16", "scoring.num_neighbours=3", "head.epochs=1",
        ),
        AuditConfig: (*bottlenecks, net),
        SweepConfig: (*QUICK, net),
        CompareConfig: (*STUDY, net, "tuning.epochs=1", "strategies=[last_layer]"),
    }  # fmt: skip
    asked: dict[type, Any] = {}

    def shrink(model: type, *told: Any) -> Any:
        asked[model] = _configure(model, *told)
        return _configure(model, None, asked[model], tiny[model], {})

    monkeypatch.setattr("headstart.api._configure", shrink)
    hurried_s = itertools.count(0.0, 20.0)
    clock = SimpleNamespace(monotonic=lambda: next(hurried_s))
    monkeypatch.setattr("headstart.tasks.scratch.clock.time", clock)
    monkeypatch.setenv("HEADSTART_STORE", str(finished.store.root))
    monkeypatch.chdir(tmp_path)  # which has the folder images
    names: dict[str, Any] = {"headstart": headstart}
    exec(documented("python.md", 1), names)

    assert list(asked) == list(tiny)
    assert asked[FinetuneConfig].ladder.num_rungs == 1
    assert asked[ScratchConfig].training.budget_s == 600
    assert asked[RankConfig].candidates.cuts == ("natural", "top")
    assert {Path(one.dataset.images) for one in asked.values()} == {Path("images")}
    assert "budget_s" in json.loads((names["best"].run_dir / "run.json").read_text())
    assert next(iter(names["best"].tried["attempt"])) == "configured"
    assert (names["tuned"].run_dir / "ladder.html").is_file()
    assert "test" in names["small"].metrics
    assert {one["cut"] for one in names["ranking"].metrics["candidates"]} >= {"top"}
    assert names["findings"].metrics["counts"]["blurred"] >= 0
    assert (names["grid"].run_dir / "sweep.html").is_file()
    assert all(len(line.accuracies) == 3 for line in names["study"].metrics.values())


def test_a_run_does_what_the_documentation_says(
    finished: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def tiny(model: Any, images: Any, config: Any, settings: Any, named: dict[str, Any]) -> Any:
        assert (model, images) == (TransferConfig, "images/")
        asked.append({name: value for name, value in named.items() if value is not None})
        return finished.config()

    monkeypatch.setattr("headstart.api._configure", tiny)
    monkeypatch.setattr("headstart.tasks.benching.bench.bench", lambda *told: asked.append(told))
    monkeypatch.setenv("HEADSTART_STORE", str(finished.store.root))
    monkeypatch.chdir(tmp_path)
    image = next((finished.images / "red").iterdir())
    for name in ("x.jpg", "a.jpg", "b.jpg"):
        shutil.copy(image, name)
    names: dict[str, Any] = {}
    exec(documented("python.md", 0), names)
    wanted = {"backbone.name": "efficientnet_lite0", "head.epochs": 20, "views.num_augmented": 2}
    assert asked == [wanted, (names["run"].run_dir, 200, 2.0), {}]
    shutil.copy(image, "photo.jpg")
    exec(documented("searching.md", 0), {"print": lambda *told: asked.append(told)})
    assert asked[-1][2] in names["run"].class_names


def test_each_public_name_is_used_by_code_of_the_documentation_that_runs() -> None:
    code = code_that_runs()
    names = {f"headstart.{name}(" for name in headstart.__all__}
    names -= {f"headstart.{name}(" for name in ("Run", "Bottlenecks", "__version__")}  # returned
    names |= {f"{name}(" for name in headstart.debug.__all__ if name != "Diagnosis"}
    assert [name for name in sorted(names) if name not in code] == []
    # What those return.
    assert "run = headstart.load(" in code
    assert "cached = headstart.bottlenecks(" in code
    assert "list[Diagnosis]" in code


# Keras says so of its own default wherever it is given a tf.data.Dataset.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_the_loop_of_the_documentation_trains_on_cached_bottlenecks(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = documented("python.md", 2)
    asked: list[tuple[Any, ...]] = []
    original = headstart.bottlenecks

    def on_the_tiny_images(images: str, backbone: str, cut: str) -> Any:
        asked.append((images, backbone, cut))
        return original(config=finished.config(), store=finished.store.root)

    monkeypatch.setattr(headstart, "bottlenecks", on_the_tiny_images, raising=False)
    names: dict[str, Any] = {}
    exec(code, names)
    assert asked == [("images/", "efficientnet_lite0", "top")]
    assert names["model"].output_shape == (None, 3)
    assert len(names["model"].history.history["val_accuracy"]) == 10


def test_a_damaged_run_is_not_taken_for_a_sound_one(run: Any) -> None:
    for name in ("model.keras", "metrics.json", "run.json"):
        path = run.run_dir / name
        data = bytearray(path.read_bytes())
        # The middle of an archive; of JSON, a digit.
        end = data.find(b'"checksum"')
        place = len(data) // 2 if end < 0 else data.rindex(b"1", 0, end)
        data[place] ^= 2
        path.write_bytes(data)
    with pytest.raises(ExportError, match=r"damaged|no card"):
        _ = run.model
    with pytest.raises(ConfigError, match="checksum"):
        _ = run.confusion_matrix
    with pytest.raises(ConfigError, match="not the folder of a finished run"):
        headstart.load(run.run_dir)

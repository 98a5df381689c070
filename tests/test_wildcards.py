"""Folders whose names TensorFlow takes for a pattern."""

from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from headstart.tasks.export.predict import Predictor
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.files import without_wildcards
from tests.pipeline import Pipeline, statuses

NAMES = ["run [1]", "all*", "what?", "{a,b}", "back\\slash"]


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_is_loaded_from_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    module = tf.Module()
    module.value = tf.Variable(3.0)
    tf.saved_model.save(module, str(tmp_path / "plain"))
    folder = tmp_path / name
    (tmp_path / "plain").rename(folder)
    with without_wildcards(folder) as path:
        assert float(tf.saved_model.load(str(path)).value) == 3.0
    assert folder.is_dir()


def test_other_names_are_left_alone(tmp_path: Path) -> None:
    with without_wildcards(tmp_path) as path:
        assert path == tmp_path


def test_a_run_lives_in_folders_of_any_name(pipeline: Pipeline, tmp_path: Path) -> None:
    place = tmp_path / "st[o]re *\\ {a,b}?"
    images = place / "images"
    place.mkdir()
    pipeline.images.rename(images)
    there = replace(pipeline, images=images, store=Store(place / "store"))
    both = "export.formats=[keras, saved_model]"
    first = there.run(both)
    again = there.run(both)
    assert set(statuses(again).values()) == {"hit"}
    image = next((images / "red").iterdir())
    for model in (Path(first.run_dir), Path(first.run_dir) / "saved_model"):
        (said,) = Predictor.load(model).predict(image)
        assert said.label == "red"
    logs = Path(again.run_dir) / "tensorboard"
    assert list(logs.glob("**/*tfevents*"))

"""Folders whose names TensorFlow takes for a pattern."""

from pathlib import Path

import pytest
import tensorflow as tf

from headstart.tasks.store.files import without_wildcards

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

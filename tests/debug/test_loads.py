"""Weights that are loaded and change nothing."""

import keras
import pytest
import tensorflow as tf

from headstart.debug.internals import private
from headstart.debug.running.loads import Loads, watch_checkpoints, watch_loads


@pytest.fixture
def loads(monkeypatch):
    told = Loads()
    monkeypatch.setattr(keras.Model, "load_weights", keras.Model.load_weights)
    monkeypatch.setattr(tf.train.Checkpoint, "read", tf.train.Checkpoint.read)
    watch_loads(told)
    watch_checkpoints(told)
    return told


def model_of(name, units=2):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name=name)])


def symptoms_of(loads):
    return [(one.symptom, one.file) for one in loads.diagnoses()]


FOUND = [("nothing-loaded", __file__)]


def test_names_that_the_file_does_not_have_load_nothing(loads, tmp_path):
    file = str(tmp_path / "weights.h5")
    model_of("first").save(file)
    model_of("first").load_weights(file, by_name=True)
    model_of("second").load_weights(file)  # by position
    assert loads.diagnoses() == []
    model_of("second").load_weights(file, by_name=True)
    assert symptoms_of(loads) == FOUND
    assert private("KerasVariable").assign.__name__ == "assign"


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_shapes_that_are_all_skipped_load_nothing(loads, tmp_path):
    file = str(tmp_path / "a.weights.h5")
    model_of("first").save_weights(file)
    model_of("first").load_weights(file, skip_mismatch=True)
    assert loads.diagnoses() == []
    with pytest.raises(ValueError, match="shape"):
        model_of("first", units=5).load_weights(file)
    assert loads.diagnoses() == []
    model_of("first", units=5).load_weights(file, skip_mismatch=True)
    assert symptoms_of(loads) == FOUND


def test_a_checkpoint_of_other_names_restores_nothing(loads, tmp_path):
    path = tf.train.Checkpoint(model=model_of("first")).save(str(tmp_path / "saved"))
    tf.train.Checkpoint(model=model_of("second")).restore(path).expect_partial()
    tf.train.Checkpoint(model=model_of("second")).restore(None)
    assert loads.diagnoses() == []
    tf.train.Checkpoint(network=model_of("first")).restore(path).expect_partial()
    assert symptoms_of(loads) == FOUND


def test_a_checkpoint_whose_variables_are_made_later_is_no_fault(loads, tmp_path):
    path = tf.train.Checkpoint(weight=tf.Variable(1.0)).save(str(tmp_path / "saved"))
    late = tf.train.Checkpoint()
    late.restore(path)
    assert symptoms_of(loads) == FOUND
    late.weight = tf.Variable(0.0)
    assert loads.diagnoses() == []

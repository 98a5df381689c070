import importlib

import numpy as np
import pytest
import tensorflow as tf


def test_tensorflow_still_has_the_private_function() -> None:
    name = "convert_variables_to_constants_v2"
    home = "tensorflow.python.framework.convert_to_constants"
    try:
        found = hasattr(importlib.import_module(home), name)
    except ImportError:
        found = False
    assert found, (
        f"TensorFlow {tf.__version__} has moved {name} out of {home}: find its new home, change "
        "tasks/backbones/frozen_graph.py, and raise the TensorFlow pin in pyproject.toml"
    )


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_variables_become_constants(factor: float) -> None:
    from headstart.tasks.backbones.frozen_graph import fold_variables

    variable = tf.Variable(factor)
    signature = tf.TensorSpec([None], tf.float32)
    function = tf.function(lambda x: [x * variable]).get_concrete_function(signature)
    frozen = fold_variables(function)
    variable.assign(100.0)
    assert frozen.variables == ()
    np.testing.assert_array_equal(frozen(tf.constant([1.0, 5.0]))[0], [factor, 5 * factor])

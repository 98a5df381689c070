"""Frozen graphs: a traced function whose variables have become constants.

The one module of the pipeline that needs a private name of TensorFlow's: there is no public way
to fold variables into a graph in TensorFlow 2.
"""

from typing import Any

from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def fold_variables(function: Any) -> Any:
    """Make a function's variables constants of its graph.

    Constants let TensorFlow fold batch normalisation into the convolutions before it.

    Returns:
        A concrete function of the same inputs and outputs, without variables.
    """
    return convert_variables_to_constants_v2(function)

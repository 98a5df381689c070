"""The one place that reaches behind TensorFlow's and Keras's public names.

Debugger V2's reader, op callbacks and the tfdbg session wrappers have no public entry. Each is
listed here once with where TensorFlow 2.21 and Keras 3.15 keep it, and looked up on first use, so
that a release that moves one fails with its name and not somewhere inside a diagnosis.
"""

import functools
import importlib
from typing import Any

from headstart.errors import HeadstartError

PRIVATE_NAMES: dict[str, str] = {
    # Debugger V2 dumps: the reader, and the base class of what listens to it.
    "DebugDataReader": "tensorflow.python.debug.lib.debug_events_reader:DebugDataReader",
    "BaseMonitor": "tensorflow.python.debug.lib.debug_events_monitors:BaseMonitor",
    "dumping_state": "tensorflow.python.debug.lib.dumping_callback:_state",
    # Its random numbers seed eager ops.
    "eager_context": "tensorflow.python.eager.context:context",
    # What is told of each op as it is made or run, in this thread.
    "add_op_callback": "tensorflow.python.framework.op_callbacks:add_op_callback",
    "extract_stack": "tensorflow.python.util.tf_stack:extract_stack",
    # Where gradients are made: the frames of these functions name the forward op.
    "gradient_function": "tensorflow.python.eager.backprop:_gradient_function",
    "gradients_helper": "tensorflow.python.ops.gradients_util:_GradientsHelper",
    # tf.function's class, and what is told of each graph it traces.
    "Function": "tensorflow.python.eager.polymorphic_function.polymorphic_function:Function",
    # What goes through a data set eagerly.
    "OwnedIterator": "tensorflow.python.data.ops.iterator_ops:OwnedIterator",
    "ResourceVariable": "tensorflow.python.ops.resource_variable_ops:BaseResourceVariable",
    # Callables told of every ConcreteFunction just traced.
    "trace_listeners": (
        "tensorflow.python.eager.polymorphic_function.transform:CONCRETE_FUNCTION_CALLBACKS"
    ),
    # TF1-style sessions.
    "BaseSession": "tensorflow.python.client.session:BaseSession",
    "DumpingSession": (
        "tensorflow.python.debug.wrappers.dumping_wrapper:DumpingDebugWrapperSession"
    ),
    "InteractiveSession": (
        "tensorflow.python.debug.wrappers.local_cli_wrapper:LocalCLIDebugWrapperSession"
    ),
    "SessionWatchOptions": "tensorflow.python.debug.wrappers.framework:WatchOptions",
    "DebugDumpDir": "tensorflow.python.debug.lib.debug_data:DebugDumpDir",
    "InconvertibleTensor": "tensorflow.python.debug.lib.debug_data:InconvertibleTensorProto",
    # Keras: every layer, loss, metric and optimizer is one of these.
    "KerasSaveable": "keras.src.saving.keras_saveable:KerasSaveable",
    "KerasVariable": "keras.src.backend.common.variables:Variable",
    "KerasOperation": "keras.src.ops.operation:Operation",
    # Keras asks whether a model's compile is this one: patch it nowhere else.
    "KerasCompiler": "keras.src.trainers.trainer:Trainer",
    # Keras's named globals: the seeds of layers and functions that are given none.
    "keras_global": "keras.src.backend.common.global_state:get_global_attribute",
    "set_keras_global": "keras.src.backend.common.global_state:set_global_attribute",
    "KerasTrainer": "keras.src.backend.tensorflow.trainer:TensorFlowTrainer",
}
"""Where each private name is kept, as ``module:attribute``."""


@functools.cache
def private(name: str) -> Any:
    """Return one of TensorFlow's or Keras's private objects.

    Args:
        name: A key of ``PRIVATE_NAMES``.

    Returns:
        The class, function or object.

    Raises:
        HeadstartError: The installed release keeps it elsewhere.
    """
    module_name, attribute = PRIVATE_NAMES[name].split(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise HeadstartError(
            f"{module_name} has no {attribute}, which the debugger needs (TensorFlow 2.21 and"
            " Keras 3.15 have it)",
            f"{type(error).__name__}: {error}",
            "install tensorflow>=2.21,<2.22, or correct PRIVATE_NAMES in debug/internals.py",
        ) from error

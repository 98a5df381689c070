"""Networks as ONNX: the one form that the engines besides TensorFlow read.

The network is taken as the frozen graph that TensorFlow itself would run, so that what is
converted is what is compared. OpenVINO reads ONNX as well as ONNX Runtime does; its own converter
of TensorFlow models is slower, and reports its use over the network.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from headstart.errors import BackboneError

OPSET = 17
"""Old enough for every ONNX Runtime and OpenVINO of the last years."""
MAX_BYTES = 2**31 - 2**20
"""A protocol buffer ends at 2 GiB; 1 MiB is left for the nodes."""


def to_onnx(frozen: Any) -> bytes:
    """Convert a frozen graph.

    Args:
        frozen: From `headstart.tasks.backbones.frozen_graph.fold_variables`: a concrete function
            without variables.

    Returns:
        An ONNX model whose inputs and outputs are the function's, in their order.

    Raises:
        BackboneError: tf2onnx is not installed, or the network has an operation that ONNX lacks.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise BackboneError(
            "a network cannot be converted to ONNX without tf2onnx",
            str(error),
            "install it (pip install tf2onnx onnx)",
        ) from None
    graph = frozen.graph.as_graph_def()
    if graph.ByteSize() > MAX_BYTES:
        raise BackboneError(
            f"a network of more than {MAX_BYTES:,} bytes does not fit into an ONNX file",
            f"{graph.ByteSize():,} bytes",
        )
    try:
        with _quietly():
            model, _ = tf2onnx.convert.from_graph_def(
                graph,
                input_names=[tensor.name for tensor in frozen.inputs],
                output_names=[tensor.name for tensor in frozen.outputs],
                opset=OPSET,
            )
    except Exception as error:  # of whatever kind: tf2onnx has none of its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackboneError("a network cannot be converted to ONNX", lines[0]) from error
    # tf2onnx leaves an operation that it does not know as it is, and only logs that.
    if foreign := {node.op_type for node in model.graph.node if not _is_known(onnx, node)}:
        raise BackboneError(
            "a network cannot be converted to ONNX",
            f"operations that ONNX lacks: {', '.join(sorted(foreign))}",
        )
    data: bytes = model.SerializeToString()
    return data


def _is_known(onnx: Any, node: Any) -> bool:
    return bool(onnx.defs.has(node.op_type, node.domain))


@contextmanager
def _quietly() -> Iterator[None]:
    """Hold back what tf2onnx and the old functions that it calls say of themselves."""
    loggers = [tf.get_logger(), logging.getLogger("tf2onnx.tfonnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""Engines: what computes a frozen network. TensorFlow always can; others are often faster.

`open_engine` gives each the same shape: a function from a batch of pixels to float32 arrays. Which
of them is fastest differs between processors by factors, so nothing here prefers one;
`headstart.tasks.bottlenecks.choosing` measures.
"""

import os
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np

from headstart.config import EngineName, Precision
from headstart.errors import BackboneError
from headstart.tasks.running.onnx_runtime import import_onnxruntime
from headstart.tasks.running.spreading import available_cores

Extract = Callable[[Any], Sequence[Any]]
"""From uint8 [n, size, size, 3] to a float32 array [n, ...] an output, or a tensor that NumPy
reads as one."""

OTHERS: tuple[EngineName, ...] = ("onnxruntime", "openvino")
"""The engines that may or may not be installed."""
TITLES: dict[str, str] = {
    "tensorflow": "TensorFlow",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
PRECISIONS: dict[str, tuple[EngineName, ...]] = {
    "float32": ("tensorflow", *OTHERS),
    "bfloat16": ("openvino",),
}
"""Which engines compute in a precision, as headstart uses them. TensorFlow's bfloat16 (oneDNN's
automatic one) was slower than ONNX Runtime's float32 on the same cores."""


def engine_version(name: str) -> str | None:
    """Return an engine's version without importing it; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def open_engine(name: str, model: bytes, precision: Precision = "float32") -> Extract:
    """Open a network in an engine other than TensorFlow, on the processor.

    Args:
        name: An entry of `OTHERS`, such as "onnxruntime".
        model: ONNX file's bytes, from `headstart.tasks.backbones.converting.to_onnx`.
        precision: Type of the arithmetic; sums are float32 in either.

    Raises:
        BackboneError: The engine is not installed, cannot read the network, or does not compute
            in this precision on this processor.
    """
    if engine_version(name) is None:
        raise BackboneError(
            f"{TITLES[name]} is not installed",
            f"bottlenecks.engine={name}",
            f"install it (pip install {name}), or let headstart choose: "
            "--set bottlenecks.engine=auto",
        )
    try:
        return _OPENERS[name](model, precision)
    except BackboneError:
        raise
    except Exception as error:  # each engine has a tree of its own, and lets others through
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackboneError(f"{TITLES[name]} cannot open the network", lines[0]) from error


def _open_onnxruntime(model: bytes, precision: Precision) -> Extract:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _num_threads()
    options.log_severity_level = 3
    # Threads that wait by spinning would take the cores from reading and writing.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    name = pixels.name
    return lambda batch: session.run(None, {name: np.asarray(batch)})


def _open_openvino(model: bytes, precision: Precision) -> Extract:
    import openvino

    core = openvino.Core()
    wanted: Literal["f32", "bf16"] = "bf16" if precision == "bfloat16" else "f32"
    compiled = core.compile_model(
        core.read_model(model=model),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": wanted,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": _num_threads(),
        },
    )
    given = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if given != wanted:
        raise BackboneError(
            f"this processor does not compute in {precision}",
            f"bottlenecks.precision={precision}, for which OpenVINO takes {given} here",
            "leave bottlenecks.precision out: float32 is exact",
        )
    outputs = range(len(compiled.outputs))

    def compute(batch: Any) -> list[Any]:
        results = compiled(np.asarray(batch))
        return [results[number] for number in outputs]

    return compute


_OPENERS: dict[str, Callable[[bytes, Precision], Extract]] = {
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
}


def _num_threads() -> int:
    """Return this process's share of the cores: a worker of several is told it as TensorFlow is."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or available_cores()

"""Exported models ready to compute, each in its own engine; only those of TensorFlow import it."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ExportError
from headstart.tasks.export.file_names import FILE_NAMES, Format, kind_of
from headstart.tasks.export.model_files import (
    ModelCard,
    check_content,
    check_safe,
    first_line,
    freeze,
    read_card,
    read_keras,
)
from headstart.tasks.running.onnx_runtime import import_onnxruntime
from headstart.tasks.running.tensorflow import stderr_without
from headstart.tasks.store.files import without_wildcards

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Views uint8 [N, image_size, image_size, 3] to probabilities float32 [N, num_classes]."""
ANSWER_NAMES = ("probabilities", "numbers")
"""What the answer among a model's outputs is called."""
NOISE = ("INFO:", "fully_quantize:")
"""How lines of LiteRT's begin that ask for no action."""
LITERT_PACKAGE = "ai_edge_litert"
"""LiteRT without TensorFlow, which has an interpreter of its own."""


def load_network(path: Path) -> tuple[ModelCard, Network]:
    """Load an exported model, ready to compute.

    Args:
        path: A file of one of the formats, a SavedModel folder, or a run's folder, of which the
            format that is safest to load is taken.

    Returns:
        Its card and the network behind its resizing.

    Raises:
        ExportError: There is no such model, or it cannot be loaded.
    """
    path, kind = locate(path)
    check_safe(path)
    card = read_card(path)
    check_content(path, card)
    try:
        return card, ENGINES[kind][engines_of(kind)[0]](path)
    except ExportError:
        raise
    except Exception as error:  # each loader raises whatever its parser stumbles on
        raise ExportError(
            "the model file cannot be loaded",
            f"{path}: {first_line(error)}",
            "export the model again",
        ) from error


def needs_tensorflow(path: Path) -> bool:
    """Say whether a model is computed by TensorFlow.

    Raises:
        ExportError: There is no such model.
    """
    return engines_of(locate(path)[1])[0] == "tensorflow"


def locate(path: Path) -> tuple[Path, Format]:
    """Find a model.

    Args:
        path: An exported file, a SavedModel folder, or a run's folder.

    Raises:
        ExportError: There is no such model.
    """
    problem = (
        "not a model: expected a .keras, .onnx, .xml or .tflite file, a SavedModel folder or a "
        "run's folder"
    )
    try:
        if (kind := kind_of(path)) is not None:
            return path, kind
    except OSError as error:
        raise ExportError(
            problem, f"{path}: {(error.strerror or '').lower()}", "check the path"
        ) from None
    if not path.is_dir():
        raise ExportError(problem, f"{path}: another kind of file", "check the path")
    for kind in get_args(Format):
        if (path / FILE_NAMES[kind]).exists():
            return path / FILE_NAMES[kind], kind
    names = ", ".join(FILE_NAMES.values())
    raise ExportError(problem, f"{path}: a folder with none of {names}", "check the path")


def answer_of(outputs: Mapping[str, Any]) -> Any:
    """Return a model's answer among its outputs; one of numbers calls it otherwise."""
    return next(outputs[name] for name in ANSWER_NAMES if name in outputs)


def _load_saved_model(path: Path) -> Network:
    import tensorflow as tf

    with without_wildcards(path) as plain:
        loaded = tf.saved_model.load(str(plain))

    def network(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Looked up each time: a signature alone does not keep what it computes with alive.
        signature = loaded.signatures["serving_views"]
        probabilities: NDArray[np.float32] = answer_of(signature(tf.constant(views))).numpy()
        return probabilities

    return network


def _load_keras(path: Path) -> Network:
    import tensorflow as tf

    forward = freeze(read_keras(path))

    def network(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = forward(tf.constant(views))[1].numpy()
        return probabilities

    return network


def _load_onnx(path: Path) -> Network:
    with needs_package("ONNX Runtime", "onnxruntime"):
        onnxruntime = import_onnxruntime()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    there = onnxruntime.get_available_providers()
    session = onnxruntime.InferenceSession(
        str(path), providers=[name for name in wanted if name in there]
    )
    name = session.get_inputs()[0].name
    answer = answer_of({output.name: output.name for output in session.get_outputs()})

    def network(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run([answer], {name: views})[0]
        return probabilities

    return network


def _load_openvino(path: Path) -> Network:
    with needs_package("OpenVINO", "headstart[openvino]"):
        import openvino
    # float32, where some processors would take bfloat16 for faster: the labels are proven with it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", exact)
    output = answer_of({name: output for output in compiled.outputs for name in output.names})

    def network(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array(compiled(views)[output])  # a copy: the engine writes into its own again

    return network


def _load_litert(path: Path, by_tensorflow: bool = False) -> Network:
    interpreter = _open_litert(path, by_tensorflow)
    runner = interpreter.get_signature_runner()

    def network(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = [answer_of(runner(views=view[np.newaxis])) for view in views]
        return np.concatenate(rows)

    return network


def _open_litert(path: Path, by_tensorflow: bool) -> Any:
    if not by_tensorflow:
        from ai_edge_litert.interpreter import Interpreter
    else:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter  # noqa: N806
    with warnings.catch_warnings():
        # TensorFlow's own warns at each use that it will move to that other package.
        warnings.simplefilter("ignore", UserWarning)
        with without_info_lines():
            interpreter = Interpreter(model_path=str(path))
            interpreter.allocate_tensors()
    return interpreter


def without_info_lines() -> contextlib.AbstractContextManager[None]:
    """Keep LiteRT's C++ from telling on file descriptor 2 what it chose and was told."""
    return stderr_without(lambda line: line.startswith(NOISE))


_LITERT: dict[str, Callable[[Path], Network]] = {
    "litert": lambda path: _load_litert(path),
    "tensorflow": lambda path: _load_litert(path, by_tensorflow=True),
}
ENGINES: dict[Format, dict[str, Callable[[Path], Network]]] = {
    "keras": {"tensorflow": lambda path: _load_keras(path)},
    "saved_model": {"tensorflow": lambda path: _load_saved_model(path)},
    "onnx": {
        "onnxruntime": lambda path: _load_onnx(path),
        "openvino": lambda path: _load_openvino(path),
    },
    "openvino": {"openvino": lambda path: _load_openvino(path)},
    "litert": _LITERT,
    "litert_float16": _LITERT,
    "litert_int8": _LITERT,
}
"""What computes each format, the one that is taken first."""
_PACKAGES = {"litert": LITERT_PACKAGE}


def engines_of(kind: Format) -> list[str]:
    """Name the engines that read a format and are installed here.

    Returns:
        The one that is taken first; where none is installed, that which would be.
    """
    names = list(ENGINES[kind])
    return [name for name in names if find_spec(_PACKAGES.get(name, name))] or names[:1]


@contextlib.contextmanager
def needs_package(name: str, install: str) -> Iterator[None]:
    """Say what to install, where importing a package fails.

    Raises:
        ExportError: The package is not installed.
    """
    try:
        yield
    except ImportError as error:
        problem = f"{name} is not installed, and this format needs it"
        raise ExportError(problem, str(error), f"pip install '{install}'") from None

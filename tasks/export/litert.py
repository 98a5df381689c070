"""The joined model for LiteRT: as it is, with float16 weights, or in eight-bit integers."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.errors import ExportError
from headstart.tasks.export.file_names import Format
from headstart.tasks.export.joining import LOGITS, PROBABILITIES
from headstart.tasks.export.runtimes import without_info_lines


def write_litert(
    kind: Format,
    network: Any,
    path: Path,
    calibration: NDArray[np.uint8] | None = None,
    answer_name: str = PROBABILITIES,
) -> None:
    """Write a .tflite file that takes one view.

    Args:
        kind: litert, litert_float16 or litert_int8.
        network: A concrete function, from `headstart.tasks.export.model_files.freeze`.
        path: File to write, ending in .tflite.
        calibration: Views uint8 [n, image_size, image_size, 3] whose activations give the integers
            their ranges; for litert_int8 alone.
        answer_name: What the answer is called.

    Raises:
        ExportError: LiteRT does not know an operation of the model, or nothing was given to
            calibrate with.
    """
    module = tf.Module()
    # One image, because delegates want fixed shapes.
    spec = tf.TensorSpec([1, *network.inputs[0].shape[1:]], tf.uint8, name="views")

    def answer(views: Any) -> dict[str, Any]:
        logits, probabilities = network(views)
        return {LOGITS: logits, answer_name: probabilities}

    module.serve = tf.function(answer, input_signature=[spec], autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.serve.get_concrete_function()], module
    )
    if kind != "litert":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "litert_float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "litert_int8":
        if calibration is None or not len(calibration):
            raise ExportError(
                "the litert_int8 format needs views for calibration",
                "none",
                "leave litert_int8 out of export.formats",
            )
        converter.representative_dataset = lambda: ([view[np.newaxis]] for view in calibration)
    try:
        with without_info_lines():
            data = converter.convert()
    except Exception as error:  # ConverterError is private, and others come through
        raise ExportError(
            "LiteRT does not support all operations of this backbone",
            (str(error).strip().splitlines() or [type(error).__name__])[0],
            f"leave {kind} out of export.formats, or use another backbone",
        ) from error
    path.write_bytes(data)

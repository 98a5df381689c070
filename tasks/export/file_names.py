"""The formats of an exported model, and what their files are called."""

import errno
from pathlib import Path
from typing import Literal

Format = Literal[
    "keras", "saved_model", "onnx", "openvino", "litert", "litert_float16", "litert_int8"
]
"""What a model can be exported to, the safest to load first: a .keras file is no program."""
FILE_NAMES: dict[Format, str] = {
    "keras": "model.keras",
    "saved_model": "saved_model",
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "litert": "model.tflite",
    "litert_float16": "model_float16.tflite",
    "litert_int8": "model_int8.tflite",
}
"""Name of each format's file or folder inside a run's folder."""
QUANTISED: tuple[Format, ...] = ("litert_float16", "litert_int8")
"""Formats that keep fewer bits than the model was trained with."""
WEIGHTS_SUFFIX = ".bin"
"""Of the file beside an OpenVINO model that holds its weights."""
WRITTEN_NAMES = (*FILE_NAMES.values(), Path(FILE_NAMES["openvino"]).stem + WEIGHTS_SUFFIX)
"""All that exports may write into a run's folder."""


def main_model(folder: Path) -> Path:
    """Return the model of a run: the .keras file, or the SavedModel where there is none."""
    file = folder / FILE_NAMES["keras"]
    saved_model = folder / FILE_NAMES["saved_model"]
    return saved_model if saved_model.exists() and not file.exists() else file


def kind_of(path: Path) -> Format | None:
    """Tell the format of a model by its content.

    Returns:
        The format (litert for all of LiteRT's); None for anything else.

    Raises:
        OSError: It cannot be read.
    """
    if path.is_dir():
        return "saved_model" if (path / "saved_model.pb").is_file() else None
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a FIFO, socket or device, so it is not opened")
    with path.open("rb") as file:
        prefix = file.read(512)
    if prefix[4:8] == b"TFL3":  # the file identifier of the flatbuffer's schema
        return "litert"
    if prefix[:4] == b"PK\x03\x04":
        return "keras"
    if prefix[:5] == b"<?xml" and b"<net" in prefix:
        return "openvino"
    # Protocol buffers have no mark of their own; an ONNX file begins with field 1, its version.
    return "onnx" if prefix[:1] == b"\x08" and path.suffix == ".onnx" else None

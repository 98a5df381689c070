"""The formats of an exported model, and what their files are called."""

from pathlib import Path
from typing import Literal

Format = Literal["keras", "saved_model", "litert"]
"""What a model can be exported to, the safest to load first: a .keras file is no program."""
FILE_NAMES: dict[Format, str] = {
    "keras": "model.keras",
    "saved_model": "saved_model",
    "litert": "model.tflite",
}
"""Name of each format's file or folder inside a run's folder."""


def main_model(folder: Path) -> Path:
    """Return the model of a run's folder: the .keras file, or the SavedModel where there is none.

    Args:
        folder: Of a run.
    """
    file = folder / FILE_NAMES["keras"]
    saved_model = folder / FILE_NAMES["saved_model"]
    return saved_model if saved_model.exists() and not file.exists() else file

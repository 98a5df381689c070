"""Importing ONNX Runtime without what it tells its makers."""

import os
from typing import Any


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry off.

    The import itself begins a session of the telemetry and writes its number to a file ``.ses`` in
    the folder for temporary files, which only the variable prevents.

    Raises:
        ImportError: It is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime

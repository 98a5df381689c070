"""ONNX Runtime as headstart opens it: it tells nobody, and leaves nothing behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_onnx_runtime_leaves_no_file_of_its_telemetry(tmp_path: Path) -> None:
    """Without the variable, ONNX Runtime 1.32 leaves one here; no control, which would be told."""
    told = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    code = "from headstart.tasks.running import onnx_runtime as own; own.import_onnxruntime()"
    subprocess.run([sys.executable, "-c", code], env={**told, "TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


def test_onnx_runtime_is_imported_in_one_place() -> None:
    imports = re.compile(r"^\s*(import|from) onnxruntime\b", re.MULTILINE)
    found = [
        path.name
        for folder in ("headstart", "flows", "tasks", "debug")
        for path in (ROOT / folder).rglob("*.py")
        if imports.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["onnx_runtime.py"]

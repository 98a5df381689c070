"""The Python that the documentation shows, for the tests that run it."""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def documented(page: str, number: int) -> str:
    """Return a block of Python of a page of docs/, 0 for the first."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[number]


def code_that_runs() -> str:
    """Return the Python of the notebooks, and of the blocks that tests ask `documented` for."""
    parts = []
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        parts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "documented":
                page, number = (ast.literal_eval(argument) for argument in node.args)
                parts.append(documented(page, number))
    return "\n".join(parts)

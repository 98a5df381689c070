"""What `headstart debug run` says of public training faults, beside what its peers say.

    python benchmarks/public_faults/compare.py FOLDER [NAME ...]

FOLDER holds ported subjects, which are not ours to publish: ``buggy/NAME.py``, ``expected.json``
(of each its ``lines``, ``keywords`` and ``misleading`` words) and ``peers.json`` (of each its
``reports``: tool -> evaluation -> ``detected``, ``diagnosed``). Nothing is fetched. Printed is a
Markdown table: *detected* says that anything was found, *first* that the first finding names the
line or the cause.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOOLS = ("DeepLocalize", "DeepFD", "UMLAUT", "AUTOTRAINER")
HEADSTART = str(Path(sys.executable).with_name("headstart"))
LIMIT_S = 300.0


def run(folder: Path, name: str) -> list[dict[str, Any]]:
    """Run one subject in a copy of its folder and return the diagnoses."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch) / "buggy"
        shutil.copytree(folder / "buggy", work)
        command = [HEADSTART, "debug", "run", "--json", f"{name}.py"]
        try:
            ended = subprocess.run(
                command, cwd=work, capture_output=True, text=True, check=False, timeout=LIMIT_S
            )
            found: list[dict[str, Any]] = json.loads(ended.stdout)["diagnoses"]
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            return []
    return found


def is_right(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Tell whether a diagnosis names the line or the cause."""
    if found.get("line") in expected["lines"]:
        return True
    parts = [found["symptom"], found["cause"], *found["suggestions"]]
    text = " ".join(parts).lower()
    if any(re.search(words, text) for words in expected["misleading"]):
        return False
    return any(all(re.search(word, text) for word in group) for group in expected["keywords"])


def told_by(peer: dict[str, Any] | None) -> str:
    """Return what a peer is reported to do: ``first``, ``detected`` or nothing."""
    reports = [report for report in (peer or {}).values() if isinstance(report, dict)]
    if any(report.get("diagnosed") for report in reports):
        return "first"
    seen = any(report.get("detected") or report.get("identifies_bug") for report in reports)
    return "detected" if seen else ""


def main() -> None:
    """Run the subjects and print the table."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("folder", type=Path)
    ask.add_argument("names", nargs="*", help="subjects; all where none is named")
    asked = ask.parse_args()
    expected = json.loads((asked.folder / "expected.json").read_text(encoding="utf-8"))
    peers = json.loads((asked.folder / "peers.json").read_text(encoding="utf-8"))
    columns = (*TOOLS, "headstart")
    print(f"| subject | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    totals = {column: [0, 0] for column in columns}
    for name in asked.names or expected:
        found = run(asked.folder, name)
        own = "first" if found and is_right(found[0], expected[name]) else "detected"
        reports = peers.get(name, {}).get("reports", {})
        cells = [*(told_by(reports.get(tool)) for tool in TOOLS), own if found else ""]
        for column, cell in zip(columns, cells, strict=True):
            totals[column][0] += bool(cell)
            totals[column][1] += cell == "first"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    counts = (f"{detected}, {first} first" for detected, first in totals.values())
    print(f"| all | {' | '.join(counts)} |")


if __name__ == "__main__":
    main()

"""The best model in the time there is: accuracy on val or test by the seconds that were given.

    python benchmarks/in_time.py IMAGES --budget-s 60 --budget-s 600

Each budget is a command of its own over an empty store, so that nothing is found; seconds are of
the whole command, imports and report included. `headstart train` without a budget comes first, for
comparison: there val chooses an epoch, with a budget it chooses nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "headstart.cli", "train"]


def run(images: Path, store: Path, budget_s: float | None) -> tuple[dict[str, Any], float]:
    """Run the command over an empty store; return what it prints, and its seconds."""
    told = [] if budget_s is None else ["--budget-s", f"{budget_s:g}"]
    started_s = time.perf_counter()
    done = subprocess.run(
        [*COMMAND, str(images), "--store", str(store), "--json", *told],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout), time.perf_counter() - started_s


def main() -> None:
    """Run without a budget, then with each, and print a table and what was tried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--budget-s", type=float, action="append", default=[])
    arguments = parser.parse_args()
    lines, tables = [], []
    for budget_s in (None, *(arguments.budget_s or [600.0])):
        with tempfile.TemporaryDirectory() as store:
            made, seconds = run(arguments.images, Path(store), budget_s)
        split = "test" if "test" in made["metrics"] else "val"
        figures = made["metrics"][split]
        low, high = figures["accuracy_interval"]
        accuracy = f"{split} {figures['accuracy']:.1%} ({low:.1%} to {high:.1%})"
        given = "none" if budget_s is None else f"{budget_s:g}"
        lines.append(f"| {given} | {seconds:.0f} | {accuracy} | {made.get('chosen', 'head')} |")
        for one in made.get("tried", ()):
            held_out = "" if one["accuracy"] is None else f"{one['accuracy']:.1%}"
            what = f"{one['what']} | {held_out} | {one['seconds']:.1f}"
            tables.append(f"| {given} | {what} | {one['outcome']} {one['reason']} |")
    print("| Seconds given | taken | accuracy | model |\n|---|---|---|---|")
    print("\n".join(lines))
    print("\n| Given | Tried | Held-out accuracy | Seconds | |\n|---|---|---|---|---|")
    print("\n".join(tables))


if __name__ == "__main__":
    main()

"""How often `headstart debug run` accuses a program that is healthy.

    python benchmarks/debug_false_alarms.py [NAME ...] [--jobs N] [--limit-s S]

Runs the programs of ``benchmarks/healthy_programs`` under the debugger and prints what it said of
each and the rates of false errors and of advice. Exits 0 only with no false error and at most
`MAX_ADVICE` programs that are given advice.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROGRAMS = Path(__file__).parent / "healthy_programs"
HEADSTART = str(Path(sys.executable).with_name("headstart"))
MAX_ADVICE = 2


def said_of(program: Path, limit_s: float) -> tuple[str, str]:
    """Run a program and return the worst severity (or ``failed``, ``silent``) and the cause."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / program.name
        copy.write_text(program.read_text(encoding="utf-8"), encoding="utf-8")
        command = [HEADSTART, "debug", "run", "--json", copy.name]
        try:
            ended = subprocess.run(
                command, cwd=scratch, capture_output=True, text=True, check=False, timeout=limit_s
            )
        except subprocess.TimeoutExpired:
            return "failed", f"took more than {limit_s:.0f} s"
    try:
        report = json.loads(ended.stdout)
        found = [*report["diagnoses"], *report["advice"]]
    except (ValueError, KeyError):
        return "failed", ended.stderr[-200:]
    if not found:
        return ("silent", "") if ended.returncode == 0 else ("failed", ended.stderr[-200:])
    return found[0]["severity"], f"{found[0]['symptom']}: {found[0]['cause']}"


def main() -> int:
    """Run the programs and print the table."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("names", nargs="*", help="programs, without .py; all where none is named")
    ask.add_argument("--jobs", type=int, default=1, help="programs run at the same time")
    ask.add_argument("--limit-s", type=float, default=600.0, help="seconds for each")
    asked = ask.parse_args()
    programs = [PROGRAMS / f"{name}.py" for name in asked.names] or sorted(PROGRAMS.glob("*.py"))
    verdicts: list[str] = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        results = pool.map(lambda program: said_of(program, asked.limit_s), programs)
        for program, (verdict, cause) in zip(programs, results, strict=True):
            print(f"{verdict:8} {program.stem:36} {cause}"[:200], flush=True)
            verdicts.append(verdict)
    errors = sum(verdict in ("error", "ended", "failed") for verdict in verdicts)
    advice = sum(verdict in ("warning", "advice") for verdict in verdicts)
    print(f"{len(programs)} programs: {errors} false errors, {advice} advice")
    return 0 if not errors and advice <= MAX_ADVICE else 1


if __name__ == "__main__":
    sys.exit(main())

"""What Prefect costs a command-line run in wall-clock seconds.

    python benchmarks/prefect_overhead.py --repeats 5

The same warm `headstart train` (every stage a hit), in turns: plainly, as where no server runs;
recorded by the server of a running `headstart up`; with --record, which starts a temporary server.
And, for the part of the plain run that is Prefect's too, the import of Prefect by itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.demo import IMAGE_SIZE, write_digits
from headstart.service.record import read_record

HEADSTART = [sys.executable, "-m", "headstart.cli"]


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Return the wall-clock seconds that a command takes.

    Args:
        command: Program and arguments.
        environment: All of its variables.
    """
    started_s = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started_s


@contextmanager
def server(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `headstart up` over a store of its own; yield the address of its Prefect server."""
    command = [*HEADSTART, "up", "--store", str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "headstart up did not start"
        record = read_record(folder)
        assert record is not None
        yield record.api_url
    finally:
        process.terminate()
        process.wait()


def measure(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Time every way in turns.

    Args:
        folder: For the data, the stores and Prefect's home.
        repeats: Runs of each way.

    Returns:
        Wall-clock seconds of each run, by way.
    """
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    environment["PREFECT_HOME"] = str(folder / "prefect")
    train = [*HEADSTART, "train", str(write_digits(folder / "digits")), "--json"]
    train += ["--set", f"views.image_size={IMAGE_SIZE}", "--store", str(folder / "store")]
    subprocess.run(train, env=environment, check=True, capture_output=True)
    times: dict[str, list[float]] = {}
    with server(folder / "up", environment) as url:
        recorded = {**environment, "PREFECT_API_URL": url}
        for _ in range(repeats):
            for way, command, variables in (
                ("import prefect", [sys.executable, "-c", "import prefect.flows"], environment),
                ("python alone", [sys.executable, "-c", "pass"], environment),
                ("plain", train, environment),
                ("recorded", train, recorded),
                ("--record", [*train, "--record"], environment),
            ):
                times.setdefault(way, []).append(seconds(command, variables))
    return times


def main() -> None:
    """Measure and print the medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), repeats)
    medians = {way: round(statistics.median(values), 2) for way, values in times.items()}
    all_times = {way: [round(value, 2) for value in values] for way, values in times.items()}
    imported = medians["import prefect"] - medians["python alone"]
    overhead = {
        "of a plain run, all of it import": round(imported, 2),
        "recorded, more than plain": round(medians["recorded"] - medians["plain"], 2),
        "--record, more than plain": round(medians["--record"] - medians["plain"], 2),
    }
    print(json.dumps({"medians_s": medians, "overhead_s": overhead, "runs_s": all_times}, indent=1))


if __name__ == "__main__":
    main()

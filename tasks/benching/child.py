"""The child process of a bench: one exported file in one engine, one JSON object on stdout.

    python -m headstart.tasks.benching.child MODEL ENGINE VIEWS SECONDS ANSWERS

The answers to the views are written to ANSWERS, an .npy file.

A process of its own, so that each pays its own imports, and memory of one is not counted for the
next.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headstart.tasks.export.runtimes import ENGINES, locate

BATCH_SIZES = (1, 32)
NUM_WARM_UP = 3
"""Calls before the clock: engines plan at the first, and processors speed up."""
MIN_CALLS = 5


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    model, engine, views_file, seconds, answers_file = arguments
    views = np.load(views_file)
    path, kind = locate(Path(model))
    network = ENGINES[kind][engine](path)
    network(views[:1])
    told: dict[str, object] = {"ready_at": time.time()}
    latencies = _time(lambda: network(views[:1]), float(seconds))
    told["p50_ms"], told["p99_ms"] = (
        1000 * float(np.percentile(latencies, share)) for share in (50, 99)
    )
    told["images_per_s"] = {"1": 1 / float(np.mean(latencies))}
    size = BATCH_SIZES[-1]
    batch = np.resize(views, (size, *views.shape[1:]))
    told["images_per_s"] = {
        "1": 1 / float(np.mean(latencies)),
        str(size): size / float(np.mean(_time(lambda: network(batch), float(seconds)))),
    }
    answers = [network(views[start : start + size]) for start in range(0, len(views), size)]
    np.save(answers_file, np.concatenate(answers))
    told["peak_memory_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(told))


def _time(call: object, seconds: float) -> list[float]:
    """Call for some seconds; return how long each call took."""
    assert callable(call)
    for _ in range(NUM_WARM_UP):
        call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < MIN_CALLS or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken


if __name__ == "__main__":
    main(sys.argv[1:])

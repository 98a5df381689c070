"""What 32 heads at once take, against one: the default grid of `headstart sweep`, and its first.

    python benchmarks/sweep_speed.py --rounds 5

Rows as the default backbone makes of the TensorFlow flower photos (2,054 to learn from and 513
held out, 1,280 values, 5 classes), drawn at random; 25 epochs, none stopped early. In turns in one
process; every time is of the whole training, TensorFlow's tracing with it. For comparison the same
32 heads one after the other by `train_head` would take 32 times its row.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console

from headstart.config import HeadConfig, SweepConfig, build_config
from headstart.config.sweep import swept_heads
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.training import train_head
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.sweeping.pooled import hold_out, pool
from headstart.tasks.sweeping.together import train_heads

NUM_ROWS, NUM_VALUES, NUM_CLASSES = 2567, 1280, 5


def make_rows(folder: Path) -> LabelledRows:
    """Write float16 rows to a store, and open them as a training does."""
    generator = np.random.default_rng(0)
    values = generator.gamma(0.5, 1.0, (NUM_ROWS, NUM_VALUES)).astype(np.float16)
    labels = generator.integers(0, NUM_CLASSES, NUM_ROWS).astype(np.int32)
    ids = [RowId(f"{number:064x}", 0) for number in range(NUM_ROWS)]
    collection = RowCollection(Store(folder), "bottlenecks", "bench", (NUM_VALUES,), "float16")
    with collection.lock(), collection.writer(NUM_ROWS) as writer:
        for row_id, row in zip(ids, values, strict=True):
            writer.write(row_id, row)
    return LabelledRows((collection.select(ids),), np.arange(NUM_ROWS)[:, None], labels)


def main() -> None:
    """Time every way in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    config = build_config(SweepConfig, "images", overrides={"head.patience": 0})
    heads = swept_heads(config)
    plain: list[HeadConfig] = [head.model_copy(update={"dropout": 0.0}) for head in heads]
    with tempfile.TemporaryDirectory() as name, use_reporter(Reporter(Console(file=io.StringIO()))):
        fit, held_out = hold_out(make_rows(Path(name) / "store"), seed=0)
        arrays = pool(fit), pool(held_out)

        def together(configs: list[HeadConfig]) -> Callable[[], object]:
            return lambda: train_heads(*arrays, configs, NUM_CLASSES)

        ways = {
            "1 head of the sweep": together(list(heads[:1])),
            f"{len(heads)} heads at once": together(list(heads)),
            "1 head, no dropout": together(plain[:1]),
            f"{len(heads)} heads at once, no dropout": together(plain),
            "1 head by train_head": lambda: train_head(
                fit, held_out, heads[0], NUM_CLASSES, None, Path(name) / "log"
            ),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, work in ways.items():
                started_s = time.perf_counter()
                work()
                times[way].append(time.perf_counter() - started_s)
    one_s = median(times["1 head of the sweep"])
    for way, each in times.items():
        print(f"{way:<32} {median(each):>8.2f} s {median(each) / one_s:>7.2f}")


if __name__ == "__main__":
    main()

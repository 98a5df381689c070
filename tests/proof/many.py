"""Many runs at once over one store, or one run over many images.

    python -m tests.proof.many runs 8
    python -m tests.proof.many images 100000

The runs are of two configurations, so that some make the same at the same time. The images go
through `headstart train`'s stages as far as the bottlenecks, and the largest memory is told beside
that of a tenth of them.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf  # noqa: F401
from PIL import Image

from headstart.flows import transfer
from headstart.tasks.store import records
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.verifying import verify
from tests.pipeline import ROWS_A_SHARD, Pipeline, save_backbone
from tests.proof.kills import contents, ended, in_child, prepare

SIDE = 16
NUM_CLASSES = 10


def pipeline_in(folder: Path) -> Pipeline:
    return Pipeline(folder / "images", folder / "net.keras", Store(folder / "store"))


def train_with(folder: Path, seed: int, out: str) -> None:
    made = pipeline_in(folder)
    transfer.run(made.config(f"head.seed={seed}"), folder / "store", folder / out)


def many_runs(count: int, folder: Path) -> None:
    records.MIN_SHARD_ROWS = ROWS_A_SHARD
    together, alone = folder / "together", folder / "alone"
    for place in (together, alone):
        place.mkdir()
        must(ended(in_child(prepare, place, folder / "log")), folder / "log")
    for seed in range(2):
        act = lambda place, s=seed: train_with(place, s, f"run{s}")  # noqa: E731
        must(ended(in_child(act, alone, folder / "log")), folder / "log")  # type: ignore[arg-type]
    started_s = time.monotonic()
    pids = {}
    for number in range(count):
        act = lambda place, n=number: train_with(place, n % 2, f"run{n}")  # noqa: E731
        log = folder / f"log{number}"
        pids[in_child(act, together, log)] = log  # type: ignore[arg-type]
    for pid, log in pids.items():
        must(ended(pid), log)
    check = verify(Store(together / "store"))
    print(f"{count} runs at once: {time.monotonic() - started_s:.0f} s, verify {check.to_dict()}")
    names = [contents(Store(place / "store")) for place in (together, alone)]
    # Who comes second may add shards of its own rows; what is made of them is the same.
    wrong = [
        name
        for name in names[1]
        if name.partition("/")[0] not in ("views", "bottlenecks")
        and names[0].get(name) != names[1][name]
    ]
    rows = {path.name for path in (together / "store" / "rows").rglob("*.tfrecord")}
    expected = {path.name for path in (alone / "store" / "rows").rglob("*.tfrecord")}
    print(f"other results than alone: {wrong}; shards {len(rows)}, alone {len(expected)}")
    if check.damaged or wrong or rows != expected:
        sys.exit(1)


def write_many(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(NUM_CLASSES):
        (folder / "images" / f"class{number}").mkdir(parents=True)
    for number in range(count):
        label = number % NUM_CLASSES
        pixels = generator.integers(0, 200, (SIDE, SIDE, 3), np.uint8) + 5 * np.uint8(label)
        path = folder / "images" / f"class{label}" / f"{number:06}.bmp"
        Image.fromarray(pixels).save(path)


def many_images(count: int, folder: Path) -> None:
    peaks = []
    for size in (count // 10, count):
        place = folder / str(size)
        place.mkdir()
        write_many(place, size)
        log = folder / "log"
        must(ended(in_child(lambda at: save_backbone(at / "net.keras"), place, log)), log)

        def extract(at: Path) -> None:
            started_s = time.monotonic()
            made = pipeline_in(at).extract("bottlenecks.batch_size=256")
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            (at / "peak").write_text(f"{peak} {made.rows_computed} {time.monotonic() - started_s}")

        must(ended(in_child(extract, place, log)), log)
        peak, rows, seconds = (place / "peak").read_text().split()
        peaks.append(int(peak))
        print(
            f"{size:,} images: {int(rows):,} rows in {float(seconds):.0f} s, "
            f"{int(peak) / 2**20:,.0f} MiB at most",
            flush=True,
        )
    a_image = (peaks[1] - peaks[0]) / (0.9 * count)
    print(f"{a_image:,.0f} bytes more for each image")
    if a_image > 4096:  # of paths, digests and places of rows; the pixels alone are 768
        sys.exit(1)


def must(code: int, log: Path) -> None:
    if code:
        raise SystemExit(f"it ended with {code}: {log.read_text()[-3000:]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        what = {"runs": many_runs, "images": many_images}[sys.argv[1]]
        what(int(sys.argv[2]), Path(name))

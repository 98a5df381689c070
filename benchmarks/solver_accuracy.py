"""Is a head by L-BFGS as accurate as the default one? Ten seeds, each another split and training.

    python benchmarks/solver_accuracy.py
    python benchmarks/solver_accuracy.py --images flower_photos --store ~/store

The features are the pixels of scikit-learn's digits, or the bottlenecks of a folder of images.
For each seed three fifths of them are trained on, a fifth is the val split (it chooses the
default head's epoch, and nothing of the other), and a fifth is tested. Seconds are of the whole
training, in turns.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

import headstart
from headstart.config import HeadConfig
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.folds import stratified_folds
from headstart.tasks.head.lbfgs import solve_head
from headstart.tasks.head.training import TrainedHead, predict_logits, train_head
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.records import RowCollection, RowId

NUM_FOLDS = 5


def features_of(images: Path | None, store: Path | None) -> tuple[Any, Any]:
    """Return features float32 [n, d] and labels int32 [n]."""
    if images is None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.data.astype(np.float32) / 16, digits.target.astype(np.int32)
    cached = headstart.bottlenecks(images, store=store)
    splits = cached.splits.values()
    values = np.concatenate([split.numpy().astype(np.float32) for split in splits])
    return values, np.concatenate([split.labels for split in splits]).astype(np.int32)


def write_rows(folder: Path, values: npt.NDArray[np.float32], labels: Any) -> LabelledRows:
    """Write rows to a store, and open them as a training does."""
    ids = [RowId(f"{number:064x}", 0) for number in range(len(values))]
    collection = RowCollection(Store(folder), "bottlenecks", "all", values.shape[1:], "float32")
    with collection.lock(), collection.writer(len(ids)) as writer:
        for row_id, row in zip(ids, values, strict=True):
            writer.write(row_id, row)
    return LabelledRows((collection.select(ids),), np.arange(len(ids))[:, None], labels)


def some(rows: LabelledRows, chosen: Any) -> LabelledRows:
    """Return some of the rows."""
    return LabelledRows(rows.readers, rows.positions[chosen], rows.labels[chosen])


def train(train: LabelledRows, val: LabelledRows, seed: int, solver: str, log: Path) -> TrainedHead:
    """Train a head by one of the solvers, with its defaults."""
    config = HeadConfig.model_validate({"solver": solver, "seed": seed})
    num_classes = int(train.labels.max()) + 1
    if solver == "lbfgs":
        return solve_head(train, val, config, num_classes, log)
    return train_head(train, val, config, num_classes, None, log)


def main() -> None:
    """Train twice a seed, and print accuracies on the tested fifth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    values, labels = features_of(options.images, options.store)
    print(f"{len(labels):,} rows of {values.shape[1]:,} values, {labels.max() + 1} classes")
    solvers = ("minibatch", "lbfgs")
    right: dict[str, list[float]] = {solver: [] for solver in solvers}
    taken = dict.fromkeys(solvers, 0.0)
    with tempfile.TemporaryDirectory() as name, use_reporter(Reporter(Console(file=io.StringIO()))):
        rows = write_rows(Path(name) / "store", values, labels)
        for seed in range(options.seeds):
            folds = stratified_folds(labels, NUM_FOLDS, seed)
            fit, val, test = (some(rows, np.flatnonzero(part)) for part in
                              (folds > 1, folds == 1, folds == 0))  # fmt: skip
            for solver in solvers:
                started_s = time.perf_counter()
                head = train(fit, val, seed, solver, Path(name) / "log")
                taken[solver] += time.perf_counter() - started_s
                logits = predict_logits(head.model, test)
                right[solver].append(float((logits.argmax(axis=1) == test.labels).mean()))
    for solver in solvers:
        each = np.array(right[solver])
        print(f"{solver:<10} mean {each.mean():.4f}, least {each.min():.4f}, "
              f"{taken[solver] / options.seeds:.2f} s a head")  # fmt: skip
    gain = np.array(right["lbfgs"]) - np.array(right["minibatch"])
    print(f"lbfgs less minibatch: mean {gain.mean():+.4f}, standard error "
          f"{gain.std(ddof=1) / np.sqrt(len(gain)):.4f}, better {(gain > 0).sum()}, "
          f"worse {(gain < 0).sum()} of {len(gain)}")  # fmt: skip


if __name__ == "__main__":
    main()

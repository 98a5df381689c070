"""How fast a linear head trains on bottlenecks in memory, against what else would train it.

    python benchmarks/head_speed.py --rounds 7

The same rows (2,567 of 1,280 values in 5 classes, as the default backbone makes of the TensorFlow
flower photos; here they are drawn at random), batches of 128, SGD with Nesterov momentum, no
validation, in turns in one process: headstart's compiled epochs, the same head step by step (as
with a callback of the user's), `keras.Model.fit` on the array, SGD in plain NumPy, one pass of
scikit-learn's SGDClassifier and, where it is installed, PyTorch. Then headstart with its default
optimizer and dropout, which the others do not have. Medians over the rounds; every figure is a
ratio to NumPy in the same run. Do not set OPENBLAS_CORETYPE: it can slow NumPy down.
"""

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import keras
import numpy as np
import numpy.typing as npt
from rich.console import Console
from sklearn.linear_model import SGDClassifier

from headstart.config import HeadConfig
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.training import train_head
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.records import RowCollection, RowId

NUM_ROWS, NUM_VALUES, NUM_CLASSES, BATCH_SIZE = 2567, 1280, 5, 128
EPOCHS = 8
"""Of a training of headstart's, of which the first, which traces, does not count."""
RATE, MOMENTUM = 0.01, 0.9
PLAIN = HeadConfig(
    optimizer="sgd", learning_rate=RATE, schedule="constant", weight_decay=0.0, dropout=0.0,
    epochs=EPOCHS, batch_size=BATCH_SIZE,
)  # fmt: skip
Values = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


def write_rows(folder: Path, values: Values, labels: Labels) -> LabelledRows:
    """Write float16 rows to a store, and open them as a training does."""
    ids = [RowId(f"{number:064x}", 0) for number in range(len(values))]
    collection = RowCollection(Store(folder), "bottlenecks", "bench", values.shape[1:], "float16")
    with collection.lock(), collection.writer(len(ids)) as writer:
        for row_id, row in zip(ids, values.astype(np.float16), strict=True):
            writer.write(row_id, row)
    return LabelledRows((collection.select(ids),), np.arange(len(ids))[:, None], labels)


def headstart_epoch(
    rows: LabelledRows, config: HeadConfig, folder: Path, *, watched: bool
) -> Callable[[], float]:
    """Return what takes the median seconds of an epoch of `train_head`."""
    quiet = Reporter(Console(file=io.StringIO()))
    callbacks = [keras.callbacks.Callback()] if watched else []

    def run() -> float:
        with use_reporter(quiet):
            trained = train_head(rows, None, config, NUM_CLASSES, None, folder / "log", callbacks)
        return median(figures.duration_s for figures in trained.history[1:])

    return run


def keras_epoch(values: Values, labels: Labels) -> Callable[[], float]:
    """Return what takes the seconds of an epoch of `keras.Model.fit`."""
    model = keras.Sequential([keras.Input((NUM_VALUES,)), keras.layers.Dense(NUM_CLASSES)])
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM, nesterov=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])

    def fit() -> None:
        model.fit(values, labels, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)

    return lambda: seconds(fit) / EPOCHS


def numpy_epoch(values: Values, labels: Labels) -> Callable[[], float]:
    """Return what takes the seconds of an epoch of SGD in NumPy."""
    kernel, bias = np.zeros((NUM_VALUES, NUM_CLASSES), np.float32), np.zeros(NUM_CLASSES, "f4")
    speeds = [np.zeros_like(kernel), np.zeros_like(bias)]
    targets = np.eye(NUM_CLASSES, dtype=np.float32)[labels]
    generator = np.random.default_rng(0)

    def run() -> None:
        order = generator.permutation(len(values))
        for start in range(0, len(values), BATCH_SIZE):
            chosen = order[start : start + BATCH_SIZE]
            batch = values[chosen]
            logits = batch @ kernel + bias
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            error = (shares - targets[chosen]) / len(chosen)
            gradients = (batch.T @ error, error.sum(axis=0))
            for weight, speed, gradient in zip((kernel, bias), speeds, gradients, strict=True):
                step = RATE * gradient
                speed *= MOMENTUM
                speed -= step
                weight += MOMENTUM * speed - step

    return lambda: seconds(run)


def sklearn_epoch(values: Values, labels: Labels) -> Callable[[], float]:
    """Return what takes the seconds of one pass of SGDClassifier, a row at a time."""
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=RATE)
    classes = np.arange(NUM_CLASSES)
    return lambda: seconds(lambda: model.partial_fit(values, labels, classes=classes))


def torch_epoch(values: Values, labels: Labels) -> Callable[[], float]:
    """Return what takes the seconds of an epoch of SGD in PyTorch."""
    import torch

    x, y = torch.from_numpy(values), torch.from_numpy(labels.astype(np.int64))
    model = torch.nn.Linear(NUM_VALUES, NUM_CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM, nesterov=True)

    def run() -> None:
        for chosen in torch.randperm(len(x)).split(BATCH_SIZE):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()

    return lambda: seconds(run)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that work takes."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def main() -> None:
    """Measure every way in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    generator = np.random.default_rng(0)
    values = generator.gamma(0.5, 1.0, (NUM_ROWS, NUM_VALUES)).astype(np.float32)
    labels = generator.integers(0, NUM_CLASSES, NUM_ROWS).astype(np.int32)
    defaults = HeadConfig(epochs=EPOCHS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder / "store", values, labels)
        ways = {
            "NumPy": numpy_epoch(values, labels),
            "headstart": headstart_epoch(rows, PLAIN, folder, watched=False),
            "headstart, step by step": headstart_epoch(rows, PLAIN, folder, watched=True),
            "headstart, defaults": headstart_epoch(rows, defaults, folder, watched=False),
            "keras.Model.fit": keras_epoch(values, labels),
            "scikit-learn, SGDClassifier": sklearn_epoch(values, labels),
        }
        if find_spec("torch"):
            ways["PyTorch"] = torch_epoch(values, labels)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 1):
            for name, way in ways.items():
                with contextlib.redirect_stdout(io.StringIO()):
                    times[name].append(way())
    taken = {name: median(each[1:]) for name, each in times.items()}
    print(f"{'':<28} {'examples/s':>11} {'NumPy = 1':>10}")
    for name, one_s in sorted(taken.items(), key=lambda item: item[1]):
        print(f"{name:<28} {NUM_ROWS / one_s:>11,.0f} {taken['NumPy'] / one_s:>10.2f}")


if __name__ == "__main__":
    main()

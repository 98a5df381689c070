"""A tiny data set in MNIST's format, easy to learn: each class a bar at another place."""

import struct
from pathlib import Path

import numpy as np

SIDE = 20
NUM_CLASSES = 3
SCRATCH = (
    "network.name=lenet5",
    "training.epochs=6",
    "training.batch_size=32",
    "training.learning_rate=0.1",
    "views.padding=1",
    "views.cutout=2",
    "views.flip=off",
    "evaluation.num_bootstrap=10",
    "evaluation.num_top_losses=2",
    "export.formats=[keras]",
    "export.num_proof_images=2",
)
"""Settings of a training that learns them in a second."""


def bars(num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw gray images uint8 [n, 20, 20] with a bright bar, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images) % NUM_CLASSES
    images = generator.integers(0, 60, (num_images, SIDE, SIDE), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[3 + 4 * label : 5 + 4 * label] += 150
    return images, labels


def idx_bytes(array: np.ndarray) -> bytes:
    """Write an array as an IDX file's bytes."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def idx_files(num_train: int, num_test: int) -> dict[str, bytes]:
    """Return the four files of a data set, not gzipped but named so."""
    train, test = bars(num_train, 0), bars(num_test, 1)
    return {
        "train-images-idx3-ubyte.gz": idx_bytes(train[0]),
        "train-labels-idx1-ubyte.gz": idx_bytes(train[1]),
        "t10k-images-idx3-ubyte.gz": idx_bytes(test[0]),
        "t10k-labels-idx1-ubyte.gz": idx_bytes(test[1]),
    }


def write_idx(folder: Path, num_train: int = 300, num_test: int = 60) -> Path:
    """Write the data set into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in idx_files(num_train, num_test).items():
        (folder / name.removesuffix(".gz")).write_bytes(data)
    return folder

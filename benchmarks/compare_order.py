"""From scratch, last layer, last block or all of a pretrained network, at equal epochs.

    python benchmarks/compare_order.py --data /usr/share/datasets/fashion-mnist

Fashion-MNIST's own IDX files (Debian's package dataset-fashion-mnist, or any copy) become a folder
of PNG files with as many of each class, split into train, val and test; on these
`headstart compare` trains the default backbone in its four ways, from the same seeds, for as many
epochs each. The test images are of the data set's own test part. Prints accuracies and seconds,
and which order was found. The expected one is full > scratch > last layer.
"""

import argparse
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from PIL import Image

from headstart.config import CompareConfig, ScratchDatasetConfig, build_config
from headstart.flows.compare import StudySummary, compare
from headstart.tasks.dataset.pixels import PixelsManifest, open_images, open_labels
from headstart.tasks.dataset.pixels import stage as make_pixels
from headstart.tasks.evaluation.report_content import percent
from headstart.tasks.store.artifacts import Store, use_store


def write_split(
    pixels: PixelsManifest, part: str, first: int, num_images: int, folder: Path
) -> None:
    """Write as many images of each class, from the first-th on, as PNG files."""
    images, labels = open_images(pixels, part), np.asarray(open_labels(pixels, part))
    for label, name in enumerate(pixels.class_names):
        (folder / name).mkdir(parents=True)
        chosen = np.flatnonzero(labels == label)[first : first + num_images]
        for number in chosen:
            image = Image.fromarray(np.asarray(images[number])[..., 0])
            image.save(folder / name / f"{number:05}.png")


def report(summary: StudySummary) -> None:
    lines = list(summary.metrics.values())
    print(f"{'':<12}{'accuracy':>10}{'interval':>22}{'training':>12}{'once':>8}")
    for line in lines:
        low, high = line.interval or (0.0, 1.0)
        interval = f"{percent(low)} to {percent(min(1.0, high))}"
        print(
            f"{line.name:<12}{percent(line.accuracy):>10}{interval:>22}"
            f"{line.train_s:>10.1f} s{line.once_s:>6.1f} s"
        )
    order = sorted(lines, key=lambda line: -line.accuracy)
    print("order: " + " > ".join(line.name for line in order))
    for note in summary.notes:
        print(note)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the IDX files")
    parser.add_argument("--images", type=int, default=8000, help="to train on")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--store", type=Path, help="a store to use and keep")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}; "
        f"{options.images} images of {options.image_size} pixels, {options.epochs} epochs, "
        f"{options.seeds} seeds"
    )
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name) / "fashion", options.store or Path(name) / "store"
        with use_store(Store(store)):
            source = ScratchDatasetConfig(images="fashion-mnist", data=options.data)
            pixels = make_pixels(source, None)
            each = options.images // len(pixels.class_names)
            write_split(pixels, "train", 0, each, folder / "train")
            write_split(pixels, "train", each, each // 8, folder / "val")
            write_split(pixels, "test", 0, each // 4, folder / "test")
        overrides: dict[str, Any] = {
            "views.image_size": options.image_size,
            "tuning.epochs": options.epochs,
            "seeds": list(range(options.seeds)),
        }
        report(compare.fn(build_config(CompareConfig, folder, overrides=overrides), store))


if __name__ == "__main__":
    main()

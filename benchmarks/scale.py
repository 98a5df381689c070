"""Time and memory of the stages against the number of images: 1,000, 10,000 and 100,000 of them.

    python benchmarks/scale.py                     # 1,000 and 10,000; ten minutes on two cores
    python benchmarks/scale.py --counts 1000 10000 100000

The images are generated, 32 pixels wide, and the backbone is tiny, so that what is measured is
headstart's own work for each image, not decoding or convolutions. Each run is a process of its
own: a first one, one that finds everything, and one that leaves out 1 % of the images by a list.
Seconds are printed beside CPU seconds, which a busy machine changes less.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 32
CLASSES = ("blue", "green", "red")
SETTINGS = (
    "views.image_size=32",
    "head.epochs=2",
    "evaluation.num_bootstrap=10",
    "evaluation.num_top_losses=0",
    "export.formats=[keras]",
    "bottlenecks.batch_size=256",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    names = ("dataset", "views", "bottlenecks", "head", "evaluation", "export")
    print(f"| images | run | s | CPU s | peak MB | {' s | '.join(names)} s |")
    print("|" + "---|" * (5 + len(names)))
    with tempfile.TemporaryDirectory() as folder:
        for count in options.counts:
            measure(Path(folder) / str(count), count, names)


def measure(folder: Path, count: int, names: tuple[str, ...]) -> None:
    images, backbone = folder / "images", folder / "net.keras"
    write_images(images, count)
    leave = folder / "leave.txt"
    files = sorted(images.rglob("*.png"))
    lines = [file.relative_to(images).as_posix() for file in files[::100]]
    leave.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = [*SETTINGS, f"backbone.name={backbone}"]
    train = ["train", str(images), "--store", str(folder / "store"), "--json"]
    train += [part for setting in settings for part in ("--set", setting)]
    runs = {
        "first": ["--backbone-at", str(backbone), *train],
        "all there": train,
        f"{len(lines):,} excluded": [*train, "--exclude", str(leave)],
    }
    for name, arguments in runs.items():
        found = measured(arguments)
        seconds = {stage["name"]: stage["seconds"] for stage in found["stages"]}
        stages = " | ".join(f"{seconds.get(stage, 0.0):,.1f}" for stage in names)
        print(
            f"| {count:,} | {name} | {found['wall_s']:,.1f} | {found['cpu_s']:,.1f} "
            f"| {found['peak_mb']:,.0f} | {stages} |",
            flush=True,
        )


def write_images(folder: Path, count: int) -> None:
    """Write images that differ, each in the colour of its class."""
    generator = np.random.default_rng(0)
    for number in range(count):
        label = number % len(CLASSES)
        pixels = generator.integers(0, 128, (SIDE, SIDE, 3), np.uint8)
        pixels[..., 2 - label] += 100
        path = folder / CLASSES[label] / f"{number:07}.png"
        if number < len(CLASSES):
            path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path, compress_level=1)


def measured(arguments: list[str]) -> dict[str, Any]:
    started_s = time.perf_counter()
    command = [sys.executable, __file__, "--child", *arguments]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    wall_s = time.perf_counter() - started_s
    *_, summary, usage = ended.stdout.strip().rsplit("\n", 1)
    return {**json.loads(summary), **json.loads(usage), "wall_s": wall_s}


def child(arguments: list[str]) -> None:
    """Run headstart in this process, and say on the last line what that took."""
    if arguments[0] == "--backbone-at":
        save_backbone(Path(arguments[1]))
        arguments = arguments[2:]
    from headstart.cli import main as headstart

    sys.argv = ["headstart", *arguments]
    try:
        headstart()
    except SystemExit as end:
        if end.code:
            raise
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = used.ru_utime + used.ru_stime
    sys.stdout.write("\n" + json.dumps({"cpu_s": cpu_s, "peak_mb": used.ru_maxrss / 1024}) + "\n")


def save_backbone(path: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(16, 3, strides=4, activation="relu")(x)
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)).save(path)


if __name__ == "__main__":
    main()

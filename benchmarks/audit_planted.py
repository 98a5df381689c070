"""How many planted label errors and near-duplicates `headstart audit` finds.

    python benchmarks/audit_planted.py IMAGES
    python benchmarks/audit_planted.py IMAGES --images 800 --seeds 2

IMAGES is a folder with train/ and val/, one sub-folder a class in each. For each seed, a copy of
it gets 5 % of its labels changed at random, and near-duplicates of random val images among the
train images: resized to 70 %, compressed anew at quality 40, mirrored, and all three at once. The
audit sees the copy alone. Counted are the changed labels among the first 10 % of labels.csv, and
the planted duplicates among the leaks of findings.csv. The store is kept from seed to seed, so
that only new images go through the backbone.
"""

import argparse
import csv
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from PIL import Image, ImageOps

from headstart.config import AuditConfig, build_config
from headstart.flows.audit import audit

SHARE_FLIPPED = 0.05
SHARE_LISTED = 0.10
NUM_PLANTED = 20
"""Of each kind of near-duplicate."""


def resized(image: Image.Image) -> Image.Image:
    return image.resize((int(image.width * 0.7), int(image.height * 0.7)))


KINDS: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "resized": (resized, 95),
    "recompressed": (lambda image: image, 40),
    "mirrored": (ImageOps.mirror, 95),
    "all": (lambda image: ImageOps.mirror(resized(image)), 40),
}


def copy_images(images: Path, folder: Path, num_images: int | None) -> list[Path]:
    files = sorted(path for path in images.rglob("*.jpg"))
    copied = []
    for file in files[:: max(1, len(files) // (num_images or len(files)))]:
        target = folder / file.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        copied.append(target)
    return copied


def flip_labels(folder: Path, files: list[Path], rng: np.random.Generator) -> set[str]:
    """Move a share of the files into another class's folder; return their new paths."""
    classes = sorted({file.parent.name for file in files})
    flipped = set()
    for number in rng.choice(len(files), round(SHARE_FLIPPED * len(files)), replace=False):
        file = files[number]
        others = [name for name in classes if name != file.parent.name]
        target = file.parent.parent / str(rng.choice(others)) / file.name
        file.rename(target)
        flipped.add(target.relative_to(folder).as_posix())
    return flipped


def plant_duplicates(folder: Path, rng: np.random.Generator) -> dict[str, set[str]]:
    """Write changed copies of val images into train; return their paths by kind."""
    held_out = sorted((folder / "val").rglob("*.jpg"))
    planted: dict[str, set[str]] = {}
    for kind, (change, quality) in KINDS.items():
        planted[kind] = set()
        for number in rng.choice(len(held_out), NUM_PLANTED, replace=False):
            source = held_out[number]
            target = folder / "train" / source.parent.name / f"planted-{kind}-{source.name}"
            with Image.open(source) as image:
                change(image).save(target, quality=quality)
            planted[kind].add(target.relative_to(folder).as_posix())
    return planted


def run(images: Path, num_images: int | None, seed: int, store: Path) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        files = copy_images(images, folder, num_images)
        flipped = flip_labels(folder, files, rng)
        planted = plant_duplicates(folder, rng)
        started_s = time.monotonic()
        summary = audit.fn(build_config(AuditConfig, folder), store, Path(name) / "out")
        seconds = time.monotonic() - started_s
        labels = [row["path"] for row in read(summary.labels)]
        findings = read(summary.findings)
    listed = set(labels[: round(SHARE_LISTED * len(labels))])
    errors = {row["path"] for row in findings if row["kind"] == "label_error"}
    leaks = {row["path"] for row in findings if row["kind"] == "leak"}
    print(f"seed {seed}: {len(labels):,} images, {seconds:,.0f} s")
    print(
        f"  {len(flipped & listed)} of {len(flipped)} changed labels "
        f"({len(flipped & listed) / len(flipped):.1%}) in the first {SHARE_LISTED:.0%} of the list"
    )
    print(
        f"  {len(errors)} counted as errors, {len(flipped & errors)} of them changed "
        f"(precision {len(flipped & errors) / max(1, len(errors)):.1%}, "
        f"recall {len(flipped & errors) / len(flipped):.1%})"
    )
    for kind, paths in planted.items():
        print(f"  {len(paths & leaks)} of {len(paths)} {kind} near-duplicates across splits")
    others = leaks - set().union(*planted.values())
    print(f"  {len(others)} leaks that were not planted")


def read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--images", dest="num_images", type=int, help="take about so many")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--store", type=Path, help="a store to use and keep")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        for seed in range(options.seeds):
            run(options.images, options.num_images, seed, options.store or Path(name) / "store")


if __name__ == "__main__":
    main()

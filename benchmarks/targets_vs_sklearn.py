"""Heads for labels and numbers against scikit-learn, on the same bottlenecks.

    python benchmarks/targets_vs_sklearn.py flower_photos --count 600

Labels: mosaics of 2 x 2 photos, with the classes of the four. Numbers: photos turned by a random
angle, its sine and cosine to be told. A linear head of `headstart train`, by its solver (lbfgs and
ridge), is judged on the test split beside OneVsRest logistic regression, its C by cross-validation,
and RidgeCV, both on standardised bottlenecks. All learn from train alone. Prints both figures and
their difference: 0.5 points of mean average precision and 1 % of MAE are what is asked.
"""

import argparse
import csv
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import headstart

SIDE = 224
PENALTIES = np.logspace(-5, 1, 7)
SETTINGS = ("export.formats=[keras]",)


def write_mosaics(photos: Path, folder: Path, count: int, rng: np.random.Generator) -> Path:
    """Write mosaics of four photos, and their classes."""
    files = sorted(photos.glob("*/*.jpg"))
    rows = []
    for number in range(count):
        mosaic, names = Image.new("RGB", (SIDE, SIDE)), set()
        for place, pick in enumerate(rng.choice(len(files), 4, replace=False)):
            with Image.open(files[pick]) as photo:
                part = photo.convert("RGB").resize((SIDE // 2, SIDE // 2))
            mosaic.paste(part, (SIDE // 2 * (place % 2), SIDE // 2 * (place // 2)))
            names.add(files[pick].parent.name)
        mosaic.save(folder / f"{number}.jpg", quality=92)
        rows.append({"path": f"{number}.jpg", "labels": ";".join(sorted(names))})
    return _write(folder / "mosaics.csv", rows)


def write_turned(photos: Path, folder: Path, count: int, rng: np.random.Generator) -> Path:
    """Write photos turned about their middle, and the sine and cosine of the angle."""
    files = sorted(photos.glob("*/*.jpg"))
    rows = []
    for number, pick in enumerate(rng.choice(len(files), count, replace=False)):
        angle = rng.uniform(0, 360)
        with Image.open(files[pick]) as photo:
            turned = (
                photo.convert("RGB").resize((320, 320)).rotate(angle, Image.Resampling.BILINEAR)
            )
        edge = (320 - SIDE) // 2  # the square inside has no empty corners
        turned.crop((edge, edge, edge + SIDE, edge + SIDE)).save(folder / f"{number}.jpg")
        radians = np.deg2rad(angle)
        rows.append(
            {"path": f"{number}.jpg", "sine": f"{np.sin(radians):.6f}",
             "cosine": f"{np.cos(radians):.6f}"}
        )  # fmt: skip
    return _write(folder / "turned.csv", rows)


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def splits_of(manifest: Path, settings: tuple[str, ...], store: Path) -> dict[str, Any]:
    """Read the bottlenecks and targets of train and test, which a run has computed."""
    cached = headstart.bottlenecks(manifest, settings=settings, store=store)
    return {
        split: (cached[split].numpy().astype(np.float32), cached[split].labels)
        for split in ("train", "test")
    }


def compare_labels(manifest: Path, store: Path) -> None:
    """Print mean average precision of both."""
    run = headstart.train(manifest, settings=(*SETTINGS, "head.solver=lbfgs"), store=store)
    (x, y), (x_test, y_test) = splits_of(manifest, SETTINGS, store).values()
    each = LogisticRegressionCV(Cs=PENALTIES, cv=4, scoring="neg_log_loss", max_iter=300)
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(each))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = average_precision_score(y_test, model.fit(x, y).predict_proba(x_test))
    ours = run.metrics["test"]["mean_average_precision"]
    low, high = run.metrics["test"]["mean_average_precision_interval"]
    print(f"labels: headstart mAP {100 * ours:.2f} ({100 * low:.1f} to {100 * high:.1f}), "
          f"scikit-learn {100 * theirs:.2f}, difference {100 * (ours - theirs):+.2f} points, "
          f"{len(y_test)} test images")  # fmt: skip


def compare_numbers(manifest: Path, store: Path) -> None:
    """Print mean absolute error of both."""
    settings = (*SETTINGS, "dataset.target_columns=[sine, cosine]")
    run = headstart.train(manifest, settings=(*settings, "head.solver=ridge"), store=store)
    (x, y), (x_test, y_test) = splits_of(manifest, settings, store).values()
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 25)))
    said: npt.NDArray[np.float64] = model.fit(x, y).predict(x_test)
    theirs = float(np.abs(said - y_test).mean())
    ours = run.metrics["test"]["mae"]
    low, high = run.metrics["test"]["mae_interval"]
    print(f"numbers: headstart MAE {ours:.4f} ({low:.4f} to {high:.4f}), scikit-learn "
          f"{theirs:.4f}, difference {100 * (ours / theirs - 1):+.2f} %, "
          f"{len(y_test)} test images")  # fmt: skip


def main() -> None:
    """Write both data sets and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, help="folder with a sub-folder of .jpg files a class")
    parser.add_argument("--count", type=int, default=600, help="images of each data set")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, kind) for kind in ("mosaics", "turned")]
        for folder in folders:
            folder.mkdir()
        mosaics = write_mosaics(arguments.photos, folders[0], arguments.count, rng)
        turned = write_turned(arguments.photos, folders[1], arguments.count, rng)
        compare_labels(mosaics, Path(name, "store"))
        compare_numbers(turned, Path(name, "store"))


if __name__ == "__main__":
    main()

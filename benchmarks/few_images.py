"""What heads that are not trained get right of few images a class, against trained ones.

    python benchmarks/few_images.py IMAGES --draws 10

For each number of images a class, training images are drawn at random; all heads learn from the
same draw, and are judged on the whole val split: headstart's nearest mean and its default linear
head. Means over the draws, with the standard error of the difference to the nearest mean.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

import headstart
from headstart.config import HeadConfig
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.few_shot import fit_head
from headstart.tasks.head.training import predict_logits, train_head
from headstart.tasks.progress import Reporter, use_reporter

SHOTS = (1, 2, 3, 5, 10, 20)


def judge(train: LabelledRows, val: LabelledRows, num_classes: int, folder: Path) -> list[float]:
    """Return the accuracy of the nearest mean and of the linear head."""
    heads = [
        fit_head(train, None, HeadConfig(kind="nearest_mean"), num_classes, folder / "mean").model,
        train_head(train, None, HeadConfig(), num_classes, None, folder / "linear").model,
    ]
    return [
        float((predict_logits(head, val).argmax(axis=1) == val.labels).mean()) for head in heads
    ]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    cached = headstart.bottlenecks(options.images)
    train, val = cached["train"].rows, cached["val"].rows
    num_classes = len(cached.class_names)
    print("images a class  nearest mean  linear (default)")
    for shots in SHOTS:
        found = []
        for draw in range(options.draws):
            generator = np.random.default_rng((shots, draw))
            picked = np.concatenate(
                [
                    generator.choice(np.flatnonzero(train.labels == label), shots, replace=False)
                    for label in range(num_classes)
                ]
            )
            part = LabelledRows(train.readers, train.positions[picked], train.labels[picked])
            with (
                tempfile.TemporaryDirectory() as aside,
                use_reporter(Reporter(Console(file=io.StringIO()))),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                found.append(judge(part, val, num_classes, Path(aside)))
        mean, *others = np.array(found).T
        told = [
            f"{other.mean():.3f} ({(other - mean).mean():+.3f} ± "
            f"{(other - mean).std(ddof=1) / np.sqrt(len(mean)):.3f})"
            for other in others
        ]
        print(f"{shots:>14}  {mean.mean():>12.3f}  {'  '.join(told)}")


if __name__ == "__main__":
    main()

"""Every exported file of a run in every engine that reads it, side by side."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from headstart.config import DatasetConfig, EvaluationConfig
from headstart.errors import ConfigError, DatasetError, ExportError
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.decode import use_pixels
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.export.file_names import FILE_NAMES, WEIGHTS_SUFFIX, Format
from headstart.tasks.export.image_files import read_image_file
from headstart.tasks.export.model_files import ModelCard, read_card
from headstart.tasks.export.runtimes import engines_of, locate
from headstart.tasks.progress import reporter
from headstart.tasks.runs.config_file import dataset_of
from headstart.tasks.runs.judged_images import SEPARATOR, read_judged, read_numbers
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.views.pillow_view import pillow_view

NUM_DRAWN = 32
"""Views of noise that are timed where no images can be read."""
MAX_LOSS = 0.005
"""Accuracy, or mAP, that a file may lose and still be advised: half a point."""
MAX_MORE_ERROR = 0.01
"""Share by which the error of numbers may be larger."""
ERROR = JUDGES["number"].main_name
"""The metric of which less is better."""
_MAX_ERROR_LINES = 3


class Figures(BaseModel, frozen=True):
    """One file in one engine."""

    format: Format
    engine: str
    file: str
    p50_ms: float
    """Median time of one view, in milliseconds."""
    p99_ms: float
    images_per_s: dict[str, float]
    """By batch size."""
    start_up_s: float
    """From the start of a process to its first answer."""
    size_bytes: int
    peak_memory_bytes: int
    accuracy: float | None
    """Of the run's held-out images; None where they are no longer there, or have no classes."""
    num_images: int
    metric: str = "accuracy"
    """What the model is judged by: accuracy, mAP (of labels) or MAE (of numbers, in their unit)."""
    value: float | None = None
    """Of that on these images, where it is no accuracy."""

    @property
    def judged(self) -> float | None:
        """The figure that `metric` names."""
        return self.accuracy if self.metric == "accuracy" else self.value

    @property
    def judged_text(self) -> str:
        """It, written."""
        if self.judged is None:
            return "-"
        return f"{self.judged:.4g}" if self.metric == ERROR else f"{self.judged:.4f}"


class Bench(BaseModel, frozen=True):
    """All files and engines, the fastest first, and what follows."""

    run_dir: str
    split: str | None
    figures: tuple[Figures, ...]
    missing: tuple[Format, ...]
    """Formats that were not exported."""
    failed: dict[str, str] = {}
    """By file and engine: why it could not be run."""
    advice: str
    plot: str | None = None


class HeldOut(NamedTuple):
    """Images that a run was judged by.

    Attributes:
        split: Its name; None for noise.
        views: uint8 [n, size, size, 3].
        labels: int64 [n], of other kinds of targets what `Target.to_array` says; None for noise.
    """

    split: str | None
    views: npt.NDArray[np.uint8]
    labels: npt.NDArray[Any] | None


def bench(folder: Path, max_images: int = 200, seconds: float = 2.0) -> Bench:
    """Measure each exported file of a run.

    Args:
        folder: The run's folder.
        max_images: Held-out images that it is judged by, at the most.
        seconds: Time that each batch size is called for.

    Raises:
        ExportError: There is no exported file, or none could be run.
    """
    kinds: list[Format] = [
        kind for kind in get_args(Format) if (folder / FILE_NAMES[kind]).exists()
    ]
    if not kinds:
        locate(folder)  # which says what it looked for
    card = read_card(folder / FILE_NAMES[kinds[0]])
    held_out = open_held_out(folder, card, max_images)
    figures: list[Figures] = []
    failed: dict[str, str] = {}
    pairs = [(kind, engine) for kind in kinds for engine in engines_of(kind)]
    with (
        tempfile.TemporaryDirectory() as aside,
        reporter().track("measuring", len(pairs), "files") as advance,
    ):
        views = Path(aside) / "views.npy"
        np.save(views, held_out.views)
        for kind, engine in pairs:
            try:
                path = folder / FILE_NAMES[kind]
                figures.append(_measure(path, kind, engine, views, held_out.labels, card, seconds))
            except ExportError as error:
                failed[f"{FILE_NAMES[kind]} by {engine}"] = error.received
            advance(1)
    if not figures:
        raise ExportError(
            "no exported file could be run",
            "; ".join(f"{name}: {reason}" for name, reason in failed.items()),
            "export the model again",
        )
    figures.sort(key=lambda one: one.p50_ms)
    return Bench(
        run_dir=str(folder),
        split=held_out.split,
        figures=tuple(figures),
        missing=tuple(kind for kind in get_args(Format) if kind not in kinds),
        failed=failed,
        advice=advise(figures),
    )


def advise(figures: Sequence[Figures]) -> str:
    """Say in a line what to deploy.

    Args:
        figures: What was measured, the fastest first.

    Returns:
        The file of the lowest latency among those that lose no accuracy, and the one for batches
        where that is another.
    """
    judged = [one for one in figures if one.judged is not None]
    is_error = figures[0].metric == ERROR
    best = (min if is_error else max)(judged, key=lambda one: one.judged or 0.0, default=None)
    kept = judged or list(figures)
    if best is not None and best.judged is not None:
        limit = best.judged * (1 + MAX_MORE_ERROR) if is_error else best.judged - MAX_LOSS
        kept = [one for one in judged if (one.judged or 0.0) * _sign(one) >= limit * _sign(one)]
    first = kept[0]
    told = (
        f"deploy {_name(first)}: {first.p50_ms:.1f} ms per image, {first.size_bytes / 1e6:.1f} MB"
    )
    if best is None:
        told += f"; {first.metric} not measured, because the images are missing"
    else:
        told += f", {first.metric} {first.judged_text} where the best has {best.judged_text}"
    largest = max(first.images_per_s, key=int)
    busiest = max(kept, key=lambda one: one.images_per_s[largest])
    if busiest is not first:
        told += (
            f"; for batches of {largest} {_name(busiest)}, "
            f"{busiest.images_per_s[largest]:,.0f} images/s"
        )
    return told


def _sign(one: Figures) -> int:
    return -1 if one.metric == ERROR else 1


def open_held_out(folder: Path, card: ModelCard, max_images: int) -> HeldOut:
    """Make views of the images that a run was judged by; of noise where they are gone.

    Args:
        folder: The run's folder.
        card: Card of one of its models.
        max_images: The most to read, spread over the split.
    """
    found: list[tuple[str, Path, str]] = []
    try:
        source = dataset_of(folder)
        found = _listed(folder, source)
    except (ConfigError, OSError, KeyError) as error:
        reporter().note(f"accuracy is not measured: {str(error).splitlines()[0]}")
    splits = {split for split, _, _ in found}
    split = next((one for one in ("test", "val") if one in splits), None)
    chosen = [one for one in found if one[0] == split]
    picked = np.linspace(0, len(chosen) - 1, min(max_images, len(chosen)), dtype=int)
    views: list[npt.NDArray[np.uint8]] = []
    labels: list[Any] = []

    def make_view(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return pillow_view(pixels, card.image_size, card.resize)

    for place in picked:
        _, path, label = chosen[place]
        try:
            data = read_image_file(path, card.max_pixels)
            views.append(use_pixels(data, card.max_pixels, make_view))
        except DatasetError:
            continue
        labels.append(_as_target(card, label))
    if not views:
        shape = (NUM_DRAWN, card.image_size, card.image_size, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return HeldOut(None, noise, None)
    return HeldOut(split, np.stack(views), np.array(labels))


def _as_target(card: ModelCard, text: str) -> Any:
    """Read a target as `headstart.tasks.runs.judged_images` wrote it."""
    if card.target == "number":
        return read_numbers(text)
    if card.target == "labels":
        said = set(text.split(SEPARATOR))
        return [name in said for name in card.class_names]
    return card.class_names.index(text)


def _listed(folder: Path, source: DatasetConfig) -> list[tuple[str, Path, str]]:
    """Name the split, file and label of each image that a run was judged by."""
    root = dataset_root(source)
    return [
        (row["split"], root / row["path"], row["label"]) for row in read_judged(folder).values()
    ]


def _measure(
    path: Path,
    kind: Format,
    engine: str,
    views: Path,
    labels: npt.NDArray[Any] | None,
    card: ModelCard,
    seconds: float,
) -> Figures:
    answers = views.with_name("answers.npy")
    command = [sys.executable, "-m", "headstart.tasks.benching.child"]
    started = time.time()
    done = subprocess.run(
        [*command, str(path), engine, str(views), str(seconds), str(answers)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
    )
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-_MAX_ERROR_LINES:])
        raise ExportError("a file could not be run", f"exit code {done.returncode}: {last}")
    told = json.loads(done.stdout.splitlines()[-1])
    value = None if labels is None else _judge(np.load(answers), labels, card)
    judge = JUDGES[card.target]
    return Figures(
        format=kind,
        engine=engine,
        file=path.name,
        start_up_s=told.pop("ready_at") - started,
        size_bytes=_size(path),
        accuracy=value if card.target == "class" else None,
        num_images=0 if labels is None else len(labels),
        metric=judge.main_name,
        value=None if card.target == "class" else value,
        **told,
    )


def _judge(answers: npt.NDArray[Any], labels: npt.NDArray[Any], card: ModelCard) -> float | None:
    """Return the figure that models on such targets are known by."""
    if card.target == "class":
        return float((answers.argmax(axis=1) == labels).mean())
    judge = JUDGES[card.target]
    outputs = TARGETS[card.target].outputs(answers, card.fit)
    few = EvaluationConfig(num_bootstrap=10)  # no intervals are told
    made = judge.evaluate(outputs, labels, card.class_names, card.fit, few)
    value: float | None = getattr(made, judge.main)
    return value


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    weights = path.with_suffix(WEIGHTS_SUFFIX)
    beside = weights.stat().st_size if path.suffix == ".xml" and weights.exists() else 0
    return path.stat().st_size + beside


def _name(one: Figures) -> str:
    return f"{one.file} by {one.engine}"

"""The report of a training from scratch."""

import shlex
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from headstart.config import ScratchConfig
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.pixels import PixelsManifest, open_images
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.report_content import (
    Command,
    DatasetSummary,
    PictureFile,
    Report,
)
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.running.stage import Outcome
from headstart.tasks.runs.run_folder import VERSIONED, hard_image
from headstart.tasks.scratch.schedule import ScheduleManifest
from headstart.tasks.scratch.stage import TrainingManifest
from headstart.tasks.scratch.subject import as_png
from headstart.tasks.views.epoch_stage import EpochViewsManifest

HARD_FOLDER = "hard"
"""Pictures of the hardest test images, in the run's folder."""


def make_scratch_report(
    folder: Path,
    config: ScratchConfig,
    index: DatasetIndex | None,
    pixels: PixelsManifest,
    schedule: ScheduleManifest,
    views: EpochViewsManifest,
    training: TrainingManifest,
    evaluation: EvaluationManifest,
    outcomes: Sequence[Outcome],
    tensorboard: str,
    pictures: Sequence[PictureFile] = (),
) -> Report:
    """Gather what the report page shows; the hardest test images are written as PNG files.

    Args:
        folder: The run's folder.
        config: The run's configuration.
        index: Index of a folder of images; it says which files were left out.
        pixels: Manifest of the pixels stage.
        schedule: Manifest of the schedule stage.
        views: Manifest of the views stage.
        training: Manifest of the training stage.
        evaluation: Manifest of the evaluation stage.
        outcomes: How each stage went.
        tensorboard: The command that shows the training.
        pictures: Shown on the page.
    """
    shown = _write_hard(folder, pixels, evaluation)
    hard = [hard_image(path, loss) for path, loss in shown] if pixels.kind == "class" else []
    return Report(
        title=f"{pixels.name} · {config.network.name} from scratch",
        created=datetime.now().astimezone(),
        class_names=pixels.class_names,
        metrics={
            split: JUDGES[pixels.kind].model.model_validate(metrics)
            for split, metrics in evaluation.metrics.items()
        },
        dataset=DatasetSummary.of(
            config.dataset.images,
            {
                split: dict(zip(pixels.class_names, counts, strict=True))
                for split, counts in pixels.counts.items()
            },
            () if index is None else index.problems,
        ),
        history=training.history,
        best_epoch=training.best_epoch,
        hard_images=hard,
        stages=outcomes,
        commands=(
            Command("Follow the training in TensorBoard", tensorboard),
            Command("Classify more images", f"headstart predict {shlex.quote(str(folder))} IMAGES"),
        ),
        trained_by="training",
        config=config.model_dump(mode="json"),
        versions={name: version(name) for name in VERSIONED},
        notes=(*_notes(schedule, views, training), *_held_back(pixels)),
        pictures=pictures,
        kind=pixels.kind,
        fit=training.fit,
        worst=[{**loss, "file": str(path)} for path, loss in shown if pixels.kind != "class"],
    )


def _notes(
    schedule: ScheduleManifest, views: EpochViewsManifest, training: TrainingManifest
) -> tuple[str, ...]:
    cycle = f"{training.num_steps:,} steps, {100 * training.final_share:.1f} % of the cycle done"
    return (
        f"Trained with {views.num_views} precomputed views per image: crop by up to "
        f"{views.recipe['padding']} pixels, flip {'on' if views.recipe['flip'] else 'off'}, "
        f"cutout {views.recipe['cutout']}.",
        f"Schedule: {schedule.reason}. {cycle}.",
    )


def _held_back(pixels: PixelsManifest) -> tuple[str, ...]:
    if "val" not in pixels.counts:
        return ()
    found = "thresholds" if pixels.kind == "labels" else "intervals"
    return (
        f"{pixels.num_images('val'):,} images were held back from training; the {found} are "
        "determined on them only.",
    )


def _write_hard(
    folder: Path, pixels: PixelsManifest, evaluation: EvaluationManifest
) -> list[tuple[Path, dict[str, Any]]]:
    images = open_images(pixels, "test")
    written = []
    for loss in evaluation.top_losses:
        path = folder / HARD_FOLDER / loss["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_png(np.asarray(images[loss["position"]])))
        written.append((path, loss))
    return written

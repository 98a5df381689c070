"""The report of a training from scratch."""

import shlex
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from headstart.config import ScratchConfig
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.pixels import PixelsManifest, open_images
from headstart.tasks.evaluation.metrics import SplitMetrics, TopLoss
from headstart.tasks.evaluation.report_content import (
    Command,
    DatasetSummary,
    HardImage,
    LeftOut,
    PictureFile,
    Report,
    StageLine,
)
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.running.stage import Outcome
from headstart.tasks.scratch.schedule import ScheduleManifest
from headstart.tasks.scratch.stage import TrainingManifest
from headstart.tasks.scratch.subject import as_png
from headstart.tasks.views.epoch_stage import EpochViewsManifest

HARD_FOLDER = "hard"
"""Pictures of the hardest test images, in the run's folder."""
VERSIONED = ("headstart", "tensorflow", "keras", "numpy", "prefect")


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
        folder: Of the run.
        config: Of the run.
        index: Of a folder of images; it says which files were left out.
        pixels: Manifest of the stage.
        schedule: Manifest of the stage.
        views: Manifest of the stage.
        training: Manifest of the stage.
        evaluation: Manifest of the stage.
        outcomes: How each stage went.
        tensorboard: The command that shows the training.
        pictures: Shown on the page.

    Returns:
        The report.
    """
    return Report(
        title=f"{pixels.name} · {config.network.name} from scratch",
        created=datetime.now().astimezone(),
        class_names=pixels.class_names,
        metrics={
            split: SplitMetrics.model_validate(metrics)
            for split, metrics in evaluation.metrics.items()
        },
        dataset=DatasetSummary(
            source=config.dataset.images,
            counts={
                split: dict(zip(pixels.class_names, counts, strict=True))
                for split, counts in pixels.counts.items()
            },
            left_out=[LeftOut(problem.path, problem.reason) for problem in index.left_out]
            if index is not None
            else (),
        ),
        history=training.history,
        best_epoch=training.best_epoch,
        hard_images=_hard_images(folder, pixels, evaluation),
        stages=[
            StageLine(
                outcome.name,
                outcome.status,
                outcome.seconds,
                outcome.rows,
                outcome.rows_computed,
                outcome.seconds_saved,
            )
            for outcome in outcomes
        ],
        commands=(
            Command("Follow the training in TensorBoard", tensorboard),
            Command("Classify more images", f"headstart predict {shlex.quote(str(folder))} IMAGES"),
        ),
        trained_by="training",
        config=config.model_dump(mode="json"),
        versions={name: version(name) for name in VERSIONED},
        notes=_notes(schedule, views, training),
        pictures=pictures,
    )


def _notes(
    schedule: ScheduleManifest, views: EpochViewsManifest, training: TrainingManifest
) -> tuple[str, ...]:
    cycle = f"{training.num_steps:,} steps, {100 * training.final_share:.1f} % of the cycle done"
    return (
        f"Trained with {views.num_views} views an image, computed beforehand: crop by up to "
        f"{views.recipe['padding']} pixels, flip {'on' if views.recipe['flip'] else 'off'}, "
        f"cutout {views.recipe['cutout']}. They are baked in.",
        f"Schedule: {schedule.reason}. {cycle}.",
    )


def _hard_images(
    folder: Path, pixels: PixelsManifest, evaluation: EvaluationManifest
) -> list[HardImage]:
    images = open_images(pixels, "test")
    hard = []
    for loss in evaluation.top_losses:
        figures = {name: value for name, value in loss.items() if name not in ("path", "split")}
        path = folder / HARD_FOLDER / loss["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_png(np.asarray(images[loss["position"]])))
        hard.append(HardImage(path, loss["split"], TopLoss(**figures)))
    return hard

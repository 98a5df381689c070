"""The scratch flow: train a classifier from scratch, within a time budget.

Run by ``headstart scratch``, from a Prefect deployment, or from Python; ``scratch.fn(config)``
runs the same body without Prefect.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from headstart.config import ScratchConfig
from headstart.flows.artifacts import publish
from headstart.flows.body import run_in_folder
from headstart.flows.diagnosis import watching_stages
from headstart.flows.options import TRAINING_FLOW
from headstart.tasks.backbones.classic import check_image_shape
from headstart.tasks.dataset.folder_pixels import rows_by_split
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.pixel_source import folder_config
from headstart.tasks.dataset.pixels import index_images
from headstart.tasks.dataset.pixels import stage as make_pixels
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.evaluation.report_content import PictureFile
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.export.model_files import columns_of
from headstart.tasks.export.seen_images import write_seen
from headstart.tasks.export.stage import stage as export_stage
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import collect_outcomes
from headstart.tasks.runs.judged_images import write_judged
from headstart.tasks.runs.run_folder import (
    RunSummary,
    finish_run,
    tell_problems,
    tensorboard_command,
)
from headstart.tasks.scratch.comparison import PLAIN_VIEWS, SHEET_NAME, against_plain_views
from headstart.tasks.scratch.run import HARD_FOLDER, make_scratch_report
from headstart.tasks.scratch.schedule import stage as make_schedule
from headstart.tasks.scratch.sheet import draw_views
from headstart.tasks.scratch.stage import training as train
from headstart.tasks.scratch.subject import TestImages
from headstart.tasks.views.epoch_stage import stage as make_views

PLAIN_LOG_FOLDER = "tensorboard-without-augmentation"
"""Beside the run's own log, not in it: `finish_run` fills that one in where nothing trained."""


@flow(name="scratch", **TRAINING_FLOW)
def scratch(
    config: ScratchConfig, store: Path | None = None, out: Path | None = None
) -> RunSummary:
    """Train, evaluate and export a network from scratch, on views computed beforehand.

    Args:
        config: Data, views, network and training.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the results are, and the figures.
    """
    started_s = time.monotonic()
    title = f"{Path(config.dataset.images).resolve().name}-{config.network.name}"
    written = (PLAIN_LOG_FOLDER, SHEET_NAME, HARD_FOLDER)
    work = partial(_run, config, started_s=started_s)
    return run_in_folder(title, config, store, out, work, written)


def _run(config: ScratchConfig, folder: Path, started_s: float) -> RunSummary:
    source, network, training_config = config.dataset, config.network, config.training
    with collect_outcomes() as outcomes:
        dataset = index_images(source)
        index = None if dataset is None else _without_thin_splits(index_of(dataset))
        if index is not None:
            tell_problems(index, folder)
        pixels = make_pixels(source, dataset)
        check_image_shape(network.name, pixels.image_shape)  # before minutes of views
        schedule = make_schedule(pixels, network, training_config)
        num_views = config.views.num_views or schedule.num_views
        views = make_views(pixels, config.views, num_views)
        reporter().note(f"     {tensorboard_command(folder)}")
        found: list[dict[str, Any]] = []
        with watching_stages(folder / "crash", found, "training"):
            log_dir = folder / "tensorboard"
            training = train(pixels, views, schedule, network, training_config, log_dir)
        flip_test = training_config.flip_test and bool(views.recipe["flip"])
        columns = {} if index is None else columns_of(folder_config(source))
        images = TestImages(pixels, network, flip_test, columns)
        evaluation = evaluation_stage(images, training, config.evaluation)
        export = export_stage(images, training, config.export)
        pictures: list[PictureFile] = [draw_views(folder, pixels, config.views, num_views)]
        if config.compare:
            plain_views = make_views(pixels, PLAIN_VIEWS, 1)
            log_dir = folder / PLAIN_LOG_FOLDER
            with watching_stages(folder / "crash" / "without-augmentation", found, "training"):
                plain = train(pixels, plain_views, schedule, network, training_config, log_dir)
            plain_images = TestImages(pixels, network, flip_test=False)
            judged = evaluation_stage(plain_images, plain, config.evaluation)
            both = (training, evaluation), (plain, judged)
            pictures.append(against_plain_views(folder, pixels, *both))
            reporter().note(f"     {pictures[-1].text} {pictures[-1].path}")
    report = make_scratch_report(
        folder,
        config,
        index,
        pixels,
        schedule,
        views,
        training,
        evaluation,
        outcomes,
        tensorboard_command(folder),
        pictures,
    )
    if index is not None:
        write_seen(folder, rows_by_split(index, config.dataset))
    # Its images have no files.
    write_judged(folder, evaluation, pixels.class_names, None, training.fit, pixels.kind)
    summary = finish_run(folder, report, training, evaluation, export, outcomes, started_s, found)
    publish("scratch", report, summary)
    return summary


def _without_thin_splits(index: DatasetIndex) -> DatasetIndex:
    """Leave out what is said of the validation split, which there is none of here."""
    kept = tuple(problem for problem in index.problems if problem.kind != "few_images")
    return replace(index, problems=kept)

"""A run's folder: the model, the figures and the report of one run, to keep or hand on.

Its files are copies of the store's artefacts, so that nothing a user does to them harms the
cache, and what `cache gc` removes is not missed here.
"""

import contextlib
import itertools
import os
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from headstart.config import Config, TransferConfig
from headstart.errors import ConfigError, DatasetError, HeadstartError, RecordError
from headstart.tasks.bottlenecks.rows import known_backbone
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.printable import printable
from headstart.tasks.evaluation.judges import JUDGES, judge_of
from headstart.tasks.evaluation.metrics import TopLoss
from headstart.tasks.evaluation.report_content import (
    Command,
    DatasetSummary,
    FormatLine,
    HardImage,
    LeftOut,
    PictureFile,
    Report,
)
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.export.file_names import WRITTEN_NAMES, main_model
from headstart.tasks.export.stage import ExportManifest
from headstart.tasks.head.stage import HeadManifest
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import Outcome, mending_damage
from headstart.tasks.runs.config_file import CONFIG_FILE, is_run_of, write_config
from headstart.tasks.runs.judged_images import PREDICTIONS_FILE
from headstart.tasks.store.artifacts import Store, artefact
from headstart.tasks.store.disk_space import explain_full_disk
from headstart.tasks.store.files import copy_files, write_json
from headstart.tasks.store.layout import NOT_OURS
from headstart.tasks.views.sheet import describe, draw_sheet

R = TypeVar("R")
LEFT_OUT_FILE = "left_out.json"
"""Every file that is not in the data set, and why; and those whose decoders complain."""
REMARKS_FILE = "remarks.json"
"""Every other remark on the data: it leaves nothing out."""
HISTORY_FILE = "history.json"
"""The figures of each epoch."""
TOP_LOSSES_FILE = "top_losses.json"
"""The held-out images with the highest loss."""
FAILED_FILE = "failed.json"
"""Why a run failed that left something to keep."""
RUNS_FOLDER = "runs"
"""Of a store, where runs lie that were given no other place."""
ELSEWHERE_FILE = "elsewhere.txt"
"""In that folder: a line with the path of each run that lies in another place."""
RUN_FILE = "run.json"
"""Written last: a folder that has it is a finished run."""
SHEET_FILE = "views.jpg"
"""Some images and their views."""
NUM_SHEET_IMAGES, NUM_SHEET_VIEWS = 4, 4
"""Images on it, and augmented views of each."""
MAX_TITLE_BYTES = 150
"""Of a run folder's name, which is 255 bytes at the most."""
VERSIONED = ("headstart", "tensorflow", "keras", "numpy", "prefect")


class RunSummary(BaseModel, frozen=True):
    """What a run came to; the object that ``--json`` prints."""

    run_dir: str
    model: str
    """The exported .keras file."""
    report: str
    tensorboard: str
    """The command that shows the training."""
    stages: tuple[Outcome, ...]
    metrics: dict[str, Any]
    """By split: accuracy, accuracy_interval, loss, macro_f1, ece, num_images; of labels
    mean_average_precision, f1_micro and more, of numbers mae, rmse, r2 and more."""
    seconds: float
    diagnoses: tuple[dict[str, Any], ...] = ()
    """What the debugger saw go wrong in this run's training, most likely first."""
    left_out: tuple[dict[str, str], ...] = ()
    """Files that are not in the data set: path and reason."""


def open_run_folder(
    store: Store, title: str, config: Config, out: Path | None, written_besides: Sequence[str] = ()
) -> Path:
    """Make the folder of a new run of any flow, with its configuration in it.

    Args:
        store: Under whose runs/ it goes where no other place is asked for.
        title: Begins the folder's name there.
        config: Configuration of the run; an earlier run's folder is known by the type of its own.
        out: A folder of the user's choice; an earlier run in it is replaced.
        written_besides: Names of files and folders that this flow may write and others do not.

    Raises:
        ConfigError: The chosen folder holds something else than a run.
    """
    folder = make_result_folder(store, title, out, lambda chosen: is_run_of(type(config), chosen))
    # What the new run may not write again must not be taken for its own, models above all.
    for name in (
        RUN_FILE,
        FAILED_FILE,
        PREDICTIONS_FILE,
        SHEET_FILE,
        LEFT_OUT_FILE,
        REMARKS_FILE,
        HISTORY_FILE,
        TOP_LOSSES_FILE,
        "tensorboard",
        "crash",
        *WRITTEN_NAMES,
    ):
        _remove(folder / name)
    for name in written_besides:
        _remove(folder / name)
    write_config(folder, config)
    return folder


def in_run_folder(
    store: Store,
    title: str,
    config: Config,
    out: Path | None,
    work: Callable[[Path], R],
    written_besides: Sequence[str] = (),
) -> R:
    """Do a flow's work in a folder of its own, which stays where there is something to keep.

    Args:
        store: Open store; the folder goes under its runs/ where `out` is None.
        title: Begins the folder's name.
        config: Written to the folder.
        out: A folder of the user's choice; an earlier run in it is replaced.
        work: Called with the folder; again while it finds new damage in the store.
        written_besides: Names that the work writes in the folder besides those of every run.
    """
    was_there = out is not None and out.expanduser().is_dir()
    folder = open_run_folder(store, title, config, out, written_besides)
    try:
        done = mending_damage(lambda: work(folder))
    except BaseException as error:
        with contextlib.suppress(OSError, RecordError):
            _leave(folder, error, was_there)
        raise
    note_elsewhere(store.root, folder)
    return done


def _leave(folder: Path, error: BaseException, was_there: bool) -> None:
    """Say in the folder why a run failed, or remove it where it holds nothing else."""
    if any(path.is_file() and path.name != CONFIG_FILE for path in folder.rglob("*")):
        plain = HeadstartError(str(error) or type(error).__name__)
        told = (error if isinstance(error, HeadstartError) else plain).to_dict()
        write_json(folder / FAILED_FILE, {**told, "type": type(error).__name__})
        return
    for path in folder.iterdir():
        _remove(path)
    if not was_there:
        folder.rmdir()


def note_elsewhere(store_root: Path, folder: Path) -> None:
    """Remember a run whose folder is not among the store's own; a store to read remembers none."""
    runs = store_root / RUNS_FOLDER
    line = str(folder).encode(errors="surrogateescape")
    if folder.is_relative_to(runs) or b"\n" in line:
        return
    with contextlib.suppress(OSError):
        runs.mkdir(parents=True, exist_ok=True)
        with (runs / ELSEWHERE_FILE).open("a+b") as file:
            file.seek(0)
            if line not in file.read().splitlines():
                file.write(line + b"\n")


def make_result_folder(
    store: Store, title: str, out: Path | None, is_earlier: Callable[[Path], bool]
) -> Path:
    """Make a folder for new results, and remove nothing from it.

    Args:
        store: Under whose runs/ it goes where no other place is asked for.
        title: Begins the folder's name there.
        out: A folder of the user's choice.
        is_earlier: Says of a folder that is not empty whether it is that of an earlier run, whose
            results may be replaced.

    Raises:
        ConfigError: The chosen folder holds something else.
    """
    if out is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        # A name may be as long as a file system allows; the stamp comes behind it.
        short = title.encode()[:MAX_TITLE_BYTES].decode(errors="ignore")
        return _make_new(store.root / RUNS_FOLDER / f"{short}-{stamp}")
    folder = out.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A hidden file may be precious; of a fresh volume's own folder nobody loses anything.
        holds = bool({path.name for path in folder.iterdir()} - NOT_OURS)
        foreign = holds and not is_earlier(folder)
        if not os.access(folder, os.W_OK):
            raise PermissionError("cannot be written")
    except OSError as error:
        raise ConfigError(
            "the folder of --out cannot be written", f"{folder}: {error}", "choose another"
        ) from None
    if foreign:
        raise ConfigError(
            "the folder of --out holds other files: it must be new, empty, or that of an "
            "earlier run",
            f"{folder} holds other files",
            "choose another folder",
        )
    return folder


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def tensorboard_command(folder: Path) -> str:
    """Return the command that shows a run's training."""
    return f"tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}"


def finish_run(
    folder: Path,
    report: Report,
    head: HeadManifest,
    evaluation: EvaluationManifest,
    export: ExportManifest,
    outcomes: Sequence[Outcome],
    started_s: float,
    diagnoses: Sequence[dict[str, Any]] = (),
) -> RunSummary:
    """Copy a run's results into its folder and write its report.

    Args:
        folder: As `open_run_folder` gave it.
        report: What the page says.
        head: Manifest of the training stage.
        evaluation: Manifest of the evaluation stage.
        export: Manifest of the export stage.
        outcomes: How each stage went.
        started_s: Monotonic time at which the run began, in seconds.
        diagnoses: What the debugger saw in its training, as JSON values.
    """
    from headstart.tasks.evaluation.report import write_report
    from headstart.tasks.runs.target_page import write_target_page

    with explain_full_disk(folder):
        for manifest in (export, evaluation):
            copy_files(artefact(manifest, "."), folder)
        if not (folder / "tensorboard").exists():  # the head was a hit: show how it was trained
            copy_files(artefact(head, "tensorboard"), folder / "tensorboard")
        write = write_report if report.kind == "class" else write_target_page
        page = write(folder, replace(report, formats=_format_lines(export)))
    summary = RunSummary(
        run_dir=str(folder),
        model=str(main_model(folder)),
        report=str(page),
        tensorboard=tensorboard_command(folder),
        stages=tuple(outcomes),
        metrics={split: _headline(metrics) for split, metrics in evaluation.metrics.items()},
        seconds=seconds_since(started_s),
        diagnoses=tuple(diagnoses),
        left_out=_listed(report.dataset.left_out),
    )
    _write_problems(folder, report.dataset)
    write_json(folder / HISTORY_FILE, head.model_dump(mode="json")["history"])
    write_json(folder / TOP_LOSSES_FILE, list(evaluation.top_losses))
    write_json(folder / RUN_FILE, summary.model_dump(mode="json"))
    return summary


def tell_problems(index: DatasetIndex, folder: Path) -> None:
    """Tell what of the data is left out or worth a remark, and list all of it in files of the run.

    They can be read while the run goes on, and where it fails.
    """
    if index.problems:
        _write_problems(folder, DatasetSummary.of("", {}, index.problems))
    are_remarks = {problem.is_remark for problem in index.problems}
    names = [LEFT_OUT_FILE] * (False in are_remarks) + [REMARKS_FILE] * (True in are_remarks)
    listed_in = " and ".join(str(folder / name) for name in names)
    for line in index.summary_lines(listed_in=listed_in)[1:]:
        reporter().note(f"     {line}")


def _write_problems(folder: Path, data: DatasetSummary) -> None:
    write_json(folder / LEFT_OUT_FILE, [*_listed(data.left_out), *_listed(data.complaints)])
    write_json(folder / REMARKS_FILE, [one.to_dict() for one in data.remarks])


def _listed(files: Sequence[LeftOut]) -> tuple[dict[str, str], ...]:
    return tuple({"path": printable(file.path), "reason": printable(file.reason)} for file in files)


def _make_new(wanted: Path) -> Path:
    """Make a folder that was not there; runs that begin in one second get a number each."""
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise RecordError(
            "the store cannot be written, and --out does not say where else the results should go",
            f"{wanted.parent}: {error.strerror or error}",
            "give a folder with --out",
        ) from None
    raise AssertionError("there are numbers left")


def seconds_since(started_s: float) -> float:
    """Return the seconds since a monotonic time, to the millisecond."""
    return round(time.monotonic() - started_s, 3)


def cold_seconds(outcomes: Sequence[Outcome]) -> float:
    """Estimate what stages take where nothing is in the store.

    Returns:
        Seconds: of each stage what making it took, scaled up to all rows where some were in the
        store. Where all were, what they took is not known, and only what it took without them
        counts.
    """
    return sum(outcome.made_s / (outcome.share_computed or 1.0) for outcome in outcomes)


def make_report(
    folder: Path,
    config: TransferConfig,
    index: DatasetIndex,
    head: HeadManifest,
    evaluation: EvaluationManifest,
    outcomes: Sequence[Outcome],
) -> Report:
    """Gather what the report page shows."""
    root = dataset_root(config.dataset)
    return Report(
        title=f"{config.dataset.images.resolve().name} · {Path(config.backbone.name).name}",
        created=datetime.now().astimezone(),
        class_names=index.class_names,
        metrics={
            split: JUDGES[index.kind].model.model_validate(metrics)
            for split, metrics in evaluation.metrics.items()
        },
        dataset=_summarise(config, index),
        history=head.history,
        best_epoch=head.best_epoch,
        selected_on="val" if head.has_val else None,
        hard_images=[
            hard_image(root / loss["path"], loss)
            for loss in evaluation.top_losses
            if index.kind == "class"
        ],
        pictures=_view_sheet(folder, root, config, index),
        max_pixels=config.dataset.max_pixels,
        stages=outcomes,
        commands=(
            Command("Follow the training in TensorBoard", tensorboard_command(folder)),
            Command("Classify more images", f"headstart predict {shlex.quote(str(folder))} IMAGES"),
        ),
        trained_by="tuning" if head.stage == "rung" else "head",
        config=config.model_dump(mode="json"),
        versions={name: version(name) for name in VERSIONED},
        kind=index.kind,
        fit=head.fit,
        worst=[
            {**loss, "file": str(root / loss["path"])}
            for loss in evaluation.top_losses
            if index.kind != "class"
        ],
    )


def _view_sheet(
    folder: Path, root: Path, config: TransferConfig, index: DatasetIndex
) -> tuple[PictureFile, ...]:
    """Draw what the network was shown, as far as the images are still there."""
    size = known_backbone(config.backbone, config.views.image_size).image_size
    few = config.views.model_copy(
        update={"num_augmented": min(config.views.num_augmented, NUM_SHEET_VIEWS)}
    )
    try:
        drawn = draw_sheet(index, root, few, size, config.dataset.max_pixels, NUM_SHEET_IMAGES)
    except DatasetError:
        return ()
    path = folder / SHEET_FILE
    path.write_bytes(drawn)
    return (PictureFile(path, "What the network sees", describe(few)),)


def _headline(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in judge_of(metrics).shown}


def hard_image(path: Path, loss: dict[str, Any]) -> HardImage:
    """Lay out an image with a high loss for the page."""
    figures = {name: value for name, value in loss.items() if name not in ("path", "split")}
    return HardImage(path, loss["split"], TopLoss(**figures))


def _format_lines(export: ExportManifest) -> tuple[FormatLine, ...]:
    """List the exported files, where one is for another engine: TensorFlow's are one model."""
    if not set(export.proofs) - {"keras", "saved_model"}:
        return ()
    lines = []
    for name, proof in export.proofs.items():
        loss = export.losses.get(name)
        figure = "" if loss is None or loss.metric == "accuracy" else f"{loss.metric} "
        judged = (
            f"{figure}{loss.accuracy:.4f} on {loss.num_images:,} {loss.split} images"
            if loss
            else ""
        )
        lost = loss.lost if loss else None
        told = (proof.largest_difference, proof.num_same_labels, proof.num_images)
        lines.append(FormatLine(name, *told, judged, lost))
    return tuple(lines)


def _summarise(config: TransferConfig, index: DatasetIndex) -> DatasetSummary:
    counts: dict[str, dict[str, int]] = {
        split: dict(zip(index.class_names, counts, strict=True))
        for split, counts in index.split_counts.items()
    }
    return DatasetSummary.of(str(config.dataset.images), counts, index.problems)

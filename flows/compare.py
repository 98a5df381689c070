"""The compare flow: from scratch, last layer, last block, full fine-tuning, side by side.

Run by ``headstart compare``, from a Prefect deployment, or from Python. All train on the same
splits from the same seeds. Each training is a stage of its own, so that a comparison that was
killed goes on where it was, and one more seed costs that seed's trainings alone.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prefect import flow
from pydantic import BaseModel

from headstart.config import CompareConfig, StudyConfig, TuningConfig
from headstart.flows.body import run_in_folder
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks, publish_page
from headstart.flows.diagnosis import watching_stages
from headstart.flows.options import TRAINING_FLOW
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import PIXELS
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.finetuning.page import Page, markdown_page, write_study_page
from headstart.tasks.finetuning.studies import Line, compare_trials, cuts_of, summarise
from headstart.tasks.finetuning.study_page import compare_page
from headstart.tasks.finetuning.training import require_validation
from headstart.tasks.finetuning.trial import Trial, TrialManifest, open_kernels
from headstart.tasks.finetuning.trial import trial as train_trial
from headstart.tasks.head.training_warnings import check_classes
from headstart.tasks.progress import reporter
from headstart.tasks.ranking.candidates import judged_split
from headstart.tasks.running.stage import Outcome, collect_outcomes
from headstart.tasks.runs.run_folder import RUN_FILE, cold_seconds, seconds_since, tell_problems
from headstart.tasks.store.files import write_json
from headstart.tasks.views.stage import stage as views_stage

REPORT = "report.html"
Done = Mapping[str, Sequence[TrialManifest]]
"""By name of what was trained, a trial a seed."""


class StudySummary(BaseModel, frozen=True):
    """What a study came to; the object that ``--json`` prints."""

    run_dir: str
    report: str
    stages: tuple[Outcome, ...]
    metrics: dict[str, Line]
    """By strategy, rate or cut."""
    notes: tuple[str, ...]
    seconds: float


@flow(name="compare", **TRAINING_FLOW)
def compare(
    config: CompareConfig, store: Path | None = None, out: Path | None = None
) -> StudySummary:
    """Train one network in several ways, from several seeds, and compare them.

    Args:
        config: Data, backbone, and the strategies and seeds to compare.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the page is, and the figures.
    """

    def page_of(title: str, lines: Sequence[Line], done: Done, notes: Sequence[str]) -> Page:
        kernels = {name: open_kernels(trials[0]) for name, trials in done.items()}
        return compare_page(f"Comparison · {title}", lines, done, kernels, notes)

    def trials_of(network: Backbone) -> list[tuple[Trial, TuningConfig]]:
        return compare_trials(network, config)

    def work(folder: Path) -> StudySummary:
        return run_study("compare", config, folder, trials_of, page_of)

    return run_in_folder("compare", config, store, out, work)


def run_study(
    name: str,
    config: StudyConfig,
    folder: Path,
    trials_of: Callable[[Backbone], Sequence[tuple[Trial, TuningConfig]]],
    page_of: Callable[[str, Sequence[Line], Done, Sequence[str]], Page],
    pooled: bool = False,
) -> StudySummary:
    """Train what a study compares, and write its page.

    Args:
        name: Of the flow.
        config: The study's configuration.
        folder: Folder of the run.
        trials_of: Lists what is trained of a backbone, each with its tuning.
        page_of: Composes the page from data set and backbone in words, a line for each name, its
            trials, and what to know before believing it.
        pooled: Whether averages of the bottlenecks are enough.
    """
    started_s = time.monotonic()
    with collect_outcomes() as outcomes:
        dataset = dataset_stage(config.dataset)
        tell_problems(index_of(dataset), folder)
        check_classes(index_of(dataset))
        require_validation(index_of(dataset).split_counts)
        judged_split(index_of(dataset), JUDGES[dataset.kind].main)
        wanted = trials_of(open_backbone(config.backbone, config.views.image_size))
        once_s = _prepare(config, dataset, [trial for trial, _ in wanted], outcomes, pooled)
        done = _train_all(config, dataset, wanted, folder)
    lines = summarise(
        done,
        {trial.name: once_s[_start_of(trial)] for trial, _ in wanted},
        {trial.name: _once_flops(config, dataset, trial) for trial, _ in wanted},
        config.evaluation.confidence,
    )
    title = f"{config.dataset.images.resolve().name} · {Path(config.backbone.name).name}"
    page = page_of(title, lines, done, _caveats(lines, len(config.seeds)))
    path = write_study_page(folder / REPORT, page, outcomes)
    summary = StudySummary(
        run_dir=str(folder),
        report=str(path),
        stages=tuple(outcomes),
        metrics={line.name: line for line in lines},
        notes=tuple(page.notes),
        seconds=seconds_since(started_s),
    )
    write_json(folder / RUN_FILE, summary.model_dump(mode="json"))
    publish_page(name, page.title, markdown_page(page), str(path), outcomes)
    return summary


def _prepare(
    config: StudyConfig,
    dataset: DatasetManifest,
    trials: Sequence[Trial],
    outcomes: list[Outcome],
    pooled: bool,
) -> dict[str, float]:
    """Make the bottlenecks and the views that trials train on.

    Returns:
        By where rows are taken, the seconds that making them takes where nothing is there.
    """
    network = open_backbone(config.backbone, config.views.image_size)
    start = len(outcomes)
    if cuts := cuts_of(trials):
        wanted = config.bottlenecks.model_copy(update={"cut": cuts[0], "extra_cuts": cuts[1:]})
        make_bottlenecks(dataset, config.dataset, config.views, config.backbone, wanted, pooled)
    seconds = dict.fromkeys(cuts, cold_seconds(outcomes[start:]))
    if any(_start_of(trial) == PIXELS for trial in trials):
        start = len(outcomes)
        views_stage(dataset, config.dataset, config.views, network.image_size)
        seconds[PIXELS] = cold_seconds(outcomes[start:])
    return seconds


def _train_all(
    config: StudyConfig,
    dataset: DatasetManifest,
    wanted: Sequence[tuple[Trial, TuningConfig]],
    folder: Path,
) -> dict[str, list[TrialManifest]]:
    """Run every trial from every seed; by name, one manifest a seed."""
    done: dict[str, list[TrialManifest]] = {}
    total, features = len(wanted) * len(config.seeds), Features.of(dataset, config)
    for trial, tuning in wanted:
        for seed in config.seeds:
            number = sum(map(len, done.values())) + 1
            reporter().note(f"     training {number} of {total}: {trial.name}, seed {seed}")
            name = f"{trial.name.replace(' ', '-')}-{seed}"
            with watching_stages(folder / "crash" / name, section="tuning"):
                head = config.head.model_copy(update={"seed": seed})
                log_dir = folder / "tensorboard" / name
                manifest = train_trial(features, trial, tuning, head, config.evaluation, log_dir)
            done.setdefault(trial.name, []).append(manifest)
    return done


def _once_flops(config: StudyConfig, dataset: DatasetManifest, trial: Trial) -> int:
    """Count the FLOPs of the frozen layers over all views, which a trial is spared."""
    start = _start_of(trial)
    if start == PIXELS:
        return 0
    network = open_backbone(config.backbone, config.views.image_size)
    num_views = len(index_of(dataset).digests) * (1 + config.views.num_augmented)
    return num_views * network.resolve_cut(start).flops_before


def _caveats(lines: Sequence[Line], num_seeds: int) -> list[str]:
    """Say what a reader should know before believing a study's figures."""
    notes = []
    if num_seeds == 1:
        notes.append(
            "Only one seed: the intervals are over images, and say nothing about how another "
            "training would end."
        )
    else:
        notes.append(
            f"Intervals are for the mean over {num_seeds} seeds, for other seeds and other images; "
            "the variance between seeds is shared by all lines, and the splits are the same."
        )
    if lines[0].split == "val":
        notes.append(
            "There is no test split: figures are from the validation images, which were also used "
            "to choose the epoch."
        )
    return notes


def _start_of(trial: Trial) -> str:
    """Say where a trial takes its rows: at a cut, or pixels."""
    return trial.starts[-1] if trial.starts else trial.end

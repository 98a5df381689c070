"""The survey flow: cost and accuracy of all backbones, measured on this machine.

Run by ``headstart survey``, from a Prefect deployment, or from Python. What is computed from the
graphs, what is measured and what is trained are stages of their own, so that a second survey
repeats none of it.
"""

import difflib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prefect import flow

from headstart.config import BackboneConfig, SurveyConfig
from headstart.errors import ConfigError
from headstart.flows.body import run_in_folder
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks, publish_page
from headstart.flows.diagnosis import watching_stages
from headstart.flows.options import TRAINING_FLOW
from headstart.tasks.backbones.table import BACKBONES
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.head.stage import stage as head_stage
from headstart.tasks.head.training_warnings import check_classes
from headstart.tasks.ranking.candidates import backbones_at_hand, judged_split
from headstart.tasks.running.stage import collect_outcomes
from headstart.tasks.runs.run_folder import RUN_FILE, seconds_since, tell_problems
from headstart.tasks.store.files import write_json
from headstart.tasks.surveying.plots import draw_survey
from headstart.tasks.surveying.stage import anatomy, measurements
from headstart.tasks.surveying.survey import Surveyed, SurveySummary, write_survey


@flow(name="survey", **TRAINING_FLOW)
def survey(
    config: SurveyConfig, store: Path | None = None, out: Path | None = None
) -> SurveySummary:
    """Describe, measure and, given images, judge backbones.

    Args:
        config: Backbones, batch sizes and, optionally, images.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the results are, and the figures.
    """
    names = tuple(dict.fromkeys(config.backbones or BACKBONES))
    for name in names:
        _check_name(name)
    return run_in_folder("survey", config, store, out, partial(_run, config, names))


def _check_name(name: str) -> None:
    if name not in BACKBONES:
        close = difflib.get_close_matches(name, BACKBONES, n=3, cutoff=0.4)
        raise ConfigError(
            "unknown backbone: a survey takes the names in `headstart backbones`",
            repr(name) + (f"; did you mean {' or '.join(close)}?" if close else ""),
            "`headstart backbones` lists the names",
        )


def _run(config: SurveyConfig, names: tuple[str, ...], folder: Path) -> SurveySummary:
    started_s = time.monotonic()
    with collect_outcomes() as outcomes:
        dataset = _index_images(config, folder)
        networks = anatomy(names).networks
        measured = {}
        if config.measuring.enabled:
            measured = {name: measurements(name, config.measuring).measurements for name in names}
        judged, figures = _judge(config, dataset, names, folder)
        judge = JUDGES["class" if dataset is None else dataset.kind]
        field = "accuracy" if judge.ranked == "accuracy" else "value"
    surveyed = [
        Surveyed(
            anatomy=one,
            measurements=measured.get(one.name, ()),
            metric=judge.ranked_name,
            **{field: figures.get(one.name)},
        )
        for one in networks
    ]
    title = f"Survey of {len(names)} backbones"
    page, table, cuts = write_survey(
        folder, title, surveyed, judged, draw_survey(surveyed), outcomes
    )
    summary = SurveySummary(
        run_dir=str(folder),
        report=str(page),
        table=str(table),
        cuts=str(cuts),
        stages=tuple(outcomes),
        metrics={
            "backbones": [one.model_dump(mode="json") for one in surveyed],
            "judged": judged,
        },
        seconds=seconds_since(started_s),
    )
    write_json(folder / RUN_FILE, summary.model_dump(mode="json"))
    publish_page("survey", title, f"{len(names)} backbones.", summary.report, outcomes)
    return summary


def _index_images(config: SurveyConfig, folder: Path) -> DatasetManifest | None:
    """Index the images, where there are any, and refuse at once what cannot be judged on."""
    if config.dataset is None:
        return None
    dataset = dataset_stage(config.dataset)
    tell_problems(index_of(dataset), folder)
    check_classes(index_of(dataset))
    judged_split(index_of(dataset))
    return dataset


def _judge(
    config: SurveyConfig, dataset: DatasetManifest | None, names: tuple[str, ...], folder: Path
) -> tuple[str | None, Mapping[str, float]]:
    """Train a head on the top of each backbone whose weights are installed."""
    if config.dataset is None or dataset is None:
        return None, {}
    judged = judged_split(index_of(dataset))
    views, cut = config.views, config.bottlenecks
    figures: dict[str, float] = {}
    for name in [name for name in names if name in backbones_at_hand()]:
        backbone = BackboneConfig(name=name)
        make_bottlenecks(dataset, config.dataset, views, backbone, cut)
        features = Features(
            dataset, config.dataset, views, backbone, cut.cut, cut.dtype, precision=cut.precision
        )
        with watching_stages(folder / "crash" / name):
            log_dir = folder / "tensorboard" / name
            head = head_stage(features, config.head, log_dir)
        made = evaluation_stage(features, head, config.evaluation)
        figures[name] = float(made.metrics[judged][JUDGES[dataset.kind].ranked])
    return judged, figures

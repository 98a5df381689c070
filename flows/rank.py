"""The rank flow: which backbone, cut at which layer, suits these images best.

Run by ``headstart rank``, from a Prefect deployment, or from Python. Each backbone makes one
pass, which writes all its cuts; scores, heads and evaluations then come from the cache.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from prefect import flow

from headstart.config import BackboneConfig, RankConfig, Split
from headstart.flows.body import run_in_folder
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks, publish_page
from headstart.flows.diagnosis import watching_stages
from headstart.flows.options import TRAINING_FLOW
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import Cut
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.head.stage import stage as head_stage
from headstart.tasks.head.training_warnings import check_classes
from headstart.tasks.ranking import reference
from headstart.tasks.ranking.baseline import stage as baseline_stage
from headstart.tasks.ranking.candidates import (
    backbones_at_hand,
    choose_cuts,
    judged_split,
    parse_cuts,
)
from headstart.tasks.ranking.report import RankSummary, markdown, write_ranking
from headstart.tasks.ranking.sources import IMAGENET, REFERENCE, list_sources, seed_registry
from headstart.tasks.ranking.stage import stage as scores_stage
from headstart.tasks.ranking.throughput import stage as pace_stage
from headstart.tasks.ranking.verdict import Candidate, SourceLine, best_first, draw_verdict
from headstart.tasks.running.stage import Outcome, collect_outcomes
from headstart.tasks.runs.run_folder import RUN_FILE, cold_seconds, seconds_since, tell_problems
from headstart.tasks.store.artifacts import current_store
from headstart.tasks.store.files import write_json
from headstart.tasks.views.stage import stage as views_stage


@flow(name="rank", **TRAINING_FLOW)
def rank(config: RankConfig, store: Path | None = None, out: Path | None = None) -> RankSummary:
    """Rank backbones and cuts by scores, and check the scores by trained heads.

    Args:
        config: Data, backbones and cuts to compare.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the results are, and the verdict.
    """
    return run_in_folder("rank", config, store, out, lambda folder: _run(config, folder))


def _run(config: RankConfig, folder: Path) -> RankSummary:
    started_s = time.monotonic()
    names = tuple(dict.fromkeys(config.candidates.backbones or backbones_at_hand()))
    for name in config.candidates.backbones:  # told before anything is computed of another
        _open(config, name, names)
    with collect_outcomes() as outcomes:
        dataset = dataset_stage(config.dataset)
        tell_problems(index_of(dataset), folder)
        check_classes(index_of(dataset))
        judged = judged_split(index_of(dataset))
        candidates = [
            candidate
            for name in names
            for candidate in _rank_backbone(config, dataset, name, names, judged, folder, outcomes)
        ]
        sources = _compare_sources(config, dataset, names, candidates)
        ranked = tuple(outcomes)
        baseline = _baseline(config, dataset, candidates, judged)
    judge = JUDGES[dataset.kind]
    verdict = draw_verdict(judged, candidates, sources, ranked, baseline, judge)
    title = f"Ranking for {config.dataset.images.resolve().name}"
    page, table = write_ranking(folder, title, verdict, outcomes)
    summary = RankSummary(
        run_dir=str(folder),
        report=str(page),
        table=str(table),
        stages=tuple(outcomes),
        metrics=verdict.to_json(),
        seconds=seconds_since(started_s),
    )
    write_json(folder / RUN_FILE, summary.model_dump(mode="json"))
    publish_page("rank", title, markdown(verdict), summary.report, outcomes)
    return summary


def _open(config: RankConfig, name: str, names: tuple[str, ...]) -> tuple[Backbone, Sequence[Cut]]:
    """Open a backbone, and choose the cuts that it is compared at."""
    network = open_backbone(BackboneConfig(name=name), config.views.image_size)
    requests = parse_cuts(config.candidates, names)
    return network, choose_cuts(network, requests, config.candidates.num_resolutions)


def _rank_backbone(
    config: RankConfig,
    dataset: DatasetManifest,
    name: str,
    names: tuple[str, ...],
    judged: Split,
    folder: Path,
    outcomes: list[Outcome],
) -> Iterator[Candidate]:
    """Send the images through one backbone, then score and measure each of its cuts."""
    source, views, backbone = config.dataset, config.views, BackboneConfig(name=name)
    network, cuts = _open(config, name, names)
    first, *others = (cut.name for cut in cuts)
    every = config.bottlenecks.model_copy(update={"cut": first, "extra_cuts": tuple(others)})
    start = len(outcomes)
    make_bottlenecks(dataset, source, views, backbone, every)
    pass_s = cold_seconds(outcomes[start:])
    pace = pace_stage(backbone, views.image_size)
    index = index_of(dataset)
    num_seen = len(index.rows_of("train")) + len(index.rows_of("val"))
    for cut in cuts:
        start = len(outcomes)
        # With a number: two files of one name, as every export is model.keras, are two networks.
        title = f"{names.index(name) + 1}-{Path(name).stem}-{cut.name}"
        dtype, precision = config.bottlenecks.dtype, config.bottlenecks.precision
        features = Features(dataset, source, views, backbone, cut.name, dtype, precision=precision)
        scores = scores_stage(features, config.scoring)
        with watching_stages(folder / "crash" / title):
            log_dir = folder / "tensorboard" / title
            head = head_stage(features, config.head, log_dir)
        evaluation = evaluation_stage(features, head, config.evaluation)
        ranked, figures = JUDGES[dataset.kind].ranked, evaluation.metrics[judged]
        share = cut.flops_before / max(1, network.cuts[-1].flops_before)
        own_s = cold_seconds(outcomes[start:])
        yield Candidate(
            backbone=name,
            cut=cut.name,
            num_features=cut.activation_shape[-1],
            bytes_per_image=cut.bytes_per_image(config.bottlenecks.dtype),
            flops=cut.flops_before,
            scores=scores.scores,
            figure=figures[ranked],
            interval=figures[f"{ranked}_interval"],
            epochs=len(head.history),
            cached_s=own_s,
            transfer_s=pass_s + cold_seconds(outcomes[start + 1 :]),
            uncached_s=len(head.history) * num_seen * pace.seconds_per_image * share,
        )


def _compare_sources(
    config: RankConfig,
    dataset: DatasetManifest,
    names: tuple[str, ...],
    candidates: Sequence[Candidate],
) -> list[SourceLine]:
    """Compare the registered sources with the target, in the reference model's space.

    Where nothing but the default backbone's own source is registered, there is nothing to choose
    from, and the images are not sent through the reference model for that alone.
    """
    if dataset.kind != "class":  # P2L compares a source's classes
        return []
    store = current_store()
    registered = list_sources(store)
    if REFERENCE.name not in names and all(one.name == IMAGENET for one in registered):
        return []
    make_bottlenecks(dataset, config.dataset, reference.VIEWS, REFERENCE, reference.BOTTLENECKS)
    seed_registry(store, open_backbone(REFERENCE, reference.VIEWS.image_size))
    target = reference.mean_features(reference.features_of(dataset, config.dataset))
    return reference.compare_sources(list_sources(store), target, candidates)


def _baseline(
    config: RankConfig,
    dataset: DatasetManifest,
    candidates: Sequence[Candidate],
    judged: Split,
) -> tuple[float, float] | None:
    """Train a small network from scratch for as long as the pick's transfer took, within limits."""
    if not config.baseline.enabled:
        return None
    pick = best_first(candidates)[0]
    size = open_backbone(BackboneConfig(name=pick.backbone), config.views.image_size).image_size
    views_stage(dataset, config.dataset, config.views, size, None)
    # Whole seconds, so that the next run finds the same budget.
    transfer_s = max(1.0, float(round(pick.transfer_s)))
    budget_s = min(config.baseline.max_seconds, transfer_s)
    made = baseline_stage(dataset, config.views, size, judged, budget_s, config.baseline)
    figure = made.accuracy if made.metric == "accuracy" else made.value
    return None if figure is None else (figure, made.budget_s)

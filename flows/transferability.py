"""The transferability flow: accuracy against the cut at which a backbone's features are frozen.

Run by ``headstart transferability``, from a Prefect deployment, or from Python. One pass of the
backbone writes the features of all cuts, averaged over their positions; a head a cut is trained
on them and, where asked, the layers up to the cut are trained on as well.

Source: Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep neural
networks?", 2014, https://arxiv.org/abs/1411.1792
"""

import time
from pathlib import Path

from prefect import flow

from headstart.config import TransferabilityConfig
from headstart.flows.body import run_in_folder
from headstart.flows.compare import (
    StudySummary,
    caveats,
    finish_study,
    once_flops,
    prepare,
    start_of,
    train_all,
)
from headstart.flows.options import TRAINING_FLOW
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.finetuning.studies import (
    summarise,
    transferability_cuts,
    transferability_trials,
)
from headstart.tasks.finetuning.study_page import transferability_page
from headstart.tasks.finetuning.training import require_validation
from headstart.tasks.head.training_warnings import check_classes
from headstart.tasks.ranking.candidates import judged_split
from headstart.tasks.running.stage import collect_outcomes


@flow(name="transferability", **TRAINING_FLOW)
def transferability(
    config: TransferabilityConfig, store: Path | None = None, out: Path | None = None
) -> StudySummary:
    """Train a head on the features at each of several cuts.

    Args:
        config: Data, backbone, and the cuts to train at.
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        out: Folder for the results; a new one under the store's runs/ where not given.

    Returns:
        Where the page is, and the figures.
    """
    return run_in_folder("transferability", config, store, out, lambda folder: _run(config, folder))


def _run(config: TransferabilityConfig, folder: Path) -> StudySummary:
    started_s = time.monotonic()
    with collect_outcomes() as outcomes:
        dataset = dataset_stage(config.dataset)
        check_classes(index_of(dataset))
        require_validation(index_of(dataset).split_counts)
        judged_split(index_of(dataset), JUDGES[dataset.kind].main)
        network = open_backbone(config.backbone, config.views.image_size)
        names = transferability_cuts(network, config)
        wanted = transferability_trials(names, config)
        once_s = prepare(config, dataset, [trial for trial, _ in wanted], outcomes, pooled=True)
        done = train_all(config, dataset, wanted, folder)
    lines = summarise(
        done,
        {trial.name: once_s[start_of(trial)] for trial, _ in wanted},
        {trial.name: once_flops(config, dataset, trial) for trial, _ in wanted},
        config.evaluation.confidence,
    )
    title = f"{config.dataset.images.resolve().name} · {Path(config.backbone.name).name}"
    page = transferability_page(
        f"Transferability · {title}", names, lines, caveats(lines, len(config.seeds))
    )
    return finish_study("transferability", folder, page, lines, outcomes, started_s)

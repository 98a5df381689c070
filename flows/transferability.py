"""The transferability flow: accuracy against the cut at which a backbone's features are frozen.

Run by ``headstart transferability``, from a Prefect deployment, or from Python. One pass of the
backbone writes the features of all cuts, averaged over their positions; a head a cut is trained
on them and, where asked, the layers up to the cut are trained on as well.

Source: Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep neural
networks?", 2014, https://arxiv.org/abs/1411.1792
"""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from headstart.config import TransferabilityConfig, TuningConfig
from headstart.flows.body import run_in_folder
from headstart.flows.compare import Done, StudySummary, run_study
from headstart.flows.options import TRAINING_FLOW
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.finetuning.page import Page
from headstart.tasks.finetuning.studies import (
    Line,
    transferability_cuts,
    transferability_trials,
)
from headstart.tasks.finetuning.study_page import transferability_page
from headstart.tasks.finetuning.trial import Trial


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

    def trials_of(network: Backbone) -> list[tuple[Trial, TuningConfig]]:
        return transferability_trials(transferability_cuts(network, config), config)

    def page_of(title: str, lines: Sequence[Line], done: Done, notes: Sequence[str]) -> Page:
        network = open_backbone(config.backbone, config.views.image_size)
        names = transferability_cuts(network, config)
        return transferability_page(f"Transferability · {title}", names, lines, notes)

    def work(folder: Path) -> StudySummary:
        return run_study("transferability", config, folder, trials_of, page_of, pooled=True)

    return run_in_folder("transferability", config, store, out, work)

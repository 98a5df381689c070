"""Candidates: the pairs of backbone and cut that a ranking compares."""

from dataclasses import dataclass

from headstart.config import CandidatesConfig, Split
from headstart.errors import BackboneError, ConfigError, DatasetError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import TOP, Cut
from headstart.tasks.backbones.efficientnet_lite import find_weights_file
from headstart.tasks.backbones.natural_cuts import natural_cuts
from headstart.tasks.backbones.table import BACKBONES
from headstart.tasks.dataset.index import DatasetIndex

NATURAL = "natural"
JUDGED_FIRST: tuple[Split, ...] = ("test", "val")


@dataclass(frozen=True)
class CutRequest:
    """A cut that was asked for.

    Attributes:
        backbone: The only backbone it is meant for; None where it is meant for each that has it.
        cut: Its name, or "natural".
    """

    backbone: str | None
    cut: str


def backbones_at_hand() -> tuple[str, ...]:
    """Return the backbones of the table whose pretrained weights are installed as packages."""
    found = []
    for entry in BACKBONES.values():
        if entry.pretrained != "package":
            continue
        try:
            find_weights_file(entry.builder)
        except BackboneError:
            continue
        found.append(entry.name)
    return tuple(found)


def judged_split(index: DatasetIndex) -> Split:
    """Choose the split that candidates are measured on: test, or val where there is none.

    Returns:
        Its name.

    Raises:
        DatasetError: Neither has an image.
    """
    for split in JUDGED_FIRST:
        if index.rows_of(split):
            return split
    raise DatasetError(
        "a ranking needs a val or test split to be checked on",
        "neither has an image",
        "add images, or raise dataset.val_fraction",
    )


def parse_cuts(config: CandidatesConfig, backbones: tuple[str, ...]) -> tuple[CutRequest, ...]:
    """Read the cuts that were asked for, and check that each backbone named is compared.

    Args:
        config: Lists the cuts as the user wrote them.
        backbones: Names of those that are compared.

    Returns:
        One request a name.

    Raises:
        ConfigError: A cut names a backbone that is not compared.
    """
    requests = []
    for text in config.cuts:
        # A model file's path may hold a colon as well; a layer's name never does.
        backbone, colon, cut = text.rpartition(":")
        if colon and backbone not in backbones:
            raise ConfigError(
                "BACKBONE:CUT names a backbone that is not among those compared",
                f"{text!r} with {', '.join(backbones)}",
                f"add {backbone} to --backbones",
            )
        requests.append(CutRequest(backbone if colon else None, cut))
    return tuple(requests)


def choose_cuts(
    network: Backbone, requests: tuple[CutRequest, ...], num_resolutions: int
) -> tuple[Cut, ...]:
    """Choose the cuts of one backbone.

    Args:
        network: The backbone to cut.
        requests: As `parse_cuts` gives them.
        num_resolutions: At how many resolutions "natural" takes a cut.

    Returns:
        Its cuts, each once, in order from input to output.

    Raises:
        BackboneError: A cut that is meant for this backbone alone does not exist, or none is
            left.
    """
    names = {cut.name for cut in network.cuts} | {cut.layer for cut in network.cuts}
    chosen: dict[str, Cut] = {}
    for request in requests:
        if request.backbone not in (None, network.name):
            continue
        if request.cut == NATURAL:
            *inner, top = natural_cuts(network)
            kept = inner[len(inner) - min(num_resolutions, len(inner)) :]
            chosen.update({cut.name: cut for cut in (*kept, top)})
        elif request.backbone is not None or request.cut in names | {TOP}:
            cut = network.resolve_cut(request.cut)
            chosen[cut.name] = cut
    if not chosen:
        raise BackboneError(
            f"none of the cuts asked for is a cut of {network.name}",
            ", ".join(request.cut for request in requests),
            f"`headstart cuts {network.name}` lists its cuts; `--cuts top` suits all",
        )
    return tuple(cut for cut in network.cuts if cut.name in chosen)

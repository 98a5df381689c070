"""Candidates: the pairs of backbone and cut that a ranking compares."""

from dataclasses import dataclass

from headstart.config import CandidatesConfig, Split, TargetKind
from headstart.errors import BackboneError, ConfigError, DatasetError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import TOP, Cut
from headstart.tasks.backbones.efficientnet_lite import find_weights_file
from headstart.tasks.backbones.natural_cuts import natural_cuts
from headstart.tasks.backbones.table import BACKBONES
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.targets.choice import TARGETS

NATURAL = "natural"
JUDGED_FIRST: tuple[Split, ...] = ("test", "val")
_SAME: dict[TargetKind, str] = {
    "class": "there are none",
    "labels": "none of them has a label, and mAP is not defined without one",
    "number": "each number is the same in all of them, and R² is not defined then",
}


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


def judged_split(index: DatasetIndex, figure: str | None = None) -> Split:
    """Choose the split that candidates are measured on: test, or val where there is none.

    Args:
        index: The indexed data set.
        figure: What they are measured by; where not given, the figure that rankings compare.

    Raises:
        DatasetError: Neither has an image, or the figure is not defined for those of the split.
    """
    for split in JUDGED_FIRST:
        if rows := index.rows_of(split):
            if can_judge(index, split, figure):
                return split
            raise DatasetError(
                f"the {split} images cannot show which model is better: {_SAME[index.kind]}",
                f"{len(rows):,} {split} images",
                f"add {split} images, or hold more out by dataset.{split}_fraction",
            )
    raise DatasetError(
        "a ranking needs a val or test split",
        "both are empty",
        "add images, or raise dataset.val_fraction",
    )


def can_judge(index: DatasetIndex, split: Split, figure: str | None = None) -> bool:
    """Say whether a split has images, and ones that a figure is defined for.

    Args:
        index: The indexed data set.
        split: The split to judge by.
        figure: Name of the figure; where not given, the one that rankings compare.
    """
    judge = JUDGES[index.kind]
    targets = TARGETS[index.kind].to_array(index.rows_of(split), len(index.class_names))
    return judge.is_defined(figure or judge.ranked, targets)


def parse_cuts(config: CandidatesConfig, backbones: tuple[str, ...]) -> tuple[CutRequest, ...]:
    """Read the cuts that were asked for, and check that each backbone named is compared.

    Args:
        config: Lists the cuts as the user wrote them.
        backbones: Names of those that are compared.

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
            f"none of the given cuts is a cut of {network.name}",
            ", ".join(request.cut for request in requests),
            f"`headstart cuts {network.name}` lists its cuts; `--cuts top` suits all",
        )
    return tuple(cut for cut in network.cuts if cut.name in chosen)

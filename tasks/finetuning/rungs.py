"""Where the rungs of a ladder begin: cuts that leave more and more of the backbone to train."""

import math
from collections.abc import Sequence
from itertools import pairwise

from headstart.errors import ConfigError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import TOP, Cut

FIRST_SHARE = 1 / 8
"""Share of the forward FLOPs behind the first rung's cut; each further rung has twice as much. A
training step costs about three forward passes of what trains, so a rung from an eighth is still
cheaper than one forward pass of the backbone."""
BYTES_WEIGHT = 0.25
"""Twice the bytes an image count as a share that is off by a quarter of a doubling: a cut within
a block, where activations are several times as large, loses to the block's end."""


def plan_rungs(backbone: Backbone, num_rungs: int, above: str = TOP) -> list[str]:
    """Choose cuts by the arithmetic behind them and by the size of what they store.

    Args:
        backbone: Network that is to be cut.
        num_rungs: Most cuts wanted; shares double from cut to cut, up to a half.
        above: The cut that they lie below.

    Returns:
        Names of cuts before the top, from the top down, each once.
    """
    least = backbone.resolve_cut(above).flops_after
    candidates = [cut for cut in _inner(backbone) if cut.flops_after > least]
    chosen: list[Cut] = []
    for number in range(num_rungs):
        target = FIRST_SHARE * 2**number
        deeper = [
            cut for cut in candidates if not chosen or cut.flops_after > chosen[-1].flops_after
        ]
        if not deeper or target > 0.5:
            break
        chosen.append(min(deeper, key=lambda cut: _cost(cut, target)))
    return [cut.name for cut in chosen]


def spread_cuts(backbone: Backbone, num_cuts: int) -> list[str]:
    """Spread cuts evenly over the backbone's arithmetic.

    Args:
        backbone: Network that is to be cut.
        num_cuts: Most cuts wanted, the top included.

    Returns:
        Names, from the input to the top.
    """
    total = backbone.cuts[-1].flops_before or 1
    inner = [cut for cut in _inner(backbone) if cut.flops_before > 0]
    names: list[str] = []
    for number in range(1, num_cuts):
        target = number / num_cuts
        free = [cut for cut in inner if cut.name not in names]
        if not free:
            break
        smallest = min(math.prod(cut.activation_shape) for cut in free)

        def cost(cut: Cut, target: float = target, smallest: int = smallest) -> float:
            off = num_cuts * abs(cut.flops_before / total - target)
            return off + BYTES_WEIGHT * math.log2(math.prod(cut.activation_shape) / smallest)

        names.append(min(free, key=cost).name)
    order = [cut.name for cut in backbone.cuts]
    return [*sorted(names, key=order.index), TOP]


def check_cuts(backbone: Backbone, names: Sequence[str], above: str) -> list[str]:
    """Check that cuts lie one below the other.

    Args:
        backbone: Network that is cut.
        names: Cuts from the top down.
        above: The cut that the first of them must lie below.

    Raises:
        ConfigError: One does not lie below the one before it.
        BackboneError: There is no such cut.
    """
    order = [cut.name for cut in backbone.cuts]
    cuts = [backbone.resolve_cut(name).name for name in (above, *names)]
    for upper, lower in pairwise(cuts):
        if order.index(lower) >= order.index(upper):
            raise ConfigError(
                "the cuts of a ladder must go down, from the top to the input",
                f"{lower} does not lie below {upper}",
                f"`headstart cuts {backbone.name}` lists them from the input to the top",
            )
    return cuts[1:]


def _inner(backbone: Backbone) -> list[Cut]:
    # From the top down, so that of equals the later one is met first: behind a block's batch
    # normalisation or activation rather than before it.
    return [cut for cut in reversed(backbone.cuts) if cut.name != TOP]


def _cost(cut: Cut, target: float) -> float:
    share = cut.flops_after / (cut.flops_before + cut.flops_after)
    return abs(math.log2(share / target)) + BYTES_WEIGHT * math.log2(
        math.prod(cut.activation_shape)
    )

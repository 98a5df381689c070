"""Natural cuts: of the many places where a backbone can be cut, the few worth trying first."""

from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import TOP, Cut

MAX_WIDENING = 4
"""A cut that takes more than this many times what an earlier one at its resolution does lies
inside an inverted bottleneck, which widens six-fold for a moment (MobileNetV2, EfficientNet). A
ResNet's stages widen four-fold for good."""


def natural_cuts(backbone: Backbone) -> tuple[Cut, ...]:
    """Choose the last cut at each resolution, and the top.

    The last, because within a resolution later layers know more and cost no more to keep. Left
    out are cuts behind which nothing but pooling is left, since their averages are the top
    itself; those inside a block that widens for a moment; and those where padding has made the
    image larger again.

    Returns:
        The cuts from input to output; the last one is the top.
    """
    chosen: dict[int, Cut] = {}
    slimmest: dict[int, int] = {}
    resolution: int | None = None
    for cut in backbone.cuts:
        if len(cut.activation_shape) != 3 or cut.name == TOP or not cut.flops_after:
            continue
        side, num_bytes = cut.activation_shape[0], cut.bytes_per_image()
        if not cut.flops_before or (resolution is not None and side > resolution):
            continue
        resolution = side
        slimmest[side] = min(num_bytes, slimmest.get(side, num_bytes))
        if num_bytes <= MAX_WIDENING * slimmest[side]:
            chosen[side] = cut
    return (*chosen.values(), backbone.resolve_cut(TOP))

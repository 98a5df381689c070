"""What a ladder's rungs came to: which are kept, which undone, and whether each paid."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from headstart.config import FinetuneConfig
from headstart.errors import ConfigError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.cuts import PIXELS, TOP
from headstart.tasks.evaluation.paired import mcnemar_p
from headstart.tasks.evaluation.report_content import UNDEFINED, percent
from headstart.tasks.finetuning.rungs import check_cuts, plan_rungs
from headstart.tasks.finetuning.stage import RungManifest
from headstart.tasks.head.epochs import EpochFigures, written
from headstart.tasks.head.stage import HeadManifest

SIGNIFICANT_P = 0.05
"""Above this a difference between two rungs is called noise."""


class Rung(BaseModel, frozen=True):
    """One line of the ladder."""

    name: str
    start: str
    status: Literal["kept", "undone", "not tried"]
    val_accuracy: float | None = None
    val_loss: float | None = None
    gain: float | None = None
    """Of validation accuracy over what was kept before, as a share; of labels and numbers, by how
    much the loss is lower."""
    num_trained: int | None = None
    """Numbers trained."""
    num_epochs: int = 0
    best_epoch: int | None = None
    train_s: float = 0.0
    """Seconds of its epochs, when they were computed."""
    images_per_s: float | None = None
    num_fixed: int | None = None
    num_broken: int | None = None
    p_value: float | None = None
    verdict: str = ""
    history: tuple[EpochFigures, ...] = ()

    @property
    def is_of_classes(self) -> bool:
        """Whether it is judged by the share of right answers."""
        return not self.history or self.history[0].metric == "accuracy"

    @property
    def figure(self) -> str:
        """What the validation images gave it, in words."""
        if self.is_of_classes or not self.best_epoch:
            return percent(self.val_accuracy)
        best = self.history[self.best_epoch - 1]
        return f"{best.metric} {written(best.metric, best.val_figure or 0.0)}"

    @property
    def gain_words(self) -> str:
        """What it gained over what was kept before it."""
        if self.gain is None:
            return UNDEFINED
        if self.is_of_classes:
            return f"{100 * self.gain:+.1f} points"
        return f"{-self.gain:+.4f} of the loss"


def plan_cuts(network: Backbone, config: FinetuneConfig) -> tuple[str, ...]:
    """Say where the cached rungs of a ladder begin.

    Returns:
        Names of cuts, from the top down.

    Raises:
        ConfigError: The head cannot be gone on from, or cuts do not go down.
        BackboneError: There is no such cut.
    """
    above = network.resolve_cut(config.bottlenecks.cut).name
    if above != TOP and config.head.kind != "tail":
        raise ConfigError(
            "fine-tuning cannot go on from this head: it needs one on the pooled top, or a "
            "tail behind a cut",
            f"a {config.head.kind} head at {above}, which skips the layers behind it",
            "leave the cut out, or choose --set head.kind=tail",
        )
    if config.ladder.cuts is not None:
        return tuple(check_cuts(network, config.ladder.cuts, above))
    return tuple(plan_rungs(network, config.ladder.num_rungs, above))


def first_rung(head: HeadManifest, head_cut: str, kind: str) -> Rung:
    """Describe the head that a ladder begins with."""
    best = head.history[head.best_epoch - 1]
    return Rung(
        name=f"{kind} head",
        start=head_cut,
        status="kept",
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        num_epochs=len(head.history),
        best_epoch=head.best_epoch,
        train_s=_train_s(head),
        images_per_s=best.images_per_s,
        verdict="the baseline for the rungs",
        history=head.history,
    )


def judge_rung(trained: RungManifest, kept: HeadManifest) -> Rung:
    """Compare a rung with what was kept before it, and say what it bought.

    Returns:
        Its line; kept where more validation images are right, or as many at a lower loss.
    """
    best, before = _best(trained), _best(kept)
    helps = _merit(best) > _merit(before)
    gain = _gain(best, before)
    p_value = mcnemar_p(trained.num_fixed, trained.num_broken)
    train_s = _train_s(trained)
    return Rung(
        name="end to end" if trained.start == PIXELS else f"from {trained.start}",
        start=trained.start,
        status="kept" if helps else "undone",
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        gain=gain,
        num_trained=trained.num_trained,
        num_epochs=len(trained.history),
        best_epoch=trained.best_epoch,
        train_s=train_s,
        images_per_s=best.images_per_s,
        num_fixed=trained.num_fixed,
        num_broken=trained.num_broken,
        p_value=p_value,
        verdict=_verdict(helps, _change(best, before, gain), train_s, trained, p_value),
        history=trained.history,
    )


def untried_end(network: Backbone, num_train: int, rungs: Sequence[Rung], reason: str) -> Rung:
    """Describe the end-to-end rung that was left out, and estimate its price.

    Args:
        network: The backbone, all of which would train.
        num_train: Number of training images.
        rungs: Those that were trained; the deepest gives the speed.
        reason: Why it was left out, in words.
    """
    seconds = estimate_epoch_s(network, num_train, rungs)
    price = (
        ""
        if seconds is None
        else f"; going by its FLOPs, an epoch would take about {seconds:,.0f} s on this machine"
    )
    return Rung(name="end to end", start=PIXELS, status="not tried", verdict=reason + price)


def estimate_epoch_s(network: Backbone, num_train: int, rungs: Sequence[Rung]) -> float | None:
    """Estimate an epoch of end-to-end training from the speed of the deepest cached rung.

    A step of the whole network counts as three forward passes: one forward, and two backward
    for the gradients of weights and activations.

    Returns:
        Seconds; None where no rung behind a cut was trained.
    """
    for rung in reversed(rungs):
        if rung.start in (TOP, PIXELS) or not rung.images_per_s:
            continue
        cut = network.resolve_cut(rung.start)
        step = cut.flops_after + cut.flops_backward_after
        whole = 3 * (cut.flops_before + cut.flops_after)
        return num_train / rung.images_per_s * whole / step if step else None
    return None


def _verdict(
    helps: bool, change: str, train_s: float, trained: RungManifest, p_value: float
) -> str:
    better, worse = "newly right", "newly wrong"
    if _best(trained).metric != "accuracy":
        better, worse = "better", "worse"
    change = (
        f"{change} for {train_s:,.0f} s: {trained.num_fixed} validation "
        f"{'image' if trained.num_fixed == 1 else 'images'} {better}, {trained.num_broken} {worse} "
        f"(McNemar's p = {p_value:.2g})"
    )
    is_noise = p_value > SIGNIFICANT_P
    if trained.num_fixed == trained.num_broken:
        outcome = "kept for its lower loss" if helps else "undone"
        return f"a tie, {outcome}: {change}"
    if not helps:
        return f"undone, {'no clear difference' if is_noise else 'it does harm'}: {change}"
    if is_noise:
        return f"{change}; within noise on so few images, so it may not be worth its time"
    return change


def _merit(figures: EpochFigures) -> tuple[float, float]:
    """Return what two rungs are compared by: validation accuracy, then the lower loss.

    Of labels and numbers it is the loss alone: a share of right answers says little of them.
    """
    if figures.val_figure is None or figures.val_loss is None:
        raise ValueError("metrics without validation images cannot be compared")
    return figures.val_accuracy or 0.0, -figures.val_loss


def _gain(best: EpochFigures, before: EpochFigures) -> float:
    first, second = _merit(best), _merit(before)
    return first[0] - second[0] if best.metric == "accuracy" else first[1] - second[1]


def _change(best: EpochFigures, before: EpochFigures, gain: float) -> str:
    if best.metric == "accuracy":
        return f"{100 * gain:+.1f} points"
    figures = (written(best.metric, one.val_figure or 0.0) for one in (before, best))
    return f"loss {-gain:+.4f}, {best.metric} {' to '.join(figures)}"


def _best(manifest: HeadManifest) -> EpochFigures:
    return manifest.history[manifest.best_epoch - 1]


def _train_s(manifest: HeadManifest) -> float:
    return sum(epoch.duration_s for epoch in manifest.history)

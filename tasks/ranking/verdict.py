"""What a ranking came to: candidates with scores and accuracies, agreement, savings, the pick."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from headstart.tasks.ranking.agreement import weighted_tau
from headstart.tasks.ranking.stage import SCORES
from headstart.tasks.running.stage import Outcome
from headstart.tasks.runs.run_folder import cold_seconds


class Candidate(BaseModel):
    """One backbone cut at one place: what its scores promise, and what its head achieved."""

    model_config = ConfigDict(frozen=True)

    backbone: str
    cut: str
    num_features: int
    bytes_per_image: int
    """Of a bottleneck in the cache."""
    flops: int
    """Forward FLOPs from the image to the cut."""
    scores: dict[str, float | None]
    accuracy: float
    """Measured: a head trained from the cache, on the judged split; of labels and numbers the
    figure that `Verdict.metric` names."""
    accuracy_interval: tuple[float, float] | None
    epochs: int
    """That the head was trained for."""
    cached_s: float
    """Seconds for its scores, head and evaluation from the cache, when they were computed."""
    transfer_s: float
    """Seconds from image files to the evaluated head: the backbone's views and pass, which all
    its cuts share, and the head's own."""
    uncached_s: float
    """Seconds that the same epochs would take through the frozen backbone: images of an epoch
    times epochs times the measured pace, in proportion to the FLOPs up to the cut; decoding and
    the head itself are not counted."""

    @property
    def name(self) -> str:
        """Backbone and cut in one word."""
        return f"{self.backbone}:{self.cut}"


class SourceLine(BaseModel):
    """One registered source beside the target."""

    model_config = ConfigDict(frozen=True)

    name: str
    num_images: int
    backbone: str
    divergence: float
    p2l: float
    accuracy: float | None
    """Measured at the top of the source's model, where that is a candidate."""


class Verdict(BaseModel):
    """What a ranking came to."""

    model_config = ConfigDict(frozen=True)

    judged: str
    """The split that accuracies are of."""
    metric: str = "accuracy"
    """What is measured: accuracy, mAP (of labels) or R² (of numbers)."""
    candidates: tuple[Candidate, ...]
    """The most accurate first."""
    agreement: dict[str, float | None]
    """Weighted Kendall tau of each score with accuracy."""
    choices: dict[str, str | None]
    """The candidate that each score would have chosen; of equals, the cheapest by FLOPs."""
    sources: tuple[SourceLine, ...]
    pick: str
    ranking_s: float
    """Seconds for all of it: views, passes, scores, heads, evaluations."""
    ranked_from: str
    """What these seconds hold: all from an empty store, as far as that is known."""
    uncached_s: float
    """Estimated seconds for training all heads through their frozen backbones."""
    baseline_accuracy: float | None
    baseline_s: float | None
    warnings: tuple[str, ...]

    @property
    def heading(self) -> str:
        """What stands above the measured figures."""
        return self.metric.capitalize() if self.metric == "accuracy" else self.metric

    @property
    def seconds_saved(self) -> float:
        """Seconds that the ranking saves against training them all uncached."""
        return self.uncached_s - self.ranking_s


def draw_verdict(
    judged: str,
    candidates: Sequence[Candidate],
    sources: Sequence[SourceLine],
    outcomes: Sequence[Outcome],
    baseline: tuple[float, float] | None,
    metric: str = "accuracy",
) -> Verdict:
    """Draw the conclusions of a ranking.

    Args:
        judged: The split that accuracies are of.
        candidates: With scores and accuracies, at least one.
        sources: Registered sources.
        outcomes: How its stages went, but for the baseline's.
        baseline: Accuracy and seconds of a small network from scratch; None without one.
        metric: What the accuracies are called.

    Returns:
        The verdict. The pick is the most accurate candidate; of equals, the cheapest by FLOPs.
    """
    ordered = best_first(candidates)
    accuracies = [one.accuracy for one in ordered]
    columns = {name: [one.scores[name] for one in ordered] for name in SCORES}
    return Verdict(
        judged=judged,
        metric=metric,
        candidates=tuple(ordered),
        agreement={name: weighted_tau(column, accuracies) for name, column in columns.items()},
        choices={name: _choice(name, candidates) for name in SCORES},
        sources=tuple(sorted(sources, key=lambda one: -one.p2l)),
        pick=ordered[0].name,
        ranking_s=cold_seconds(outcomes),
        ranked_from=_ranked_from(outcomes),
        uncached_s=sum(one.uncached_s for one in ordered),
        baseline_accuracy=baseline[0] if baseline else None,
        baseline_s=baseline[1] if baseline else None,
        warnings=tuple(_warnings(judged, ordered, baseline)),
    )


def best_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Order candidates by accuracy; of equals, the cheapest by FLOPs comes first."""
    return sorted(candidates, key=lambda one: (-one.accuracy, one.flops, one.name))


def _choice(score: str, candidates: Sequence[Candidate]) -> str | None:
    # Among equals by what a score could go by: it must not choose by accuracies it has not seen.
    known = [
        (-value, one.flops, one.name)
        for one in candidates
        if (value := one.scores[score]) is not None
    ]
    return min(known)[-1] if known else None


def _ranked_from(outcomes: Sequence[Outcome]) -> str:
    least = min((outcome.share_computed for outcome in outcomes), default=1.0)
    if least == 0.0:
        return "not counting rows that were in the store already"
    if least < 1.0:
        return "from an empty store, scaled up from the rows that were missing"
    return "from an empty store"


def _warnings(
    judged: str, ordered: Sequence[Candidate], baseline: tuple[float, float] | None
) -> list[str]:
    best = ordered[0]
    found = []
    if judged == "val":
        found.append(
            "The val split also chose each head's epoch, so accuracies are a little optimistic, "
            "for all candidates alike."
        )
    elif len(ordered) > 1:
        found.append(
            f"The pick was chosen by these {judged} images, so its accuracy on them is a little "
            "optimistic: what it is worth, images that had no part in the choice tell."
        )
    if baseline is not None:
        low = best.accuracy_interval[0] if best.accuracy_interval else best.accuracy
        beside = "as long as the transfer took"
        if round(best.transfer_s) != baseline[1]:
            beside = f"the transfer took {_seconds(best.transfer_s)}"
        if baseline[0] >= best.accuracy:
            found.append(
                f"Negative transfer: a small network from scratch reached {baseline[0]:.1%} in "
                f"{_seconds(baseline[1])} ({beside}), the best transfer only {best.accuracy:.1%}. "
                "Train from scratch, or look for a source nearer to these images."
            )
        elif baseline[0] >= low:
            found.append(
                f"The best transfer ({best.accuracy:.1%}) is not clearly better than a small "
                f"network from scratch ({baseline[0]:.1%} in {_seconds(baseline[1])}; {beside}): "
                "the difference lies within the accuracy's interval."
            )
    close = [
        one.name
        for one in ordered[1:]
        if best.accuracy_interval and one.accuracy >= best.accuracy_interval[0]
    ]
    if close:
        found.append(
            f"{len(close)} other {'candidate lies' if len(close) == 1 else 'candidates lie'} "
            f"within the interval of the pick's accuracy: {', '.join(close)}."
        )
    return found


def _seconds(value: float) -> str:
    return f"{round(value, 1):,g} s"

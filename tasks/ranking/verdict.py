"""What a ranking came to: candidates with scores and figures, agreement, savings, the pick."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from headstart.tasks.evaluation.judges import JUDGES, Judge
from headstart.tasks.evaluation.report_content import percent
from headstart.tasks.ranking.agreement import weighted_tau
from headstart.tasks.ranking.stage import SCORES
from headstart.tasks.running.stage import Outcome
from headstart.tasks.runs.run_folder import cold_seconds


class Candidate(BaseModel, frozen=True):
    """One backbone cut at one place: what its scores promise, and what its head achieved."""

    backbone: str
    cut: str
    num_features: int
    bytes_per_image: int
    """Of a bottleneck in the cache."""
    flops: int
    """Forward FLOPs from the image to the cut."""
    scores: dict[str, float | None]
    figure: float
    """Measured: a head trained from the cache, on the judged split; what `Verdict.metric` names."""
    interval: tuple[float, float] | None
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

    def to_json(self, figure: str) -> dict[str, Any]:
        """Return JSON values, with the figure and its interval under a name of their own."""
        fields = self.model_dump(mode="json")
        own = {figure: fields.pop("figure"), f"{figure}_interval": fields.pop("interval")}
        return {**fields, **own}


class SourceLine(BaseModel, frozen=True):
    """One registered source beside the target."""

    name: str
    num_images: int
    backbone: str
    divergence: float
    p2l: float
    accuracy: float | None
    """Measured at the top of the source's model, where that is a candidate."""


class Verdict(BaseModel, frozen=True):
    """What a ranking came to."""

    judged: str
    """The split that the figures are of."""
    metric: str = "accuracy"
    """What is measured: accuracy, mAP (of labels) or R² (of numbers)."""
    figure: str = "accuracy"
    """Its name in JSON: accuracy, mean_average_precision or r2."""
    candidates: tuple[Candidate, ...]
    """The one with the highest figure first."""
    agreement: dict[str, float | None]
    """Weighted Kendall tau of each score with what is measured."""
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
    baseline: float | None
    """The same of a small network from scratch."""
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

    def write(self, figure: float) -> str:
        """Write a figure with its name."""
        return write(figure, self.metric)

    def bare(self, figure: float) -> str:
        """Write a figure that stands below its name."""
        return percent(figure) if self.metric == "accuracy" else f"{figure:.4f}"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, with figures under names of their own."""
        fields = self.model_dump(mode="json", exclude={"candidates", "baseline"})
        return {
            **fields,
            f"baseline_{self.figure}": self.baseline,
            "candidates": [one.to_json(self.figure) for one in self.candidates],
            "seconds_saved": self.seconds_saved,
        }


def draw_verdict(
    judged: str,
    candidates: Sequence[Candidate],
    sources: Sequence[SourceLine],
    outcomes: Sequence[Outcome],
    baseline: tuple[float, float] | None,
    judge: Judge = JUDGES["class"],
) -> Verdict:
    """Draw the conclusions of a ranking.

    Args:
        judged: The split that the figures are of.
        candidates: With scores and figures, at least one.
        sources: Registered sources, with their P2L.
        outcomes: How its stages went, but for the baseline's.
        baseline: The figure and seconds of a small network from scratch; None without one.
        judge: Of the targets: it knows what the figures are.

    Returns:
        The verdict. The pick has the highest figure; of equals, it is the cheapest by FLOPs.
    """
    ordered = best_first(candidates)
    figures = [one.figure for one in ordered]
    columns = {name: [one.scores[name] for one in ordered] for name in SCORES}
    return Verdict(
        judged=judged,
        metric=judge.ranked_name,
        figure=judge.ranked,
        candidates=tuple(ordered),
        agreement={name: weighted_tau(column, figures) for name, column in columns.items()},
        choices={name: _choice(name, candidates) for name in SCORES},
        sources=tuple(sorted(sources, key=lambda one: -one.p2l)),
        pick=ordered[0].name,
        ranking_s=cold_seconds(outcomes),
        ranked_from=_ranked_from(outcomes),
        uncached_s=sum(one.uncached_s for one in ordered),
        baseline=baseline[0] if baseline else None,
        baseline_s=baseline[1] if baseline else None,
        warnings=tuple(_warnings(judged, ordered, baseline, judge.ranked_name)),
    )


def best_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Order candidates by what is measured; of equals, the cheapest by FLOPs comes first."""
    return sorted(candidates, key=lambda one: (-one.figure, one.flops, one.name))


def _choice(score: str, candidates: Sequence[Candidate]) -> str | None:
    # Among equals by what a score could go by: it must not choose by figures it has not seen.
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
        return "from an empty store, extrapolated from the rows that were missing"
    return "from an empty store"


def _warnings(
    judged: str, ordered: Sequence[Candidate], baseline: tuple[float, float] | None, metric: str
) -> list[str]:
    best = ordered[0]
    word = "accuracy" if metric == "accuracy" else metric
    found = []
    if judged == "val":
        found.append(
            "The val split also chose each head's epoch, so the figures are a little optimistic, "
            "for all candidates alike."
        )
    elif len(ordered) > 1:
        found.append(
            f"The pick was chosen by these {judged} images, so its {word} on them is a little "
            "optimistic: only images that had no part in the choice can show its true accuracy."
        )
    if baseline is not None:
        low = best.interval[0] if best.interval else best.figure
        scratch, transfer = write(baseline[0], metric), write(best.figure, metric)
        beside = "as long as the transfer took"
        if round(best.transfer_s) != baseline[1]:
            beside = f"the transfer took {_seconds(best.transfer_s)}"
        if baseline[0] >= best.figure:
            found.append(
                f"Negative transfer: a small network from scratch reached {scratch} in "
                f"{_seconds(baseline[1])} ({beside}), the best transfer only {transfer}. "
                "Train from scratch, or look for a source closer to these images."
            )
        elif baseline[0] >= low:
            found.append(
                f"The best transfer ({transfer}) is not clearly better than a small "
                f"network from scratch ({scratch} in {_seconds(baseline[1])}; {beside}): "
                f"the difference lies within the {word}'s interval."
            )
    close = [one.name for one in ordered[1:] if best.interval and one.figure >= best.interval[0]]
    if close:
        found.append(
            f"{len(close)} other {'candidate lies' if len(close) == 1 else 'candidates lie'} "
            f"within the interval of the pick's {word}: {', '.join(close)}."
        )
    return found


def write(figure: float, metric: str) -> str:
    """Write a measured figure: a share as a percentage, others with their name."""
    return f"{figure:.1%}" if metric == "accuracy" else f"{metric} {figure:.4f}"


def _seconds(value: float) -> str:
    return f"{round(value, 1):,g} s"

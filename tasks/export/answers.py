"""What a model's answer is called and how it is written, for each kind of target."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.config import TargetKind
from headstart.tasks.dataset.printable import printable
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.targets.labels import DEFAULT_THRESHOLD


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        path: The file, as it was named or found; None for pixels and bytes.
        top: The likeliest classes with their probabilities in [0, 1], the likeliest first.
    """

    path: str | None
    top: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """Its probability."""
        return self.top[0][1]


@dataclass(frozen=True)
class LabelsPrediction(Prediction):
    """What a model of labels says of one image.

    Attributes:
        said: The labels whose probability reaches their threshold, with it, the likeliest first.
    """

    said: tuple[tuple[str, float], ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names; none where no label applies."""
        return tuple(name for name, _ in self.said)


@dataclass(frozen=True)
class NumberPrediction:
    """What a model of numbers says of one image.

    Attributes:
        path: The file, as it was named or found; None for pixels and bytes.
        values: The numbers by name, in the unit of the manifest.
        intervals: Where each lies for 95 of 100 new images; empty where too few validation
            images were there to say so.
    """

    path: str | None
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    @property
    def value(self) -> float:
        """The number; the first of several."""
        return next(iter(self.values.values()))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its interval."""
        return next(iter(self.intervals.values()), None)


class Answers(ABC):
    """Makes predictions of a network's answers, and writes them."""

    @abstractmethod
    def make(self, card: ModelCard, path: str | None, row: NDArray[Any], top_k: int) -> Any:
        """Make a prediction of a row of answers."""

    @abstractmethod
    def fields(self, prediction: Any) -> dict[str, Any]:
        """Return what JSON says of it, but for the path."""

    @abstractmethod
    def columns(self, card: ModelCard, top_k: int) -> list[str]:
        """Name the columns of a CSV file, but for path and error."""

    @abstractmethod
    def cells(self, card: ModelCard, prediction: Any, top_k: int) -> list[Any]:
        """Return what stands in them."""

    @abstractmethod
    def text(self, prediction: Any) -> str:
        """Say it in a line."""


class _ClassAnswers(Answers):
    def make(self, card: ModelCard, path: str | None, row: NDArray[Any], top_k: int) -> Prediction:
        return Prediction(path, _top(card, row, top_k))

    def fields(self, prediction: Prediction) -> dict[str, Any]:
        top = _listed(prediction.top)
        return {**top[0], "top": top}

    def columns(self, card: ModelCard, top_k: int) -> list[str]:
        further = [f"{name}_{k}" for k in range(2, top_k + 1) for name in ("label", "probability")]
        return ["label", "probability", *further]

    def cells(self, card: ModelCard, prediction: Prediction, top_k: int) -> list[Any]:
        return [cell for name, p in prediction.top for cell in (name, rounded(p))]

    def text(self, prediction: Prediction) -> str:
        return _percentages(prediction.top)


class _LabelAnswers(Answers):
    def make(
        self, card: ModelCard, path: str | None, row: NDArray[Any], top_k: int
    ) -> LabelsPrediction:
        limits = card.fit.thresholds or [DEFAULT_THRESHOLD] * len(row)
        reached = {
            name for name, p, limit in zip(card.class_names, row, limits, strict=True) if p >= limit
        }
        ranked = _top(card, row, len(row))
        said = tuple(one for one in ranked if one[0] in reached)
        return LabelsPrediction(path, ranked[:top_k], said)

    def fields(self, prediction: LabelsPrediction) -> dict[str, Any]:
        return {"labels": _listed(prediction.said), "top": _listed(prediction.top)}

    def columns(self, card: ModelCard, top_k: int) -> list[str]:
        further = [name for k in range(1, top_k + 1) for name in (f"label_{k}", f"probability_{k}")]
        return ["labels", *further]

    def cells(self, card: ModelCard, prediction: LabelsPrediction, top_k: int) -> list[Any]:
        separator = card.columns.get("label_separator") or ";"
        top = [cell for name, p in prediction.top for cell in (name, rounded(p))]
        return [separator.join(prediction.labels), *top]

    def text(self, prediction: LabelsPrediction) -> str:
        if prediction.said:
            return _percentages(prediction.said)
        return f"no label; the most likely is {_percentages(prediction.top[:1])}"


class _NumberAnswers(Answers):
    def make(
        self, card: ModelCard, path: str | None, row: NDArray[Any], top_k: int
    ) -> NumberPrediction:
        values = {name: float(value) for name, value in zip(card.class_names, row, strict=True)}
        intervals = {
            name: (values[name] - radius, values[name] + radius)
            for name, radius in zip(card.class_names, card.fit.radius, strict=False)
        }
        return NumberPrediction(path, values, intervals)

    def fields(self, prediction: NumberPrediction) -> dict[str, Any]:
        values = {name: rounded(value) for name, value in prediction.values.items()}
        intervals = {
            name: [rounded(low), rounded(high)]
            for name, (low, high) in prediction.intervals.items()
        }
        first = next(iter(values))
        return {
            "value": values[first],
            "interval": intervals.get(first),
            "values": values,
            "intervals": intervals,
        }

    def columns(self, card: ModelCard, top_k: int) -> list[str]:
        return [f"{name}{end}" for name in card.class_names for end in ("", "_low", "_high")]

    def cells(self, card: ModelCard, prediction: NumberPrediction, top_k: int) -> list[Any]:
        cells: list[Any] = []
        for name, value in prediction.values.items():
            bounds = prediction.intervals.get(name)
            cells += [rounded(value), *(map(rounded, bounds) if bounds else ("", ""))]
        return cells

    def text(self, prediction: NumberPrediction) -> str:
        parts = []
        for name, value in prediction.values.items():
            part = f"{printable(name)} {value:.4g}"
            if name in prediction.intervals:
                low, high = prediction.intervals[name]
                part += f" ({low:.4g} to {high:.4g})"
            parts.append(part)
        return ", ".join(parts)


ANSWERS: dict[TargetKind, Answers] = {
    "class": _ClassAnswers(),
    "labels": _LabelAnswers(),
    "number": _NumberAnswers(),
}
"""One a kind."""


def rounded(value: float) -> float:
    """Round to six significant digits; float32 has hardly more."""
    return float(f"{value:.6g}")


def _top(card: ModelCard, row: NDArray[Any], top_k: int) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-row, kind="stable")[:top_k]
    return tuple((card.class_names[index], float(row[index])) for index in best)


def _listed(pairs: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": name, "probability": rounded(p)} for name, p in pairs]


def _percentages(pairs: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{printable(name)} {p:.1%}" for name, p in pairs)

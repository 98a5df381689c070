"""Who judges which kind of target: its figures, the worst images, and what is said in a line."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from headstart.config import EvaluationConfig, TargetKind
from headstart.tasks.dataset.units import Units
from headstart.tasks.evaluation.label_metrics import LabelFigures, evaluate_labels, worst_labels
from headstart.tasks.evaluation.metrics import SplitMetrics, evaluate, top_losses
from headstart.tasks.evaluation.number_metrics import NumberFigures, evaluate_numbers, worst_numbers
from headstart.tasks.evaluation.report_content import UNDEFINED, percent
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import Fit

Array = npt.NDArray[Any]
Names = Sequence[str]


class Judge(ABC):
    """Judges one kind of target."""

    model: ClassVar[type[BaseModel]]
    """Of the figures of a split."""
    main: ClassVar[str]
    """The figure that a model is known by."""
    main_name: ClassVar[str]
    """It, in a line."""
    higher_is_better: ClassVar[bool]
    shown: ClassVar[tuple[str, ...]]
    """Figures of a run's summary."""
    comparable: ClassVar[tuple[str, ...]]
    """Figures that may decide between two models, the main one first."""
    ranked: ClassVar[str]
    """The figure that candidates are compared by: 1 is perfect, and the unit does not matter."""
    ranked_name: ClassVar[str]
    """It, in a line."""

    @abstractmethod
    def evaluate(
        self,
        outputs: Array,
        targets: Array,
        names: Names,
        fit: Fit,
        config: EvaluationConfig,
        units: Units = None,
    ) -> Any:
        """Compute all figures of a split; an instance of `model`. Units are drawn as a whole."""

    @abstractmethod
    def worst(
        self, outputs: Array, targets: Array, fit: Fit, config: EvaluationConfig
    ) -> list[dict[str, Any]]:
        """List the rows with the highest loss: each with "position" and "loss"."""

    def is_defined(self, figure: str, targets: Array) -> bool:
        """Say whether images of these targets, whatever is answered, have one of its figures."""
        return len(targets) > 0

    def write(self, value: float | None) -> str:
        """Write the main figure."""
        return percent(value)

    def line(self, figures: Mapping[str, Any]) -> str:
        """Say in a few words how good a split is."""
        value = figures[self.main]
        return f"{self.main_name} {UNDEFINED if value is None else f'{value:.4f}'}"


class _ClassJudge(Judge):
    model = SplitMetrics
    main = main_name = "accuracy"
    higher_is_better = True
    shown = (
        *("accuracy", "accuracy_interval", "interval_confidence", "top_k", "loss", "macro_f1"),
        *("ece", "num_images"),
    )
    comparable = ("accuracy", "macro_f1", "loss")
    ranked = ranked_name = "accuracy"

    def evaluate(
        self,
        outputs: Array,
        targets: Array,
        names: Names,
        fit: Fit,
        config: EvaluationConfig,
        units: Units = None,
    ) -> Any:
        return evaluate(outputs, targets, names, config, units)

    def worst(
        self, outputs: Array, targets: Array, fit: Fit, config: EvaluationConfig
    ) -> list[dict[str, Any]]:
        return [one.model_dump(mode="json") for one in top_losses(outputs, targets, config)]


def _with_intervals(*names: str) -> tuple[str, ...]:
    both = (field for name in names for field in (name, f"{name}_interval"))
    return (*both, "interval_confidence", "loss", "num_images")


class _LabelJudge(Judge):
    model = LabelFigures
    main, main_name = "mean_average_precision", "mAP"
    higher_is_better = True
    shown = _with_intervals(
        "mean_average_precision", "f1_micro", "f1_macro", "hamming_loss", "subset_accuracy"
    )
    comparable = (
        *("mean_average_precision", "f1_micro", "f1_macro", "subset_accuracy", "hamming_loss"),
        "loss",
    )
    ranked, ranked_name = "mean_average_precision", "mAP"

    def evaluate(
        self,
        outputs: Array,
        targets: Array,
        names: Names,
        fit: Fit,
        config: EvaluationConfig,
        units: Units = None,
    ) -> Any:
        probabilities = TARGETS["labels"].answers(outputs, fit)
        return evaluate_labels(
            outputs, targets, probabilities, names, fit.thresholds, config, units
        )

    def worst(
        self, outputs: Array, targets: Array, fit: Fit, config: EvaluationConfig
    ) -> list[dict[str, Any]]:
        probabilities = TARGETS["labels"].answers(outputs, fit)
        said = probabilities >= np.array(fit.thresholds or [0.5] * targets.shape[1])
        return worst_labels(outputs, targets, said, config.num_top_losses)

    def is_defined(self, figure: str, targets: Array) -> bool:
        return bool(targets.any()) if figure == self.main else len(targets) > 0


class _NumberJudge(Judge):
    model = NumberFigures
    main, main_name = "mae", "MAE"
    higher_is_better = False
    shown = (*_with_intervals("mae", "rmse", "r2", "median_absolute_error"), "constant_mae")
    comparable = ("mae", "rmse", "median_absolute_error", "r2")
    ranked, ranked_name = "r2", "R²"

    def evaluate(
        self,
        outputs: Array,
        targets: Array,
        names: Names,
        fit: Fit,
        config: EvaluationConfig,
        units: Units = None,
    ) -> Any:
        return evaluate_numbers(
            TARGETS["number"].answers(outputs, fit), targets, names, fit, config, units
        )

    def worst(
        self, outputs: Array, targets: Array, fit: Fit, config: EvaluationConfig
    ) -> list[dict[str, Any]]:
        answers = TARGETS["number"].answers(outputs, fit)
        return worst_numbers(answers, targets, fit, config.num_top_losses)

    def is_defined(self, figure: str, targets: Array) -> bool:
        if figure != self.ranked or not len(targets):
            return len(targets) > 0
        return bool((np.ptp(targets, axis=0) > 0).any())

    def write(self, value: float | None) -> str:
        return UNDEFINED if value is None else f"{value:.4g}"

    def line(self, figures: Mapping[str, Any]) -> str:
        constant = self.write(figures["constant_mae"])
        return f"MAE {self.write(figures['mae'])} (always predicting the training mean: {constant})"


LESS_IS_BETTER = ("loss", "hamming_loss", "mae", "rmse", "median_absolute_error")
"""Figures of which the smaller is the better."""

JUDGES: dict[TargetKind, Judge] = {
    "class": _ClassJudge(),
    "labels": _LabelJudge(),
    "number": _NumberJudge(),
}
"""One a kind."""


def judge_of(figures: Mapping[str, Any]) -> Judge:
    """Say who made the figures of a split, by their names."""
    return next(judge for judge in JUDGES.values() if judge.main in figures)

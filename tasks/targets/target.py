"""What every kind of target answers, and what a training learns of targets besides weights.

A target has no state: the names of the outputs are the data set's, the numbers a training finds
are its `Fit`. Arrays of targets have one row an image; `Target.to_array` says of which shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from headstart.config import HeadConfig, TargetKind

Array = npt.NDArray[Any]
Outputs = npt.NDArray[np.float32]

TINY = 1e-30
"""Keeps the logarithm of a probability that underflowed to 0 finite."""
COVERAGE = 0.95
"""Share of new images whose number is to lie in the interval that is given with it."""


class Fit(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What a training found out about its targets; it travels in manifests and model cards."""

    offset: tuple[float, ...] = ()
    """Mean of each number over the training images; what an output of 0 stands for."""
    scale: tuple[float, ...] = ()
    """Standard deviation of each number over the training images; what an output of 1 adds."""
    thresholds: tuple[float, ...] = ()
    """Probability from which each label is said, chosen on the validation images."""
    radius: tuple[float, ...] = ()
    """Half the width of each number's interval, by split conformal prediction on them."""


NO_FIT = Fit()


class Target(ABC):
    """One kind of target: how it is held, learned, decoded and answered with."""

    kind: ClassVar[TargetKind]
    metric: ClassVar[str]
    """The figure of an epoch besides its loss."""
    unread: ClassVar[tuple[str, ...]]
    """Fields of `HeadConfig` that decide nothing of this kind, and so are in no key."""

    answer_name: ClassVar[str] = "probabilities"
    """What an exported model calls its answer."""
    own_settings: ClassVar[tuple[str, ...]] = ()
    """Fields of `HeadConfig` that are read of this kind alone."""

    @abstractmethod
    def to_array(self, rows: Sequence[Any], num_outputs: int) -> Array:
        """Gather the targets of rows of an index.

        Args:
            rows: `headstart.tasks.dataset.index.ImageRow`, or what has its label and values.
            num_outputs: Classes, labels or numbers.
        """

    @abstractmethod
    def check(
        self, train: Array, val: Array | None, num_outputs: int, names: Sequence[str] = ()
    ) -> None:
        """Refuse targets that nothing can be learned from.

        Args:
            train: Of the training images.
            val: Of the validation images, if there are any.
            num_outputs: Classes, labels or numbers.
            names: Of them, for the message.

        Raises:
            TrainingError: There are none, or they do not fit the outputs.
        """

    @abstractmethod
    def fit(self, train: Array) -> Fit:
        """Find what must be known of the training targets before the first step."""

    @abstractmethod
    def to_match(self, targets: Any, num_outputs: int, smoothing: float, fit: Fit) -> Any:
        """Turn a batch of targets, a tensor, into what the outputs are to match.

        Returns:
            float32 [n, num_outputs].
        """

    @abstractmethod
    def balance(self, train: Array, num_outputs: int) -> Any:
        """Make the weights of `class_weights="balanced"`.

        Returns:
            A function from a batch of targets, a tensor, to weights; None where there are none.
        """

    @abstractmethod
    def loss(self, config: HeadConfig) -> Any:
        """Make the Keras loss of outputs [n, num_outputs] against what they are to match."""

    @abstractmethod
    def make_metric(self, fit: Fit) -> Any:
        """Make the Keras metric called `metric`."""

    @abstractmethod
    def decide(self, fit: Fit, outputs: Outputs, val: Array, config: HeadConfig) -> Fit:
        """Add what only a trained network's outputs on the validation images can tell."""

    @abstractmethod
    def answers(self, outputs: Outputs, fit: Fit) -> Array:
        """Turn outputs [n, num_outputs] into what a model answers: probabilities or numbers."""

    @abstractmethod
    def outputs(self, answers: Array, fit: Fit) -> Array:
        """Turn answers back into outputs, up to what the answers do not tell."""

    @abstractmethod
    def answer_layer(self, fit: Fit, name: str) -> Any:
        """Make the stock Keras layer that does what `answers` does."""

    @abstractmethod
    def errors(self, outputs: Outputs, targets: Array, fit: Fit) -> npt.NDArray[np.float64]:
        """Say of each row how wrong it is: two networks are compared by it image by image."""

    def told(self, answers: Array, fit: Fit) -> Array:
        """Turn answers into targets, as `to_array` has them: what the model says of each row."""
        return answers

    @abstractmethod
    def words(self, target: Any, names: Sequence[str]) -> str:
        """Say what the target of an image is, one row of `to_array`."""

    @abstractmethod
    def shown_output(self, target: Any) -> int:
        """Pick the output whose evidence a heatmap of an image shows."""

    def agree(self, answers: Array, others: Array, fit: Fit) -> npt.NDArray[np.bool_]:
        """Say of each row whether two answers come to the same for a user."""
        return np.ones(len(answers), np.bool_)

    def answer_unit(self, fit: Fit) -> Array:
        """Return what an answer's difference is measured in: 1 for a probability."""
        return np.ones(1)

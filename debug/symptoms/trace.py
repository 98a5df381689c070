"""What the symptom rules judge: the record of one training run, as plain numbers.

The callback of ``headstart.debug.symptoms.callback`` fills it while a model trains, and
``headstart.debug.symptoms.logs`` from TensorBoard logs afterwards; what was not measured stays
empty and the rules that need it stay silent.
"""

import math
from dataclasses import dataclass, field

FIRST_STEPS = 3
"""Losses averaged for the start of the run: few, since a wrong learning rate shows by step 2."""


@dataclass(frozen=True)
class StepSample:
    """What was measured at one sampled step, one entry a trainable variable.

    Args:
        step: The step, counted from 0 over all epochs.
        names: Paths of the variables, in the order of the forward pass.
        has_gradient: Whether the loss gave the variable a gradient at all.
        gradient_norms: L2 norm of each gradient.
        gradient_means: Mean of the absolute gradient.
        weight_norms: L2 norm of each variable before the step.
        update_ratios: L2 norm of the step's change over that of the variable before it.
        is_kernel: Whether the variable is a matrix or higher (biases start at zero, so their
            ratios say nothing).
        learning_rate: The optimizer's at that step.
    """

    step: int
    names: tuple[str, ...]
    has_gradient: tuple[bool, ...]
    gradient_norms: tuple[float, ...]
    gradient_means: tuple[float, ...]
    weight_norms: tuple[float, ...]
    update_ratios: tuple[float, ...]
    is_kernel: tuple[bool, ...]
    learning_rate: float

    def kernels(self) -> list[int]:
        """Positions of the kernels that have a gradient, first layer first."""
        return [i for i, kernel in enumerate(self.is_kernel) if kernel and self.has_gradient[i]]

    @property
    def update_ratio(self) -> float:
        """Median update ratio of the kernels; NaN where none was measured."""
        ratios = sorted(
            self.update_ratios[i] for i in self.kernels() if not math.isnan(self.update_ratios[i])
        )
        return ratios[len(ratios) // 2] if ratios else math.nan

    @property
    def gradient_norm(self) -> float:
        """L2 norm of all gradients together; NaN where one of them holds NaN."""
        pairs = zip(self.gradient_norms, self.has_gradient, strict=True)
        return math.hypot(*(norm for norm, has_gradient in pairs if has_gradient))


@dataclass(frozen=True)
class LayerActivity:
    """How the units of one hidden layer behave on the probe batches.

    Args:
        layer: Path of the layer in the model.
        activation: ``relu``, ``sigmoid``, ``tanh`` or another activation's name.
        dead: Share of units that are zero for every row, from 0 to 1.
        saturated: Share of units that sit on the flat of their curve for nearly every row.
    """

    layer: str
    activation: str
    dead: float
    saturated: float


@dataclass(frozen=True)
class Probe:
    """The model looked at from outside, on batches it was just trained on.

    Args:
        step: After how many steps.
        num_rows: Rows in the probe.
        activities: One entry a hidden layer with a known activation.
        first_layer: Path of the first layer with weights.
        first_input_min: Least value that reaches it.
        first_input_mean: Mean of the values that reach it.
        first_input_max: Greatest value that reaches it.
        predicted_counts: Predicted class -> rows; empty where the model is no classifier.
        label_counts: True class -> rows of the probe.
        num_classes: Classes the predictions tell apart; 0 where the model is no classifier.
    """

    step: int
    num_rows: int
    activities: tuple[LayerActivity, ...] = ()
    first_layer: str = ""
    first_input_min: float = 0.0
    first_input_mean: float = 0.0
    first_input_max: float = 0.0
    predicted_counts: dict[int, int] = field(default_factory=dict)
    label_counts: dict[int, int] = field(default_factory=dict)
    num_classes: int = 0


@dataclass
class TrainingTrace:
    """The record of one call of ``fit``.

    Args:
        losses: Loss of each step, or of each call that took several (``steps_per_execution``).
        epochs: Logs of each finished epoch, ``loss`` and ``val_loss`` among them.
        epoch_starts: Entry of ``losses`` with which each epoch began.
        samples: What was measured at the sampled steps.
        probes: The looks from outside, at most one an epoch.
        waits_s: Seconds each step (or call) waited for its batches.
        step_times_s: Seconds each step took, waiting included.
        memory: Pairs of entry of ``losses`` and resident bytes.
        num_retraces: Traces of the train step beyond the first.
        retrace_causes: What differed between them, one sentence each.
        num_classes: Of the labels, where the model is a classifier; else 0.
        label_counts: Class -> training rows seen.
        num_pairs: Neighbouring rows of the first batches whose labels were compared.
        num_equal_pairs: Those of them with equal labels.
        is_weighted: Whether the rows came with sample or class weights.
        is_resumed: Whether the optimizer had taken steps before this call of ``fit``.
        has_half_weights: Whether the trained variables themselves are float16.
        has_finished: Whether training came to its end.
    """

    losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    epoch_starts: list[int] = field(default_factory=list)
    samples: list[StepSample] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    step_times_s: list[float] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)
    num_retraces: int = 0
    retrace_causes: tuple[str, ...] = ()
    num_classes: int = 0
    label_counts: dict[int, int] = field(default_factory=dict)
    num_pairs: int = 0
    num_equal_pairs: int = 0
    is_weighted: bool = False
    is_resumed: bool = False
    has_half_weights: bool = False
    has_finished: bool = False

    @property
    def finite_losses(self) -> list[float]:
        """The losses before the first that is NaN or Inf."""
        for step, loss in enumerate(self.losses):
            if not math.isfinite(loss):
                return self.losses[:step]
        return self.losses

    @property
    def first_loss(self) -> float:
        """Loss at the start: step 0, or the mean of the first steps where that is lower."""
        head = self.finite_losses[:FIRST_STEPS]
        return min(head[0], sum(head) / len(head)) if head else math.nan

    @property
    def last_loss(self) -> float:
        """Mean loss of the last fifth of the steps."""
        losses = self.finite_losses
        tail = losses[-max(1, len(losses) // 5) :]
        return sum(tail) / len(tail) if tail else math.nan

    @property
    def accuracy(self) -> float:
        """Training accuracy of the last epoch that reports one, else NaN."""
        for logs in reversed(self.epochs):
            for name, value in logs.items():
                if "acc" in name and not name.startswith("val_"):
                    return value
        return math.nan

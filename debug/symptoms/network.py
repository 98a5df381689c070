"""Symptom rules that look inside the network: gradients, updates, activations, predictions."""

import math
from collections.abc import Callable, Sequence

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.symptoms.loss import HUGE_LOSS, divergence, has_spiked, is_good, is_stuck
from headstart.debug.symptoms.trace import LayerActivity, StepSample, TrainingTrace

VANISHING_RATIO = 1e-3
"""First over last layer's mean gradient below which gradients vanish on the way back.
Source: Zhang et al., AutoTrainer, ICSE 2021."""
VANISHING_MEAN = 1e-4
"""... where the first layer's own is below this as well. Source: as above."""
VANISHED_MEAN = 1e-7
"""Mean absolute gradient of a whole network below which it has vanished.
Source: Amazon SageMaker Debugger, VanishingGradient."""
EXPLODING_RATIO = 70.0
"""First over last layer's gradient norm above which gradients explode. Source: AutoTrainer."""
MIN_MOVING_STEPS = 10
"""Steps, after any warm-up of a few, in which weights must have moved."""
MIN_GRADIENT_NORM = 1e-6
"""Norm of all gradients below which weights rightly stay where they are."""
EXPLODING_NORM = 1e3
"""Norm of all gradients together from which on they count as exploded."""
MAX_DEAD_SHARE = 0.7
"""Share of a layer's units without output above which it is dead. Source: AutoTrainer (0.7 of
the gradients zero)."""
MAX_SATURATED_SHARE = 0.5
"""Share of saturated units above which a layer is. Source: SageMaker, SaturatedActivation."""
MIN_PROBE_ROWS = 32
"""Rows of a probe before a silent unit may be called dead."""
HIGH_UPDATE_RATIO = 0.1
"""Median update over weight norm above which steps overshoot; healthy is about 1e-3.
Source: A. Karpathy, CS231n, "Ratio of weights:updates"; SageMaker alarms at 10."""
FIRST_UPDATE_RATIO = 1.0
"""A step that changes the weights by their own size leaves nothing of the initialisation."""
LOW_UPDATE_RATIO = 1e-4
"""Median update ratio of a stuck run below which its learning rate is too low."""
NO_UPDATE_RATIO = 1e-8
"""... and below which weights do not move at all. Source: SageMaker, WeightUpdateRatio."""
UNSCALED_MAX = 100.0
"""Inputs that are never negative and reach beyond this were not scaled (pixels are 0 to 255)."""
UNSCALED_MEAN = 20.0
"""... where their mean is beyond this as well."""
MAX_FIRST_LOSS_FACTOR = 3.0
"""Loss at step 0 over ln(classes) above which the scale of the input hurts."""


def exploding_gradients(trace: TrainingTrace) -> list[Diagnosis]:
    """Find gradients that grow towards the input, or in all, in a run that goes badly."""
    if not trace.samples or not (is_stuck(trace) or divergence(trace) or _has_broken(trace)):
        return []
    worst = max(trace.samples, key=lambda sample: _or_zero(sample.gradient_norm))
    kernels = worst.kernels()
    if not kernels:
        return []
    ratio = _ratio(worst.gradient_norms[kernels[0]], worst.gradient_norms[kernels[-1]])
    grown = worst.gradient_norm > EXPLODING_NORM or math.isinf(worst.gradient_norm)
    if not grown and not (ratio > EXPLODING_RATIO and len(kernels) > 2):
        return []
    return [
        Diagnosis(
            symptom="exploding-gradient",
            cause=f"The gradients explode: their norm is {worst.gradient_norm:.3g} at training "
            f"step {worst.step}, and {ratio:.3g} times larger in the first layer than in the last.",
            layer=_layer(worst.names[kernels[0]]),
            step=worst.step,
            phase="backward",
            confidence=0.75,
            suggestions=(
                "clip gradients (`global_clipnorm=1.0` in the optimizer)",
                "divide the learning rate by 10",
                "initialise with he_normal or glorot_uniform, and add normalisation layers",
            ),
            evidence={"gradient_norm": worst.gradient_norm, "first_over_last": ratio},
        )
    ]


def vanishing_gradients(trace: TrainingTrace) -> list[Diagnosis]:
    """Find gradients that fade towards the input, or all over, in a run that is stuck."""
    found = [sample for sample in trace.samples if sample.kernels()]
    if not found or not is_stuck(trace):
        return []
    first = _typical(found, lambda s: s.gradient_means[s.kernels()[0]])
    last = _typical(found, lambda s: s.gradient_means[s.kernels()[-1]])
    most = _typical(found, lambda s: max(s.gradient_means[i] for i in s.kernels()))
    fades = first < VANISHING_MEAN and _ratio(first, last) < VANISHING_RATIO
    if not fades and most >= VANISHED_MEAN:
        return []
    sample = found[-1]
    why = "it vanishes on the way back, so the early layers do not learn"
    if first == 0.0:
        why = "dead units, all-zero weights or a blocked path let nothing through"
    return [
        Diagnosis(
            symptom="vanishing-gradient",
            cause=f"The mean gradient is {first:.2g} in the first layer against {last:.2g} "
            f"in the last: {why}.",
            layer=_layer(sample.names[sample.kernels()[0]]),
            step=sample.step,
            phase="backward",
            confidence=0.8,
            suggestions=(
                "use relu, gelu or swish in hidden layers instead of sigmoid or tanh",
                "add BatchNormalization or residual connections",
                "initialise with he_normal (relu) or glorot_uniform (tanh)",
            ),
            evidence={"first_mean": first, "last_mean": last},
        )
    ]


def dead_units(trace: TrainingTrace) -> list[Diagnosis]:
    """Find hidden relu layers most of whose units never fire."""
    layer, share = _worst_layer(trace, lambda a: a.dead)
    if share <= MAX_DEAD_SHARE or is_good(trace) or not _does_badly(trace):
        return []
    return [
        Diagnosis(
            symptom="dead-units",
            cause=f"{share:.0%} of the units of layer {layer!r} give zero for every row: they get "
            "no gradient and cannot recover.",
            layer=layer,
            step=trace.probes[-1].step,
            phase="model",
            confidence=0.85 if is_stuck(trace) else 0.5,
            suggestions=(
                "lower the learning rate: one large update can kill relu units for good",
                "use leaky_relu, elu or gelu",
                "initialise kernels with he_normal and biases with zeros; scale the inputs",
            ),
            evidence={"dead_share": share},
        )
    ]


def saturated_units(trace: TrainingTrace) -> list[Diagnosis]:
    """Find hidden sigmoid or tanh layers most of whose units sit on the flat of the curve."""
    layer, share = _worst_layer(trace, lambda a: a.saturated)
    if share <= MAX_SATURATED_SHARE or is_good(trace) or not _does_badly(trace):
        return []
    return [
        Diagnosis(
            symptom="saturated-units",
            cause=f"{share:.0%} of the units of layer {layer!r} are saturated on nearly every "
            "row: their slope is almost zero and so is their gradient.",
            layer=layer,
            step=trace.probes[-1].step,
            phase="model",
            confidence=0.7,
            suggestions=(
                "scale the inputs to about [-1, 1]",
                "initialise with glorot_uniform, or put a normalisation layer before",
                "use relu, gelu or swish",
            ),
            evidence={"saturated_share": share},
        )
    ]


def learning_rate(trace: TrainingTrace) -> list[Diagnosis]:
    """Judge the learning rate by what the steps do to the weights of a run that is stuck."""
    measured = [s for s in trace.samples if not math.isnan(s.update_ratio)]
    if _never_moves(trace, measured):
        ratio = max(sample.update_ratio for sample in measured)
        return [_wrong_rate("low", measured[-1], ratio, 0.75)]
    if not measured or not (is_stuck(trace) or divergence(trace) or has_spiked(trace)):
        return []
    typical = _typical(measured, lambda s: s.update_ratio)
    first = measured[0].update_ratio
    if typical > HIGH_UPDATE_RATIO or first > FIRST_UPDATE_RATIO:
        return [_wrong_rate("high", measured[0], max(first, typical), 0.9)]
    explained = divergence(trace) or vanishing_gradients(trace) or dead_units(trace)
    if typical < LOW_UPDATE_RATIO and is_stuck(trace) and not explained:
        return [_wrong_rate("low", measured[-1], typical, 0.7)]
    return []


def half_precision(trace: TrainingTrace) -> list[Diagnosis]:
    """Put a training that blows up down to float16 weights, where they are float16."""
    if not trace.has_half_weights or not (divergence(trace) or learning_rate(trace)):
        return []
    return [
        Diagnosis(
            symptom="float16-overflow",
            cause="The weights, and with them the optimizer's state, are float16: small squared "
            "gradients underflow to 0, so updates are far too large, and losses overflow.",
            step=trace.samples[0].step if trace.samples else None,
            phase="optimizer",
            confidence=0.95,
            suggestions=(
                "use keras.mixed_precision.set_global_policy('mixed_float16'): it keeps weights "
                "in float32 and scales the loss",
                "or mixed_bfloat16, whose range is that of float32",
            ),
        )
    ]


def _never_moves(trace: TrainingTrace, measured: Sequence[StepSample]) -> bool:
    """Tell whether no step moved the weights although there was a gradient to follow."""
    return (
        len(trace.losses) >= MIN_MOVING_STEPS
        and len(measured) > 1
        and all(s.update_ratio < NO_UPDATE_RATIO for s in measured)
        and all(s.gradient_norm > MIN_GRADIENT_NORM for s in measured)
    )


def _wrong_rate(side: str, sample: StepSample, ratio: float, confidence: float) -> Diagnosis:
    factor = "divide it by 10 to 100" if side == "high" else "multiply it by 10 to 100"
    effect = "throws away what was learnt" if side == "high" else "hardly moves the weights"
    if side == "low" and ratio < NO_UPDATE_RATIO:
        effect = "does not move the weights at all"
    return Diagnosis(
        symptom=f"learning-rate-too-{side}",
        cause=f"The learning rate {sample.learning_rate:.3g} is too {side}: a training step "
        f"changes the weights by {ratio:.2g} of their norm (about 1e-3 is usual) and {effect}.",
        step=sample.step,
        phase="optimizer",
        confidence=confidence,
        suggestions=(
            factor,
            "compare a few rates for 100 training steps each, and keep the one with the steepest "
            "loss",
        ),
        evidence={"update_ratio": ratio, "learning_rate": sample.learning_rate},
    )


def unscaled_input(trace: TrainingTrace) -> list[Diagnosis]:
    """Find raw pixels or other large inputs that reach the first layer of a run gone badly."""
    if not trace.probes or not trace.finite_losses:
        return []
    probe = trace.probes[-1]
    raw = probe.first_input_min >= 0.0 and probe.first_input_max > UNSCALED_MAX
    if not raw or probe.first_input_mean < UNSCALED_MEAN:
        return []
    chance = math.log(trace.num_classes) if trace.num_classes > 1 else math.inf
    hurts = trace.first_loss > MAX_FIRST_LOSS_FACTOR * chance
    if not hurts and not is_stuck(trace) and not divergence(trace):
        return []
    return [
        Diagnosis(
            symptom="unscaled-input",
            cause=f"The values that reach the first layer {probe.first_layer!r} go from "
            f"{probe.first_input_min:.4g} to {probe.first_input_max:.4g} (mean "
            f"{probe.first_input_mean:.4g}): the inputs were not scaled.",
            layer=probe.first_layer,
            phase="data",
            confidence=0.8,
            suggestions=(
                "divide pixels by 255, or put keras.layers.Rescaling(1 / 255) first",
                "for a pretrained backbone use its own preprocess_input",
                "standardise other features with keras.layers.Normalization",
            ),
            evidence={"max": probe.first_input_max, "mean": probe.first_input_mean},
        )
    ]


def missing_gradients(trace: TrainingTrace) -> list[Diagnosis]:
    """Find trainable variables that the loss does not depend on."""
    if not trace.samples:
        return []
    sample = trace.samples[-1]
    pairs = zip(sample.names, sample.has_gradient, strict=True)
    without = [name for name, has_gradient in pairs if not has_gradient]
    if not without or not sample.names:
        return []
    return [
        Diagnosis(
            symptom="missing-gradient",
            cause=f"{len(without)} of {len(sample.names)} trainable variables get no gradient "
            f"({', '.join(without[:3])}): the loss does not depend on them.",
            layer=_layer(without[0]),
            step=sample.step,
            phase="backward",
            severity="warning",
            confidence=0.6,
            suggestions=(
                "check that the layer's output reaches the loss",
                "look for tf.stop_gradient, argmax, round or casts to integers on the way",
            ),
            evidence={"variables": without},
        )
    ]


def _has_broken(trace: TrainingTrace) -> bool:
    return len(trace.finite_losses) < len(trace.losses) or any(
        loss >= HUGE_LOSS for loss in trace.finite_losses
    )


def _does_badly(trace: TrainingTrace) -> bool:
    """A run that is stuck, or lost most of what it had: loss above half of the first."""
    return is_stuck(trace) or bool(divergence(trace))


def _worst_layer(
    trace: TrainingTrace, share_of: Callable[[LayerActivity], float]
) -> tuple[str, float]:
    """The layer whose lesser share of the last two probes is greatest: it must stay so."""
    probes = [probe for probe in trace.probes if probe.num_rows >= MIN_PROBE_ROWS][-2:]
    if not probes:
        return "", 0.0
    shares = {
        activity.layer: min(
            share_of(other) for p in probes for other in p.activities if other.layer == name
        )
        for activity in probes[-1].activities
        for name in (activity.layer,)
    }
    return max(shares.items(), key=lambda item: item[1], default=("", 0.0))


def _typical(samples: Sequence[StepSample], value: Callable[[StepSample], float]) -> float:
    values = sorted(v for v in map(value, samples) if not math.isnan(v))
    return values[len(values) // 2] if values else math.nan


def _ratio(first: float, last: float) -> float:
    return first / last if last else (1.0 if not first else math.inf)


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _layer(variable_path: str) -> str:
    return variable_path.rpartition("/")[0] or variable_path

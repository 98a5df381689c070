"""Layers that cannot do what they are there for, by what they were given and what they gave."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Array, Facts, LayerUse
from headstart.debug.preflight.objectives import optimizer_of
from headstart.debug.preflight.verdict import Verdict
from headstart.debug.symptoms.trace import TrainingTrace

MIN_SQUARE = 3
"""Steps of a series from which on a mask over them has a future."""
MIN_PADDED = 0.5
"""Share of the steps at the end of a typical row that are all one value from which on a recurrent
layer has mostly seen padding when it answers."""
MIN_MASKED = 0.1
"""Share of a typical row that a Masking layer is there for."""
MIN_PADDED_STEPS = 5
SETTLED = 2.0
"""Steps times (1 - momentum) from which on moving averages have left their initial values."""
FAR_WORSE = 2.0
"""Loss of a model in inference mode, over its loss in training mode, on the rows of its training,
from which on the two are two different models."""
USELESS = 0.5
"""... the loss in inference mode, over a constant's, from which on it has learnt nothing to speak
of..."""
ENOUGH = 0.2
"""... and the least of that, as a share of a constant's loss."""
_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN")
_ON_EMBEDDED = ("Dropout", "SpatialDropout1D", "LayerNormalization", "BatchNormalization")


def softmax_of_one(facts: Facts) -> list[Diagnosis]:
    """Find a softmax over a single unit below the last layer: all that it gives is 1.

    Args:
        facts: What is known of the training; of the last layer `outputs` tells.

    Returns:
        A finding, or none.
    """
    last = facts.last.layer if facts.last is not None else None
    for use in facts.uses:
        if use.layer is last or use.activation != "softmax":
            continue
        shape = tuple(use.output.shape)
        axes = getattr(use.layer, "axis", -1) if use.kind == "Softmax" else -1
        axes = tuple(axes) if isinstance(axes, list | tuple) else (axes,)
        if len(shape) not in (2, 3) or any(shape[axis] != 1 for axis in axes):
            continue
        if len(shape) == 3 and shape[1] == 1:
            continue  # a sequence of one step, of which the only weight is 1
        over = f" ({shape[1]} time steps, each by itself)" if len(shape) == 3 else ""
        return [
            Diagnosis(
                symptom="softmax-on-one-unit",
                cause=f"Layer {use.path!r} takes a softmax over a single unit{over}: it gives 1 "
                "everywhere, whatever its input. Its weights get no gradient, and it "
                "weighs nothing.",
                layer=use.path,
                phase="model",
                confidence=0.97,
                suggestions=(
                    "weights of an attention: take the softmax over the time steps, "
                    "keras.layers.Softmax(axis=1), behind a Dense(1) without activation",
                    "a gate from 0 to 1: sigmoid",
                ),
                evidence={"is_certain": True, "shape": list(shape)},
            )
        ]
    return []


def unmasked_padding(facts: Facts) -> list[Diagnosis]:
    """Find a recurrent layer that reads padding last, because nothing masks it.

    Args:
        facts: What is known of a training that came to little.

    Returns:
        A finding, or none.
    """
    for use, reader in zip(facts.uses, _readers(facts.uses), strict=True):
        if reader is None or getattr(use.layer, "mask_zero", False):
            continue
        padded, value = _padding(np.asarray(use.input))
        if padded < MIN_PADDED:
            continue
        masks = "" if value == 0 else f" (mask_zero masks 0: pad with 0, and not with {value:g})"
        return [
            Diagnosis(
                symptom="unmasked-padding",
                cause=f"A typical row ends in padding: the last {padded:.0%} of its time steps are "
                f"all {value:g}. Embedding {use.path!r} has mask_zero=False, so {reader.kind} "
                f"{reader.path!r} reads the padding last and has forgotten the real tokens by "
                "then.",
                layer=use.path,
                phase="model",
                confidence=0.86,
                suggestions=(
                    f"Embedding(..., mask_zero=True){masks}",
                    "or pad in front: pad_sequences(..., padding='pre'), and no further than "
                    "needed",
                ),
                evidence={"padded": padded, "value": value},
            )
        ]
    return []


def idle_masking(facts: Facts) -> list[Diagnosis]:
    """Find a Masking layer that looks for another value than rows are padded with.

    Args:
        facts: What is known of the training.

    Returns:
        A finding, or none.
    """
    for use in facts.uses:
        steps = np.asarray(use.input) if use.kind == "Masking" else np.zeros(0)
        if steps.ndim != 3 or (steps == use.layer.mask_value).all(axis=-1).any():
            continue
        # A step of which all values are one may be padding; others are none.
        is_even = (steps == steps[..., :1]).all(axis=-1)
        padded, value = _padding(np.where(is_even, steps[..., 0], np.inf))
        if padded < MIN_MASKED or not np.isfinite(value):
            continue
        wanted = float(use.layer.mask_value)
        return [
            Diagnosis(
                symptom="unmasked-padding",
                cause=f"Masking {use.path!r} masks nothing: it looks for time steps of {wanted:g}, "
                f"but rows end in padding of {value:g} (the last {padded:.0%} of a typical row). "
                "What follows reads the padding.",
                layer=use.path,
                phase="model",
                confidence=0.95,
                suggestions=(f"Masking(mask_value={value:g}), or pad with {wanted:g}",),
                evidence={"padded": padded, "value": value},
            )
        ]
    return []


def shuffled_states(model: Any, given: Mapping[str, Any]) -> list[Diagnosis]:
    """Find a recurrent layer that carries its state on through batches that ``fit`` shuffles.

    Args:
        model: The compiled model.
        given: What ``fit`` was given, by name.

    Returns:
        A finding, or none.
    """
    x, size = given.get("x"), int(given.get("batch_size") or 32)
    if not isinstance(x, np.ndarray) or len(x) <= size or not given.get("shuffle", True):
        return []
    for layer in model._flatten_layers(include_self=False):
        if type(layer).__name__ not in _RECURRENT or not getattr(layer, "stateful", False):
            continue
        return [
            Diagnosis(
                symptom="shuffled-states",
                cause=f"{type(layer).__name__} {layer.path!r} is stateful: its state is carried "
                "from batch to batch, so the batches must come in order. But fit shuffles the "
                "rows (shuffle=True is its default), so each row gets the state of another row.",
                phase="data",
                confidence=0.96,
                suggestions=(
                    "model.fit(..., shuffle=False), and reset the states after each epoch",
                    "or leave stateful=False, if the rows are independent of each other",
                ),
                evidence={"at": "fit", "is_certain": True},
            )
        ]
    return []


def inverted_mask(facts: Facts) -> list[Diagnosis]:
    """Find an attention that is shown the padding and not the words.

    Args:
        facts: What is known of the training.

    Returns:
        A finding, or none.
    """
    tokens = [one for one in facts.inputs if one.ndim == 2 and one.dtype.kind in "iu"]
    for use in facts.uses:
        mask = None if use.mask is None else np.asarray(use.mask)
        if mask is None or mask.ndim < 2:
            continue
        if _looks_ahead(mask):
            return [_of_future(use)]
        is_shown = mask.reshape(len(mask), -1, mask.shape[-1]).astype(bool).any(axis=1)
        for ids in tokens:
            share, value = _padding(ids)
            if ids.shape != is_shown.shape or share <= 0.0 or not is_shown.any():
                continue
            if np.array_equal(is_shown, ids == value):
                return [_of_mask(use, value)]
    return []


def _looks_ahead(mask: Array) -> bool:
    """Tell whether a mask shows each place all that comes after it, and nothing else."""
    first = mask.reshape(-1, *mask.shape[-2:])[0].astype(bool)
    size = len(first)
    if first.shape != (size, size) or size < MIN_SQUARE:
        return False
    return bool(first[np.triu_indices(size, 1)].all()) and not np.tril(first).any()


def _of_future(use: LayerUse) -> Diagnosis:
    return Diagnosis(
        symptom="inverted-mask",
        cause=f"The attention_mask of {use.kind} {use.path!r} is inverted: it is 1 on the future "
        "and 0 on the past. 1 means "
        '"attend to this place", so each place sees only what it is to predict.',
        layer=use.path,
        phase="model",
        confidence=0.97,
        suggestions=(
            "let each place see itself and the past: tf.linalg.band_part(tf.ones((n, n)), -1, 0)",
            "or let Keras do it: use_causal_mask=True",
        ),
        evidence={"is_certain": True},
    )


def _of_mask(use: LayerUse, value: float) -> Diagnosis:
    return Diagnosis(
        symptom="inverted-mask",
        cause=f"The attention_mask of {use.kind} {use.path!r} is inverted (the wrong way round): "
        f'it is True at every padding token ({value:g}) and False elsewhere. True means "attend to '
        'this token", so the attention sees only the padding and no word.',
        layer=use.path,
        phase="model",
        confidence=0.97,
        suggestions=(
            f"make it True for the tokens to attend to: mask = ops.not_equal(ids, {value:g})",
            "or let Keras do it: Embedding(..., mask_zero=True)",
        ),
        evidence={"is_certain": True},
    )


def _readers(uses: tuple[LayerUse, ...]) -> list[LayerUse | None]:
    """Return, for each use, the recurrent layer that answers for an embedding's rows at once."""
    # What reads a row from either end has seen what is not padding last, too.
    wrapped = {id(getattr(use.layer, "forward_layer", None)) for use in uses}
    readers: list[LayerUse | None] = []
    for place, use in enumerate(uses):
        later = [one for one in uses[place + 1 :] if one.kind not in _ON_EMBEDDED]
        reader = later[0] if use.kind == "Embedding" and later else None
        if reader is not None and (
            reader.kind not in _RECURRENT or _gives_steps(reader) or id(reader.layer) in wrapped
        ):
            reader = None
        readers.append(reader)
    return readers


def _gives_steps(use: LayerUse) -> bool:
    layer = use.layer
    return bool(getattr(layer, "return_sequences", False) or getattr(layer, "go_backwards", False))


def _padding(tokens: Array) -> tuple[float, float]:
    """Return which share of a typical row's end is all one value, and the value."""
    if tokens.ndim != 2 or tokens.shape[1] < 2 * MIN_PADDED_STEPS or len(tokens) < 2:
        return 0.0, 0.0
    values, counts = np.unique(tokens[:, -1], return_counts=True)
    value = values[counts.argmax()]
    is_other = tokens[:, ::-1] != value
    runs = np.where(is_other.any(axis=1), is_other.argmax(axis=1), tokens.shape[1])
    typical = float(np.median(runs))
    if typical < MIN_PADDED_STEPS or not is_other.any():
        return 0.0, 0.0
    return typical / tokens.shape[1], float(value)


def lagging_normalization(facts: Facts, trace: TrainingTrace, verdict: Verdict) -> list[Diagnosis]:
    """Find moving averages that few steps have hardly moved, where the answers show it.

    Args:
        facts: What is known of the training.
        trace: The record of it.
        verdict: What it came to, in inference mode.

    Returns:
        A finding, or none: an error where answers in inference mode are worse than a constant's, a
        warning where they are little better, and advice where they still beat it by far.
    """
    # A model that is fitted again and again has seen the steps of each fit.
    known = getattr(optimizer_of(facts.model), "iterations", 0)
    steps = max(len(trace.losses), int(np.asarray(known)))
    slow = [use for use in facts.uses if _is_slow(use.layer, steps)]
    if not slow or facts.is_weighted or not trace.losses:
        return []
    shown, trained, constant = verdict.loss, trace.losses[-1], verdict.constant_loss
    trained = max(trained, trace.last_loss)
    if not shown > FAR_WORSE * trained or not shown - trained > ENOUGH * constant:
        return []
    use = slow[0]
    momentum = float(use.layer.momentum)
    is_useless = bool(shown > USELESS * constant)
    return [
        Diagnosis(
            symptom="batchnorm-lag",
            cause=f"On its training rows the model has a loss of {shown:.4g} in inference "
            f"mode, and {trained:.4g} in training mode: the moving averages of {len(slow)} "
            f"BatchNormalization layer(s) lag. {steps} training steps with a momentum of "
            f"{momentum:g} are too few: {momentum**steps:.0%} of each average is still its initial "
            f"value. A constant answer gives a loss of {constant:.4g}.",
            layer=use.path,
            phase="model",
            severity="error" if shown > constant else "warning" if is_useless else "advice",
            confidence=0.93,
            suggestions=(
                "BatchNormalization(momentum=0.9), or 0.8",
                "or take more training steps: train longer, or use smaller batches",
            ),
            evidence={"steps": steps, "momentum": momentum},  # a later fit may mend it
        )
    ]


def _is_slow(layer: Any, steps: int) -> bool:
    if type(layer).__name__ != "BatchNormalization" or not layer.trainable:
        return False
    return steps * (1.0 - float(layer.momentum)) < SETTLED

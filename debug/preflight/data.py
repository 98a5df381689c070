"""Rules about the values of the data, their range and their order."""

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.samples import Sample

MIN_VARIED_ROWS = 8
"""Rows of which at least two must differ."""
MIN_ORDERED_ROWS = 64
"""Labels before their order is judged."""
ORDERED_SHARE = 0.95
"""Share of neighbouring rows with equal labels from which on the data are sorted."""
MAX_EQUAL_BY_CHANCE = 0.7
"""... unless that many are equal in any order."""

CENTRED = (-124.0, 152.0)
"""Range of pixels less the mean colour of ImageNet (mode caffe of keras.applications)."""
CENTRED_FIRST = ("block1_conv1", "conv1_conv")
"""First layers with weights of the networks that take these, also where their layers are the
model's own (``keras.Model(backbone.input, head)``)."""
EXPECTED_RANGES: dict[tuple[str, ...], tuple[float, float]] = {
    # Source: keras.applications, preprocess_input of each module (modes tf, caffe and torch).
    ("mobilenet", "xception", "inception", "nasnet", "resnet50v2", "resnet101v2", "resnet152v2"): (
        -1.0,
        1.0,
    ),
    ("vgg", "resnet50", "resnet101", "resnet152"): CENTRED,
    ("densenet",): (-2.2, 2.7),
    ("efficientnet", "convnext", "regnet", "mobilenet_v3", "mobilenetv3"): (0.0, 255.0),
}


def bad_values(sample: Sample) -> list[Diagnosis]:
    """Find NaN and Inf in inputs and labels."""
    for place, batch in enumerate(sample.batches):
        named = [(f"input {i}", array) for i, array in enumerate(batch.inputs)]
        if batch.y is not None and not isinstance(batch.y, dict | list | tuple):
            named.append(("labels", np.asarray(batch.y)))
        for name, array in named:
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                where = f"{name} of batch {place}" if len(sample.batches) > 1 else name
                return [_bad_value(where, array, place)]
    return []


def _bad_value(name: str, array: npt.NDArray[Any], batch: int) -> Diagnosis:
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    rows = np.flatnonzero(bad)
    return Diagnosis(
        symptom="nan-in-data",
        cause=f"{name.capitalize()} holds NaN or Inf in {len(rows)} of "
        f"{len(array)} rows (first: row {rows[0]}).",
        batch=batch,
        phase="data",
        confidence=0.98,
        suggestions=("drop or fill such rows in the input pipeline", "look for 0/0 and log(0)"),
        evidence={"rows": rows[:20].tolist()},
    )


def constant_rows(sample: Sample) -> list[Diagnosis]:
    """Find inputs that are the same in every row: what feeds the network tells it nothing."""
    rows = [
        np.concatenate(parts) for parts in zip(*(b.inputs for b in sample.batches), strict=True)
    ]
    if len(rows[0]) < MIN_VARIED_ROWS or any((array != array[:1]).any() for array in rows):
        return []
    return [
        Diagnosis(
            symptom="constant-input",
            cause=f"All {len(rows[0])} rows checked are equal: the inputs do not distinguish one "
            "example from another.",
            phase="data",
            confidence=0.8,
            suggestions=(
                "look at one batch: is it all zeros, or one example repeated?",
                "scale before casting to integers, not after",
            ),
            evidence={"rows": len(rows[0])},
        )
    ]


def backbone_range(sample: Sample) -> list[Diagnosis]:
    """Find pixels that do not have the range their pretrained network was made for."""
    from headstart.debug.symptoms.activity_probe import input_of

    for model in _nested_models(sample.model):
        expected = _expected_range(model.name)
        if expected is None:
            continue
        values = input_of(sample.model, model, sample.batches[0].x)
        if values is None or not values.size:
            continue
        low, high = float(values.min()), float(values.max())
        if not _is_off(low, high, *expected):
            continue
        return [
            Diagnosis(
                symptom="input-scale",
                cause=f"{model.name} was made for inputs in [{expected[0]:.4g}, {expected[1]:.4g}]"
                f" but gets values from {low:.4g} to {high:.4g}.",
                layer=model.name,
                phase="data",
                confidence=0.85,
                suggestions=(
                    "use the preprocess_input of the backbone's own keras.applications module",
                ),
                evidence={"min": low, "max": high, "expected": list(expected)},
            )
        ]
    return []


def _is_off(low: float, high: float, least: float, most: float) -> bool:
    """Far outside, or all squeezed into a small part of a wide range."""
    width = most - least
    outside = low < least - 0.1 * width or high > most + 0.1 * width
    squeezed = width > 100.0 and high - low <= 2.5
    one_sided = least < -0.5 and width <= 2.0 and low >= 0.0 and 0.5 < high <= 1.0
    return outside or squeezed or one_sided


def _expected_range(name: str) -> tuple[float, float] | None:
    """The range of the longest family name that the model's name starts with."""
    plain = name.lower()
    matches = [
        (len(family), values)
        for families, values in EXPECTED_RANGES.items()
        for family in families
        if plain.startswith(family)
    ]
    return max(matches)[1] if matches else None


def is_made_for(model: Any, layer: Any, values: npt.NDArray[Any]) -> bool:
    """Tell whether values are what a pretrained network was made for, however large they are.

    VGG and the first ResNets take pixels from -124 to 151.

    Args:
        model: The model that is trained.
        layer: Its first layer with weights.
        values: What reaches that.
    """
    for inner in [model, *_nested_models(model)]:
        known = _expected_range(inner.name)
        if known and any(one is layer for one in inner._flatten_layers(include_self=False)):
            return True  # `backbone_range` judges it
    low, high = float(values.min()), float(values.max())
    return layer.name in CENTRED_FIRST and low < 0.0 and not _is_off(low, high, *CENTRED)


def _nested_models(model: Any) -> list[Any]:
    inner = [layer for layer in getattr(model, "layers", []) if getattr(layer, "layers", None)]
    return inner + [deeper for layer in inner for deeper in _nested_models(layer)]


def order(sample: Sample) -> list[Diagnosis]:
    """Find data that come sorted by class (of arrays this is no fault: ``fit`` shuffles them)."""
    return order_of(sample.labels(), sample)


def order_of(labels: npt.NDArray[np.int64], sample: Sample) -> list[Diagnosis]:
    """Judge the order of labels.

    Args:
        labels: int64 class indices in the order of the data, [n].
        sample: Says how many classes there are.

    Returns:
        A finding where they come sorted by class, or none.
    """
    if sample.num_classes < 2 or len(labels) < MIN_ORDERED_ROWS:
        return []
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    equal = float((labels[1:] == labels[:-1]).mean())
    by_chance = float((shares**2).sum())
    one_class = len(shares) == 1 and sample.num_classes > 2
    if not one_class and (equal < ORDERED_SHARE or by_chance > MAX_EQUAL_BY_CHANCE):
        return []
    what = "all have one class" if len(shares) == 1 else "come sorted by class"
    return [
        Diagnosis(
            symptom="not-shuffled",
            cause=f"The first {len(labels)} training rows {what}: each training step sees one "
            "class and forgets the others.",
            phase="data",
            severity="warning",
            confidence=0.7,
            suggestions=(
                "shuffle before batching: ds.shuffle(buffer as large as the data)",
                "shuffle the list of files, if the data do not fit in memory",
            ),
            evidence={"equal_neighbours": equal, "by_chance": by_chance},
        )
    ]

"""Pictures that are flipped at random while what is asked of them is not.

Whether a flip matters is asked of the data: does a flipped picture look like one of another class,
and do masks fit flipped pictures better than the pictures as they are?
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless
from headstart.debug.preflight.facts import Array, Facts
from headstart.debug.preflight.objectives import REGRESSIONS
from headstart.debug.preflight.verdict import class_numbers, inputs_tell_targets

MIN_ROWS = 40
MAX_ROWS = 400
MIN_OF_CLASS = 8
"""Rows of a class before it is asked what its flipped pictures look like."""
KNOWN = 0.7
"""Share of the pictures whose nearest neighbour has their class: else neighbours tell nothing."""
TURNED = 0.6
"""Share of a class's flipped pictures whose nearest neighbours are of one other class."""
CLEARER = 0.2
"""Correlation of a mask with the flipped picture over that with the picture as it is."""
SOME = 0.2
"""Share of the masks that fit the flipped picture better."""
_LAYERS = ("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomCrop")
_FLIPS: dict[str, Callable[[Array], Array]] = {
    "horizontal": lambda x: x[:, :, ::-1],
    "vertical": lambda x: x[:, ::-1],
    "half-turn": lambda x: x[:, ::-1, ::-1],
}


@dataclass(frozen=True)
class Moving:
    """Something that moves what a picture shows, at random.

    Args:
        name: As the program calls it.
        flips: Which of the flips it makes, by name.
        site: The user's line; None for a layer.
        layer: The layer's path; None for what a data set does.
        made_by: Name of the layer that a data set's map calls.
    """

    name: str
    flips: tuple[str, ...]
    site: CallSite | None = None
    layer: str | None = None
    made_by: str = ""


noted: list[tuple[Moving, tuple[int | None, ...]]] = []
"""What the program asked of tf.image, with the shape of what it was asked of."""
_FUNCTIONS = {"random_flip_left_right": "horizontal", "random_flip_up_down": "vertical",
              "stateless_random_flip_left_right": "horizontal",
              "stateless_random_flip_up_down": "vertical"}  # fmt: skip


def watch_flips(site_of_call: Callable[[], CallSite | None]) -> None:
    """Let tf.image tell of the random flips that it is asked for.

    Args:
        site_of_call: Returns the user's line that runs.
    """
    import tensorflow as tf

    def told(name: str, flip: Any) -> Any:
        @functools.wraps(flip)
        def flip_and_note(image: Any, *args: Any, **kwargs: Any) -> Any:
            flipped = flip(image, *args, **kwargs)
            with harmless("the watch over flips"):
                _note(Moving(f"tf.image.{name}", (_FUNCTIONS[name],), site_of_call()), flipped)
            return flipped

        return flip_and_note

    for name in _FUNCTIONS:
        setattr(tf.image, name, told(name, getattr(tf.image, name)))


def watch_layer_flips(
    site_of_call: Callable[[], CallSite | None], is_in_keras: Callable[[], Any]
) -> None:
    """Let Keras's layers tell of the random flips that a data set's map asks them for.

    Args:
        site_of_call: Returns the user's line that runs.
        is_in_keras: Returns whether one of Keras's loops is running.
    """
    import keras

    def told(call: Any) -> Any:
        @functools.wraps(call)
        def call_and_note(layer: Any, *args: Any, **kwargs: Any) -> Any:
            flipped = call(layer, *args, **kwargs)
            with harmless("the watch over flips"):
                is_real = not keras.backend.is_keras_tensor(flipped)
                if is_real and kwargs.get("training") is not False and not is_in_keras():
                    kind, name = type(layer).__name__, str(layer.name)
                    _note(Moving(kind, _flips_of(kind, layer), site_of_call(), None, name), flipped)
            return flipped

        return call_and_note

    for kind in (keras.layers.RandomFlip, keras.layers.RandomRotation):
        kind.__call__ = told(kind.__call__)


def _note(moving: Moving, flipped: Any) -> None:
    if len(noted) < 100 and flipped.shape.rank is not None:
        noted.append((moving, tuple(flipped.shape.as_list())))


def unmoved_targets(facts: Facts) -> list[Diagnosis]:
    """Find targets that belong to places in a picture, or to its side, and are not moved with it.

    Args:
        facts: What is known of a training that came to little.

    Returns:
        A finding, or none.
    """
    x, y = facts.inputs[0], facts.y
    if len(facts.inputs) != 1 or x.ndim != 4 or y is None or len(x) < MIN_ROWS:
        return []
    for moving in [*_layers(facts), *_asked_for(facts, x.shape[1:])]:
        is_mask = y.ndim >= 3 and y.shape[1:3] == x.shape[1:3]
        if is_mask:
            found = _mask(x, y, moving)
        elif facts.family in REGRESSIONS and y.ndim == 2 and y.shape[1] in (2, 4, 6, 8, 10):
            if "stateless" in moving.name:  # its seed tells how to move them
                continue
            found = _finding(moving, f"its {y.shape[1]} targets (positions in the picture, such "
                             "as a box or key points) are not moved with it", 0.85)  # fmt: skip
        else:
            found = _class(facts, x, moving)
        if found:
            return found
    return []


def _layers(facts: Facts) -> list[Moving]:
    found = []
    for use in facts.uses:
        if use.kind not in _LAYERS or not _is_picture(use.input, facts):
            continue
        found.append(Moving(use.kind, _flips_of(use.kind, use.layer), layer=use.path))
    return found


def _flips_of(kind: str, layer: Any) -> tuple[str, ...]:
    mode = str(getattr(layer, "mode", ""))
    flips = [name for name in ("horizontal", "vertical") if name in mode]
    if len(flips) == 2 or (kind == "RandomRotation" and _turn(layer) >= 0.4):
        flips.append("half-turn")
    return tuple(flips)


def _is_picture(value: Any, facts: Facts) -> bool:
    return tuple(getattr(value, "shape", ()))[1:3] == tuple(facts.inputs[0].shape[1:3])


def _turn(layer: Any) -> float:
    factor = getattr(layer, "factor", 0.0)
    return float(np.max(np.abs(np.asarray(factor, dtype=np.float64))))


def _asked_for(facts: Facts, shape: tuple[int, ...]) -> list[Moving]:
    own = {str(use.layer.name) for use in facts.uses}
    return [
        moving
        for moving, dims in noted
        if moving.made_by not in own
        if all(dim in (None, size) for dim, size in zip(dims[-3:], shape, strict=False))
    ]


def _mask(x: Array, y: Array, moving: Moving) -> list[Diagnosis]:
    what = "its mask is not moved with it"
    if moving.layer is not None:  # inside the model: nothing outside can follow
        return _finding(moving, what, 0.95)
    pictures = x.astype(np.float64).mean(axis=-1)[:MAX_ROWS]
    masks = y.reshape(*y.shape[:3], -1).astype(np.float64).mean(axis=-1)[:MAX_ROWS]
    for name in moving.flips:
        straight, flipped = (
            np.array([_correlation(*pair) for pair in zip(some, masks, strict=True)])
            for some in (pictures, _FLIPS[name](pictures))
        )
        better = float((flipped > straight + CLEARER).mean())
        if better >= SOME and float((straight > flipped + CLEARER).mean()) >= SOME:
            return _finding(moving, f"{what}: {better:.0%} of the masks fit the picture better "
                            "when it is flipped back", 0.95)  # fmt: skip
    return []


def _correlation(one: Array, other: Array) -> float:
    if one.std() < 1e-9 or other.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1])


def _class(facts: Facts, x: Array, moving: Moving) -> list[Diagnosis]:
    labels = class_numbers(facts)
    if labels is None or len(labels) != len(x):
        return []
    rows, labels = x[:MAX_ROWS].astype(np.float64), labels[:MAX_ROWS]
    if np.mean(labels[_nearest(rows, rows, leaves_out=True)] == labels) < KNOWN:
        if moving.site is None or inputs_tell_targets(facts) is not False:
            return []
        return _finding(moving, "pictures that look alike have different labels: those of one "
                        "class, flipped, look like those of another", 0.8)  # fmt: skip
    for name in moving.flips:
        turned = labels[_nearest(_FLIPS[name](rows), rows, leaves_out=False)]
        for label in np.unique(labels):
            of_class = turned[labels == label]
            other = int(np.bincount(of_class).argmax())
            share = float((of_class == other).mean())
            if len(of_class) >= MIN_OF_CLASS and other != label and share >= TURNED:
                return _finding(moving, f"the label is not changed: {share:.0%} of the pictures of "
                                f"class {label}, flipped ({name}), look like class {other}",
                                0.93)  # fmt: skip
    return []


def _nearest(some: Array, others: Array, leaves_out: bool) -> Array:
    a, b = (part.reshape(len(part), -1) for part in (some, others))
    distances = (a**2).sum(axis=1)[:, None] - 2.0 * a @ b.T + (b**2).sum(axis=1)[None]
    if leaves_out:
        np.fill_diagonal(distances, np.inf)
    return np.asarray(distances.argmin(axis=1))


def _finding(moving: Moving, what: str, confidence: float) -> list[Diagnosis]:
    return [
        Diagnosis(
            symptom="augmentation-changes-label",
            cause=f"{moving.name} randomly moves (flips, rotates) a picture, but {what}. "
            "The augmentation makes the labels wrong.",
            layer=moving.layer,
            phase="data",
            confidence=confidence,
            suggestions=(
                "leave out augmentations that change the label (flipped digits, left and right "
                "swapped)",
                "masks, boxes and key points: move picture and target together, with one seed "
                "(tf.image.stateless_random_flip_left_right) or one random number",
            ),
        ).at(moving.site)
    ]

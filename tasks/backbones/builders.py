"""Building the backbones of the table, with pretrained, random or stored weights."""

import contextlib
import random
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from headstart.errors import BackboneError
from headstart.tasks.backbones.classic import build_classic
from headstart.tasks.backbones.efficientnet_lite import (
    build_efficientnet_lite,
    load_imagenet_weights,
)
from headstart.tasks.backbones.table import BackboneEntry

_WEIGHTS_SUFFIX = ".weights.h5"


def build_backbone(entry: BackboneEntry, weights: str, seed: int, image_size: int) -> Any:
    """Build a backbone of the table up to its pooled top.

    Args:
        entry: The backbone's row in the table.
        weights: pretrained, random, or the path of a .weights.h5 file.
        seed: Seed of random weights. Equal seeds give equal weights.
        image_size: Side of its input in pixels.

    Returns:
        A functional model from preprocessed images to pooled features [N, C].

    Raises:
        BackboneError: The weights cannot be had or do not fit, or the images are too small.
    """
    if weights not in ("pretrained", "random"):
        _check_weights_file(entry, weights)
    with seeded_initializers(seed):
        if entry.family == "efficientnet_lite":
            model = build_efficientnet_lite(entry.builder, image_size)
            if weights == "pretrained":
                load_imagenet_weights(model, entry.builder)
        elif entry.family == "classic":
            model = _build_classic(entry, weights, image_size)
        else:
            model = _build_keras_application(entry, weights == "pretrained", image_size)
    if weights not in ("pretrained", "random"):
        _load_weights_file(model, entry, weights)
    return model


def build_imagenet_classifier(
    entry: BackboneEntry, weights: str, image_size: int
) -> Callable[[], Any] | None:
    """Say how to build a backbone together with its ImageNet logits.

    Returns:
        A function that builds a model from preprocessed images to logits [N, 1000]; None where
        the weights are not those of an EfficientNet-Lite's package.
    """
    if entry.family != "efficientnet_lite" or weights != "pretrained":
        return None

    def build() -> Any:
        model = build_efficientnet_lite(entry.builder, image_size, classifier=True)
        load_imagenet_weights(model, entry.builder)
        return model

    return build


@contextlib.contextmanager
def seeded_initializers(seed: int) -> Iterator[None]:
    """Make the weights that layers draw inside depend on a seed alone.

    Initialisers without a seed take theirs from Python's global generator. It is put back
    afterwards, so that building a backbone changes no other random number of the program.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _build_classic(entry: BackboneEntry, weights: str, image_size: int) -> Any:
    if weights == "pretrained":
        raise BackboneError(
            f"there are no pretrained weights for {entry.name}",
            "backbone.weights=pretrained",
            "train it with `headstart scratch`, or --set backbone.weights=random",
        )
    return build_classic(entry.name, (image_size, image_size, 3))


def _build_keras_application(entry: BackboneEntry, pretrained: bool, image_size: int) -> Any:
    builder = getattr(keras.applications, entry.builder)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the download's progress; stdout is ours
            model = builder(
                include_top=False,
                weights="imagenet" if pretrained else None,
                input_shape=(image_size, image_size, 3),
                pooling="avg",
            )
    except ValueError as error:
        raise BackboneError(
            f"{entry.name} cannot be built for images of this size",
            f"image_size={image_size}: {error}",
            f"--set views.image_size={entry.image_size}, its own size",
        ) from None
    except Exception as error:
        # keras.utils.get_file raises a bare Exception when a download fails.
        if not isinstance(error, OSError) and "URL fetch failure" not in str(error):
            raise
        raise BackboneError(
            f"the ImageNet weights of {entry.name} could not be downloaded",
            f"the download failed: {error}",
            "give the command again with an internet connection (once: Keras keeps the file "
            "under ~/.keras/models, and a copy of that folder will do); or leave --backbone out: "
            "the weights of efficientnet_lite0 are installed; or name a file with --set "
            "backbone.weights=PATH.weights.h5",
        ) from None
    _renumber_automatic_names(model)
    return model


def _renumber_automatic_names(model: Any) -> None:
    """Name unnamed layers as if this were the first model of the process.

    Keras numbers them through the whole process (add, add_1, ...), so a cut's name would depend
    on what was built before. Weights files do not use these names.
    """
    automatic: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for operation in model.operations:
        stem = _snake_case(type(operation).__name__)
        match = re.fullmatch(rf"{stem}(?:_(\d+))?", operation.name)
        if match:
            automatic[stem].append((int(match[1] or 0), operation))
    for stem, numbered in automatic.items():
        numbered.sort(key=lambda pair: pair[0])
        for number, (_, operation) in enumerate(numbered):
            operation.name = f"{stem}_{number}" if number else stem


def _snake_case(class_name: str) -> str:
    """Write a class name as Keras does when it names a layer after its class."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", class_name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _check_weights_file(entry: BackboneEntry, weights: str) -> None:
    if not weights.endswith(_WEIGHTS_SUFFIX) or not Path(weights).is_file():
        raise BackboneError(
            "invalid backbone.weights: expected pretrained, random, or the path of a "
            f"{_WEIGHTS_SUFFIX} file",
            f"{weights!r}" + ("" if Path(weights).exists() else ", which does not exist"),
            f"--set backbone.weights=pretrained, or a file of "
            f"load_backbone(...).model.save_weights('{entry.name}{_WEIGHTS_SUFFIX}')",
        )


def _load_weights_file(model: Any, entry: BackboneEntry, weights: str) -> None:
    try:
        with warnings.catch_warnings():
            # Keras only warns of layers that the file leaves at their initial weights.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(weights)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise BackboneError(
            f"the weights file does not fit {entry.name} without its classifier "
            "(include_top=False, pooling='avg')",
            f"{weights}: {error}",
            "save it with load_backbone(...).model.save_weights(path)",
        ) from None

"""What the layers of a model compute, seen while it runs.

The usual way to an inner activation is a second model from the first one's inputs to the inner
layer's ``output``. It breaks where that tensor belongs to another graph: a backbone nested in a
model, a Sequential that was loaded, a subclassed model, which has no such tensor at all ("Graph
disconnected", "has never been called"). Here the model itself runs, and the layers' ``call`` is
watched meanwhile, which works for all of them alike.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from headstart.errors import ConfigError

Seen = Callable[[str, Any, Any], None]
"""Called with the path of a layer, its first input and its output each time it has computed."""

MAX_NAMES_SHOWN = 12
"""Layers listed in an error; the rest are counted."""


def named_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Find the layers of a model, those of nested models and layers too.

    Args:
        model: Functional, Sequential or subclassed, with other models in it or not.

    Returns:
        Layers by path: names from the outside in, joined by "/", in the order of construction.
        Models inside models are not listed themselves. A layer that is used twice is there once.
    """
    found: dict[str, keras.layers.Layer] = {}
    _collect(model, "", found, set())
    return found


def find_layer(names: Iterable[str], wanted: str) -> str:
    """Find the layer that a user means.

    Args:
        names: Paths of all layers.
        wanted: A path, or an end of it that no other layer has: "conv5" for "resnet/conv5".

    Raises:
        ConfigError: There is none, or there are several.
    """
    names = list(names)
    if wanted in names:
        return wanted
    ends = [name for name in names if name.endswith(f"/{wanted}")]
    if len(ends) == 1:
        return ends[0]
    shown = ", ".join((ends or names)[-MAX_NAMES_SHOWN:])
    raise ConfigError(
        "--layer does not name exactly one layer whose output is a map of the image",
        f"{wanted!r}, the name of {len(ends)} of them"
        if ends
        else f"{wanted!r}: there is no such layer",
        f"give one of {shown}" + (", …" if len(ends or names) > MAX_NAMES_SHOWN else ""),
    )


@contextlib.contextmanager
def watch(layers: dict[str, keras.layers.Layer], seen: Seen) -> Iterator[None]:
    """Be told what layers compute inside this with block."""
    for path, layer in layers.items():
        layer.call = _told(layer.call, path, seen)  # on the instance; the class keeps its own
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.call


def _told(call: Callable[..., Any], path: str, seen: Seen) -> Callable[..., Any]:
    def told(*arguments: Any, **options: Any) -> Any:
        output = call(*arguments, **options)
        first = arguments[0] if arguments else next(iter(options.values()), None)
        seen(path, first, output)
        return output

    return told


def _collect(parent: Any, prefix: str, found: dict[str, keras.layers.Layer], met: set[int]) -> None:
    for layer in _children(parent):
        if id(layer) in met or isinstance(layer, keras.layers.InputLayer):
            continue
        met.add(id(layer))
        path = f"{prefix}{layer.name}"
        if not isinstance(layer, keras.Model):
            found[path] = layer
        _collect(layer, f"{path}/", found, met)


def _children(parent: Any) -> list[Any]:
    if isinstance(parent, keras.Model):
        return list(parent.layers)
    found = []
    for value in vars(parent).values():
        group = value if isinstance(value, list | tuple) else [value]
        found += [each for each in group if isinstance(each, keras.layers.Layer)]
    return found

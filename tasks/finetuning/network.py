"""The network of a rung: new layers of the backbone before what the rung below has trained.

A rung begins at a *start*: the name of a cut, or `PIXELS`. Its network takes the rows that are
stored there and gives logits. It is composed of stock Keras layers, one by one, with the weights
that the rung below kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from headstart.tasks.backbones.backbone import Backbone, freeze_batch_normalisation
from headstart.tasks.backbones.builders import seeded_initializers
from headstart.tasks.backbones.chaining import apply, with_free_names
from headstart.tasks.backbones.copying import copy_weights
from headstart.tasks.backbones.cuts import PIXELS, TOP

FRESH_MOMENTUM = 0.9
"""Of the statistics of new weights. Of what they begin with, Keras' 0.99 would leave a third after
100 steps, and validation would judge a network that was never trained."""


@dataclass(frozen=True)
class Network:
    """What a rung trains.

    Attributes:
        model: float32 [n, *shape at the start] -> logits float32 [n, num_classes].
        groups: Names of the layers that train, from the head (group 0) down; the learning rate
            falls from group to group.
    """

    model: Any
    groups: tuple[tuple[str, ...], ...]

    def rates(self, factors: Sequence[float]) -> list[float]:
        """Return the factor of the learning rate of each trainable variable.

        Args:
            factors: Factor of each group, from the head down.

        Returns:
            One factor a trainable variable, in the model's order.
        """
        rate_of = {
            id(variable): factor
            for names, factor in zip(self.groups, factors, strict=True)
            for name in names
            for variable in self.model.get_layer(name).trainable_variables
        }
        return [rate_of[id(variable)] for variable in self.model.trainable_variables]

    @property
    def num_trained(self) -> int:
        """Numbers that train."""
        return int(sum(np.prod(v.shape) for v in self.model.trainable_variables))


def falling(num_groups: int, decay: float) -> list[float]:
    """Return the rates of groups, each this many times less than the one above it."""
    return [decay**-number for number in range(num_groups)]


class InferenceBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation whose scale and offset train while its statistics stay.

    Keras has two modes only: trainable False freezes scale and offset too, and with trainable
    True ``Model.fit`` asks for the batch's statistics, whatever training=False the graph was
    built with. It stands in a network while that trains, and never in a saved one.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise by the stored statistics, also while training."""
        return super().call(inputs, training=False, mask=mask)


def extend(
    below: Any,
    groups: tuple[tuple[str, ...], ...],
    backbone: Backbone,
    start: str,
    end: str,
    fresh_seed: int | None = None,
) -> Network:
    """Put the backbone's layers between two points before a trained model.

    Args:
        below: The model kept so far, rows at `end` -> logits; its layers are taken over.
        groups: Layer names of each group of `below`, the head's first.
        backbone: Whose pretrained weights the new layers begin with.
        start: Where the new network begins: a cut, or `PIXELS`.
        end: Where `below` begins: a cut behind `start`.
        fresh_seed: Draw new weights from this seed, rather than take the pretrained ones.
    """
    segment = copy_segment(backbone, start, end)
    if fresh_seed is not None:
        segment = _redraw(segment, fresh_seed)
    segment = with_free_names(segment, {layer.name for layer in below.operations}, flat=False)
    rows = keras.Input(segment.input_shape[1:], name="bottleneck", dtype="float32")
    # The layers stand in the network one by one, for debuggers and joining.
    model = keras.Model(rows, apply(below, apply(segment, rows)), name="head")
    new = tuple(layer.name for layer in segment.layers if layer.weights)
    return Network(_all_trainable(model), (*groups, new))


def copy_segment(backbone: Backbone, start: str, end: str) -> Any:
    """Copy the backbone's layers between two points, for training.

    Args:
        backbone: Network to copy from; it is not changed.
        start: A cut, or `PIXELS`: then preprocessing is part of it.
        end: A cut behind it.

    Returns:
        A functional model from rows at the start to the activation at the end.
    """
    copy = backbone.tail(start, batch_norm_training=True) if start != PIXELS else _copy(backbone)
    cut = backbone.resolve_cut(end)
    if cut.name != TOP:
        copy = keras.Model(copy.inputs[0], copy.get_layer(cut.layer).output)
    if start != PIXELS:
        return copy
    size = backbone.image_size
    pixels = keras.Input((size, size, 3), name="bottleneck", dtype="float32")
    return keras.Model(pixels, apply(copy, backbone.preprocessing(pixels)))


def _copy(backbone: Backbone) -> Any:
    copy = keras.models.clone_model(backbone.model)
    copy_weights(copy, backbone.model)
    return copy


def _redraw(model: Any, seed: int) -> Any:
    def copy(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = FRESH_MOMENTUM
        return type(layer).from_config(config)

    with seeded_initializers(seed):
        return keras.models.clone_model(model, clone_function=copy)


def group_layers(model: Any, backbone: Backbone) -> tuple[tuple[str, ...], ...]:
    """Divide the layers of a trained head into its own and, behind a cut, the backbone's.

    Returns:
        Names of the layers with weights: the head's, then the tail's if there is one.
    """
    names = [layer.name for layer in model.layers if layer.weights]
    of_backbone = {layer.name for layer in backbone.model.layers}
    own = tuple(name for name in names if name not in of_backbone)
    tail = tuple(name for name in names if name in of_backbone)
    return (own, tail) if tail else (own,)


def hold_statistics(model: Any) -> Any:
    """Copy a model with every batch normalisation replaced by one that keeps its statistics."""
    return _replace(model, keras.layers.BatchNormalization, InferenceBatchNormalization)


def stock_layers(model: Any) -> Any:
    """Copy a model with Keras' own batch normalisation again, to be saved."""
    return _replace(model, InferenceBatchNormalization, keras.layers.BatchNormalization)


def seed_dropout(model: Any, seed: int) -> None:
    """Give each layer that draws at random numbers of its own, from one seed.

    The layers are counted among themselves, so that the numbers are the same whatever else
    stands in the model.
    """
    generators = [getattr(layer, "seed_generator", None) for layer in model.layers]
    for index, generator in enumerate(filter(None, generators)):
        state = np.random.SeedSequence((seed, 3, index)).generate_state(1)[0] >> 1
        generator.state.assign([int(state), 0])


def _replace(model: Any, old: type, new: type) -> Any:
    def copy(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return layer  # one inside another: its batch normalisation is frozen altogether
        kind = new if type(layer) is old else type(layer)
        return kind.from_config(layer.get_config())  # type: ignore[attr-defined]

    bare = keras.Model(model.inputs[0], model.outputs[0], name=model.name)  # not compiled
    replaced = keras.models.clone_model(bare, clone_function=copy)
    for layer, origin in zip(replaced.layers, bare.layers, strict=True):
        if layer is not origin and origin.weights:
            copy_weights(layer, origin)
    return replaced


def _all_trainable(model: Any) -> Any:
    # Setting an attribute to the value it has would not reach layers that differ from the model.
    model.trainable = False
    model.trainable = True
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            freeze_batch_normalisation(layer)
    return model

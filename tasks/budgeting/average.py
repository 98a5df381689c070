"""The average stage: several networks that take the same rows, as one.

The logits are averaged. Of linear heads that is the head with the average of their weights, which
costs no more than one; of others all stand in one network, side by side.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.head.epochs import written
from headstart.tasks.head.stage import HeadManifest, keep_training, open_head
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.versions import arithmetic_versions


def average_networks(networks: Sequence[Any]) -> Any:
    """Make one network whose logits are the means of those of several.

    Args:
        networks: Functional models, rows -> logits; all take the same rows.

    Returns:
        A functional model, whose last layer is named "logits".
    """
    import keras
    import numpy as np

    from headstart.tasks.backbones.chaining import apply, with_free_names

    if all(_is_linear(network) for network in networks):
        merged = keras.models.clone_model(networks[0])
        weights = [network.get_layer("logits").get_weights() for network in networks]
        merged.get_layer("logits").set_weights(
            [np.mean(one, axis=0) for one in zip(*weights, strict=True)]
        )
        return merged
    rows = keras.Input(networks[0].input_shape[1:], name="bottleneck", dtype="float32")
    taken = {"bottleneck", "logits"}
    logits = [apply(with_free_names(one, taken, flat=True), rows) for one in networks]
    return keras.Model(rows, keras.layers.Average(name="logits")(logits), name="head")


def _is_linear(network: Any) -> bool:
    """Say whether a network is a dense layer, with nothing but averaging and dropout before it."""
    kinds = [type(layer).__name__ for layer in network.operations]
    return set(kinds) <= {"InputLayer", "Mean", "Dropout", "Dense"} and kinds.count("Dense") == 1


def _average_key(
    features: Features, members: Sequence[HeadManifest], log_dir: Path
) -> dict[str, Any]:
    return {"members": [member.key for member in members], **arithmetic_versions()}


def _average(
    folder: Path, features: Features, members: Sequence[HeadManifest], log_dir: Path
) -> Made:
    from headstart.tasks.head.judging import one_epoch
    from headstart.tasks.head.training import TrainedHead

    started_s = time.perf_counter()
    rows = features.open(("train",))["train"]
    network = average_networks([open_head(member) for member in members])
    fit = members[0].fit  # of the training images, which are the same ones
    figures = one_epoch(network, rows, None, started_s, fit)
    trained = TrainedHead(network, (figures,), 1, stopped_early=False, fit=fit)
    log_dir.mkdir(parents=True, exist_ok=True)  # nothing was trained that wrote to it
    return keep_training(
        folder, trained, members[0].num_classes, len(rows), log_dir, has_val=False,
        kind=f"average of {len(members)}",
    )  # fmt: skip


def _describe(made: HeadManifest) -> str:
    only = made.history[0]
    return f"{made.kind}, train {only.metric} {written(only.metric, only.train_figure or 0.0)}"


stage = Stage(
    "average",
    1,
    HeadManifest,
    _average,
    _average_key,
    _describe,
)

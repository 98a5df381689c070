"""The schedule stage: width and epochs, as requested or as a time budget allows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from headstart.config import NetworkConfig, ScratchTrainingConfig
from headstart.tasks.dataset.pixels import PixelsManifest, open_labels
from headstart.tasks.progress import reporter
from headstart.tasks.running.devices import machine_fingerprint
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.scratch.batches import batch_size_of, steps_an_epoch
from headstart.tasks.scratch.budget import WIDTHS, Choice, choose, time_call
from headstart.tasks.scratch.network import build_network, choose_policy
from headstart.tasks.scratch.training import STATISTICS_BATCHES, compile_network
from headstart.tasks.store.artifacts import Manifest
from headstart.tasks.targets.choice import TARGETS

MOST_VIEWS = 300
"""Views an image where their number is not asked for; more epochs share them. A budget fits
thousands of epochs of a few hundred images, and each view is some files of its own."""


class ScheduleManifest(Manifest):
    """What is trained, and for how long."""

    width: float
    epochs: float
    """Trained; with a budget, the number that is expected to fit."""
    training_s: float | None
    """Seconds from the first step to the last; None where the epochs decide."""
    step_s: float | None
    reason: str

    @property
    def num_views(self) -> int:
        """Views an image that give each epoch its own, up to `MOST_VIEWS`."""
        return min(MOST_VIEWS, math.ceil(self.epochs))


def _schedule_key(
    pixels: PixelsManifest, network: NetworkConfig, config: ScratchTrainingConfig
) -> dict[str, Any]:
    training = config.model_dump(mode="json", exclude={"seed", "number_loss", "min_precision"})
    fields: dict[str, Any] = {"network": network, "training": training}
    if config.budget_s is not None:
        # What fits depends on the machine, and on the size of the data set.
        fields["data"] = [
            list(pixels.image_shape),
            len(pixels.class_names),
            [pixels.num_images(split) for split in ("train", "test")],
        ]
        if pixels.kind != "class":
            fields["kind"] = pixels.kind
        fields["machine"] = machine_fingerprint()
        fields["tensorflow"] = tf.__version__
    return fields


def _make_schedule(
    folder: Path, pixels: PixelsManifest, network: NetworkConfig, config: ScratchTrainingConfig
) -> Made:
    if config.budget_s is None:
        fixed = {
            "width": network.width,
            "epochs": config.epochs,
            "training_s": None,
            "step_s": None,
            "reason": f"{config.epochs} epochs, as requested",
        }
        return Made(0, 0, fields=fixed)
    widths = WIDTHS if network.width == "auto" else (network.width,)
    if network.name != "resnet9":
        widths = (1.0,)
    num_train, num_test = (pixels.num_images(split) for split in ("train", "test"))
    # The mirror images too; whether views are mirrored, and so these judged, is not known here.
    num_judged = 2 * num_test if config.flip_test else num_test
    reporter().note("     timing the first steps on this machine")
    choice = choose(
        config.budget_s,
        widths,
        steps_an_epoch(config.batch_size, num_train),
        num_judged / batch_size_of(config.batch_size, num_train)
        + (STATISTICS_BATCHES if config.ema else 0),
        lambda width: _time_steps(pixels, network, config, width),
    )
    return Made(len(choice.timings), len(choice.timings), fields=_fields(choice))


def _fields(choice: Choice) -> dict[str, Any]:
    chosen = next(timing for timing in choice.timings if timing.width == choice.width)
    return {
        "width": choice.width,
        "epochs": choice.epochs,
        "training_s": choice.training_s,
        "step_s": chosen.step_s,
        "reason": f"{choice.reason} (measuring took {choice.measured_s:.1f} s)",
    }


def _time_steps(
    pixels: PixelsManifest, network: NetworkConfig, config: ScratchTrainingConfig, width: float
) -> float:
    model = build_network(network, width, pixels, 0, choose_policy(config.mixed_precision))
    target = TARGETS[pixels.kind]
    compile_network(model, config, target, target.fit(open_labels(pixels, "train")))
    size = batch_size_of(config.batch_size, pixels.num_images("train"))
    images = tf.constant(_noise((size, *pixels.image_shape)))
    targets = tf.one_hot(np.arange(size) % len(pixels.class_names), len(pixels.class_names))
    return time_call(lambda: model.train_on_batch(images, targets))


def _noise(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


stage = Stage(
    "schedule",
    2,
    ScheduleManifest,
    _make_schedule,
    _schedule_key,
    lambda made: made.reason,
    uses_gpu=True,
)

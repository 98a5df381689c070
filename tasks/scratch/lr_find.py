"""A range test for training from scratch: data, one view, a curve."""

from pathlib import Path
from typing import Any

from headstart.config import ScratchConfig
from headstart.tasks.dataset.pixels import index_images, open_labels
from headstart.tasks.dataset.pixels import stage as make_pixels
from headstart.tasks.head.lr_range import range_test, told, trainer
from headstart.tasks.scratch.batches import training_batches
from headstart.tasks.scratch.network import build_network, choose_policy
from headstart.tasks.scratch.training import compile_network
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.views.epoch_stage import layout_of
from headstart.tasks.views.epoch_stage import stage as make_views


def find_scratch_rate(config: ScratchConfig, num_steps: int, folder: Path) -> dict[str, Any]:
    """Run a range test and write its curve.

    Args:
        config: Data, views, network and training; the width auto counts as 1.
        num_steps: Steps from the lowest to the highest rate.
        folder: Gets the curve and its picture.

    Returns:
        JSON data: setting, suggested, broke_away, picture, run_dir, and the curve's rates and
        losses.
    """
    source, training = config.dataset, config.training
    pixels = make_pixels(source, index_images(source))
    views = make_views(pixels, config.views, 1)
    width = 1.0 if config.network.width == "auto" else config.network.width
    policy = choose_policy(training.mixed_precision)
    model = build_network(config.network, width, pixels, training.seed, policy)
    labels, target = open_labels(pixels, "train"), TARGETS[pixels.kind]
    fit = target.fit(labels)
    batches = training_batches(
        views,
        layout_of(pixels),
        labels,
        len(pixels.class_names),
        training.batch_size,
        training.label_smoothing,
        training.seed,
        target,
        fit,
    )
    optimizer = compile_network(model, training, target, fit)
    optimizer.momentum.assign(training.min_momentum)  # the one at the peak
    found = range_test(trainer(model, optimizer, batches), num_steps)
    return told(folder, found, "training.learning_rate")

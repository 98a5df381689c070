"""What `headstart lr-find` does: data, one view, a range test, a picture."""

from pathlib import Path
from typing import Any

from headstart.config import ScratchConfig
from headstart.tasks.dataset.pixels import index_images, open_labels
from headstart.tasks.dataset.pixels import stage as make_pixels
from headstart.tasks.scratch.batches import training_batches
from headstart.tasks.scratch.lr_range import range_test, write_curve
from headstart.tasks.scratch.network import build_network, choose_policy
from headstart.tasks.views.epoch_stage import layout_of
from headstart.tasks.views.epoch_stage import stage as make_views


def find_learning_rate(config: ScratchConfig, num_steps: int, folder: Path) -> dict[str, Any]:
    """Run a range test and write its curve.

    Args:
        config: Data, views, network and training; the width auto counts as 1.
        num_steps: Steps from the lowest to the highest rate.
        folder: For the results.

    Returns:
        JSON data: suggested, broke_away, picture, run_dir, and the curve's rates and losses.
    """
    source, training = config.dataset, config.training
    pixels = make_pixels(source, index_images(source))
    views = make_views(pixels, config.views, 1)
    width = 1.0 if config.network.width == "auto" else config.network.width
    policy = choose_policy(training.mixed_precision)
    model = build_network(config.network, width, pixels, training.seed, policy)
    batches = training_batches(
        views,
        layout_of(pixels),
        open_labels(pixels, "train"),
        len(pixels.class_names),
        training.batch_size,
        training.label_smoothing,
        training.seed,
    )
    found = range_test(model, batches, training, num_steps)
    return {
        "suggested": found.suggested,
        "broke_away": found.broke_away,
        "picture": str(write_curve(folder, found)),
        "run_dir": str(folder),
        "rates": list(found.rates),
        "losses": list(found.losses),
    }

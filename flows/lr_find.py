"""Suggest a learning rate: a range test on the data of a run, and its curve.

Not a flow: it leaves no artefact of its own behind.
"""

import tempfile
from pathlib import Path
from typing import Any

from headstart.config import FinetuneConfig, ScratchConfig, TransferConfig
from headstart.errors import ConfigError
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.finetuning.ladder import plan_cuts
from headstart.tasks.finetuning.lr_find import tuning_range_test
from headstart.tasks.head.lr_find import head_range_test
from headstart.tasks.head.lr_range import told
from headstart.tasks.head.stage import stage as head_stage
from headstart.tasks.head.training_warnings import check_classes
from headstart.tasks.scratch.lr_find import find_scratch_rate


def find_learning_rate(
    config: TransferConfig | ScratchConfig, num_steps: int, folder: Path
) -> dict[str, Any]:
    """Run a range test on what a run with this configuration would train, and write its curve.

    Args:
        config: Configuration of `headstart train`, `finetune` or `scratch`.
        num_steps: Steps from the lowest to the highest rate.
        folder: Gets the curve and its picture.

    Returns:
        JSON data: setting, suggested, broke_away, picture, run_dir, and the curve's rates and
        losses.

    Raises:
        ConfigError: There is nothing to find a rate for.
    """
    if isinstance(config, ScratchConfig):
        return find_scratch_rate(config, num_steps, folder)
    if isinstance(config, FinetuneConfig):
        return _find_tuning_rate(config, num_steps, folder)
    found = head_range_test(_features(config), config.head, num_steps)
    return told(folder, found, "head.learning_rate")


def _find_tuning_rate(config: FinetuneConfig, num_steps: int, folder: Path) -> dict[str, Any]:
    cuts = plan_cuts(open_backbone(config.backbone, config.views.image_size), config)
    if not cuts:
        raise ConfigError(
            "lr-find uses the lowest cached rung, and this ladder has none",
            f"ladder.num_rungs={config.ladder.num_rungs}",
            "ask for one, or name its cut: --set 'ladder.cuts=[CUT]'",
        )
    features = _features(config, cuts)
    with tempfile.TemporaryDirectory() as log_dir:
        head = head_stage(features, config.head, Path(log_dir))
    # The lowest: what it bears, the shorter ones bear too.
    found = tuning_range_test(features, head, cuts[-1], config.tuning, config.head, num_steps)
    return told(folder, found, "tuning.learning_rate")


def _features(config: TransferConfig, cuts: tuple[str, ...] = ()) -> Features:
    dataset = dataset_stage(config.dataset)
    check_classes(index_of(dataset))
    every = (*config.bottlenecks.extra_cuts, *cuts)
    wanted = config.bottlenecks.model_copy(update={"extra_cuts": every})
    make_bottlenecks(dataset, config.dataset, config.views, config.backbone, wanted)
    return Features.of(dataset, config)

"""The training stage of a network from scratch."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from headstart.config import NetworkConfig, ScratchTrainingConfig
from headstart.errors import DamagedShardError
from headstart.tasks.dataset.pixels import PixelsManifest, open_images, open_labels
from headstart.tasks.head.stage import HeadManifest, keep_training
from headstart.tasks.head.training import TrainedHead, predict_logits
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.training_callbacks import watchers
from headstart.tasks.scratch.batches import steps_an_epoch, training_batches
from headstart.tasks.scratch.network import build_network, choose_policy
from headstart.tasks.scratch.schedule import ScheduleManifest
from headstart.tasks.scratch.subject import PixelRows
from headstart.tasks.scratch.training import head_config, train_network
from headstart.tasks.store.fingerprint import digest
from headstart.tasks.store.versions import arithmetic_versions
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import Fit
from headstart.tasks.views.epoch_stage import EpochViewsManifest, layout_of, set_damaged_aside

NOT_OF_CLASSES = {"number_loss", "min_precision"}
"""Settings that are read of other targets alone."""


class TrainingManifest(HeadManifest):
    """A trained network."""

    num_steps: int
    final_share: float
    """Of the cycle at the last step; 1 is its end, where the learning rate is 0."""
    num_parameters: int


def _training_key(
    pixels: PixelsManifest,
    views: EpochViewsManifest,
    schedule: ScheduleManifest,
    network: NetworkConfig,
    config: ScratchTrainingConfig,
    log_dir: Path,
) -> dict[str, Any]:
    unread = {*NOT_OF_CLASSES, "flip_test", *TARGETS[pixels.kind].unread}
    fields = {
        "views": views.recipe,
        "num_views": views.num_views,
        "labels": digest(open_labels(pixels, "train").tolist()),
        "class_names": pixels.class_names,
        "network": network,
        "schedule": {"width": schedule.width, "training_s": schedule.training_s},
        "training": config.model_dump(mode="json", exclude=unread),
        "policy": choose_policy(config.mixed_precision),
        **arithmetic_versions(),
    }
    if pixels.kind != "class":  # the images held back find thresholds and intervals
        own = {name: getattr(config, name) for name in TARGETS[pixels.kind].own_settings}
        fields |= {"kind": pixels.kind, "pixels": pixels.key, **own}
    return fields


def _train(
    folder: Path,
    pixels: PixelsManifest,
    views: EpochViewsManifest,
    schedule: ScheduleManifest,
    network: NetworkConfig,
    config: ScratchTrainingConfig,
    log_dir: Path,
) -> Made:
    layout, num_classes = layout_of(pixels), len(pixels.class_names)
    target, labels = TARGETS[pixels.kind], open_labels(pixels, "train")
    fit = target.fit(labels)
    policy = choose_policy(config.mixed_precision)
    model = build_network(network, schedule.width, pixels, config.seed, policy)
    batches = training_batches(
        views,
        layout,
        labels,
        num_classes,
        config.batch_size,
        config.label_smoothing,
        config.seed,
        target,
        fit,
    )
    num_batches = steps_an_epoch(config.batch_size, layout.num_rows)
    try:
        trained = train_network(
            model,
            batches,
            num_batches,
            config,
            schedule.epochs,
            schedule.training_s,
            log_dir,
            watchers(),
            target,
            fit,
        )
    except (tf.errors.DataLossError, tf.errors.NotFoundError):
        if damaged := set_damaged_aside(views):
            raise DamagedShardError(
                "some views are damaged or gone",
                f"{', '.join(damaged)}: damaged or gone",
                "run the command again: they are computed again",
            ) from None
        raise
    # Without the optimizer, and computing in float32, as it is judged and exported.
    plain = build_network(network, schedule.width, pixels, config.seed)
    plain.set_weights(model.get_weights())
    history = trained.history
    return keep_training(
        folder,
        TrainedHead(
            plain,
            history,
            len(history),
            stopped_early=False,
            fit=_decide(plain, pixels, fit, config),
        ),
        num_classes,
        layout.num_rows,
        log_dir,
        has_val=False,
        num_steps=trained.num_steps,
        final_share=trained.final_share,
        num_parameters=int(plain.count_params()),
    )


def _decide(network: Any, pixels: PixelsManifest, fit: Fit, config: ScratchTrainingConfig) -> Fit:
    """Find thresholds or intervals by the images that were held back."""
    if "val" not in pixels.counts:
        return fit
    labels = open_labels(pixels, "val")
    outputs = predict_logits(network, PixelRows(open_images(pixels, "val"), labels))
    return TARGETS[pixels.kind].decide(fit, outputs, labels, head_config(config))


def _describe_training(training: TrainingManifest) -> str:
    last = training.history[-1]
    return (
        f"{training.num_parameters:,} parameters, {training.num_steps:,} steps, train loss "
        f"{last.train_loss:.4f}"
    )


training = Stage(
    "training", 3, TrainingManifest, _train, _training_key, _describe_training, uses_gpu=True
)

"""The stages of a training from scratch: training, evaluation, export."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import (
    EvaluationConfig,
    ExportConfig,
    NetworkConfig,
    ScratchTrainingConfig,
)
from headstart.errors import DamagedShardError
from headstart.tasks.bottlenecks.rows import versions
from headstart.tasks.dataset.pixels import PixelsManifest, open_images, open_labels
from headstart.tasks.evaluation.metrics import evaluate, top_losses
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.proof import prove
from headstart.tasks.export.stage import ExportManifest
from headstart.tasks.export.writing import export_model, formats_of
from headstart.tasks.head.stage import HeadManifest
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.training_callbacks import watchers
from headstart.tasks.scratch.batches import steps_an_epoch, training_batches
from headstart.tasks.scratch.joining import join_network
from headstart.tasks.scratch.network import build_network, choose_policy
from headstart.tasks.scratch.schedule import ScheduleManifest
from headstart.tasks.scratch.training import predict_logits, train_network
from headstart.tasks.store.artifacts import artefact
from headstart.tasks.store.fingerprint import digest
from headstart.tasks.views.epoch_stage import EpochViewsManifest, layout_of, set_damaged_aside

MAX_PROOF_PIXELS = 2**26


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
    return {
        "views": views.recipe,
        "num_views": views.num_views,
        "labels": digest(open_labels(pixels, "train").tolist()),
        "class_names": pixels.class_names,
        "network": network,
        "schedule": {"width": schedule.width, "training_s": schedule.training_s},
        "training": config.model_dump(mode="json", exclude={"flip_test"}),
        "policy": choose_policy(config.mixed_precision),
        **versions(),
    }


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
    policy = choose_policy(config.mixed_precision)
    model = build_network(network, schedule.width, pixels, config.seed, policy)
    batches = training_batches(
        views,
        layout,
        open_labels(pixels, "train"),
        num_classes,
        config.batch_size,
        config.label_smoothing,
        config.seed,
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
        )
    except (tf.errors.DataLossError, tf.errors.NotFoundError):
        if damaged := set_damaged_aside(views):
            raise DamagedShardError(
                "some views are damaged or gone",
                f"{', '.join(damaged)}: damaged or gone",
                "run the command again: they are made anew",
            ) from None
        raise
    # Without the optimizer, and computing in float32, as it is judged and exported.
    plain = build_network(network, schedule.width, pixels, config.seed)
    plain.set_weights(model.get_weights())
    plain.save(folder / "network.keras")
    shutil.copytree(log_dir, folder / "tensorboard")
    return Made(
        num_rows=layout.num_rows,
        num_rows_computed=layout.num_rows,
        fields={
            "num_classes": num_classes,
            "history": trained.history,
            "best_epoch": len(trained.history),
            "stopped_early": False,
            "has_val": False,
            "num_steps": trained.num_steps,
            "final_share": trained.final_share,
            "num_parameters": int(plain.count_params()),
        },
    )


def open_network(training: TrainingManifest) -> Any:
    """Load a trained network: pixels float32 [n, h, w, c] -> logits [n, num_classes]."""
    return keras.models.load_model(artefact(training, "network.keras"), compile=False)


def _evaluation_key(
    pixels: PixelsManifest,
    training: TrainingManifest,
    flip_test: bool,
    config: EvaluationConfig,
) -> dict[str, Any]:
    # The test images stand for themselves: their files are part of the pixels' key.
    return {
        "pixels": pixels.key,
        "training": training.key,
        "flip_test": flip_test,
        "evaluation": config,
    }


def _evaluate(
    folder: Path,
    pixels: PixelsManifest,
    training: TrainingManifest,
    flip_test: bool,
    config: EvaluationConfig,
) -> Made:
    model, labels = open_network(training), open_labels(pixels, "test")
    images = open_images(pixels, "test")
    logits = {"test": predict_logits(model, images)}
    if flip_test:
        mirrored = predict_logits(model, images, mirrored=True)
        logits["test_flip"] = (logits["test"] + mirrored) * np.float32(0.5)
    metrics = {
        split: evaluate(of_split, labels, pixels.class_names, config).model_dump(mode="json")
        for split, of_split in logits.items()
    }
    losses = [
        {"path": f"test/{loss.position:06}.png", "split": "test", **loss.model_dump(mode="json")}
        for loss in top_losses(logits["test"], labels, config)
    ]
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    arrays: dict[str, Any] = {f"{split}_logits": rows for split, rows in logits.items()}
    np.savez(folder / "predictions.npz", **arrays, test_labels=labels)
    return Made(len(labels), len(labels), fields={"metrics": metrics, "top_losses": tuple(losses)})


def _describe_evaluation(evaluation: EvaluationManifest) -> str:
    return ", ".join(
        f"{split} accuracy {metrics['accuracy']:.4f}"
        for split, metrics in evaluation.metrics.items()
    )


def _export_key(
    pixels: PixelsManifest, training: TrainingManifest, network: NetworkConfig, config: ExportConfig
) -> dict[str, Any]:
    return {
        "training": training.key,
        "pixels": pixels.key,
        "formats": sorted({"keras", *config.formats}),
        "num_proof_images": config.num_proof_images,
    }


def _export(
    folder: Path,
    pixels: PixelsManifest,
    training: TrainingManifest,
    network: NetworkConfig,
    config: ExportConfig,
) -> Made:
    model = open_network(training)
    size = pixels.image_shape[0]
    card = ModelCard(
        class_names=pixels.class_names,
        image_size=size,
        resize="squash",
        backbone=network.name,
        preprocessing="normalised by the mean and deviation of the training images",
        storage_dtype="float32",
        run={"data": pixels.name, "num_parameters": training.num_parameters},
    )
    joined = join_network(model, pixels.image_shape)
    formats = formats_of(joined, config.formats)
    export_model(joined, formats, folder, card)
    images = open_images(pixels, "test")
    count = min(config.num_proof_images, len(images))
    picked = np.asarray(images[np.linspace(0, len(images) - 1, count, dtype=int)])
    difference = prove(
        folder, card, [as_png(image) for image in picked], predict_logits(model, picked),
        MAX_PROOF_PIXELS,
    )  # fmt: skip
    return Made(count, count, fields={"formats": formats, "largest_difference": difference})


def as_png(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 [h, w, 1 or 3], as a PNG file's bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="PNG")
    return file.getvalue()


def _describe_training(training: TrainingManifest) -> str:
    last = training.history[-1]
    return (
        f"{training.num_parameters:,} parameters, {training.num_steps:,} steps, train loss "
        f"{last.train_loss:.4f}"
    )


training = Stage(
    "training", 2, TrainingManifest, _train, _training_key, _describe_training, uses_gpu=True
)
evaluation = Stage(
    "evaluation", 1, EvaluationManifest, _evaluate, _evaluation_key, _describe_evaluation
)
export = Stage(
    "export",
    1,
    ExportManifest,
    _export,
    _export_key,
    lambda made: f"{', '.join(made.formats)}, equal to {made.largest_difference:.1g}",
)

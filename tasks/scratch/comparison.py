"""With and without augmentation: where both networks look, side by side, and how right they are."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import EpochViewsConfig
from headstart.tasks.dataset.pixels import PixelsManifest, open_images, open_labels
from headstart.tasks.evaluation.report_content import PictureFile, percent
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.explanation.grad_cam import choose_layer, heatmaps
from headstart.tasks.explanation.overlay import overlay
from headstart.tasks.head.stage import open_head
from headstart.tasks.scratch.stage import TrainingManifest
from headstart.tasks.views.contact_sheet import Tile, contact_sheet

PLAIN_VIEWS = EpochViewsConfig(num_views=1, padding=0, flip=False, cutout=0)
"""Views without augmentation; all epochs read the one."""
SHEET_NAME = "heatmaps.png"
NUM_SHOWN = 12
"""Test images shown, spread over the classes."""
RESNET9_LAYER = "layer2_relu"
"""Its maps are 14 x 14 at 28 pixels, 7 x 7 where pooling comes first, and the pictures show places;
the last maps of all are 3 x 3."""


def against_plain_views(
    folder: Path,
    pixels: PixelsManifest,
    augmented: tuple[TrainingManifest, EvaluationManifest],
    plain: tuple[TrainingManifest, EvaluationManifest],
) -> PictureFile:
    """Draw heatmaps of the same test images by two networks, and say both accuracies.

    Args:
        folder: Where heatmaps.png is written.
        pixels: The data set.
        augmented: The network trained on augmented views, and its figures.
        plain: The one trained on plain views.

    Returns:
        The pictures and a sentence, for the report.
    """
    images, labels = open_images(pixels, "test"), open_labels(pixels, "test")
    shown = _spread(labels, min(NUM_SHOWN, len(labels)))
    views = np.asarray(images[shown])
    names = [pixels.class_names[label] for label in labels[shown]]
    rows = [
        [Tile(_rgb(view), f"{name}\nas it is")] for view, name in zip(views, names, strict=True)
    ]
    for title, training in (("augmented", augmented[0]), ("not augmented", plain[0])):
        tiles = _tiles(open_head(training), views, labels[shown], pixels.class_names, title)
        for row, tile in zip(rows, tiles, strict=True):
            row.append(tile)
    contact_sheet(rows, columns_wide=2).save(folder / SHEET_NAME)
    accuracies = [
        percent(manifest.metrics["test"]["accuracy"]) for _, manifest in (augmented, plain)
    ]
    return PictureFile(
        folder / SHEET_NAME,
        "With and without augmentation",
        f"Accuracy on the test images {accuracies[0]} with augmentation, {accuracies[1]} without, "
        "the same network and schedule. Warm colours: where each finds the evidence for the label.",
    )


def _tiles(
    model: Any,
    views: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int32],
    class_names: tuple[str, ...],
    title: str,
) -> list[Tile]:
    batch = views.astype(np.float32)
    wanted = RESNET9_LAYER if RESNET9_LAYER in {layer.name for layer in model.layers} else None
    found = heatmaps(model, batch, choose_layer(model, batch, wanted), labels.astype(np.int64))
    answers = np.asarray(model(batch, training=False)).argmax(axis=1)
    return [
        Tile(overlay(_rgb(view), heat), f"{title}\nsays {class_names[answer]}")
        for view, heat, answer in zip(views, found.maps, answers, strict=True)
    ]


def _spread(labels: npt.NDArray[np.int32], number: int) -> npt.NDArray[np.int64]:
    """Pick images class by class, the first of each before the second of any."""
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        rank[places] = np.arange(len(places))
    chosen: npt.NDArray[np.int64] = np.lexsort((labels, rank))[:number]
    return np.sort(chosen)


def _rgb(view: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(view, 3, axis=-1) if view.shape[-1] == 1 else view

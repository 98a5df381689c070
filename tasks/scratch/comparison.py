"""With and without augmentation: where both networks look, side by side, and how right they are."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import EpochViewsConfig
from headstart.tasks.dataset.pixels import PixelsManifest, open_images, open_labels
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.report_content import PictureFile
from headstart.tasks.evaluation.stage import EvaluationManifest
from headstart.tasks.explanation.grad_cam import choose_layer, heatmaps
from headstart.tasks.explanation.overlay import overlay
from headstart.tasks.head.stage import open_head
from headstart.tasks.scratch.stage import TrainingManifest
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import Array
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
    """Draw heatmaps of the same test images by two networks, and say how good both are.

    Args:
        folder: Where heatmaps.png is written.
        pixels: Manifest of the data set, whose test images are drawn.
        augmented: The network trained on augmented views, and its figures.
        plain: The one trained on plain views.
    """
    images, labels = open_images(pixels, "test"), open_labels(pixels, "test")
    target, judge = TARGETS[pixels.kind], JUDGES[pixels.kind]
    outputs = np.array([target.shown_output(label) for label in labels], np.int64)
    shown = _spread(outputs, min(NUM_SHOWN, len(labels)))
    views = np.asarray(images[shown])
    names = [target.words(label, pixels.class_names) for label in labels[shown]]
    rows = [
        [Tile(_rgb(view), f"{name}\nas it is")] for view, name in zip(views, names, strict=True)
    ]
    for title, training in (("augmented", augmented[0]), ("not augmented", plain[0])):
        for row, tile in zip(
            rows, _tiles(training, pixels, views, outputs[shown], title), strict=True
        ):
            row.append(tile)
    contact_sheet(rows, columns_wide=2).save(folder / SHEET_NAME)
    figures = [
        judge.write(manifest.metrics["test"][judge.main]) for _, manifest in (augmented, plain)
    ]
    return PictureFile(
        folder / SHEET_NAME,
        "With and without augmentation",
        f"{judge.main_name[0].upper()}{judge.main_name[1:]} on the test images {figures[0]} with "
        f"augmentation, {figures[1]} without, the same network and schedule. Warm colours: where "
        f"each finds the evidence for {_EVIDENCE[pixels.kind]}.",
    )


_EVIDENCE = {
    "class": "the label",
    "labels": "the first label of the image",
    "number": "more of the first number",
}


def _tiles(
    training: TrainingManifest,
    pixels: PixelsManifest,
    views: npt.NDArray[np.uint8],
    outputs: npt.NDArray[np.int64],
    title: str,
) -> list[Tile]:
    model, batch = open_head(training), views.astype(np.float32)
    wanted = RESNET9_LAYER if RESNET9_LAYER in {layer.name for layer in model.layers} else None
    layer = choose_layer(model, batch, wanted)
    raises = pixels.kind != "class"  # a head alone: its outputs are the evidence
    found = heatmaps(model, batch, layer, outputs, tells_numbers=raises)
    said = _said(np.asarray(model(batch, training=False)), training, pixels)
    return [
        Tile(overlay(_rgb(view), heat), f"{title}\nsays {one}")
        for view, heat, one in zip(views, found.maps, said, strict=True)
    ]


def _said(logits: Array, training: TrainingManifest, pixels: PixelsManifest) -> list[str]:
    """Say in words what a network answers."""
    target = TARGETS[pixels.kind]
    answers: Any = target.answers(logits, training.fit)
    return [target.words(one, pixels.class_names) for one in target.told(answers, training.fit)]


def _spread(outputs: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
    """Pick images class by class, the first of each before the second of any."""
    rank = np.zeros(len(outputs), np.int64)
    for output in np.unique(outputs):
        places = np.flatnonzero(outputs == output)
        rank[places] = np.arange(len(places))
    chosen: npt.NDArray[np.int64] = np.lexsort((outputs, rank))[:number]
    return np.sort(chosen)


def _rgb(view: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(view, 3, axis=-1) if view.shape[-1] == 1 else view

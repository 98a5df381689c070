"""A tiny data set, a tiny backbone and a pipeline over them, for the tests of whole runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from headstart.config import TransferConfig, load_config
from headstart.tasks.bottlenecks.rows import bottleneck_collections, open_backbone
from headstart.tasks.bottlenecks.stage import stage as bottlenecks_stage
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.running.stage import Outcome, collect_outcomes
from headstart.tasks.runs.run_folder import RunSummary
from headstart.tasks.store.artifacts import Store, use_store
from headstart.tasks.store.records import RowCollection
from headstart.tasks.views.stage import stage as views_stage

SIDE = 16
COLOURS = {"blue": (30, 60, 200), "green": (40, 190, 50), "red": (210, 50, 40)}
NUM_PER_CLASS = 12
NUM_IMAGES = NUM_PER_CLASS * len(COLOURS)
ROWS_A_SHARD = 10
QUICK = (
    "head.epochs=8",
    "head.batch_size=8",
    "head.learning_rate=0.1",
    "head.schedule=constant",
    "head.dropout=0.0",
    "head.patience=0",
    "bottlenecks.batch_size=4",
    "bottlenecks.num_parity_rows=2",
    "evaluation.num_bootstrap=10",
    "evaluation.num_top_losses=2",
    "export.formats=[keras]",
    "export.num_proof_images=2",
    "views.augmentations=[{kind: flip}, {kind: pad_and_random_crop, padding: 2}]",
)
LADDER = (
    "ladder.cuts=[second, first]",
    "tuning.epochs=2",
    "tuning.batch_size=8",
    "tuning.optimizer=adamw",
    "tuning.learning_rate=0.01",
)
"""Beside `QUICK`, for the finetune flow."""
STUDY = (
    "tuning.epochs=2",
    "tuning.batch_size=8",
    "bottlenecks.batch_size=4",
    "evaluation.num_bootstrap=10",
)
"""For the compare and transferability flows."""


def add_images(folder: Path, label: str, seeds: Sequence[int], suffix: str = ".png") -> None:
    """Write images of a class: its colour under noise; no two seeds give the same image."""
    (folder / label).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        noise = np.random.default_rng(seed).normal(0, 25, (SIDE, SIDE, 3))
        pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / label / f"{seed:04}{suffix}")


def write_images(folder: Path) -> Path:
    """Write the data set: 3 classes of 12 images."""
    for number, label in enumerate(COLOURS):
        add_images(folder, label, range(100 * number, 100 * number + NUM_PER_CLASS))
    return folder


def tiny_network(seed: int = 0, scale: float = 4.0, size: int | None = SIDE) -> Any:
    """Build a network with the cuts first, second, third and top.

    Args:
        seed: Of its weights.
        scale: Factor of its activations.
        size: Side of its input in pixels; None leaves it open.
    """
    keras.utils.set_random_seed(seed)
    images = keras.Input((size, size, 3), name="images")
    x = keras.layers.Rescaling(scale / 255, name="rescaling")(images)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="first")(x)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="second")(x)
    x = keras.layers.Conv2D(16, 3, activation="relu", name="third")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x))


def save_backbone(path: Path, **fields: Any) -> Path:
    """Write a `tiny_network` as a .keras file."""
    tiny_network(**fields).save(path)
    return path


@dataclass
class Pipeline:
    """Runs over one store, and what they sent through the backbone.

    Attributes:
        images: The data set.
        backbone: A .keras file.
        store: Where the artefacts go.
        passes: Images in each forward pass, of all runs so far.
    """

    images: Path
    backbone: Path
    store: Store
    passes: list[int] = field(default_factory=list)

    def config(self, *settings: str, images: Path | None = None) -> TransferConfig:
        """Return the quick configuration with changes."""
        name = f"backbone.name={self.backbone}"
        return load_config(images or self.images, settings=(*QUICK, name, *settings))

    def run(self, *settings: str, images: Path | None = None) -> RunSummary:
        """Run the flow, without Prefect."""
        from headstart.flows.transfer import transfer

        summary = transfer.fn(self.config(*settings, images=images), self.store.root)
        assert isinstance(summary, RunSummary)
        return summary

    def extract(self, *settings: str, images: Path | None = None) -> Outcome:
        """Run the stages up to the bottlenecks; return how the last one went."""
        config = self.config(*settings, images=images)
        with use_store(self.store), collect_outcomes() as outcomes:
            dataset = dataset_stage(config.dataset)
            size = open_backbone(config.backbone, config.views.image_size).image_size
            views_stage(dataset, config.dataset, config.views, size)
            bottlenecks_stage(
                dataset, config.dataset, config.views, config.backbone, config.bottlenecks
            )
        return outcomes[-1]

    def num_passed(self) -> int:
        """Return how many images went through the backbone since this was last asked."""
        total = sum(self.passes)
        self.passes.clear()
        return total

    def index(self, *settings: str) -> DatasetIndex:
        """Return the index of the data set."""
        with use_store(self.store):
            return index_of(dataset_stage(self.config(*settings).dataset))

    def collections(self, *settings: str) -> list[RowCollection]:
        """Return the bottlenecks' collections, those of the head's cut first, plain first."""
        config = self.config(*settings)
        network = open_backbone(config.backbone, config.views.image_size)
        cuts = bottleneck_collections(self.store, network, config.views, config.bottlenecks)
        return [collection for cut in cuts.values() for collection in cut.collections]


def statuses(summary: RunSummary) -> dict[str, str]:
    """Return each stage's status."""
    return {outcome.name: outcome.status for outcome in summary.stages}


def computed(summary: RunSummary) -> dict[str, int]:
    """Return how many rows each stage computed."""
    return {outcome.name: outcome.rows_computed for outcome in summary.stages}

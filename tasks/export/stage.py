"""The export stage: its manifest, its key, its function."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from headstart.config import ExportConfig
from headstart.tasks.backbones.cuts import PIXELS
from headstart.tasks.bottlenecks.features import Features, extractor_to
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.head.stage import HeadManifest, open_head
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest
from headstart.tasks.views.addresses import plain_rows


class FormatProof(BaseModel):
    """What an exported file gave for the proof images, in its own runtime."""

    model_config = ConfigDict(frozen=True)

    largest_difference: float
    """Of a probability."""
    num_same_labels: int
    num_images: int


class ExportManifest(Manifest):
    """A joined model in the formats asked for."""

    formats: tuple[str, ...]
    largest_difference: float
    """Between the probabilities of the exported files and the pipeline's own."""
    proven_against: str = ""
    """What they were compared with, where it was something else."""
    proofs: dict[str, FormatProof] = {}
    """By format: what each gave in its own runtime."""


PORTABLE = {"onnx", "openvino"}
"""Formats that can take images of any size, or views alone."""


class Exported(Protocol):
    """What stands before a trained network in the model that is exported, and what proves it."""

    @property
    def max_pixels(self) -> int:
        """Images with more are refused."""

    def export_key(self) -> dict[str, Any]:
        """Return what decides the model besides the network."""

    def card(self) -> ModelCard:
        """Say what a user of the model has to know."""

    def join(self, network: Any) -> Any:
        """Make the whole model, from pixels of any size to probabilities."""

    def proof(self, count: int) -> tuple[list[bytes], Any]:
        """Pick image files, and the rows that the network takes for them."""

    @property
    def proven_against(self) -> str:
        """What those rows are, where they are not the pipeline's own; "" otherwise."""


@dataclass(frozen=True)
class BehindBackbone:
    """A network that was trained on features: the backbone up to there stands before it."""

    features: Features

    @property
    def max_pixels(self) -> int:
        """Of the data set."""
        return self.features.source.max_pixels

    @property
    def work(self) -> str:
        """In the names of task runs."""
        return self.features.work

    def export_key(self) -> dict[str, Any]:
        """Return what stands in the card; all else is in the network's key."""
        return {
            "class_names": self.features.class_names,
            "resize": self.features.views.resize,
            "backbone": Path(self.features.backbone.name).name,
        }

    def card(self) -> ModelCard:
        """Say how the backbone was used."""
        features, network = self.features, self.features.network
        return ModelCard(
            class_names=features.class_names,
            image_size=network.image_size,
            resize=features.views.resize,
            backbone=Path(network.name).name,  # not where on this machine a file lies
            cut=features.start,
            preprocessing=network.preprocessing.mode,
            # Pixels are whole numbers from 0 to 255, which both types hold as they are.
            storage_dtype=features.dtype,
        )

    def join(self, network: Any) -> Any:
        """Put the backbone before the network."""
        from headstart.tasks.export.joining import join

        features, backbone = self.features, self.features.network
        extractor = extractor_to(backbone, features.start)
        size, resize = backbone.image_size, features.views.resize
        return join(extractor, network, size, resize, features.dtype)

    def proof(self, count: int) -> tuple[list[bytes], Any]:
        """Pick images spread over the data set."""
        index, root = index_of(self.features.dataset), dataset_root(self.features.source)
        count = min(count, len(index.digests))
        places = np.linspace(0, len(index.digests) - 1, count, dtype=int)
        picked = [index.digests[place] for place in places]
        files = {row.digest: root / row.path for row in index.rows}
        encoded = [files[digest].read_bytes() for digest in picked]
        if self.proven_against:
            return encoded, self._exact_rows(encoded)
        rows = self.features.collections.plain.select(plain_rows(picked)).gather(range(count))
        return encoded, rows

    @property
    def proven_against(self) -> str:
        """What the proof compares with, where it is not the pipeline's own rows.

        The exported model computes in float32, from which rows of a lower precision are too far.
        """
        rough = self.features.precision != "float32" and self.features.start != PIXELS
        return "the head's on float32 rows" if rough else ""

    def _exact_rows(self, encoded: Sequence[bytes]) -> Any:
        from headstart.tasks.export.proof import exact_rows

        features, network = self.features, self.features.network
        extractor = extractor_to(network, features.start)
        size, resize = network.image_size, features.views.resize
        rows = exact_rows(extractor, encoded, size, resize, self.max_pixels)
        return rows.astype(features.dtype)


def _export_key(exported: Exported, trained: HeadManifest, config: ExportConfig) -> dict[str, Any]:
    fields = {
        "head": trained.key,
        **exported.export_key(),
        "formats": sorted({"keras", *config.formats}),
        "num_proof_images": config.num_proof_images,
    }
    if PORTABLE & set(config.formats):
        fields["input"] = config.input
    return fields


def _export(folder: Path, exported: Exported, trained: HeadManifest, config: ExportConfig) -> Made:
    from headstart.tasks.export.proof import prove
    from headstart.tasks.export.writing import export_model, formats_of

    network = open_head(trained)
    card = exported.card().model_copy(update={"input": config.input})
    joined = exported.join(network)
    formats = formats_of(joined, config.formats)
    export_model(joined, formats, folder, card)
    images, rows = exported.proof(config.num_proof_images)
    logits = np.asarray(network(rows.astype(np.float32), training=False))
    proofs = prove(folder, card, images, logits, exported.max_pixels)
    count = len(images)
    told = {
        "formats": formats,
        "largest_difference": max(proof.largest_difference for proof in proofs.values()),
        "proofs": {kind: proof._asdict() for kind, proof in proofs.items()},
        "proven_against": exported.proven_against,
    }
    return Made(count, count, fields=told)


def _describe(made: ExportManifest) -> str:
    against = made.proven_against or "the pipeline's"
    return (
        f"{', '.join(made.formats)}, whose predictions are within {made.largest_difference:.1g} "
        f"of {against}"
    )


stage = Stage("export", 4, ExportManifest, _export, _export_key, _describe)

"""The export stage: its manifest, its key, its function."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel

from headstart.config import ExportConfig, Split
from headstart.tasks.backbones.cuts import PIXELS
from headstart.tasks.bottlenecks.features import Features, extractor_to
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.export.file_names import QUANTISED, Format
from headstart.tasks.export.model_files import MAX_PIXELS, ModelCard, columns_of
from headstart.tasks.export.quantised import MAX_JUDGED, HeldOut, Loss, judge_quantised
from headstart.tasks.head.stage import HeadManifest, open_head
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.running.tensorflow import full_float32
from headstart.tasks.store.artifacts import Manifest, current_store
from headstart.tasks.targets.target import Fit
from headstart.tasks.views.addresses import plain_rows
from headstart.tasks.views.recipes import plain_collection


class FormatProof(BaseModel, frozen=True):
    """What an exported file gave for the proof images, in its own runtime."""

    largest_difference: float
    """Of a probability."""
    num_same_labels: int
    num_images: int


class ExportManifest(Manifest):
    """A joined model in the formats asked for."""

    formats: tuple[str, ...]
    largest_difference: float
    """Between the probabilities of the exported files and the pipeline's own; those of quantised
    files are under `proofs`."""
    proven_against: str = ""
    """What they were compared with, where it was something else."""
    proofs: dict[str, FormatProof] = {}
    """By format: what each gave in its own runtime."""
    losses: dict[str, Loss] = {}
    """By format: what the fewer bits of a quantised file cost on held-out images."""


PORTABLE = {"onnx", "openvino"}
"""Formats that can take images of any size, or views alone."""


class Exported(Protocol):
    """What stands before a trained network in the model that is exported, and what proves it."""

    @property
    def max_pixels(self) -> int:
        """Images with more are refused."""

    def export_key(self) -> dict[str, Any]:
        """Return what decides the model besides the network."""

    def quantised_key(self) -> dict[str, Any]:
        """Return what decides which images judge quantised files, besides the network."""

    def card(self, fit: Fit) -> ModelCard:
        """Say what a user of the model has to know."""

    def join(self, network: Any, fit: Fit) -> Any:
        """Make the whole model, from pixels of any size to probabilities or numbers."""

    def proof(self, count: int) -> tuple[list[bytes], Any]:
        """Pick image files, and the rows that the network takes for them."""

    def calibration(self, count: int) -> Any:
        """Pick views that the network was trained on: uint8 [n, size, size, 3]."""

    def held_out(self, count: int) -> HeldOut | None:
        """Pick images that it was not trained on; None without any, or where none has a class."""

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
        fields: dict[str, Any] = {
            "class_names": self.features.class_names,
            "resize": self.features.views.resize,
            "backbone": Path(self.features.backbone.name).name,
        }
        if self.features.target.kind != "class":
            fields["columns"] = columns_of(self.features.source)
        if self.features.target.kind == "number":
            fields["answer"] = self.features.target.answer_name
        if self.max_pixels != MAX_PIXELS:
            fields["max_pixels"] = self.max_pixels
        return fields

    def quantised_key(self) -> dict[str, Any]:
        """Of test images where there are none of val: the network's key has the others."""
        index = index_of(self.features.dataset)
        judged: tuple[Split, ...] = ("test",)
        return {} if index.rows_of("val") else {"judged": index.labels_digest_of(judged)}

    def card(self, fit: Fit) -> ModelCard:
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
            target=features.target.kind,
            fit=fit,
            columns=columns_of(features.source) if features.target.kind != "class" else {},
            max_pixels=self.max_pixels,
        )

    def join(self, network: Any, fit: Fit) -> Any:
        """Put the backbone before the network."""
        from headstart.tasks.export.joining import join

        features, backbone = self.features, self.features.network
        extractor = extractor_to(backbone, features.start)
        size, resize = backbone.image_size, features.views.resize
        answer = features.target.answer_layer(fit, features.target.answer_name)
        return join(extractor, network, size, resize, features.dtype, answer)

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

    def calibration(self, count: int) -> Any:
        """Pick views of training images, spread over them."""
        rows = index_of(self.features.dataset).rows_of("train")
        return self._views([rows[place].digest for place in _spread(len(rows), count)])

    def held_out(self, count: int) -> HeldOut | None:
        """Pick images of val, or of test where there is no val."""
        index = index_of(self.features.dataset)
        splits: tuple[Split, ...] = ("val", "test")
        split = next((one for one in splits if index.rows_of(one)), None)
        if split is None:
            return None
        rows = index.rows_of(split)
        picked = [rows[place] for place in _spread(len(rows), count)]
        digests = [row.digest for row in picked]
        plain = self.features.collections.plain.select(plain_rows(digests))
        labels = self.features.target.to_array(picked, len(self.features.class_names))
        return HeldOut(split, self._views(digests), plain.gather(range(len(picked))), labels)

    def _views(self, digests: Sequence[str]) -> Any:
        """Read plain views from the store, or make them where they are not there any more."""
        from headstart.tasks.dataset.decode import decode_image
        from headstart.tasks.views.pillow_view import pillow_view

        features, size = self.features, self.features.known.image_size
        cached = plain_collection(features.views, size, current_store())
        wanted = plain_rows(digests)
        if not cached.missing(wanted):
            return cached.select(wanted).gather(range(len(wanted)))
        index, root = index_of(features.dataset), dataset_root(features.source)
        files = {row.digest: root / row.path for row in index.rows}
        images = (decode_image(files[one].read_bytes(), self.max_pixels) for one in digests)
        return np.stack([pillow_view(image, size, features.views.resize) for image in images])

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


def _spread(length: int, count: int) -> list[int]:
    """Pick places spread over a list."""
    return [int(place) for place in np.linspace(0, length - 1, min(count, length), dtype=int)]


def _export_key(exported: Exported, trained: HeadManifest, config: ExportConfig) -> dict[str, Any]:
    fields = {
        "head": trained.key,
        **exported.export_key(),
        "formats": sorted({"keras", *config.formats}),
        "num_proof_images": config.num_proof_images,
    }
    if PORTABLE & set(config.formats):
        fields["input"] = config.input
    if set(QUANTISED) & set(config.formats):
        fields |= exported.quantised_key()
    if "litert_int8" in config.formats:
        fields["num_calibration_images"] = config.num_calibration_images
    return fields


@full_float32()
def _export(folder: Path, exported: Exported, trained: HeadManifest, config: ExportConfig) -> Made:
    from headstart.tasks.export.proof import prove
    from headstart.tasks.export.writing import export_model, formats_of

    network = open_head(trained)
    card = exported.card(trained.fit).model_copy(update={"input": config.input})
    joined = exported.join(network, trained.fit)
    formats = formats_of(joined, config.formats)
    integers = "litert_int8" in formats
    calibration = exported.calibration(config.num_calibration_images) if integers else None
    export_model(joined, formats, folder, card, calibration)
    images, rows = exported.proof(config.num_proof_images)
    logits = np.asarray(network(rows.astype(np.float32), training=False))
    proofs = prove(folder, card, images, logits, exported.max_pixels)
    count = len(images)
    told = {
        "formats": formats,
        "largest_difference": max(
            proof.largest_difference for kind, proof in proofs.items() if kind not in QUANTISED
        ),
        "proofs": {kind: proof._asdict() for kind, proof in proofs.items()},
        "proven_against": exported.proven_against,
        "losses": _losses(folder, exported, network, formats, card),
    }
    return Made(count, count, fields=told)


def _losses(
    folder: Path, exported: Exported, network: Any, formats: Sequence[Format], card: ModelCard
) -> dict[str, Loss]:
    quantised = [kind for kind in formats if kind in QUANTISED]
    held_out = exported.held_out(MAX_JUDGED) if quantised else None
    if held_out is None:
        return {}
    judged = {kind: judge_quantised(folder, kind, network, held_out, card) for kind in quantised}
    return {kind: loss for kind, loss in judged.items() if loss is not None}


def _describe(made: ExportManifest) -> str:
    against = made.proven_against or "the pipeline's"
    return (
        f"{', '.join(made.formats)}, whose predictions are within {made.largest_difference:.1g} "
        f"of {against}"
        + "".join(f"; {kind} loses {loss.lost_in_words}" for kind, loss in made.losses.items())
    )


stage = Stage("export", 4, ExportManifest, _export, _export_key, _describe)

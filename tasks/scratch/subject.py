"""The images that a network from scratch is judged by, and what it is exported with."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.config import NetworkConfig
from headstart.tasks.dataset.pixels import PixelsManifest, open_images, open_labels
from headstart.tasks.dataset.units import Units
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.quantised import HeldOut
from headstart.tasks.scratch.joining import join_network
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import NO_FIT, Fit, Target

MAX_PROOF_PIXELS = 2**26


@dataclass(frozen=True)
class PixelRows:
    """Images in memory or mapped, as rows that a network takes.

    Attributes:
        images: uint8 [n, h, w, c].
        labels: Of each image: int32 [n] of classes, else [n, outputs]: `Target.to_array`.
        mirrored: Give their mirror images, left to right.
        units: Which images belong together; nothing is known of that here.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[Any]
    mirrored: bool = False
    units: Units = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""
        return self.images.shape[1:]

    @property
    def dtype(self) -> Any:
        """Of the pixels."""
        return self.images.dtype

    def gather(self, images: npt.NDArray[np.int64], view: int) -> npt.NDArray[np.uint8]:
        """Read some images; there is but the plain view."""
        pixels = self.images[images]
        return np.ascontiguousarray(pixels[:, :, ::-1] if self.mirrored else pixels)


@dataclass(frozen=True)
class TestImages:
    """The test images of a data set of pixels.

    Attributes:
        pixels: Manifest of the data set.
        network: Configuration of the network trained on its training images.
        flip_test: Whether images and their mirror images are judged together as well.
        columns: Settings by which another manifest like the data set's is read.
    """

    __test__ = False
    pixels: PixelsManifest
    network: NetworkConfig
    flip_test: bool
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the data set."""
        return self.pixels.class_names

    @property
    def target(self) -> Target:
        """What is learned."""
        return TARGETS[self.pixels.kind]

    @property
    def work(self) -> str:
        """In the names of task runs."""
        return self.network.name

    @property
    def max_pixels(self) -> int:
        """Far more than the images have."""
        return MAX_PROOF_PIXELS

    def judged_key(self) -> dict[str, Any]:
        """Return what decides an evaluation besides the network."""
        # The test images stand for themselves: their files are part of the pixels' key.
        return {"pixels": self.pixels.key, "flip_test": self.flip_test}

    def judged_rows(self) -> Mapping[str, Sequence[PixelRows]]:
        """Open the test images."""
        images, labels = open_images(self.pixels, "test"), open_labels(self.pixels, "test")
        rows = PixelRows(images, labels)
        if not self.flip_test:
            return {"test": [rows]}
        return {"test": [rows], "test_flip": [rows, PixelRows(images, labels, mirrored=True)]}

    def judged_paths(self, split: str) -> Sequence[str]:
        """Name the images by their numbers."""
        return [f"{split}/{number:06}.png" for number in range(self.pixels.num_images("test"))]

    def export_key(self) -> dict[str, Any]:
        """Return what decides the model besides the network."""
        columns = {"columns": dict(self.columns)} if self.pixels.kind != "class" else {}
        return {"pixels": self.pixels.key, **columns}

    def quantised_key(self) -> dict[str, Any]:
        """Nothing more: the pixels' key holds the test images."""
        return {}

    def card(self, fit: Fit = NO_FIT) -> ModelCard:
        """Say what the network takes."""
        return ModelCard(
            class_names=self.class_names,
            image_size=self.pixels.image_shape[0],
            resize="squash",
            backbone=self.network.name,
            preprocessing="normalised by the mean and deviation of the training images",
            storage_dtype="float32",
            run={"data": self.pixels.name},
            target=self.pixels.kind,
            fit=fit,
            columns=dict(self.columns) if self.pixels.kind != "class" else {},
        )

    def join(self, network: keras.Model, fit: Fit = NO_FIT) -> Any:
        """Put resizing before the network."""
        answer = self.target.answer_layer(fit, self.target.answer_name)
        return join_network(network, self.pixels.image_shape, answer)

    @property
    def proven_against(self) -> str:
        """Nothing but the pipeline's own pixels."""
        return ""

    def calibration(self, count: int) -> npt.NDArray[np.uint8]:
        """Pick training images."""
        images = open_images(self.pixels, "train")
        return _in_colour(np.asarray(images[_spread(images, count)]))

    def held_out(self, count: int) -> HeldOut:
        """Pick test images."""
        images, labels = open_images(self.pixels, "test"), open_labels(self.pixels, "test")
        places = _spread(images, count)
        picked = np.asarray(images[places])
        return HeldOut("test", _in_colour(picked), picked, np.asarray(labels)[places])

    def proof(self, count: int) -> tuple[list[bytes], Any]:
        """Pick test images spread over the data set."""
        images = open_images(self.pixels, "test")
        picked = np.asarray(images[_spread(images, count)])
        return [as_png(image) for image in picked], picked


def _spread(images: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, len(images) - 1, min(count, len(images)), dtype=int)


def _in_colour(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Give pixels uint8 [n, h, w, 1 or 3] as RGB."""
    return np.broadcast_to(images, (*images.shape[:3], 3))


def as_png(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 [h, w, 1 or 3], as a PNG file's bytes."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="PNG")
    return file.getvalue()

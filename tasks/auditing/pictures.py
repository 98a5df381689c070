"""The pictures stage: what can be said of an image's pixels alone, from its cached plain view."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import ViewsConfig
from headstart.tasks.auditing.hashing import REDUCED_SIDE, perceptual_hashes
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest, artefact, current_store
from headstart.tasks.views.addresses import plain_rows
from headstart.tasks.views.recipes import plain_collection, plain_recipe

CHUNK_ROWS = 256
LUMA = (0.299, 0.587, 0.114)
"""Source: ITU-R BT.601, weights of red, green and blue."""
DARK_PERCENTILE = 99.0


class PicturesManifest(Manifest):
    """Figures of each distinct image, in the order of the index's digests; see `Pictures`."""


class Pictures:
    """What the pictures stage kept.

    Attributes:
        hashes: uint8 [n, 64].
        mirrored_hashes: uint8 [n, 64].
        sharpness: float64 [n]: variance of the Laplacian of the luminance in [0, 255].
        brightness: float64 [n]: 99th percentile of the luminance, as a share of white.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as arrays:
            self.hashes: npt.NDArray[np.uint8] = arrays["hashes"]
            self.mirrored_hashes: npt.NDArray[np.uint8] = arrays["mirrored_hashes"]
            self.sharpness: npt.NDArray[np.float64] = arrays["sharpness"]
            self.brightness: npt.NDArray[np.float64] = arrays["brightness"]


def open_pictures(manifest: PicturesManifest) -> Pictures:
    """Read what the stage kept."""
    return Pictures(artefact(manifest, "pictures.npz"))


def _pictures_key(dataset: DatasetManifest, views: ViewsConfig, image_size: int) -> dict[str, Any]:
    return {"images": dataset.images_digest, "views": plain_recipe(views, image_size)}


def _look(folder: Path, dataset: DatasetManifest, views: ViewsConfig, image_size: int) -> Made:
    digests = index_of(dataset).digests
    reader = plain_collection(views, image_size, current_store()).select(plain_rows(digests))
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    with reporter().track("looking", len(digests), "images") as advance:
        for start in range(0, len(digests), CHUNK_ROWS):
            places = range(start, min(start + CHUNK_ROWS, len(digests)))
            for name, values in describe_pixels(reader.gather(places)).items():
                parts.setdefault(name, []).append(values)
            advance(len(places))
    arrays: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
    np.savez(folder / "pictures.npz", **arrays)
    return Made(len(digests), len(digests))


def describe_pixels(pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Hash images and measure their sharpness and brightness.

    Args:
        pixels: uint8 [n, side, side, 3].

    Returns:
        The arrays that `Pictures` holds, by name.

    Source:
        Sharpness: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a
        comparative study", 2000 (variance of the Laplacian).
    """
    luminance = pixels.astype(np.float32) @ np.array(LUMA, np.float32)
    reduced = tf.image.resize(
        luminance[..., np.newaxis], (REDUCED_SIDE, REDUCED_SIDE), "area"
    ).numpy()[..., 0]
    inner = luminance[:, 1:-1, 1:-1]
    laplacian = (
        luminance[:, :-2, 1:-1]
        + luminance[:, 2:, 1:-1]
        + luminance[:, 1:-1, :-2]
        + luminance[:, 1:-1, 2:]
        - 4 * inner
    )
    flat = luminance.reshape(len(luminance), -1)
    return {
        "hashes": perceptual_hashes(reduced),
        "mirrored_hashes": perceptual_hashes(reduced[:, :, ::-1]),
        "sharpness": laplacian.var(axis=(1, 2), dtype=np.float64),
        "brightness": np.percentile(flat, DARK_PERCENTILE, axis=1) / 255.0,
    }


stage = Stage(
    "pictures",
    1,
    PicturesManifest,
    _look,
    _pictures_key,
    lambda made: f"hashes, sharpness and brightness of {made.num_rows:,} images",
)

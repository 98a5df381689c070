"""Which images a model has seen: a small file beside it, by the digests of their content.

Whoever judges a model on images that it was trained on learns nothing; `headstart evaluate` looks
here to keep them apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config import SPLITS, Split
from headstart.errors import ExportError
from headstart.reading import check_growth
from headstart.tasks.dataset.index import ImageRow

SEEN_FILE = "seen_images.npz"
PREFIX_DIGITS = 16
"""Hexadecimal digits of a digest that are kept, 8 bytes an image. Two of a million images share
them with a probability of 3e-8."""


def write_seen(folder: Path, rows: Mapping[Split, Sequence[ImageRow]]) -> None:
    """Write which images a model learned from, was chosen by and was judged on.

    Args:
        folder: Folder of the run.
        rows: By what they were used for, which need not be the split that the data gives.
    """
    arrays: dict[str, Any] = {
        split: _prefixes([row.digest for row in rows.get(split, ())]) for split in SPLITS
    }
    aside = folder / f".{SEEN_FILE}.part"
    with aside.open("wb") as file:
        np.savez(file, **arrays)
    aside.replace(folder / SEEN_FILE)


def seen_file(model: Path) -> Path | None:
    """Return the list that lies beside a model; None where it stands alone.

    Args:
        model: A run's folder, or a file or folder in one.
    """
    places = (one / SEEN_FILE for one in (model, model.parent))
    return next((place for place in places if place.is_file()), None)


def seen_splits(model: Path, digests: list[str]) -> list[Split | None]:
    """Say in which split of a model's own data set each image was.

    Args:
        model: A run's folder, or a file or folder in one.
        digests: SHA-256 of each image's bytes, hexadecimal.

    Returns:
        A split each; None for images that the model has never met, and for all of them where
        the model stands alone.

    Raises:
        ExportError: What it says of them is damaged.
    """
    path = seen_file(model)
    if path is None:
        return [None] * len(digests)
    found: list[Split | None] = [None] * len(digests)
    wanted = _prefixes(digests)
    try:
        check_growth(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for split in SPLITS:
                for position in np.flatnonzero(np.isin(wanted, arrays[split])):
                    found[position] = split
    except Exception as error:  # of a damaged one, whatever zipfile, zlib and NumPy stumble on
        raise ExportError(
            "the list of the model's training images is damaged",
            f"{path}: {type(error).__name__}: {error}",
            "copy the run's folder again from where it was written",
        ) from None
    return found


def _prefixes(digests: list[str]) -> npt.NDArray[np.uint64]:
    return np.array([int(digest[:PREFIX_DIGITS], 16) for digest in digests], np.uint64)

"""What a search found, as records and as a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import DatasetError
from headstart.tasks.dataset.decode import decode_image
from headstart.tasks.dataset.printable import printable
from headstart.tasks.export.image_files import read_image_file
from headstart.tasks.views.contact_sheet import Tile, contact_sheet

MAX_CAPTION = 26
"""Characters of a line under a picture."""
QUALITY = 85
"""Of the sheet's JPEG."""


@dataclass(frozen=True)
class Hit:
    """An image that is like a query.

    Attributes:
        similarity: Cosine of the two bottlenecks, 1 for the same image.
        label: Its folder or label in the collection; "" where it has none.
    """

    path: str
    similarity: float
    label: str


def write_sheet(
    path: Path, queries: Sequence[str], found: Sequence[Sequence[Hit]], max_pixels: int
) -> None:
    """Draw each query and what is like it in a row, the most similar first.

    Raises:
        DatasetError: The sheet cannot be written.
    """
    rows = [
        [
            _tile(query, "query", max_pixels),
            *(_tile(hit.path, f"{hit.similarity:.3f} {hit.label}", max_pixels) for hit in hits),
        ]
        for query, hits in zip(queries, found, strict=True)
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([row for row in rows if row]).save(path, quality=QUALITY)
    except (OSError, ValueError) as error:
        raise DatasetError(
            "the contact sheet cannot be written", f"{path}: {error}", "give a .jpg or .png file"
        ) from None


def _tile(file: str, told: str, max_pixels: int) -> Tile:
    name = printable(Path(file).name)
    pixels = decode_image(read_image_file(file, max_pixels), max_pixels)
    return Tile(pixels, f"{told[:MAX_CAPTION]}\n{name[-MAX_CAPTION:]}")

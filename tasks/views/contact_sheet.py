"""Many pictures on one sheet."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE_SIDE = 192
"""Pixels of a picture on a contact sheet."""
CAPTION_HEIGHT, GAP = 34, 6
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
PAPER, INK = (255, 255, 255), (31, 41, 55)


class Tile(NamedTuple):
    """A picture of a contact sheet.

    Attributes:
        pixels: RGB, uint8 [H, W, 3].
        caption: Up to two lines under it.
    """

    pixels: NDArray[np.uint8]
    caption: str


def contact_sheet(rows: Sequence[Sequence[Tile]], columns_wide: int = 1) -> Image.Image:
    """Put rows of pictures on one sheet.

    Args:
        rows: Pictures that belong together stand side by side.
        columns_wide: Rows that stand beside each other.
    """
    per_row = max(len(row) for row in rows)
    cell_width, cell_height = TILE_SIDE + GAP, TILE_SIDE + CAPTION_HEIGHT + GAP
    lines = math.ceil(len(rows) / columns_wide)
    columns = min(columns_wide, len(rows)) * per_row
    sheet = Image.new("RGB", (columns * cell_width + GAP, lines * cell_height + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for number, row in enumerate(rows):
        line, block = divmod(number, columns_wide)
        for column, tile in enumerate(row):
            left = GAP + (block * per_row + column) * cell_width
            top = GAP + line * cell_height
            sheet.paste(_fit(tile.pixels), (left, top))
            text = "\n".join(_shorten(part, pen, font) for part in tile.caption.split("\n")[:2])
            pen.multiline_text((left, top + TILE_SIDE + 2), text, INK, font, spacing=2)
    return sheet


def _fit(pixels: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(pixels)
    scale = TILE_SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # Small pictures keep their pixels visible.
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    tile = Image.new("RGB", (TILE_SIDE, TILE_SIDE), PAPER)
    tile.paste(image.resize(size, method), ((TILE_SIDE - size[0]) // 2, (TILE_SIDE - size[1]) // 2))
    return tile


def _shorten(text: str, pen: ImageDraw.ImageDraw, font: Font) -> str:
    if pen.textlength(text, font) <= TILE_SIDE:
        return text
    while text and pen.textlength(f"{text}…", font) > TILE_SIDE:
        text = text[:-1]
    return f"{text}…"

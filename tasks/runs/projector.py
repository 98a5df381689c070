"""Bottlenecks laid out for TensorBoard's projector: each a point with class, file and thumbnail."""

import csv
import math
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.config import SPLITS
from headstart.errors import DatasetError
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.decode import decode_image
from headstart.tasks.dataset.index import ImageRow
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.stage import index_of

THUMBNAIL_SIDE = 48
"""Pixels of a picture on the sprite: 4,096 of them make a sprite of 3,072 pixels a side."""
CONFIG = f"""embeddings {{
  tensor_name: "bottlenecks"
  tensor_path: "bottlenecks.tsv"
  metadata_path: "metadata.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {THUMBNAIL_SIDE}
    single_image_dim: {THUMBNAIL_SIDE}
  }}
}}
"""


def write_projector(log_dir: Path, features: Features, num_images: int) -> None:
    """Write the plain bottlenecks of some images, spread over the splits.

    A bottleneck with positions is averaged over them, as a linear head does.
    """
    index = index_of(features.dataset)
    rows = {split: index.rows_of(split) for split in SPLITS}
    total = sum(map(len, rows.values()))
    step = max(1, math.ceil(total / num_images))
    shown: list[ImageRow] = []
    values = []
    for split, opened in features.open(SPLITS).items():
        places = np.arange(0, len(opened), step)
        read = np.asarray(opened.gather(places, 0), np.float32)
        values.append(read.reshape(len(places), -1, read.shape[-1]).mean(axis=1))
        shown += [rows[split][place] for place in places]
    log_dir.mkdir(parents=True, exist_ok=True)
    np.savetxt(log_dir / "bottlenecks.tsv", np.concatenate(values), fmt="%.5g", delimiter="\t")
    with (log_dir / "metadata.tsv").open("w", encoding="utf-8", newline="") as file:
        # The projector splits lines at tabs and knows no quotes; printable() escapes tabs.
        writer = csv.writer(
            file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
        )
        writer.writerow(("class", "file", "split"))
        for row in shown:
            (target,) = features.target.to_array([row], len(index.class_names))
            name = features.target.words(target, index.class_names)
            writer.writerow((printable(name), printable(row.path), row.split))
    source = features.source
    _sprite(shown, dataset_root(source), source.max_pixels).save(log_dir / "sprite.png")
    (log_dir / "projector_config.pbtxt").write_text(CONFIG, encoding="utf-8")


def _sprite(rows: list[ImageRow], root: Path, max_pixels: int) -> Image.Image:
    """Draw the images in the order of the points, row by row; gray where one is gone."""
    across = math.ceil(math.sqrt(len(rows)))
    side = THUMBNAIL_SIDE
    sprite = Image.new("RGB", (across * side, across * side), (128, 128, 128))
    for number, row in enumerate(rows):
        try:
            pixels = decode_image((root / row.path).read_bytes(), max_pixels)
        except (OSError, DatasetError):
            continue
        down, right = divmod(number, across)
        sprite.paste(Image.fromarray(pixels).resize((side, side)), (right * side, down * side))
    return sprite

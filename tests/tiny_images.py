"""Folders of tiny images, and what their index says."""

import io

import numpy as np
from PIL import Image

from headstart.config import DatasetConfig
from headstart.tasks.dataset.building import build_index


def png(seed, size=(6, 5)):
    """The bytes of a tiny image; another seed gives other bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def index_of(images, **options):
    return build_index(DatasetConfig(images=images, **options))


def split_by_path(index):
    return {row.path: row.split for row in index.rows}


def problem(index, path):
    found = [problem for problem in index.problems if problem.path == path]
    assert len(found) == 1, index.problems
    return found[0]

"""Bottlenecks in TensorBoard's projector."""

import csv
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector import projector_config_pb2

from headstart.tasks.runs.projector import THUMBNAIL_SIDE
from tests.pipeline import COLOURS, Pipeline


@pytest.mark.parametrize(("settings", "width"), [((), 16), (("bottlenecks.cut=second",), 8)])
def test_points_have_class_file_and_thumbnail(
    finished: Pipeline, settings: tuple[str, ...], width: int
) -> None:
    summary = finished.run("show.num_projected=12", "head.epochs=1", *settings)
    folder = Path(summary.run_dir) / "tensorboard"
    read = text_format.Parse(
        (folder / "projector_config.pbtxt").read_text(), projector_config_pb2.ProjectorConfig()
    )
    (embedding,) = read.embeddings
    points = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    lines = (folder / embedding.metadata_path).read_text().splitlines()
    rows = list(csv.DictReader(lines, delimiter="\t"))
    assert 10 <= len(points) == len(rows) <= 14
    assert points.shape[1] == width
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    with Image.open(folder / embedding.sprite.image_path) as sprite:
        assert sprite.size == (4 * THUMBNAIL_SIDE, 4 * THUMBNAIL_SIDE)
        for number, row in enumerate(rows):
            assert row["file"].startswith(row["class"])
            down, right = divmod(number, 4)
            middle = sprite.resize((4, 4), Image.Resampling.BOX).getpixel((right, down))
            assert np.abs(np.array(middle) - COLOURS[row["class"]]).max() < 30
    assert (folder / "train").is_dir()

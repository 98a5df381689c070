"""Views on a sheet beside their images."""

import io
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import Augmentation, Cutout, Flip, Rotation, ViewsConfig
from headstart.errors import DatasetError
from headstart.tasks.store.artifacts import use_store
from headstart.tasks.views import sheet
from headstart.tasks.views.contact_sheet import GAP, TILE_SIDE
from headstart.tasks.views.sheet import describe, draw_sheet, words
from tests.integration.test_cli import options
from tests.pipeline import SIDE, Pipeline

CELL = TILE_SIDE + GAP


def middle(page: Image.Image, column: int, row: int = 0) -> np.ndarray:
    """Return the pixels about the middle of a tile."""
    left, top = GAP + column * CELL + TILE_SIDE // 2, GAP + TILE_SIDE // 2
    return np.asarray(page.crop((left - 30, top - 30, left + 30, top + 30)), np.int32)


def test_a_sheet_has_the_image_its_plain_view_and_its_augmented_ones(finished: Pipeline) -> None:
    wanted = ViewsConfig(num_augmented=2, augmentations=(Cutout(min_area=0.9, max_area=0.95),))
    with use_store(finished.store):
        index, max_pixels = finished.index(), 10_000
        drawn = draw_sheet(index, finished.images, wanted, SIDE, max_pixels, 3)
        page = Image.open(io.BytesIO(drawn))
        assert page.size[0] == 4 * CELL + GAP
        plain, covered = middle(page, 1), middle(page, 2)
        assert np.abs(middle(page, 0) - plain).mean() < 12
        assert np.abs(covered - 128).max() < 12  # gray
        assert draw_sheet(index, finished.images, wanted, SIDE, max_pixels, 3) == drawn
        for path in finished.images.rglob("*.png"):
            path.unlink()
        assert draw_sheet(index, finished.images, wanted, SIDE, max_pixels, 3) == drawn  # kept
        with pytest.raises(DatasetError, match="cannot be read"):
            draw_sheet(index, finished.images, wanted, SIDE, max_pixels, 2)


def test_every_augmentation_is_put_into_words() -> None:
    kinds = get_args(get_args(Augmentation)[0])
    told = [words(kind()) for kind in kinds]
    assert len(set(told)) == len(kinds) >= 6
    both = describe(ViewsConfig(num_augmented=1, augmentations=(Flip(), Rotation(max_degrees=9))))
    assert "mirrored in 50% of the cases, then rotated by up to 9 degrees" in both
    assert "no augmented views" in describe(ViewsConfig())


def test_the_command_writes_the_picture_and_says_the_recipe(
    finished: Pipeline, tmp_path: Path
) -> None:
    command = ["views", str(finished.images), "--images", "2", "--out", str(tmp_path / "v.jpg")]
    told = CliRunner().invoke(app, [*command, *options(finished)])
    assert told.exit_code == 0, told.output
    assert "shifted by up to 2 pixels" in told.output
    with Image.open(tmp_path / "v.jpg") as page:
        assert page.size[0] == 6 * CELL + GAP
    as_json = CliRunner().invoke(app, [*command, "--json", *options(finished)])
    assert json.loads(as_json.stdout)["picture"] == str(tmp_path / "v.jpg")


def test_each_report_shows_what_the_network_was_shown(finished: Pipeline) -> None:
    summary = finished.run("head.epochs=2")
    assert "What the network sees" in Path(summary.report).read_text()
    assert (Path(summary.run_dir) / "views.jpg").is_file()


def test_a_sheet_that_is_remembered_is_not_drawn_again(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet, "_draw", None)
    finished.run("head.epochs=2")

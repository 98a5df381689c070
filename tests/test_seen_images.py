"""What a model has seen is kept apart from what it has not."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import SPLITS, ScratchDatasetConfig
from headstart.errors import ExportError
from headstart.tasks.dataset.folder_pixels import rows_by_split
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.export.seen_images import SEEN_FILE, seen_splits, write_seen
from tests.pipeline import Pipeline, add_images


@pytest.fixture
def run_dir(finished: Pipeline) -> Path:
    return Path(finished.run().run_dir)


def evaluated(model: Path, images: Path, *settings: str) -> Result:
    told = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["evaluate", str(model), str(images), "--json", *told])
    assert result.exit_code == 0, result.output
    return result


def judged(model: Path, images: Path, *settings: str) -> dict:
    return json.loads(evaluated(model, images, *settings).stdout)


def test_the_headline_is_about_images_that_were_not_trained_on(
    finished: Pipeline, run_dir: Path, tmp_path: Path
) -> None:
    own = judged(run_dir, finished.images)
    assert own["judged_on"] == "test"
    assert {name: one["num_images"] for name, one in own["groups"].items()} == {
        "test": 6, "val": 6, "train": 24,
    }  # fmt: skip
    assert own["num_images"] == 6
    add_images(finished.images, "red", [901, 902])
    (finished.images / "red" / "broken.png").write_bytes(b"no image")
    result = evaluated(run_dir, finished.images)
    assert 'All of them: under "left_out" in what --json prints\n' in result.stderr
    with_new = json.loads(result.stdout)
    assert with_new["judged_on"] == "new"
    assert [one["path"] for one in with_new["left_out"]] == ["red/broken.png"]
    assert judged(run_dir / "model.keras", finished.images)["num_images"] == 2

    others = tmp_path / "others"
    add_images(others, "red", [903, 904])  # as another program's table names them
    rows = [f"{path.name},red" for path in sorted((others / "red").iterdir())]
    (tmp_path / "table.csv").write_text("\n".join(["filename,class", *rows]))
    columns = ("dataset.path_column=filename", "dataset.label_column=class")
    root = f"dataset.root={others / 'red'}"
    assert judged(run_dir, tmp_path / "table.csv", *columns, root)["num_images"] == 2


def test_a_model_that_stands_alone_has_seen_nothing_that_is_known(
    run_dir: Path, finished: Pipeline, tmp_path: Path
) -> None:
    alone = shutil.copy(run_dir / "model.keras", tmp_path / "alone.keras")
    result = evaluated(Path(alone), finished.images)
    assert json.loads(result.stdout)["judged_on"] == "new"
    assert "not known which of these images the model was trained on" in result.stderr
    assert seen_splits(Path(alone), ["ab" * 32]) == [None]


def test_a_promoted_model_knows_what_it_was_trained_on(run_dir: Path, finished: Pipeline) -> None:
    store = ("--store", str(finished.store.root))
    assert CliRunner().invoke(app, ["promote", str(run_dir), *store]).exit_code == 0
    told = ["evaluate", "images@current", str(finished.images), "--json", *store]
    result = CliRunner().invoke(app, told)
    assert json.loads(result.stdout)["judged_on"] == "test"
    assert "the model was trained on 24 of these 36 images" in result.stderr


def test_scratch_knows_what_it_trained_on_whatever_the_split_is_called(tmp_path: Path) -> None:
    rows = tuple(
        ImageRow(f"{number}.png", f"{number:016x}".ljust(64, "0"), number % 2, split, 8, 8, "PNG")
        for number, split in enumerate(SPLITS * 2)
    )
    index = DatasetIndex(("a", "b"), rows)
    digests = [row.digest for row in rows]
    write_seen(tmp_path, rows_by_split(index, ScratchDatasetConfig(images=str(tmp_path))))
    assert seen_splits(tmp_path, digests) == ["train", "train", "test"] * 2
    write_seen(tmp_path, index.by_split)
    assert seen_splits(tmp_path, digests) == list(SPLITS * 2)


def test_images_are_known_by_their_content(run_dir: Path) -> None:
    assert (run_dir / SEEN_FILE).is_file()
    assert seen_splits(run_dir, ["ab" * 32]) == [None]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x02\x00{("])
def test_a_damaged_list_of_seen_images_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / SEEN_FILE).write_bytes(data)
    with pytest.raises(ExportError, match=SEEN_FILE):
        seen_splits(tmp_path, ["ab" * 32])

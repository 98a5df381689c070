"""What a model has seen is kept apart from what it has not."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from headstart.cli import app
from headstart.errors import ExportError
from headstart.tasks.export.seen_images import SEEN_FILE, seen_splits
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
    assert judged(Path(alone), finished.images)["judged_on"] == "new"
    assert seen_splits(Path(alone), ["ab" * 32]) == [None]


def test_images_are_known_by_their_content(run_dir: Path) -> None:
    assert (run_dir / SEEN_FILE).is_file()
    assert seen_splits(run_dir, ["ab" * 32]) == [None]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x02\x00{("])
def test_a_damaged_list_of_seen_images_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / SEEN_FILE).write_bytes(data)
    with pytest.raises(ExportError, match=SEEN_FILE):
        seen_splits(tmp_path, ["ab" * 32])

"""Leaving images out by a list."""

from pathlib import Path

import pytest

from headstart.config import DatasetConfig, load_config
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import build_index
from headstart.tasks.dataset.exclusion import MOST_UNMET, Exclusions, read_exclusions
from headstart.tasks.dataset.file_cache import Verdict
from headstart.tasks.dataset.inspection import InspectedImage
from headstart.tasks.dataset.listing import ListedImage
from headstart.tasks.dataset.stage import index_of, stage
from headstart.tasks.store.artifacts import Store
from tests.pipeline import Pipeline, write_images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def listed(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "leave.csv"
    path.write_text(text)
    return path


def test_images_named_by_path_or_digest_are_left_out(images: Path, tmp_path: Path) -> None:
    whole = build_index(DatasetConfig(images=images))
    by_path, by_digest = whole.rows[0], whole.rows[20]
    exclude = listed(tmp_path, f"digest,path,reason\n,{by_path.path},a\n{by_digest.digest},x,b\n")
    index = build_index(DatasetConfig(images=images, exclude=exclude))
    assert {row.path for row in whole.rows} - {row.path for row in index.rows} == {
        by_path.path,
        by_digest.path,
    }
    assert [problem.reason for problem in index.left_out] == ["excluded by leave.csv"] * 2
    assert "2 excluded by a list" in index.summary_lines()[0]


def test_plain_lines_do_as_well(images: Path, tmp_path: Path) -> None:
    path = build_index(DatasetConfig(images=images)).rows[0].path
    index = build_index(DatasetConfig(images=images, exclude=listed(tmp_path, f"./{path}\n\n")))
    assert path not in {row.path for row in index.rows}


def test_lists_of_spreadsheets_and_of_windows_are_read(images: Path, tmp_path: Path) -> None:
    path = build_index(DatasetConfig(images=images)).rows[0].path
    backslashes = path.replace("/", "\\")
    for text in (f"path;reason\r\n{path};blurred\r\n", f"\ufeff{backslashes}\r\n"):
        assert read_exclusions(listed(tmp_path, text)).paths == {path}
    exclude = listed(tmp_path, "path;reason\n")
    (problem,) = build_index(DatasetConfig(images=images, exclude=exclude)).problems
    assert "it names no image" in problem.reason


def test_lines_that_name_nothing_are_told_of(images: Path, tmp_path: Path) -> None:
    gone = [f"gone{number}.png" for number in range(5)]
    exclude = listed(tmp_path, "\n".join(["path", *gone]))
    index = build_index(DatasetConfig(images=images, exclude=exclude))
    assert not index.left_out
    assert [problem.reason for problem in index.problems] == [
        f"it names {name}, which is no image of this data set" for name in gone
    ]
    assert "  … and 2 more: lines of the list that name no image" in index.summary_lines()


def test_a_list_of_another_data_set_is_told_of_up_to_a_bound(images: Path, tmp_path: Path) -> None:
    text = "path\n" + "".join(f"gone{number}.png\n" for number in range(3 * MOST_UNMET))
    index = build_index(DatasetConfig(images=images, exclude=listed(tmp_path, text)))
    assert len(index.problems) == MOST_UNMET + 1
    counted = "3,000 of its lines name no image of this data set; the first 1,000 are listed"
    assert index.summary_lines()[1] == f"  leave.csv: {counted}"


def test_a_hit_tells_of_the_lines_of_now(images: Path, tmp_path: Path, store: Store) -> None:
    for name in ("gone.png", "lost.png"):  # one problem of the same path and kind each
        made = stage(DatasetConfig(images=images, exclude=listed(tmp_path, f"path\n{name}\n")))
        (problem,) = index_of(made).problems
        assert name in problem.reason


def test_what_was_asked_for_is_no_reason_to_refuse(images: Path, tmp_path: Path) -> None:
    path = build_index(DatasetConfig(images=images)).rows[0].path
    exclude = listed(tmp_path, path)
    assert build_index(DatasetConfig(images=images, exclude=exclude, strict=True)).left_out


def test_a_list_that_cannot_be_read_is_an_error(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.csv"):
        build_index(DatasetConfig(images=images, exclude=tmp_path / "nowhere.csv"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="UTF-8"):
        read_exclusions(tmp_path / "binary")


def test_excluding_an_image_retrains_the_head_alone(finished: Pipeline, tmp_path: Path) -> None:
    path = finished.index().rows_of("train")[0].path
    exclude = listed(tmp_path, path)
    outcome = finished.extract(f"dataset.exclude={exclude}")
    assert outcome.rows_computed == 0
    assert finished.num_passed() == 0
    summary = finished.run(f"dataset.exclude={exclude}")
    config = load_config(file=Path(summary.run_dir) / "config.yaml")
    assert config.dataset.exclude == exclude


class _Counted(frozenset[str]):
    """A set that counts how often it is joined with another."""

    num_unions = 0

    def __or__(self, other: object) -> frozenset[str]:  # type: ignore[override]
        type(self).num_unions += 1
        return frozenset.__or__(self, other)  # type: ignore[operator]


def test_the_list_is_put_together_once_not_for_each_image() -> None:
    verdict = Verdict(reason=None, width=1, height=1, format="PNG")
    images = [
        InspectedImage(ListedImage(f"a/{number}.png", "", "a", None), f"{number:064x}", verdict)
        for number in range(50)
    ]
    exclusions = Exclusions("list", _Counted({f"{3:064x}"}), _Counted({"a/7.png"}))
    kept, problems = exclusions.apply(images)
    assert (len(kept), [problem.path for problem in problems]) == (48, ["a/3.png", "a/7.png"])
    assert _Counted.num_unions == 1

"""Which folders among the images are splits, which classes, and which neither."""

import errno
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.config import DatasetConfig
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import build_index
from headstart.tasks.dataset.class_names import doubtful_names
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.layout import split_meant
from headstart.tasks.running.task_options import is_worth_retrying


def photos(root: Path, *folders: str, number: int = 2) -> Path:
    """Write tiny images of their own bytes into folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            seed = zlib.crc32(f"{folder}/{i}".encode())
            pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    return root


def index_of(images: Path, **options: object) -> DatasetIndex:
    return build_index(DatasetConfig.model_validate({"images": images, **options}))


def kinds(index: DatasetIndex) -> dict[str, str]:
    return {problem.path: problem.kind for problem in index.problems}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Training", "Test"), {"train", "val", "test"}),
        (("train", "dev", "test"), {"train", "val", "test"}),
        (("TRAIN", "Valid"), {"train", "val"}),
        (("seg_train", "seg_test"), {"train", "val", "test"}),
        (("train2017", "val2017"), {"train", "val"}),
        (("train_set", "test_set"), {"train", "val", "test"}),
        (("TrainImages", "EvalImages"), {"train", "val"}),
        (("trainset", "valset", "testset"), {"train", "val", "test"}),
        (("training_data", "testing"), {"train", "val", "test"}),
    ],
)
def test_split_folders_are_known_by_other_names(
    tmp_path: Path, names: tuple[str, ...], splits: set[str]
) -> None:
    photos(tmp_path, *(f"{name}/{label}" for name in names for label in ("cat", "dog")), number=8)
    index = index_of(tmp_path, val_fraction=0.5)
    assert index.class_names == ("cat", "dog")
    assert {row.split for row in index.rows} == splits
    sure = {"train", "val", "valid", "validation", "test"}
    guessed = [name for name in names if name.casefold() not in sure]
    for name in guessed:
        assert kinds(index)[name] == "split_name"


@pytest.mark.parametrize(
    "name", ["test tubes", "trains", "dogs", "evaluators", "devil", "valley", "a test of time"]
)
def test_a_word_that_only_begins_like_a_split_is_none(name: str) -> None:
    assert split_meant(name, {}) is None


@pytest.mark.parametrize("other", ["holdout", "extra", "annotations"])
def test_an_unknown_folder_beside_splits_is_refused_with_the_setting(
    tmp_path: Path, other: str
) -> None:
    photos(tmp_path, "train/cat", "train/dog", f"{other}/cat", f"{other}/dog")
    with pytest.raises(DatasetError, match="mixes split folders") as caught:
        index_of(tmp_path)
    assert f"dataset.split_names={{{other}: ignore}}" in caught.value.next_step
    index = index_of(tmp_path, split_names={other: "val"})
    assert index.split_counts == {"train": (2, 2), "val": (2, 2)}
    assert (
        "val"
        not in index_of(tmp_path, split_names={other: "ignore"}, val_fraction=0.0).split_counts
    )


def test_splits_of_any_name_can_be_named(tmp_path: Path) -> None:
    photos(tmp_path, "Lernen/cat", "Lernen/dog", "Pruefen/cat", "Pruefen/dog")
    with pytest.raises(DatasetError, match="hold folders with the same names") as caught:
        index_of(tmp_path)
    assert "dataset.split_names={Lernen: train, Pruefen: test}" in caught.value.next_step
    names = {"lernen": "train", "Pruefen": "val"}
    assert index_of(tmp_path, split_names=names).split_counts == {"train": (2, 2), "val": (2, 2)}
    index = index_of(tmp_path, layout="classes")
    assert index.class_names == ("Lernen", "Pruefen")


def test_a_name_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    photos(tmp_path, "train/cat", "train/dog")
    with pytest.raises(DatasetError, match="there is no tets"):
        index_of(tmp_path, split_names={"tets": "test"})


@pytest.mark.parametrize(
    "folders",
    [
        ("images/train/cat", "images/val/cat", "labels/train/cat", "labels/val/cat"),
        ("flowers/train/a", "flowers/test/a", "birds/train/b", "birds/test/b"),
        ("cat/train", "cat/test", "dog/train", "dog/test"),
    ],
)
def test_splits_one_level_deeper_are_refused(tmp_path: Path, folders: tuple[str, ...]) -> None:
    photos(tmp_path, *folders)
    with pytest.raises(DatasetError, match="one level deeper") as caught:
        index_of(tmp_path)
    assert "as the path" in caught.value.next_step


@pytest.mark.parametrize(
    ("folders", "problem"),
    [
        (("train2017", "val2017", "annotations"), "the split folders hold no class folders"),
        (("a/train/cat", "a/train/dog", "b/train/cat", "b/train/dog"), "the split folders do not"),
        (("a/train/cat", "a/train/dog", "b/test/cat", "b/test/dog"), "the split folders do not"),
        (("fold1", "fold2", "fold3"), "these folders are numbered"),
        (("Part_01", "part_02"), "these folders are numbered"),
    ],
)
def test_parts_of_a_data_set_are_no_classes(
    tmp_path: Path, folders: tuple[str, ...], problem: str
) -> None:
    photos(tmp_path, *folders)
    with pytest.raises(DatasetError, match=problem) as caught:
        index_of(tmp_path)
    assert "dataset.layout=classes" in (caught.value.next_step or "")
    assert len(index_of(tmp_path, layout="classes").class_names) > 1


def test_a_class_may_be_called_as_a_split_or_hold_one(tmp_path: Path) -> None:
    photos(tmp_path / "vehicles", "train", "bus", "plane")
    assert index_of(tmp_path / "vehicles").class_names == ("bus", "plane", "train")
    photos(tmp_path / "pets", "cat/train", "dog/train")
    assert index_of(tmp_path / "pets").class_names == ("cat", "dog")


def test_folders_inside_class_folders_are_no_splits_where_they_differ(tmp_path: Path) -> None:
    photos(tmp_path, "cat/indoor", "cat/garden", "dog/beach", "dog/indoor", "dog/street")
    assert index_of(tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "name",
    [
        *("lost+found", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"),
        *("__pycache__", ".ipynb_checkpoints", "#recycle"),
    ],
)
@pytest.mark.parametrize("splits", [False, True])
def test_folders_of_systems_and_tools_are_no_classes(
    tmp_path: Path, name: str, splits: bool
) -> None:
    classes = ["cat", "dog", name]
    folders = [f"{s}/{c}" for s in ("train", "val") for c in classes] if splits else classes
    index = index_of(photos(tmp_path, *folders, *([name] if splits else [])))
    assert index.class_names == ("cat", "dog")
    assert index.num_ignored > 0


def test_a_system_folder_that_cannot_be_entered_costs_nothing(tmp_path: Path) -> None:
    photos(tmp_path, "cat", "dog")
    (tmp_path / "lost+found").mkdir(mode=0)
    assert index_of(tmp_path, strict=True).class_names == ("cat", "dog")


def own_folders(root: Path) -> None:
    for name, files in {
        "runs/first": ("run.json", "config.yaml", "model.keras"),
        "begun": ("config.yaml",),
        "store": ("store.json", "tmp/x", "locks/x"),
        "checked": ("findings.csv", "exclude.csv"),
        "explanation": ("contact_sheet.png", "0.png"),
        "cat/inner run": ("model.json", "labels.txt"),
    }.items():
        for file in files:
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("dataset: {images: photos}\n")
        photos(root, f"{name}/plots") if name != "explanation" else None


def test_what_headstart_wrote_among_the_images_is_no_class(tmp_path: Path) -> None:
    photos(tmp_path, "cat", "dog")
    own_folders(tmp_path)
    index = index_of(tmp_path)
    assert index.class_names == ("cat", "dog")
    assert len(index.rows) == 4
    own = [problem.path for problem in index.problems if problem.kind == "own_output"]
    assert own == ["begun", "cat/inner run", "checked", "explanation", "runs/first", "store"]


def test_what_headstart_wrote_beside_split_folders_is_no_class(tmp_path: Path) -> None:
    photos(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    own_folders(tmp_path)
    (tmp_path / "cat").rename(tmp_path / "val" / "run")
    assert index_of(tmp_path).split_counts == {"train": (2, 2), "val": (2, 2)}


def test_a_config_of_another_program_makes_no_run(tmp_path: Path) -> None:
    photos(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "config.yaml").write_text("camera: {lens: 50}\n")
    assert len(index_of(tmp_path).rows) == 4


@pytest.mark.parametrize("name", [" ", "  ", "\u200b", "\u3000"])
def test_a_folder_with_a_blank_name_is_no_class(tmp_path: Path, name: str) -> None:
    index = index_of(photos(tmp_path, "cat", "dog", name))
    assert index.class_names == ("cat", "dog")
    assert [problem.kind for problem in index.left_out] == ["bad_name"]


@pytest.mark.parametrize(
    "names",
    [("Cat", "cat"), ("1", "1.0"), ("ice cream", "ice_cream"), ("007", "7"), ("NaN", "nan")],
)
def test_classes_that_look_alike_get_a_word(tmp_path: Path, names: tuple[str, str]) -> None:
    index = index_of(photos(tmp_path, *names))
    assert len(index.class_names) == 2
    (found,) = [
        p for p in index.problems if p.kind == "doubtful_name" and "2 separate classes" in p.reason
    ]
    assert all(repr(name) in found.reason for name in names)


def test_of_many_classes_that_look_alike_each_pair_gets_a_word() -> None:
    names = [f"{word}{number}" for number in range(25) for word in ("cat", "Cat")]
    assert len(list(doubtful_names(names))) == 25


def test_a_number_beside_true_and_a_missing_value_get_a_word(tmp_path: Path) -> None:
    index = index_of(photos(tmp_path, "1", "True", "null"))
    reasons = {p.path: p.reason for p in index.problems if p.kind == "doubtful_name"}
    assert "mixed kinds" in reasons["True, 1"]
    assert "no label" in reasons["null"]


def test_folders_that_differ_in_white_space_alone_are_one_class_with_a_word(tmp_path: Path) -> None:
    index = index_of(photos(tmp_path, "cat", "cat ", "dog", "cafe\u0301", "caf\u00e9"))
    assert index.class_names == ("caf\u00e9", "cat", "dog")
    reasons = [p.reason for p in index.problems if p.kind == "doubtful_name"]
    assert len(reasons) == 2
    assert all("are one class" in reason for reason in reasons)


def test_links_that_leave_the_folder_are_followed_where_the_user_says_so(tmp_path: Path) -> None:
    photos(tmp_path / "blobs", "a", "b")
    for label in ("a", "b"):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for blob in (tmp_path / "blobs" / label).iterdir():
            (folder / blob.name).symlink_to(blob)
    with pytest.raises(DatasetError, match=r"dataset\.allow_outside=true"):
        index_of(tmp_path / "images")
    index = index_of(tmp_path / "images", allow_outside=True)
    assert len(index.rows) == 4
    assert str(tmp_path) not in index.to_json()


@pytest.mark.parametrize(
    "layout", ["one of two", "nested", "files of one class", "all", "held out"]
)
def test_the_advice_names_what_follows_links_where_classes_are_links(
    tmp_path: Path, layout: str
) -> None:
    photos(tmp_path / "blobs", "a", "b")
    images = tmp_path / "images"
    images.mkdir()
    if layout == "one of two":
        photos(images, "a")
        (images / "a" / "inner").mkdir()
        (images / "b").symlink_to(tmp_path / "blobs" / "b")
    elif layout == "held out":
        photos(images / "val", "a", "b")
        (images / "train").symlink_to(tmp_path / "blobs")
    elif layout == "nested":
        (images / "outer").mkdir()
        for label in ("a", "b"):
            (images / "outer" / label).symlink_to(tmp_path / "blobs" / label)
    else:
        photos(images, *(["a"] if layout == "files of one class" else []))
        for label in ("a", "b"):
            (images / label).mkdir(exist_ok=True)
        for label in "b" if layout == "files of one class" else "ab":
            for blob in (tmp_path / "blobs" / label).iterdir():
                (images / label / blob.name).symlink_to(blob)
    with pytest.raises(DatasetError) as caught:
        index_of(images)
    assert caught.value.next_step.startswith("--set dataset.allow_outside=true follows the links")


def test_images_at_an_address_are_refused_with_what_to_do() -> None:
    with pytest.raises(DatasetError, match="a URL") as caught:
        index_of(Path("s3://bucket/photos"))
    assert "download" in caught.value.next_step


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EMFILE])
@pytest.mark.parametrize("what", ["stray", "link", "root"])
def test_a_moment_without_the_file_server_costs_no_link_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, what: str
) -> None:
    photos(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "link.png").symlink_to("0.png")
    (tmp_path / "stray.png").write_bytes(b"")
    failing = {"stray": "stray.png", "link": "link.png", "root": tmp_path.name}[what]

    def fail(original: object) -> object:
        def call(path: object, *arguments: object, **options: object) -> object:
            if os.fspath(path).endswith(failing):  # type: ignore[call-overload]
                raise OSError(code, os.strerror(code))
            return original(path, *arguments, **options)  # type: ignore[operator]

        return call

    target = {"stray": (Path, "open"), "link": (os.path, "realpath"), "root": (Path, "stat")}[what]
    monkeypatch.setattr(*target, fail(getattr(*target)))
    with pytest.raises(DatasetError, match="run the command again") as caught:
        index_of(tmp_path)
    assert is_worth_retrying(caught.value)

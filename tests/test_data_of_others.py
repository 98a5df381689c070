"""Folders, tables and files as other people's tools leave them: used, told or refused, with a cure.

Each row is a kind of public bug report about image-classification tools: what lies there, and
what must be said of it.
"""

import io
import struct
import zlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from headstart.config import DatasetConfig, TransferConfig, build_config
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import build_index
from headstart.tasks.dataset.decode import UndecodableImage, decode_image, inspect_image
from headstart.tasks.dataset.index import DatasetIndex


def png(name: str) -> bytes:
    pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (5, 6, 3))
    return encoded(pixels.astype(np.uint8))


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def folder_of(root: Path, *files: str) -> Path:
    """Write files; of those that end in a slash, folders with two images each."""
    for file in files:
        for name in [f"{file}{i}.png" for i in range(2)] if file.endswith("/") else [file]:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(name) if path.suffix in (".png", ".jpg", ".JPEG") else b"text")
    return root


def index_of(images: Path, **options: object) -> DatasetIndex:
    return build_index(DatasetConfig.model_validate({"images": images, **options}))


def told(index: DatasetIndex) -> str:
    return "\n".join(map(str, index.problems))


TINY_IMAGENET = ("train/n01/images/", "train/n02/images/", "val/images/", "val/notes.txt")
TREES = [
    # A split without classes of its own (Tiny ImageNet), or with classes under other names.
    (TINY_IMAGENET, "none of the classes that are trained on", "val has images, train has n01"),
    (("train/Cat/", "train/Dog/", "val/cat/", "val/dog/"), "none of the classes", "split_names"),
    # Images and what belongs to them (Oxford Pets, CUB, YOLO, segmentation): no class each.
    (("images/a.jpg", "annotations/trimaps/a.png"), "their annotations", "manifest"),
    (("images/1.A/", "images/2.B/", "parts/x.txt"), "their annotations", "/images as the"),
    (("train/images/", "train/masks/", "val/images/"), "their annotations", "layout=classes"),
    (("images/train/", "labels/a.txt"), "their annotations", "/images as the path"),
    # A single folder around the classes, beside one without images.
    (("data/cat/", "data/dog/", "docs/a.txt"), "two classes with usable", "/data as the path"),
    # Flat folders with a table or archives beside.
    (("train/cat.1.png", "train/dog.1.png", "train/metadata.csv"), "two class", "metadata.csv is"),
    (("a.png", "b.png"), "two class folders", "CSV file with the columns path and label"),
    (("cat.zip", "dog.zip"), "two class folders", "in archives (cat.zip), unpack"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "wrong", "cure"), TREES)
def test_a_tree_that_means_something_else_is_refused_with_the_cure(
    tmp_path: Path, files: tuple[str, ...], wrong: str, cure: str
) -> None:
    with pytest.raises(DatasetError, match=wrong) as caught:
        index_of(folder_of(tmp_path, *files))
    assert cure in str(caught.value)


def test_images_that_are_only_judged_are_asked_for_one_class_folder(tmp_path: Path) -> None:
    config = DatasetConfig(images=folder_of(tmp_path, "a.png"))
    with pytest.raises(DatasetError, match="at least one class folder"):
        build_index(config, for_training=False)


NOTED = [
    (("cat/", "dog/", "_unlabeled/"), "no label"),
    (("cat/", "cat./", "dog/"), "are 2 separate classes"),
    (("train/cat /", "train/dog/", "val/cat/", "val/dog/"), "are one class"),
    (("train/a/", "train/b/", "val/a/", "valid/b/"), "used as the val split, like val is"),
    (("train/a/", "train/b/", "test/1.jpg"), "holds no class folder, so it adds no test image"),
    (("cat/", "dog/", "cat/.9.jpg.icloud"), "in iCloud"),
]


@pytest.mark.parametrize(("files", "words"), NOTED)
def test_what_may_not_be_meant_gets_a_line(
    tmp_path: Path, files: tuple[str, ...], words: str
) -> None:
    assert words in told(index_of(folder_of(tmp_path, *files)))


@pytest.mark.parametrize("name", ["node_modules/", "CVS/", "cat/0.png:Zone.Identifier"])
def test_more_of_what_systems_leave_is_passed_over(tmp_path: Path, name: str) -> None:
    index = index_of(folder_of(tmp_path, "cat/", "dog/", name))
    assert index.class_names == ("cat", "dog")
    assert not index.left_out


def test_a_thin_given_split_is_not_answered_with_the_seed_of_a_drawn_one(tmp_path: Path) -> None:
    index = index_of(folder_of(tmp_path, "train/a/", "train/b/", "val/a/"))
    assert "no val image" in told(index)
    assert "split_seed" not in told(index)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("images.zip", "unpack"),
        ("images.tar.gz", "unpack"),
        ("one.jpg", "headstart predict"),
        ("train.txt", "path,label"),
    ],
)
def test_what_is_no_folder_is_refused_with_what_to_do_of_it(
    tmp_path: Path, name: str, cure: str
) -> None:
    with pytest.raises(DatasetError, match="neither a folder") as caught:
        index_of(folder_of(tmp_path, name) / name)
    assert cure in caught.value.next_step


def table(root: Path, spell: object = str, header: str = "path,label", more: str = "") -> Path:
    folder_of(root, "cat/a b.png", "cat/c.png", "dog/d e.png", "dog/f.png")
    rows = [p.relative_to(root).as_posix() for p in sorted(root.glob("*/*.png"))]
    text = "".join(f"{spell(path)},{path[:3]}{more}\n" for path in rows)  # type: ignore[operator]
    (root / "m.csv").write_text(f"{header}\n{text}")
    return root / "m.csv"


SPELLINGS = [
    (quote, "%20"),
    (lambda path: f"/{path}", "begin with a slash"),
    (lambda path: path.replace("cat/", "Cat/").replace(".png", ".PNG"), "another case"),
]


@pytest.mark.parametrize(("spell", "words"), SPELLINGS)
def test_paths_that_can_mean_one_file_only_are_found_and_told(
    tmp_path: Path, spell: object, words: str
) -> None:
    index = index_of(table(tmp_path, spell))
    assert len(index.rows) == 4
    assert words in told(index)


def test_names_that_differ_in_capitals_from_two_files_are_missing(tmp_path: Path) -> None:
    file = table(tmp_path, lambda path: path.replace("cat/c.png", "cat/C.png"))
    (tmp_path / "cat" / "c.PNG").write_bytes(png("another"))
    assert "m.csv line 3: cat/C.png: no such file" in told(index_of(file))


def test_an_empty_table_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(" \n\n")
    with pytest.raises(DatasetError, match="the manifest is empty"):
        index_of(tmp_path / "m.csv")


def test_columns_of_flags_are_told_with_their_settings(tmp_path: Path) -> None:
    file = table(tmp_path, header="path,label,is_valid", more=",True")
    assert "dataset.split_column=is_valid" in told(index_of(file))
    with pytest.raises(DatasetError, match=r"split_names=.'True': val"):
        index_of(file, split_column="is_valid")
    file = table(tmp_path, header="path,cat")
    with pytest.raises(DatasetError, match=r"dataset\.label_columns"):
        index_of(file)


@pytest.mark.parametrize("names", ["{True: val, False: train}", "{0: val, 1: train}"])
def test_words_for_splits_may_look_like_switches_and_numbers(names: str) -> None:
    config = build_config(TransferConfig, "x", None, f"dataset.split_names={names}")
    assert list(config.dataset.split_names.values()) == ["val", "train"]


STRANGERS = [
    (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40), "HEIC"),
    (b"\n<!DOCTYPE html><html>404", "web page"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
    (b"PK\x03\x04" + bytes(20), "archive"),
    (b"\xff\x0a" + bytes(20), "JPEG XL"),
    (b"a caption", "text"),
    (bytes(300), "zeros"),
]


@pytest.mark.parametrize(("data", "words"), STRANGERS)
def test_a_file_that_is_no_image_is_called_by_what_it_is(data: bytes, words: str) -> None:
    with pytest.raises(UndecodableImage, match=words) as caught:
        decode_image(data, 10**6)
    assert caught.value.flaw == "not_an_image"


def tiff(bits: tuple[int, ...], data: bytes, photometric: int = 1, subfile: int = 0) -> bytes:
    """An uncompressed TIFF of 4 x 4 pixels, with channels of so many bits."""
    count = len(bits)
    ends_at = 8 + 2 + 12 * 10 + 4
    values = [
        (254, 4, 1, subfile), (256, 3, 1, 4), (257, 3, 1, 4),
        (258, 3, count, ends_at if count > 2 else bits[0]), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, ends_at + 2 * count), (277, 3, 1, count),
        (278, 3, 1, 4), (279, 4, 1, len(data)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *value) for value in values)
    depths = struct.pack(f"<{count}H", *bits)
    return b"II*\0" + struct.pack("<IH", 8, 10) + entries + bytes(4) + depths + data


def test_channels_that_are_not_read_are_no_damage() -> None:
    with pytest.raises(UndecodableImage, match="pixel layout") as caught:
        decode_image(tiff((8,) * 5, bytes(80)), 10**6)
    assert caught.value.flaw == "pixel_type"


def test_the_thumbnail_of_a_raw_photo_gets_a_word() -> None:
    data = tiff((8,) * 3, bytes(range(48)), photometric=2, subfile=1)
    assert "thumbnail" in inspect_image(data, 10**6).notes
    assert not inspect_image(tiff((8,) * 3, bytes(range(48)), photometric=2), 10**6).notes


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_12_bits_in_16_get_a_word(form: str) -> None:
    dark = np.full((4, 4), 4000, np.uint16)
    assert "almost black" in inspect_image(encoded(dark, form), 10**6).notes
    assert not inspect_image(encoded(dark * 10, form), 10**6).notes

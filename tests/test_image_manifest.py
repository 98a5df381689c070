"""Image manifests: CSV and Parquet tables of path, label and split."""

import io

import numpy as np
import pytest
from PIL import Image

from headstart.config import DatasetConfig
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import build_index, dataset_root


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


def manifest(root, text, name="labels.csv"):
    file = root / name
    file.write_text(text, encoding="utf-8")
    return file


def pool(root):
    return write(root, {f"images/{i}.png": png(i) for i in range(4)})


LINES = "images/0.png,cat\nimages/1.png,cat\nimages/2.png,7\nimages/3.png,7\n"


def test_csv_manifest_gives_rows_with_text_labels(tmp_path):
    file = manifest(pool(tmp_path), "\ufeffpath,label\n" + LINES)
    index = index_of(file)
    assert index.class_names == ("7", "cat")
    assert [(row.path, row.label) for row in index.rows] == [
        ("images/0.png", 1),
        ("images/1.png", 1),
        ("images/2.png", 0),
        ("images/3.png", 0),
    ]
    assert dataset_root(DatasetConfig(images=file)) == tmp_path


@pytest.mark.parametrize("sign", [";", "\t"])
def test_semicolons_and_tabs_are_understood(tmp_path, sign):
    text = "path,label\n" + LINES.replace("7", '"seven, or so"')
    comma = index_of(manifest(pool(tmp_path), text))
    other = text.replace('"seven, or so"', "SEVEN").replace(",", sign)
    other = other.replace("SEVEN", "seven, or so")
    assert index_of(manifest(tmp_path, other)).rows == comma.rows


def test_manifest_split_holds(tmp_path):
    text = "label,path,split,extra\na,images/0.png,train,x\nb,images/1.png,Train,x\n"
    text += "a,images/2.png,validation,x\nb,images/3.png,val,x\n"
    index = index_of(manifest(pool(tmp_path), text))
    assert index.split_counts == {"train": (1, 1), "val": (1, 1)}


def test_parquet_manifest_equals_the_csv_one(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pool(tmp_path)
    table = {"path": [f"images/{i}.png" for i in range(4)], "label": [3, 3, 12, 12]}
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    lines = "".join(f"{p},{c}\n" for p, c in zip(table["path"], table["label"], strict=True))
    csv_file = manifest(tmp_path, "path,label\n" + lines)
    assert index_of(tmp_path / "labels.parquet") == index_of(csv_file)


def test_absolute_path_inside_the_folder_becomes_relative(tmp_path):
    text = "path,label\n" + LINES.replace("images/0.png", str(tmp_path / "images" / "0.png"))
    index = index_of(manifest(pool(tmp_path), text))
    assert index.rows[0].path == "images/0.png"
    assert str(tmp_path) not in index.to_json()


def test_unusable_manifest_lines_are_named_by_number(tmp_path):
    outside = write(tmp_path / "outside", {"9.png": png(9)}) / "9.png"
    text = f"path,label\n{LINES},cat\nimages/0.png,\n{outside},cat\nimages/99.png,cat\nimages,cat\n"
    root = pool(tmp_path / "root")
    index = index_of(manifest(root, text))
    assert [(found.path, found.kind) for found in index.left_out] == [
        ("labels.csv line 10", "special_file"),
        ("labels.csv line 6", "manifest_line"),
        ("labels.csv line 7", "manifest_line"),
        ("labels.csv line 8", "manifest_line"),
        ("labels.csv line 9", "missing"),
    ]
    assert "images/99.png" in problem(index, "labels.csv line 9").reason
    assert "absolute" in problem(index, "labels.csv line 8").reason
    assert str(tmp_path) not in index.to_json()


def test_unknown_and_missing_splits_are_named(tmp_path):
    text = "path,label,split\nimages/0.png,a,train\nimages/1.png,b,train\n"
    text += "images/2.png,a,dev\nimages/3.png,b,\n"
    index = index_of(manifest(pool(tmp_path), text))
    assert "'dev'" in problem(index, "labels.csv line 4").reason
    assert "empty, though other lines give one" in problem(index, "labels.csv line 5").reason


def test_path_with_two_labels_is_left_out(tmp_path):
    text = "path,label\n" + LINES + "./images/0.png,7\nimages/1.png,cat\n"
    index = index_of(manifest(pool(tmp_path), text))
    assert "7 and cat (lines 2, 6)" in problem(index, "images/0.png").reason
    twice = problem(index, "images/1.png")
    assert (twice.kind, twice.left_out) == ("listed_twice", False)
    assert [row.path for row in index.rows] == ["images/1.png", "images/2.png", "images/3.png"]


def test_path_in_two_splits_stays_held_out(tmp_path):
    text = "path,label,split\nimages/0.png,a,train\nimages/1.png,b,train\nimages/2.png,a,train\n"
    text += "images/0.png,a,val\n"
    index = index_of(manifest(pool(tmp_path), text))
    assert split_by_path(index)["images/0.png"] == "val"
    assert len(index.rows) == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"file,class\na.png,b\n", "the columns file, class"),
        (b"", "(none)"),
        (b"path,label\n\xff\xfe,b\n", "UTF-8"),
        (b'path,label\n"a.png,b\n', "CSV"),
    ],
)
def test_unreadable_csv_is_refused(tmp_path, data, words):
    write(tmp_path, {"labels.csv": data})
    with pytest.raises(DatasetError) as caught:
        index_of(tmp_path / "labels.csv")
    assert words in str(caught.value)


def test_unreadable_parquet_is_refused(tmp_path):
    write(tmp_path, {"labels.parquet": b"not parquet"})
    with pytest.raises(DatasetError, match="A readable Parquet file"):
        index_of(tmp_path / "labels.parquet")

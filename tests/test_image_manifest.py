"""Image manifests: CSV and Parquet tables of path, label and split."""

import errno
import json
import os
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import pytest

from headstart.config import DatasetConfig
from headstart.errors import DatasetError
from headstart.tasks.dataset import other_tables
from headstart.tasks.dataset.building import build_index, dataset_root
from headstart.tasks.running.task_options import is_worth_retrying
from tests.tiny_images import index_of, png, problem, split_by_path, write


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
    text += "images/2.png,a,extra\nimages/3.png,b,\n"
    index = index_of(manifest(pool(tmp_path), text))
    assert "'extra'" in problem(index, "labels.csv line 4").reason
    assert "empty, although other lines have one" in problem(index, "labels.csv line 5").reason


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
        (b"", "the manifest is empty"),
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
    with pytest.raises(DatasetError, match="the Parquet file cannot be read"):
        index_of(tmp_path / "labels.parquet")


# Paths


def elsewhere(tmp_path):
    """A manifest in one folder, whose lines name images in another by absolute paths."""
    pool(tmp_path / "data")
    lines = LINES.replace("images/", f"{tmp_path}/data/images/")
    (tmp_path / "lists").mkdir()
    return manifest(tmp_path / "lists", "path,label\n" + lines)


def test_absolute_paths_elsewhere_are_refused_with_the_settings_that_take_them(tmp_path):
    file = elsewhere(tmp_path)
    with pytest.raises(DatasetError, match="4 of 4 are absolute and lead out of") as caught:
        index_of(file)
    assert f"--set dataset.root={tmp_path}/data/images " in caught.value.next_step
    assert "--set dataset.allow_outside=true" in caught.value.next_step


def test_a_root_of_their_own_takes_absolute_and_relative_paths(tmp_path):
    config = DatasetConfig(images=elsewhere(tmp_path), root=tmp_path / "data")
    index = build_index(config)
    assert [row.path for row in index.rows] == [f"images/{i}.png" for i in range(4)]
    assert dataset_root(config) == tmp_path / "data"
    relative = manifest(tmp_path / "lists", "path,label\n" + LINES, "relative.csv")
    assert index_of(relative, root=tmp_path / "data").rows == index.rows


def test_paths_outside_are_kept_relative_where_they_are_allowed(tmp_path):
    file = elsewhere(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "lists")
    for given in (file, tmp_path / "link" / file.name):
        config = DatasetConfig(images=given, allow_outside=True)
        index = build_index(config)
        assert [row.path for row in index.rows] == [f"../data/images/{i}.png" for i in range(4)]
        assert all((dataset_root(config) / row.path).is_file() for row in index.rows)
        assert str(tmp_path) not in index.to_json()


def test_settings_of_manifests_are_refused_for_a_folder(tmp_path):
    pool(tmp_path)
    with pytest.raises(DatasetError, match=r"dataset\.root is only for manifests"):
        index_of(tmp_path, root=tmp_path)


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="which is not a folder"):
        index_of(manifest(pool(tmp_path), "path,label\n" + LINES), root=tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.replace("/", "\\"), "backslashes were read with slashes (4 lines)"),
        (lambda path: f"  {path}\t", ""),
        (lambda path: f"./images/../{path}", ""),
    ],
)
def test_paths_of_other_forms_are_found_and_told(tmp_path, change, words):
    rows = [line.split(",") for line in LINES.split()]
    text = "".join(f"{change(path)},{label}\n" for path, label in rows)
    index = index_of(manifest(pool(tmp_path), "path,label\n" + text))
    assert len(index.rows) == 4
    notes = [found.reason for found in index.problems if found.kind == "repaired_path"]
    assert any(words in note for note in notes) == bool(words)


def test_file_addresses_and_homes_are_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = f"path,label\nfile://{tmp_path}/images/0.png,a\n~/images/1.png,b\n"
    assert len(index_of(manifest(pool(tmp_path), text)).rows) == 2


def test_names_in_another_form_of_unicode_are_found(tmp_path):
    write(tmp_path, {"caf\u00e9.png": png(1), "tea.png": png(2)})
    index = index_of(manifest(tmp_path, "path,label\ncafe\u0301.png,a\ntea.png,b\n"))
    assert [row.path for row in index.rows] == ["caf\u00e9.png", "tea.png"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("s3://bucket/0.png", "a URL (s3://): download the images"),
        ("https://example.org/0.png", "a URL (https://)"),
        (r"C:\photos\0.png", "a Windows path"),
        (r"images\99.png", "write forward slashes in place of backslashes"),
    ],
)
def test_paths_that_lead_nowhere_are_told_with_the_cure(tmp_path, path, words):
    index = index_of(manifest(pool(tmp_path), f"path,label\n{LINES}{path},cat\n"))
    assert words in problem(index, "labels.csv line 6").reason


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("what", ["0.png", "labels.csv"])
def test_a_moment_without_the_file_server_costs_no_line(tmp_path, monkeypatch, code, what):
    file = manifest(pool(tmp_path), "path,label\n" + LINES)
    owner, name = (Path, "stat") if what == "0.png" else (os, "open")
    original = getattr(owner, name)

    def fail(path, *arguments, **options):
        if Path(path).name == what:
            raise OSError(code, os.strerror(code))
        return original(path, *arguments, **options)

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(DatasetError, match="run the command again") as caught:
        index_of(file)
    assert is_worth_retrying(caught.value)


# Tables


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_an_encoding_that_is_marked_is_read(tmp_path, encoding):
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    write(pool(tmp_path), {"labels.csv": (f"{mark}path,label\n{LINES}").encode(encoding)})
    assert len(index_of(tmp_path / "labels.csv").rows) == 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("path,label\na.png,chien \u00e9\n".encode("cp1252"), "iconv -f WINDOWS-1252 -t UTF-8"),
        ("path,label\na.png,b\n".encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
    ],
)
def test_another_encoding_is_refused_with_the_command_that_mends_it(tmp_path, data, words):
    write(tmp_path, {"labels.csv": data})
    with pytest.raises(DatasetError, match="UTF-8") as caught:
        index_of(tmp_path / "labels.csv")
    assert words in caught.value.next_step


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "sep=;\r\n" + text.replace(",", ";"),
        lambda text: "# by hand\n\n" + text,
        lambda text: text.replace("\n", "\n\n") + ",\n",
        lambda text: text.replace(",", "|"),
        lambda text: text.replace("path,label", '"path","label"'),
        lambda text: text.replace("path,label", " Path , LABEL "),
    ],
)
def test_csv_files_of_other_programs_are_read(tmp_path, change):
    index = index_of(manifest(pool(tmp_path), change("path,label\n" + LINES)))
    assert [row.path for row in index.rows] == [f"images/{i}.png" for i in range(4)]
    assert not index.left_out


def test_a_path_with_a_bare_comma_is_no_label(tmp_path):
    write(pool(tmp_path), {"a,b.png": png(9)})
    index = index_of(manifest(tmp_path, f"path,label\n{LINES}a,b.png,cat\n"))
    assert "it has 3 cells, the header 2" in problem(index, "labels.csv line 6").reason


def test_tabs_have_an_ending_of_their_own(tmp_path):
    text = "path\tlabel\n" + LINES.replace(",", "\t")
    assert len(index_of(manifest(pool(tmp_path), text, "labels.tsv")).rows) == 4


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("filename,class", "--set dataset.path_column=filename --set dataset.label_column=class"),
        ("path,target", "--set dataset.label_column=target"),
        ("a,b", "--set dataset.path_column=COLUMN --set dataset.label_column=COLUMN"),
        ("images/9.png,cat", "add a header before the first line"),
    ],
)
def test_columns_of_other_names_are_told_with_the_setting(tmp_path, header, words):
    with pytest.raises(DatasetError, match=f"the columns {header.replace(',', ', ')}") as caught:
        index_of(manifest(pool(tmp_path), f"{header}\n{LINES}"))
    assert words in caught.value.next_step


def test_columns_may_be_named(tmp_path):
    text = "filename,Class,subset\nimages/0.png,a,train\nimages/1.png,b,train\nimages/2.png,a,dev\n"
    names = {"path_column": "filename", "label_column": "class"}
    file = manifest(pool(tmp_path), text)
    index = index_of(file, split_column="subset", **names)
    assert [row.split for row in index.rows] == ["train", "train", "val"]
    plain = index_of(file, **names)
    assert any("dataset.split_column=subset" in found.reason for found in plain.problems)
    with pytest.raises(DatasetError, match="no column Klasse"):
        index_of(file, path_column="filename", label_column="Klasse")


@pytest.mark.parametrize("header", ["path,label,label", "path,Label,label", "Path,path,label"])
def test_two_columns_of_one_name_are_refused(tmp_path, header):
    text = f"{header}\nimages/0.png,cat,dog\nimages/1.png,dog,cat\n"
    with pytest.raises(DatasetError, match="2 columns are called"):
        index_of(manifest(pool(tmp_path), text))


def test_words_for_splits_may_be_named(tmp_path):
    text = "path,label,split\nimages/0.png,a,fold1\nimages/1.png,b,fold1\n"
    text += "images/2.png,a,fold2\nimages/3.png,b,old\n"
    file = manifest(pool(tmp_path), text)
    names = {"fold1": "train", "fold2": "val", "old": "ignore"}
    index = index_of(file, split_names=names)
    assert [row.split for row in index.rows] == ["train", "train", "val"]
    assert not index.left_out
    with pytest.raises(DatasetError, match=r"split_names=\{'fold1': val"):
        index_of(file)


def write_parquet(root, labels, kind=None):
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = [f"images/{i}.png" for i in range(len(labels))]
    table = pa.table({"path": pa.array(paths), "label": pa.array(labels, kind)})
    pq.write_table(table, root / "labels.parquet")
    return root / "labels.parquet"


def test_floats_with_gaps_are_whole_numbers_and_lines_without_a_label(tmp_path):
    index = index_of(write_parquet(pool(tmp_path), [1.0, 2.0, float("nan"), None]))
    assert index.class_names == ("1", "2")
    assert [found.kind for found in index.left_out] == ["manifest_line", "manifest_line"]
    assert any("NaN as no label" in found.reason for found in index.problems)


def test_true_and_false_are_told_as_class_names(tmp_path):
    index = index_of(write_parquet(pool(tmp_path), [True, False, True, False]))
    assert index.class_names == ("False", "True")
    assert any("False and True" in found.reason for found in index.problems)


@pytest.mark.parametrize(
    "labels",
    [
        [["a"], ["b"], ["a"], ["b"]],
        [datetime(2026, 1, day) for day in (1, 2, 3, 4)],
        [date(2026, 1, day) for day in (1, 2, 3, 4)],
        [0.5, 1.0, 1.5, 2.0],
        [{"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}],
        [b"a", b"b", b"a", b"b"],
        [float("inf"), 1.0, 1.0, 2.0],
    ],
)
def test_labels_that_name_no_class_are_refused(tmp_path, labels):
    with pytest.raises(DatasetError, match="labels are neither names nor whole numbers"):
        index_of(write_parquet(pool(tmp_path), labels))


def test_categories_are_labels_and_images_within_a_table_are_not_paths(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pool(tmp_path)
    file = write_parquet(tmp_path, ["a", "b", "a", "b"], pa.dictionary(pa.int8(), pa.string()))
    assert index_of(file).class_names == ("a", "b")
    pq.write_table(pa.table({"path": [b"x", b"y"], "label": ["a", "b"]}), file)
    with pytest.raises(DatasetError, match="the manifest's paths are not text"):
        index_of(file)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("labels.jsonl", "read_json('{}/labels.jsonl', lines=True)"),
        ("labels.json", "read_json('{}/labels.json')"),
        ("labels.xlsx", "read_excel('{}/labels.xlsx')"),
        ("labels.yaml", ".csv, .tsv, .parquet, .pq"),
    ],
)
def test_tables_in_other_forms_are_refused_with_the_way_to_csv(tmp_path, name, words):
    write(tmp_path, {name: b"{}"})
    with pytest.raises(DatasetError, match="CSV or Parquet") as caught:
        index_of(tmp_path / name)
    assert words.format(tmp_path) in caught.value.next_step


def test_a_pipe_with_the_name_of_a_table_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    def refuse(path, *_):
        pytest.fail(f"{path} would be waited for")

    os.mkfifo(tmp_path / "pipe.json")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DatasetError, match="CSV or Parquet"):
        index_of(tmp_path / "pipe.json")


def test_large_annotations_like_cocos_are_told_by_their_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(other_tables, "_END_BYTES", 64)
    between = '{"id": 1, "image_id": 1},' * 9
    text = f'{{"images": [{between * 9}], "annotations": [{between}], "categories": []}}'
    (tmp_path / "coco.json").write_text(text)
    (tmp_path / "other.json").write_text(f'{{"images": [{between}]}}')
    told = [other_tables.conversion(tmp_path / name) for name in ("coco.json", "other.json")]
    assert ["COCO" in text for text in told] == [True, False]


def test_the_lines_of_python_for_annotations_like_cocos_write_a_manifest(tmp_path):
    files = sorted(f"images/{path.name}" for path in pool(tmp_path).glob("images/*.png"))
    annotations = [
        {"id": n, "image_id": n, "category_id": 5 + n % 2, "bbox": [0, 0, 2, 2]} for n in range(4)
    ]
    coco = {
        "info": {},
        "images": [{"id": n, "file_name": name, "width": 6} for n, name in enumerate(files)],
        "annotations": [*annotations, {**annotations[0], "id": 9}],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog, big"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(DatasetError, match="CSV or Parquet") as caught:
        index_of(tmp_path / "coco.json")
    lines = caught.value.next_step.partition("in Python:\n")[2].partition("\nThen ")[0]
    subprocess.run([sys.executable, "-c", lines], check=True)
    index = index_of(tmp_path / "coco.csv")
    assert {row.path: index.class_names[row.label] for row in index.rows} == {
        name: ("cat", "dog, big")[number % 2] for number, name in enumerate(files)
    }

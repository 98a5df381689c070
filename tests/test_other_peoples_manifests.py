"""Manifests as public data sets have them: headers, cells and folders after their manner."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from headstart.config import load_config
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import build_index

Told = dict[str, Any]


class Case(NamedTuple):
    """A manifest, the images beside it, and what comes of it.

    Attributes:
        name: The data set whose manner it has.
        text: The manifest.
        files: Images, below its folder.
        settings: What a user says, without ``dataset.``; ROOT stands for the folder.
        targets: By file what is read, or None.
        problem: What the error begins with, where there is one.
        cure: What its last line says.
    """

    name: str
    text: str
    files: tuple[str, ...]
    settings: tuple[str, ...] = ()
    targets: Told | None = None
    problem: str = ""
    cure: str = ""


TAGS = "image_name,tags\ntrain_0,haze primary\ntrain_1,clear primary\ntrain_2,primary clear\n"
TAG_FILES = ("jpg/train_0.jpg", "jpg/train_1.jpg", "jpg/train_2.jpg")
FINDINGS = (
    "Image Index,Finding Labels,Follow-up #,Patient Age,OriginalImage[Width,Height],\n"
    "1_000.png,Mass,0,58,2682,2749,\n1_001.png,Mass|Edema,1,58,2894,2729,\n"
    "2_000.png,No Finding,0,81,2500,2048,\n"
)
FINDING_FILES = ("1_000.png", "1_001.png", "2_000.png")
CHESTS = (
    "Path,Sex,Age,No Finding,Edema,Support Devices\n"
    "Small/train/p1/view1.jpg,Female,68,1.0,,1.0\nSmall/train/p2/view1.jpg,Male,87,,-1.0,0.0\n"
)
CHEST_FILES = ("train/p1/view1.jpg", "train/p2/view1.jpg")
CHEST = ("label_columns=[Edema, Support Devices]",)
PETS = "Id, Eyes, Score\n0007de,1,63\n0009c6,1,42\n"
UID = "1.2.826.0.1.3680043.8.498.2669762895"
CASES = (
    Case("planet", TAGS, TAG_FILES, (), None, "the manifest lacks a column",
         "dataset.path_column=image_name --set dataset.label_column=tags"),
    Case("planet, as classes", TAGS, TAG_FILES,
         ("path_column=image_name", "label_column=tags", "root=ROOT/jpg", "path_suffix=.jpg"),
         None, "the column of classes seems to hold several", "'dataset.label_separator= '"),
    Case("planet, elsewhere", TAGS, TAG_FILES,
         ("path_column=image_name", "label_column=tags", "label_separator= "), None,
         "none of the images", "--set dataset.root=ROOT/jpg --set dataset.path_suffix=.jpg finds"),
    Case("planet, all said", TAGS, TAG_FILES,
         ("path_column=image_name", "label_column=tags", "label_separator= ", "root=ROOT/jpg",
          "path_suffix=.jpg"),
         {"train_0.jpg": {"haze", "primary"}, "train_1.jpg": {"clear", "primary"},
          "train_2.jpg": {"clear", "primary"}}),
    Case("chest x-ray", FINDINGS, FINDING_FILES, (), None, "the manifest lacks a column",
         "'dataset.path_column=Image Index' --set 'dataset.label_column=Finding Labels'"),
    Case("chest x-ray, as classes", FINDINGS, FINDING_FILES,
         ("path_column=Image Index", "label_column=Finding Labels"), None, "the column of classes",
         "dataset.target=labels --set 'dataset.label_column=Finding Labels' --set "
         "'dataset.label_separator=|'"),
    Case("chest x-ray, all said", FINDINGS, FINDING_FILES,
         ("path_column=Image Index", "label_column=Finding Labels", "label_separator=|",
          "no_label=No Finding"),
         {"1_000.png": {"Mass"}, "1_001.png": {"Mass", "Edema"}, "2_000.png": set()}),
    Case("chest x-ray, ages", FINDINGS, FINDING_FILES,
         ("path_column=Image Index", "target_columns=[Patient Age]"),
         {"1_000.png": (58,), "1_001.png": (58,), "2_000.png": (81,)}),
    Case("bone age", "id,boneage,male\n1377,180,False\n1378,12,True\n",
         ("set/1377.png", "set/1378.png"),
         ("path_column=id", "target_columns=[boneage]", "path_suffix=.png"), None,
         "none of the images", "--set dataset.root=ROOT/set finds"),
    Case("two columns of ages", "id,boneage,male\n1377,180,False\n1378,12,True\n",
         ("1377.png", "1378.png"),
         ("path_column=id", "target_columns=['bone*']", "path_suffix=.png"),
         {"1377.png": (180,), "1378.png": (12,)}),
    Case("pets", PETS, ("0007de.jpg", "0009c6.jpg"),
         ("path_column=id", "target_columns=[score]", "path_suffix=.jpg"),
         {"0007de.jpg": (63,), "0009c6.jpg": (42,)}),
    Case("pets without a column", PETS, ("0007de.jpg", "0009c6.jpg"),
         ("path_column=Id", "target=number"), None, "dataset.target=number needs",
         "target_columns"),
    Case("uncertain", CHESTS, CHEST_FILES, CHEST, None, "the column Edema says neither 0 nor 1",
         "'dataset.label_values=[[0, -1.0], 1]' reads it as no"),
    Case("uncertain, folder of its own", CHESTS, CHEST_FILES,
         (*CHEST, 'label_values=[[0, -1, ""], 1]'), None, "none of the images",
         "--set dataset.strip_prefix=Small/ finds them"),
    Case("uncertain is no", CHESTS, CHEST_FILES,
         (*CHEST, 'label_values=[[0, -1, ""], 1]', "strip_prefix=Small/"),
         {CHEST_FILES[0]: {"Support Devices"}, CHEST_FILES[1]: set()}),
    Case("uncertain is yes, root above", CHESTS, tuple("Small/" + file for file in CHEST_FILES),
         (*CHEST, 'label_values=[[0, ""], [1, -1]]'),
         {"Small/" + CHEST_FILES[0]: {"Support Devices"}, "Small/" + CHEST_FILES[1]: {"Edema"}}),
    Case("uncertain is left out", CHESTS, tuple("Small/" + file for file in CHEST_FILES),
         (*CHEST, 'label_values=[[0, ""], 1]', "missing_values=[-1]"),
         {"Small/" + CHEST_FILES[0]: {"Support Devices"}}),
    Case("lists of names",
         "file_name,labels\na.jpg,\"['man', 'dog']\"\nb.jpg,\"['cat']\"\nc.jpg,[]\n",
         ("a.jpg", "b.jpg", "c.jpg"), ("path_column=file_name",),
         {"a.jpg": {"man", "dog"}, "b.jpg": {"cat"}, "c.jpg": set()}),
    Case("posters", "Id,Genre,N/A\ntt1,\"['Comedy', 'Sci-Fi']\",0\ntt2,\"['War']\",1\n",
         ("tt1.jpg", "tt2.jpg"), ("path_column=Id", "label_column=Genre", "path_suffix=.jpg"),
         None, "the column of classes seems to hold several labels", "dataset.target=labels"),
    Case("JSON in cells", 'image,labels\na.jpg,"[""cat"",""dog""]"\nb.jpg,"[3, 1]"\n',
         ("a.jpg", "b.jpg"), ("path_column=image",),
         {"a.jpg": {"cat", "dog"}, "b.jpg": {"3", "1"}}),
    Case("faces", "image_id,Bald,Young\n1.jpg,-1,1\n2.jpg,-1,-1\n", ("img/1.jpg", "img/2.jpg"),
         ("path_column=image_id", 'label_columns=["*"]', "label_values=[-1, 1]", "root=ROOT/img"),
         {"1.jpg": {"Young"}, "2.jpg": set()}),
    Case("names with points", f"StudyInstanceUID,ETT - Normal\n{UID},1\n", (f"train/{UID}.jpg",),
         ("path_column=StudyInstanceUID", "label_columns=[ETT - Normal]"), None,
         "none of the images", "dataset.root=ROOT/train --set dataset.path_suffix=.jpg"),
    Case("leaves", "image,labels\na.jpg,healthy\nb.jpg,scab complex\n", ("a.jpg", "b.jpg"),
         ("path_column=image",), None, "no label cell contains the separator ';'",
         "'dataset.label_separator= '"),
    Case("proteins", "Id,Target\n00,16 0\n01,5\n", ("00.png", "01.png"),
         ("path_column=Id", "label_column=Target", "label_separator= ", "path_suffix=.png"),
         {"00.png": {"16", "0"}, "01.png": {"5"}}),
    Case("captions over lines",
         'ImageID,Labels,Caption\n0.jpg,1,plain\n1.jpg,1 19,"a ""big"" one,\nover two lines"\n',
         ("data/0.jpg", "data/1.jpg"),
         ("path_column=ImageID", "label_separator= ", "root=ROOT/data"),
         {"0.jpg": {"1"}, "1.jpg": {"1", "19"}}),
    Case("blanks in a header", "filename, cat, dog\na.rf.1.jpg, 1, 0\n", ("a.rf.1.jpg",),
         ("path_column=filename", "label_columns=[cat, dog]"), {"a.rf.1.jpg": {"cat"}}),
    Case("an index without a name", ",image,cat,dog\n0,a.jpg,1,0\n1,b.jpg,0,1\n",
         ("a.jpg", "b.jpg"), ("path_column=image", 'label_columns=["*"]'),
         {"a.jpg": {"cat"}, "b.jpg": {"dog"}}),
    Case("decimal commas", "Datei;Preis\na.jpg;3,5\n", ("a.jpg",),
         ("path_column=Datei", "target_columns=[Preis]"), None, "a target of Preis",
         "'dataset.decimal_sign=,'"),
    Case("decimal commas, said", "Datei;Preis\na.jpg;3,5\nb.jpg;-12\n", ("a.jpg", "b.jpg"),
         ("path_column=Datei", "target_columns=[Preis]", "decimal_sign=,"),
         {"a.jpg": (3.5,), "b.jpg": (-12,)}),
    Case("thousands", "path;price\na.jpg;1.234,5\n", ("a.jpg",),
         ("target_columns=[price]", "decimal_sign=,"), None, "a target of price",
         '"dataset.thousands_sign=."'),
    Case("thousands, said", "path;price\na.jpg;1.234,5\nb.jpg;12\n", ("a.jpg", "b.jpg"),
         ("target_columns=[price]", "decimal_sign=,", "thousands_sign=."),
         {"a.jpg": (1234.5,), "b.jpg": (12,)}),
    Case("tabs", "file\tscore\na.jpg\t3.5\n", ("a.jpg",),
         ("path_column=file", "target_columns=[score]"), {"a.jpg": (3.5,)}),
    Case("percent", "path,share\na.jpg,35%\nb.jpg,20 %\n", ("a.jpg", "b.jpg"),
         ("target_columns=[share]",), None, "a target of share", "'dataset.number_unit=%'"),
    Case("percent, said", "path,share\na.jpg,35%\nb.jpg,20 %\n", ("a.jpg", "b.jpg"),
         ("target_columns=[share]", "number_unit=%"), {"a.jpg": (35,), "b.jpg": (20,)}),
    Case("units that differ", "path,weight\na.jpg,34 gram\nb.jpg,2 ounce\n", ("a.jpg", "b.jpg"),
         ("target_columns=[weight]", "number_unit=gram"), None, "a target of weight", "no unit"),
    Case("words for none", "path,age\na.jpg,NaN\nb.jpg,2\n", ("a.jpg", "b.jpg"),
         ("target_columns=[age]",), None, "a target of age", "'dataset.missing_values=[NaN]'"),
    Case("words for none, said", "path,age\na.jpg,NA\nb.jpg,2\nc.jpg,-1\n",
         ("a.jpg", "b.jpg", "c.jpg"), ("target_columns=[age]", "missing_values=[na, -1]"),
         {"b.jpg": (2,)}),
    Case("a mark and Windows' lines", "\ufeffpath,labels\r\na.JPG,x;y\r\nb.jpg,\r\n",
         ("a.jpg", "b.jpg"), (), {"a.jpg": {"x", "y"}, "b.jpg": set()}),
    Case("marks", "path,a,b\na.jpg,x,\nb.jpg,,x\n", ("a.jpg", "b.jpg"),
         ("label_columns=[a, b]",), None, "the column a says neither", "[0, [1, x]]"),
    Case("marks, said", "path,a,b\na.jpg,x,\nb.jpg,,x\n", ("a.jpg", "b.jpg"),
         ("label_columns=[a, b]", 'label_values=["", x]'), {"a.jpg": {"a"}, "b.jpg": {"b"}}),
    Case("shares in place of flags", "path,a\na.jpg,0.7\n", ("a.jpg",), ("label_columns=[a]",),
         None, "the column a says neither", "dataset.target_columns"),
    Case("another machine", "center,steering\n/home/x/IMG/c1.jpg,0.1\n", ("IMG/c1.jpg",),
         ("path_column=center", "target_columns=[steering]"), None, "the manifest has paths",
         "--set dataset.strip_prefix=/home/x/ finds them here"),
    Case("another machine, said", "center,steering\n/home/x/IMG/c1.jpg, -0.1\n", ("IMG/c1.jpg",),
         ("path_column=center", "target_columns=[steering]", "strip_prefix=/home/x/"),
         {"IMG/c1.jpg": (-0.1,)}),
    Case("several readers", "image_id,rad_id,Mass,Edema\na,R1,0,1\na,R2,1,0\n", ("a.png",),
         ("path_column=image_id", "label_columns=[Mass, Edema]", "path_suffix=.png",
          "repeated_paths=merge"), {"a.png": {"Mass", "Edema"}}),
    Case("quality with its split", "image_name,MOS,set\na.jpg,3.4,training\nb.jpg,2.2,validation\n",
         ("a.jpg", "b.jpg"),
         ("path_column=image_name", "target_columns=[MOS]", "split_column=set"),
         {"a.jpg": (3.4,), "b.jpg": (2.2,)}),
    Case("digits of another script", "path,y\na.jpg,12\nb.jpg,\u0661\u0662\n", ("a.jpg", "b.jpg"),
         ("target_columns=[y]",), None, "a target of y is not a finite number",
         "write bare numbers"),
    Case("a column named twice", "path,a,b\na.jpg,1,0\nb.jpg,0,1\n", ("a.jpg", "b.jpg"),
         ("label_columns=[a, b, a]",), None, "a column of the manifest is named twice",
         "name each column once"),
    Case("labels that nobody has", "path,labels\na.jpg,\nb.jpg,\n", ("a.jpg", "b.jpg"), (), None,
         "no image has a label", "dataset.label_columns"),
    Case("flags that nobody has", "path,a,b\na.jpg,0,0\nb.jpg,0,0\n", ("a.jpg", "b.jpg"),
         ("label_columns=[a, b]",), None, "no image has a label", "dataset.label_values"),
    Case("quotes behind spaces", 'path, "labels"\na.jpg, "x;y"\nb.jpg, "x"\n', ("a.jpg", "b.jpg"),
         (), {"a.jpg": {"x", "y"}, "b.jpg": {"x"}}),
    Case("quotes behind spaces in the rows", 'path,labels\na.jpg, "x;y, z"\nb.jpg, "x"\n',
         ("a.jpg", "b.jpg"), (), {"a.jpg": {"x", "y, z"}, "b.jpg": {"x"}}),
    Case("an index of pandas", "path,labels\na.jpg,\"Index(['x', 'y'])\"\nb.jpg,x\n",
         ("a.jpg", "b.jpg"), (), None, "the labels are written in an unsupported syntax",
         "or as ['a', 'b']"),
    Case("an open quote", 'path,labels\na.jpg,"x\nb.jpg,"y\n', ("a.jpg",), (), None,
         "the CSV file cannot be read", "close the double quote"),
    Case("numbers beyond float32", "path,y\na.jpg,1e36\nb.jpg,2e36\n", ("a.jpg", "b.jpg"),
         ("target_columns=[y]",), None, "a target of y is too large", "write it in a larger unit"),
    Case("a stray NUL", "path,y\na.jpg,1\nb.jpg,2\0\nc.jpg,3\nd.jpg,3\n", ("a.jpg",),
         ("target_columns=[y]",), None, "the CSV file is damaged", "remove them"),
    Case("two marks of byte order", "\ufeff\ufeffpath,y\na.jpg,1\nb.jpg,2\n", ("a.jpg", "b.jpg"),
         ("target_columns=[y]",), {"a.jpg": (1.0,), "b.jpg": (2.0,)}),
    Case("masks beside numbers", f"path,rle,y\na.jpg,{'1 2 ' * 50_000},1\nb.jpg,,2\n",
         ("a.jpg", "b.jpg"), ("target_columns=[y]",), {"a.jpg": (1.0,), "b.jpg": (2.0,)}),
    Case("another number in each row",
         "path,label\n" + "".join(f"{n}.jpg,{37 * n}\n" for n in range(24)),
         tuple(f"{n}.jpg" for n in range(24)), (), None,
         "the labels are numbers, a different one in each row", "dataset.target_columns=[label]"),
    Case("Parquet by another name", "PAR1 and more", (), (), None,
         "the manifest is not a CSV file but a Parquet file", "end in .parquet"),
    Case("a workbook by another name", "PK\x03\x04 and more", (), (), None,
         "the manifest is not a CSV file but an Excel workbook", "save the sheet as CSV"),
    Case("no header", "a.jpg,cat dog\nb.jpg,cat\n", ("a.jpg", "b.jpg"), (), None,
         "the manifest lacks a column", "add a header before"),
)  # fmt: skip


QUOTED = tuple(f"{number}.png" for number in range(4))
UNCLOSED = 'path,label\n0.png,cat\n1.png,"cat\n2.png,dog\n3.png,dog"\n'
CAPTIONS = 'path,caption,label\n0.png,"a cat,\nasleep",cat\n1.png,"a dog,\nawake",dog\n'
CASES += (
    Case("tuples", "path,labels\n0.png,\"('cat', 'x')\"\n1.png,\"('dog',)\"\n2.png,()\n", QUOTED,
         (), {"0.png": {"cat", "x"}, "1.png": {"dog"}, "2.png": set()}),
    Case("an index", "path,labels\n0.png,\"Index(['cat', 'x'])\"\n", QUOTED, (), None,
         "the labels are written in an unsupported syntax", "or as ['a', 'b']"),
    Case("a list cut off", "path,labels\n0.png,\"['cat', 'dog'\"\n", QUOTED, (), None,
         "the labels are written in an unsupported syntax", "or as ['a', 'b']"),
    Case("a quote that ends ten lines on", UNCLOSED, QUOTED, (), None,
         "the CSV file cannot be read", "close the double quote"),
    Case("captions of two lines", CAPTIONS, QUOTED, ("target=labels", "label_separator=;",
         "label_column=label"), {"0.png": {"cat"}, "1.png": {"dog"}}),
)  # fmt: skip


def write_images(folder: Path, files: Iterable[str]) -> None:
    for number, name in enumerate(files):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (40 * number, 7, 9)).save(file, "PNG")


def targets_of(manifest: Path, settings: Iterable[str]) -> Told:
    """Read a manifest as the command line would, all of it for training."""
    told = [f"dataset.{setting.replace('ROOT', str(manifest.parent))}" for setting in settings]
    told += ["dataset.val_fraction=0", "dataset.test_fraction=0"]
    index = build_index(load_config(manifest, settings=told).dataset)
    if index.kind == "labels":
        return {row.path: {index.class_names[int(k)] for k in row.values} for row in index.rows}
    return {row.path: row.values for row in index.rows}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_manifest_is_read_or_its_error_names_what_settles_it(case: Case, tmp_path: Path) -> None:
    write_images(tmp_path, case.files)
    (tmp_path / "train.csv").write_bytes(case.text.encode())
    if case.targets is not None:
        assert targets_of(tmp_path / "train.csv", case.settings) == case.targets
        return
    with pytest.raises(DatasetError) as caught:
        targets_of(tmp_path / "train.csv", case.settings)
    assert str(caught.value).startswith(case.problem)
    assert case.cure.replace("ROOT", str(tmp_path)) in (caught.value.next_step or "")


def test_names_with_signs_in_them_stay_classes(tmp_path: Path) -> None:
    names = ["dog rose", "moss rose", "tench, Tinca tinca", "rose", "AC/DC", "ice cream"]
    write_images(tmp_path, [f"{number}.png" for number in range(6)])
    lines = [f'{number}.png,"{name}"' for number, name in enumerate(names)]
    (tmp_path / "m.csv").write_text("path,label\n" + "\n".join(lines))
    told = ("dataset.val_fraction=0", "dataset.test_fraction=0")
    index = build_index(load_config(tmp_path / "m.csv", settings=told).dataset)
    assert set(index.class_names) == set(names)


@pytest.mark.parametrize("name", ["8.jpg", "8.0.jpg"])
def test_names_that_have_lost_their_zeros_are_told(tmp_path: Path, name: str) -> None:
    write_images(tmp_path, ("00008.jpg", "00009.jpg", "x.jpg"))
    (tmp_path / "m.csv").write_text(f"path,y\n{name},1\nx.jpg,2\n12.jpg,3\n")
    told = ("dataset.target_columns=[y]", "dataset.val_fraction=0", "dataset.test_fraction=0")
    index = build_index(load_config(tmp_path / "m.csv", settings=told).dataset)
    reasons = [problem.reason for problem in index.left_out]
    assert sum("00008.jpg exists" in reason for reason in reasons) == 1
    assert len(reasons) == 2


def test_an_empty_flag_says_which_setting_makes_it_a_no(tmp_path: Path) -> None:
    write_images(tmp_path, ("a.png", "b.png"))
    (tmp_path / "m.csv").write_text("path,a,b\na.png,,1\nb.png,1,0\n")
    told = ("dataset.label_columns=[a, b]", "dataset.val_fraction=0", "dataset.test_fraction=0")
    index = build_index(load_config(tmp_path / "m.csv", settings=told).dataset)
    (problem,) = index.left_out
    assert 'dataset.label_values=[[0, ""], 1]' in problem.reason


def test_a_manifest_above_its_own_folder_is_found(tmp_path: Path) -> None:
    write_images(tmp_path / "Small", CHEST_FILES)
    (tmp_path / "Small/train.csv").write_text(CHESTS)
    settings = (*CHEST, 'label_values=[[0, -1, ""], 1]')
    with pytest.raises(DatasetError) as caught:
        targets_of(tmp_path / "Small/train.csv", settings)
    assert f"--set dataset.root={tmp_path} finds" in (caught.value.next_step or "")
    assert len(targets_of(tmp_path / "Small/train.csv", (*settings, f"root={tmp_path}"))) == 2

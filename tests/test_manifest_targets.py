"""Manifests of labels and numbers as other people write them, and what is said of wrong ones."""

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.config import DatasetConfig, load_config
from headstart.errors import DatasetError
from headstart.tasks.budgeting.folds import hold_out
from headstart.tasks.dataset.building import build_index
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.stratifying import deal_into_folds


def write_images(folder: Path, count: int) -> list[str]:
    names = [f"{number:03}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", (9, 9), (number, 2 * number % 256, 7)).save(folder / name)
    return names


def read(folder: Path, text: str | bytes, **settings: Any) -> DatasetIndex:
    """Index a manifest without any held-out images."""
    data = text.encode() if isinstance(text, str) else text
    (folder / "m.csv").write_bytes(data)
    told = {"val_fraction": 0.0, "test_fraction": 0.0, **settings}
    return build_index(DatasetConfig(images=folder / "m.csv", **told))


def labels_of(index: DatasetIndex) -> dict[str, set[str]]:
    return {row.path: {index.class_names[int(k)] for k in row.values} for row in index.rows}


def numbers_of(index: DatasetIndex) -> dict[str, tuple[float, ...]]:
    return {row.path: row.values for row in index.rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path, 6)
    return tmp_path


class TestLabels:
    def test_a_column_of_labels_is_known_by_its_name_and_empty_means_none(
        self, folder: Path
    ) -> None:
        index = read(folder, "path,labels\n000.png,cat;dog\n001.png,\n002.png, dog ;\n")
        assert (index.kind, index.class_names) == ("labels", ("cat", "dog"))
        assert labels_of(index) == {"000.png": {"cat", "dog"}, "001.png": set(), "002.png": {"dog"}}
        assert "3 images, 2 labels (cat, dog), train 3" in index.summary_lines()[0]

    def test_tags_between_spaces_and_names_of_ones_own(self, folder: Path) -> None:
        text = "image_name,tags\n000.png,haze primary\n001.png,agriculture clear primary\n"
        index = read(
            folder, text, path_column="image_name", label_column="tags", label_separator=" "
        )
        assert labels_of(index)["001.png"] == {"agriculture", "clear", "primary"}

    def test_a_word_for_nothing_between_bars(self, folder: Path) -> None:
        text = (
            "Image Index,Finding Labels,Patient Age\n000.png,Edema|Mass,58\n001.png,No Finding,9\n"
        )
        index = read(
            folder, text, path_column="Image Index", label_column="Finding Labels",
            target="labels", label_separator="|", no_label="No Finding",
        )  # fmt: skip
        assert labels_of(index) == {"000.png": {"Edema", "Mass"}, "001.png": set()}

    def test_columns_of_one_and_minus_one_behind_a_mark_and_with_spaces(self, folder: Path) -> None:
        text = "\ufeffimage_id, Bald , Young\n000.png, 1 ,-1\n001.png,-1,1\n"
        settings: dict[str, Any] = {"path_column": "image_id", "label_columns": ("*",)}
        with pytest.raises(DatasetError, match="neither 0 nor 1") as caught:
            read(folder, text, **settings)
        assert "'-1' in line 2" in caught.value.received
        assert "dataset.label_values" in (caught.value.next_step or "")
        index = read(folder, text, **settings, label_values=(-1, 1))
        assert labels_of(index) == {"000.png": {"Bald"}, "001.png": {"Young"}}

    def test_columns_of_zero_and_one_in_quotes_and_as_words(self, folder: Path) -> None:
        text = 'path;"is_cat";is_dog;split\n"000.png";"1";False;train\n001.png;0.0;TRUE;train\n'
        index = read(folder, text, label_columns=("is_*",))
        assert labels_of(index) == {"000.png": {"is_cat"}, "001.png": {"is_dog"}}

    def test_one_label_a_line_is_merged_where_asked(self, folder: Path) -> None:
        text = "path,labels\n000.png,cat\n000.png,dog\n001.png,cat\n"
        index = read(folder, text, repeated_paths="merge")
        assert labels_of(index) == {"000.png": {"cat", "dog"}, "001.png": {"cat"}}

    @pytest.mark.parametrize(
        ("text", "settings", "says"),
        [
            ("path,labels\n000.png,cat|dog\n", {}, ("'cat|dog' in row 2", "label_separator=|")),
            ("path,labels\n000.png,cat\n", {}, ("'cat' in row 2", "dataset.target=class")),
            ("path,labels\n000.png,a b;c\n", {"label_separator": ","}, ("row 2", "separator=;")),
            ("path,labels\n000.png,[a b]\n", {}, ("line 2", "label_separator")),
            ("path,labels\n000.png,['a' 'b']\n", {}, ("line 2", "label_separator")),
            ("path,labels\n000.png,\"['a']\"\n001.png,a\n", {}, ("'a' in row 3", "one way")),
            ('path,labels\n000.png,"[1, 0, 0]"\n', {}, ("line 2", "dataset.label_columns")),
            ("path,label,labels\n000.png,a,b\n", {}, ("label, labels", "dataset.target=")),
            ("path,cat\n000.png,2\n", {"label_columns": ("cat",)}, ("'2' in line 2", "values")),
            ("path,cat\n000.png,1\n", {"label_columns": ("dog*",)}, ("path, cat", "label_columns")),
            (
                "path,cat\n000.png,1\n",
                {"label_columns": ("cat",), "target": "number"},
                ("label_columns, dataset.target=number", "leave one out"),
            ),
        ],
    )
    def test_what_may_be_meant_otherwise_is_refused_with_row_and_option(
        self, folder: Path, text: str, settings: dict[str, Any], says: tuple[str, str]
    ) -> None:
        with pytest.raises(DatasetError) as caught:
            read(folder, text, **settings)
        assert says[0] in caught.value.received
        assert says[1] in (caught.value.next_step or "")

    def test_an_image_of_which_a_column_says_nothing_is_left_out(self, folder: Path) -> None:
        index = read(folder, "path,a,b\n000.png,1,0\n001.png,,1\n", label_columns=("a", "b"))
        (problem,) = index.left_out
        assert (problem.path, "001.png: nothing in a" in problem.reason) == ("m.csv line 3", True)

    def test_a_label_that_is_always_on_gets_a_warning(self, folder: Path) -> None:
        index = read(folder, "path,labels\n000.png,a;b\n001.png,a\n")
        assert any(p.path == "a" and "all train images" in p.reason for p in index.problems)

    @pytest.mark.parametrize(
        ("text", "settings"),
        [
            ("path,label\n000.png,cat\n001.png,CAT\n", {}),
            ("path,labels\n000.png,cat;dog\n001.png,CAT;dog\n002.png,\n", {}),
            ("path,cat,CAT\n000.png,1,0\n001.png,0,1\n", {"label_columns": ("*",)}),
        ],
    )
    def test_names_that_differ_in_case_alone_get_a_word(
        self, folder: Path, text: str, settings: dict[str, Any]
    ) -> None:
        index = read(folder, text, **settings)
        (told,) = [one for one in index.problems if one.kind == "doubtful_name"]
        assert "'CAT'" in told.reason
        assert "'cat'" in told.reason

    def test_a_folder_has_no_labels(self, folder: Path) -> None:
        with pytest.raises(DatasetError, match="only for manifests"):
            build_index(DatasetConfig(images=folder, target="labels"))


class TestNumbers:
    def test_columns_that_are_named_are_numbers(self, folder: Path) -> None:
        text = "path,age,price\n000.png,26,-1.5e3\n001.png, 7 ,1e9\n002.png,,3\n"
        index = read(folder, text, target_columns=("price", "age"))
        assert index.class_names == ("price", "age")
        assert numbers_of(index) == {"000.png": (-1500.0, 26.0), "001.png": (1e9, 7.0)}
        assert "002.png: no number in age" in index.left_out[0].reason
        assert "2 numbers (price, age)" in index.summary_lines()[0]

    @pytest.mark.parametrize("cell", ["NaN", "inf", "-Infinity", "12 kg", "n/a", '"3,5"', "1_000",
                                      "€5", "1e400", "true"])  # fmt: skip
    def test_what_is_no_finite_number_is_refused_with_its_row(
        self, folder: Path, cell: str
    ) -> None:
        with pytest.raises(DatasetError, match="not a finite number") as caught:
            read(folder, f"path,age\n000.png,1\n001.png,{cell}\n", target_columns=("age",))
        assert "line 3" in caught.value.received
        assert "dataset.target_columns" in (caught.value.next_step or "")

    def test_a_number_beyond_float32_is_refused_as_that(self, folder: Path) -> None:
        with pytest.raises(DatasetError, match="too large to be learned in float32"):
            read(folder, "path,age\n000.png,1\n001.png,1e36\n", target_columns=("age",))

    def test_500_different_decimals_are_no_classes(self, tmp_path: Path) -> None:
        names = write_images(tmp_path, 40)
        lines = [f"{name},{number + 0.25}" for number, name in enumerate(names)]
        with pytest.raises(DatasetError, match="too many different") as caught:
            read(tmp_path, "path,label\n" + "\n".join(lines))
        assert "0.25 in row 2" in caught.value.received
        assert "dataset.target_columns=[label]" in (caught.value.next_step or "")
        assert read(tmp_path, "path,label\n" + "\n".join(lines), target="class").kind == "class"

    @pytest.mark.parametrize(
        ("cells", "sign", "counted"),
        [
            ("900 1.020 1.080 3.240", ".", "3 of 4 cells of price have a point"),
            ("1.020 1.080 -3.240", ".", "3 of 3 cells of price have a point"),
            ("900 1,020 1,080", ",", "2 of 3 cells of price have a comma"),
            ("0.125 1.020 1.080", ".", ""),  # nobody writes 0.125 for 125
            ("1.5 1.020 1.080", ".", ""),
            ("12 15 900 1.020", ".", ""),
            ("1020 1080", ".", ""),
        ],
    )
    @pytest.mark.parametrize("ending", ["csv", "parquet"])
    def test_what_may_be_thousands_gets_a_word_with_the_settings(
        self, folder: Path, cells: str, sign: Any, counted: str, ending: str
    ) -> None:
        prices = cells.split()
        paths = [f"{number:03}.png" for number in range(len(prices))]
        settings = {"target_columns": ("price",), "decimal_sign": sign}
        if ending == "csv":
            lines = [f"{path};{price}\n" for path, price in zip(paths, prices, strict=True)]
            index = read(folder, "path;price\n" + "".join(lines), **settings)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({"path": paths, "price": prices}), folder / "m.parquet")
            index = build_index(
                DatasetConfig(images=folder / "m.parquet", val_fraction=0.0, test_fraction=0.0,
                              **settings)
            )  # fmt: skip
        told = [one.reason for one in index.problems if "three digits" in one.reason]
        assert [text.startswith(counted) for text in told] == [True] * bool(counted)
        other = "," if sign == "." else "."
        assert all(
            text.endswith(
                f'--set "dataset.thousands_sign={sign}" --set dataset.decimal_sign={other}'
            )
            for text in told
        )

    @pytest.mark.parametrize(
        ("cell", "thousands", "decimal", "value"),
        [
            ("1.020", ".", ",", 1020.0),
            ("-1.234.567,5", ".", ",", -1234567.5),
            ("12,5", ".", ",", 12.5),
            ("1,020.00", ",", ".", 1020.0),
            ("1\u202f020", " ", ".", 1020.0),
            ("1\u2019020", "'", ".", 1020.0),
            ("999", "_", ".", 999.0),
        ],
    )
    def test_groups_of_three_digits_are_read_where_asked(
        self, folder: Path, cell: str, thousands: Any, decimal: Any, value: float
    ) -> None:
        settings = {"thousands_sign": thousands, "decimal_sign": decimal}
        index = read(folder, f'path,x\n000.png,"{cell}"\n', target_columns=("x",), **settings)
        assert numbers_of(index) == {"000.png": (value,)}
        assert not [one for one in index.problems if "three digits" in one.reason]

    @pytest.mark.parametrize(
        "cell", ["1.02", "1.0200", "1020.300", "1.020,5.0", "0.020", "-0.125", "012.500"]
    )
    def test_other_groups_are_refused(self, folder: Path, cell: str) -> None:
        settings = {"thousands_sign": ".", "decimal_sign": ",", "target_columns": ("x",)}
        with pytest.raises(DatasetError, match="not a finite number"):
            read(folder, f'path,x\n000.png,"{cell}"\n', **settings)

    @pytest.mark.parametrize(
        ("cell", "sign", "cure"),
        [
            ("1,020", ".", '; --set "dataset.thousands_sign=," if it separates thousands'),
            ("1,020.00", ".", '--set "dataset.thousands_sign=," if that'),
            ("1.020,00", ".", '--set "dataset.thousands_sign=." --set dataset.decimal_sign=, if'),
            ("1.020.300", ".", '--set "dataset.thousands_sign=." --set dataset.decimal_sign=, if'),
            ("1.020", ",", '--set "dataset.thousands_sign=." if that'),
            ("1 020", ".", '--set "dataset.thousands_sign= " if that'),
            ("1_020", ".", '--set "dataset.thousands_sign=_" if that'),
            ("1'020,5", ".", '--set "dataset.thousands_sign=\'" --set dataset.decimal_sign=, if'),
        ],
    )
    def test_a_refused_number_in_groups_names_the_settings_which_read_it(
        self, folder: Path, cell: str, sign: Any, cure: str
    ) -> None:
        text = f'path,x\n000.png,"{cell}"\n'
        with pytest.raises(DatasetError) as caught:
            read(folder, text, target_columns=("x",), decimal_sign=sign)
        assert cure in caught.value.next_step
        settings = [word.strip('"') for word in caught.value.next_step.split("--set ")[1:]]
        told = [setting.partition('"')[0].partition(" if ")[0] for setting in settings]
        config = load_config(
            folder / "m.csv",
            settings=(
                *("dataset.target_columns=[x]", f"dataset.decimal_sign={sign}"),
                *("dataset.val_fraction=0", "dataset.test_fraction=0"),
                *(setting.removesuffix(" ") if "decimal" in setting else setting
                  for setting in told if cell != "1,020" or "thousands" in setting),
            ),
        )  # fmt: skip
        (value,) = numbers_of(build_index(config.dataset))["000.png"]
        assert value in (1020.0, 1020.5, 1020300.0)

    @pytest.mark.parametrize(
        ("cell", "thousands", "decimal", "advised", "value"),
        [
            ("0,125", "", ".", ("decimal_sign=,",), 0.125),
            ("0,125", ",", ".", ("decimal_sign=,", "thousands_sign="), 0.125),
            ("1234,567", ",", ".", ("decimal_sign=,", "thousands_sign="), 1234.567),
            ("1,02", ",", ".", ("decimal_sign=,", "thousands_sign="), 1.02),
            ("0.020", ".", ",", ("decimal_sign=.", "thousands_sign="), 0.02),
            ("1 020 kg", "", ".", ("number_unit=kg", "thousands_sign= "), 1020.0),
            ("1.020 kg", ".", ",", ("number_unit=kg",), 1020.0),
            ("1,5 kg", "", ".", ("number_unit=kg", "decimal_sign=,"), 1.5),
            ("1.5 kg", " ", ",", ("number_unit=kg", "decimal_sign=."), 1.5),
            ("1,020.00", ".", ",", ("thousands_sign=,", "decimal_sign=."), 1020.0),
            (
                "1.020.300 kg",
                ",",
                ".",
                ("number_unit=kg", "thousands_sign=.", "decimal_sign=,"),
                1020300.0,
            ),
        ],
    )
    def test_what_is_advised_reads_the_cell(
        self, folder: Path, cell: str, thousands: Any, decimal: Any, advised: Any, value: float
    ) -> None:
        signs = {"thousands_sign": thousands, "decimal_sign": decimal}
        text = f'path,x\n000.png,"{cell}"\n'
        with pytest.raises(DatasetError) as caught:
            read(folder, text, target_columns=("x",), **signs)
        shown = shlex.split(caught.value.next_step.partition("; dataset.target_columns")[0])
        settings = [word for before, word in itertools.pairwise(shown) if before == "--set"]
        assert settings == [f"dataset.{setting}" for setting in advised]
        told = (f"dataset.{name}={sign}" for name, sign in signs.items())
        config = load_config(
            folder / "m.csv",
            settings=(
                *("dataset.target_columns=[x]", "dataset.val_fraction=0", *told, *settings),
                "dataset.test_fraction=0",
            ),
        )
        assert numbers_of(build_index(config.dataset)) == {"000.png": (value,)}

    @pytest.mark.parametrize(
        ("cell", "unit", "words"),
        [
            ("1 020 EUR", "EUR", '--set "dataset.thousands_sign= " if that'),
            ("$1,020", "", "without '$'; --set 'dataset.decimal_sign=,' if the comma is a decimal "
             'separator; --set "dataset.thousands_sign=," if it separates thousands'),
        ],
    )  # fmt: skip
    def test_a_unit_does_not_hide_the_separator_of_thousands(
        self, folder: Path, cell: str, unit: str, words: str
    ) -> None:
        text = f'path,x\n000.png,"{cell}"\n'
        with pytest.raises(DatasetError) as caught:
            read(folder, text, target_columns=("x",), number_unit=unit)
        assert words in caught.value.next_step

    def test_one_sign_cannot_be_both(self, folder: Path) -> None:
        with pytest.raises(DatasetError, match="are the same"):
            read(folder, "path,x\n000.png,1\n", target_columns=("x",), thousands_sign=".")

    def test_numbers_need_columns(self, folder: Path) -> None:
        with pytest.raises(DatasetError, match="needs the columns"):
            read(folder, "path,label\n000.png,1\n", target="number")

    def test_the_same_bytes_with_two_numbers_are_left_out(self, folder: Path) -> None:
        (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
        text = "path,age\n000.png,1\ncopy.png,2\n001.png,3\n"
        index = read(folder, text, target_columns=("age",))
        assert [row.path for row in index.rows] == ["001.png"]


def test_parquet_says_the_same(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "path": ["000.png", "001.png", "002.png"],
            "labels": [["a", "b"], [], ["b"]],
            "a": [True, False, True],
            "age": [1.5, 2.0, None],
        }
    )
    pq.write_table(table, folder / "m.parquet")
    told: dict[str, Any] = {
        "images": folder / "m.parquet", "val_fraction": 0.0, "test_fraction": 0.0,
    }  # fmt: skip
    listed = build_index(DatasetConfig(**told))
    assert labels_of(listed) == {"000.png": {"a", "b"}, "001.png": set(), "002.png": {"b"}}
    flags = build_index(DatasetConfig(**told, label_columns=("a",)))
    assert labels_of(flags)["001.png"] == set()
    numbers = build_index(DatasetConfig(**told, target_columns=("age",)))
    assert numbers_of(numbers) == {"000.png": (1.5,), "001.png": (2.0,)}


class TestSplits:
    def manifest(self, names: list[str], seed: int = 0) -> str:
        rng = np.random.default_rng(seed)
        lines = [
            f"{name},{'rare;' if number % 20 == 0 else ''}{'odd' if number % 2 else ';'},"
            f"{rng.lognormal():.4f}"
            for number, name in enumerate(names)
        ]
        rng.shuffle(lines)
        return "path,labels,size\n" + "\n".join(lines)

    def test_each_label_and_each_tenth_keep_their_share(self, tmp_path: Path) -> None:
        text = self.manifest(write_images(tmp_path, 200))
        shares = {"val_fraction": 0.2, "test_fraction": 0.2}
        index = read(tmp_path, text, **shares)
        assert index.split_sizes == {"train": 120, "val": 40, "test": 40}
        rare = index.class_names.index("rare")
        assert [counts[rare] for counts in index.split_counts.values()] == [6, 2, 2]
        numbers = read(tmp_path, text, **shares, target_columns=("size",))
        sizes = np.array([row.values[0] for row in numbers.rows])
        edges = np.quantile(sizes, np.linspace(0, 1, 11)[1:-1])
        for split in ("val", "test"):
            own = [row.values[0] for row in numbers.rows if row.split == split]
            assert np.bincount(np.searchsorted(edges, own), minlength=10).tolist() == [4] * 10

    def test_a_few_numbers_are_held_out_too(self, tmp_path: Path) -> None:
        text = self.manifest(write_images(tmp_path, 18))
        shares = {"val_fraction": 0.15, "test_fraction": 0.15}
        numbers = read(tmp_path, text, **shares, target_columns=("size",))
        assert numbers.split_sizes == {"train": 12, "val": 3, "test": 3}

    @pytest.mark.parametrize("columns", [{}, {"target_columns": ("size",)}, {"target": "class"}])
    def test_the_images_of_a_group_fall_to_one_split(self, tmp_path: Path, columns: Any) -> None:
        names = write_images(tmp_path, 60)
        (tmp_path / "copy.png").write_bytes((tmp_path / names[0]).read_bytes())
        lines = ["path,labels,label,size,who"]
        for number, name in enumerate([*names, "copy.png"]):
            what = number % 60 % 2
            who = "p20" if name == "copy.png" else f"p{number // 3}"  # joins two groups by a copy
            lines.append(f"{name},{what};x,{what},{number % 60 + 1},{who}")
        settings = {"val_fraction": 0.2, "test_fraction": 0.2, "group_column": "who", **columns}
        if not columns:
            settings["target"] = "labels"
        index = read(tmp_path, "\n".join(lines), **settings)
        split_of = {row.path: row.split for row in index.rows}
        assert len(index.rows) == 61
        for first in range(0, 60, 3):
            assert len({split_of[name] for name in names[first : first + 3]}) == 1
        assert split_of["copy.png"] == split_of[names[0]]
        assert set(index.split_sizes) == {"train", "val", "test"}
        other = dict(settings, group_column=None)
        assert {r.path: r.split for r in read(tmp_path, "\n".join(lines), **other).rows} != split_of

    def test_a_group_that_given_splits_divide_is_told(self, tmp_path: Path) -> None:
        names = write_images(tmp_path, 4)
        lines = [f"{name},{n},ann,{'val' if n else 'train'}" for n, name in enumerate(names)]
        text = "path,size,who,split\n" + "\n".join(lines)
        index = read(tmp_path, text, target_columns=("size",), group_column="who")
        (told,) = [one for one in index.problems if one.kind == "divided_group"]
        assert (told.path, told.left_out) == ("ann", False)

    def test_images_given_as_test_stay_there_where_a_class_keeps_one_of_its_group(
        self, tmp_path: Path
    ) -> None:
        names = write_images(tmp_path, 12)
        lines = []
        for n, name in enumerate(names):
            what, who = ("x", "ann") if n < 4 else ("yz"[n % 2], n)
            lines.append(f"{name},{what},{who},{'test' if n in (0, 4, 5) else 'train'}")
        text = "path,label,who,split\n" + "\n".join(lines)
        for seed in range(8):  # by some of them all that ann has to train on is drawn to val
            index = read(tmp_path, text, group_column="who", val_fraction=0.5, split_seed=seed)
            split_of = {row.path: row.split for row in index.rows}
            assert [split_of[names[n]] for n in (0, 4, 5)] == ["test"] * 3
            assert {split_of[name] for name in names[1:4]} == {"train"}

    @pytest.mark.parametrize("word", ["N", "No", "false"])
    def test_a_word_for_nothing_is_no_number_and_no_class(self, tmp_path: Path, word: str) -> None:
        names = write_images(tmp_path, 4)
        settings = {"missing_values": ("NA", word), "group_column": "who"}
        cells = ("0", "1", word, "0.0")
        for column, told in (("count", {"target_columns": ("count",)}), ("label", {})):
            lines = [f"{name},{cell},{cell}" for name, cell in zip(names, cells, strict=True)]
            index = read(tmp_path, f"path,{column},who\n" + "\n".join(lines), **told, **settings)
            kept = {row.path for row in index.rows}
            assert {names[0], names[1], names[3]} <= kept
            groups = {row.path: row.group for row in index.rows}
            assert groups[names[0]] == "group 0"
            assert names[2] not in kept

    def test_numbers_that_differ_are_not_one(self, tmp_path: Path) -> None:
        names = write_images(tmp_path, 3)
        (tmp_path / "copy.png").write_bytes((tmp_path / names[0]).read_bytes())
        lines = [f"{names[0]},1700000000", "copy.png,1700004000", f"{names[1]},1234567",
                 f"{names[1]},1234568", f"{names[2]},10000000"]  # fmt: skip
        text = "path,size\n" + "\n".join(lines)
        settings = {"target_columns": ("size",), "missing_values": ("9999999",)}
        index = read(tmp_path, text, **settings)
        assert {row.path for row in index.rows} == {names[2]}
        conflicts = {one.path for one in index.problems if one.kind == "label_conflict"}
        assert conflicts == {names[0], "copy.png", names[1]}

    def test_two_labels_are_not_one_that_reads_alike(self, tmp_path: Path) -> None:
        names = write_images(tmp_path, 3)
        lines = [f"{names[0]},a;b", f"{names[0]},a and b", f"{names[1]},a", f"{names[2]},b"]
        index = read(tmp_path, "path,labels\n" + "\n".join(lines))
        assert {row.path for row in index.rows} == {names[1], names[2]}
        (conflict,) = (one for one in index.problems if one.kind == "label_conflict")
        assert "'a and b'" in conflict.reason

    def test_an_unknown_group_is_none(self, tmp_path: Path) -> None:
        names = write_images(tmp_path, 40)
        text = "path,label,who\n" + "".join(f"{n},{'ab'[i % 2]},NA\n" for i, n in enumerate(names))
        settings = {"group_column": "who", "val_fraction": 0.4, "test_fraction": 0.0}
        assert len(read(tmp_path, text, **settings).split_sizes) == 1
        told = read(tmp_path, text, **settings, missing_values=("NA",))
        assert told.split_sizes["val"] > 5
        assert {row.group for row in told.rows} == {""}

    def test_parts_and_what_is_read_back_know_groups(self, tmp_path: Path) -> None:
        names = write_images(tmp_path, 24)
        lines = [f"{name},{n % 2},p{n // 4}" for n, name in enumerate(names)]
        text = "path,size,who\n" + "\n".join(lines)
        settings = {"target_columns": ("size",), "val_fraction": 0.0, "test_fraction": 0.0}
        index = read(tmp_path, text, group_column="who", **settings)
        assert DatasetIndex.from_json(index.to_json()) == index
        parts = [hold_out(index, number, 3, seed=0) for number in range(3)]
        for part in parts:
            held = {row.group for row in part.rows_of("test")}
            assert held
            assert not held & {row.group for row in part.rows_of("train")}

    def test_the_rarest_label_is_dealt_first_whatever_its_number(self) -> None:
        for rare in (0, 1):
            values = {f"{n:03}": ((rare, 1 - rare) if n < 4 else (1 - rare,)) for n in range(40)}
            dealt = deal_into_folds(values, "labels", 4, seed=0)
            assert sorted(dealt[f"{n:03}"] for n in range(4)) == [0, 1, 2, 3]

    def test_neither_order_nor_names_decide_and_copies_stay_together(self, tmp_path: Path) -> None:
        names = write_images(tmp_path, 60)
        (tmp_path / "copy.png").write_bytes((tmp_path / names[0]).read_bytes())
        text = self.manifest(names)
        first_line = next(line for line in text.split("\n") if line.startswith(names[0]))
        text += f"\ncopy.png,{first_line.partition(',')[2]}\n"
        shares = {"val_fraction": 0.2, "test_fraction": 0.2}
        for columns in ((), ("size",)):
            first = read(tmp_path, text, **shares, target_columns=columns)
            header, *lines = text.strip().split("\n")
            turned = "\n".join([header, *reversed(lines)])
            second = read(tmp_path, turned, **shares, target_columns=columns)
            assert {row.path: row.split for row in first.rows} == {
                row.path: row.split for row in second.rows
            }
            splits = {row.split for row in first.rows if row.path in ("copy.png", names[0])}
            assert len(splits) == 1


def test_the_index_of_labels_and_numbers_reads_back(folder: Path) -> None:
    text = "path,labels,age\n000.png,a;b,1\n001.png,,2\n"
    for columns in ((), ("age",)):
        index = read(folder, text, target_columns=columns)
        assert DatasetIndex.from_json(index.to_json()) == index


def test_the_index_of_classes_is_written_as_before(folder: Path) -> None:
    index = read(folder, "path,label\n000.png,a\n001.png,b\n")
    told = json.loads(index.to_json())
    assert "kind" not in told
    assert [len(row) for row in told["rows"]] == [7, 7]


@pytest.mark.parametrize("sign", ["|", ",", " ", "-", ";", "||", "'"])
def test_a_separator_is_taken_as_it_stands_on_the_command_line(sign: str) -> None:
    for text in (sign, f'"{sign}"'):
        config = load_config("m.csv", settings=(f"dataset.label_separator={text}",))
        assert config.dataset.label_separator == sign


def test_columns_may_be_called_by_numbers() -> None:
    config = load_config("m.csv", settings=("dataset.label_columns=[1, 2]",))
    assert config.dataset.label_columns == ("1", "2")


def test_paths_without_their_ending_are_found_with_it(folder: Path) -> None:
    text = "path,labels\n000,a;b\n001,\n"
    with pytest.raises(DatasetError) as caught:
        read(folder, text)
    assert "dataset.path_suffix" in caught.value.received
    assert set(labels_of(read(folder, text, path_suffix=".png"))) == {"000.png", "001.png"}

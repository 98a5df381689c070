"""The data set stage: folders, splits, duplicates and every kind of bad file."""

import errno
import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headstart.config import SPLITS, DatasetConfig
from headstart.errors import DatasetError
from headstart.tasks.dataset.building import DatasetIndex, build_index, split_position
from headstart.tasks.dataset.file_cache import Verdict
from headstart.tasks.dataset.index import natural_key
from headstart.tasks.dataset.inspection import InspectedImage
from headstart.tasks.dataset.listing import ListedImage
from headstart.tasks.dataset.splits import resolve_duplicates, split_images
from headstart.tasks.running.task_options import is_worth_retrying
from tests.tiny_images import index_of, png, problem, split_by_path, write


def digest_of(data):
    return hashlib.sha256(data).hexdigest()


def two_classes(root, number=6):
    """Two class folders of `number` images each."""
    files = {f"cat/{i}.png": png(i) for i in range(number)}
    files |= {f"dog/{i}.png": png(1000 + i) for i in range(number)}
    return write(root, files)


# Layouts


def test_class_folders_become_rows(tmp_path):
    index = index_of(two_classes(tmp_path, number=3))
    assert index.class_names == ("cat", "dog")
    assert [(row.path, row.label) for row in index.rows] == [
        ("cat/0.png", 0),
        ("cat/1.png", 0),
        ("cat/2.png", 0),
        ("dog/0.png", 1),
        ("dog/1.png", 1),
        ("dog/2.png", 1),
    ]
    row = index.rows[0]
    assert (row.width, row.height, row.format) == (6, 5, "PNG")
    assert len(row.digest) == 64
    assert index.num_files_seen == 6


def test_images_below_a_class_folder_are_found_at_any_depth(tmp_path):
    write(two_classes(tmp_path), {"cat/a/b/deep.png": png(77)})
    assert "cat/a/b/deep.png" in split_by_path(index_of(tmp_path))


def test_classes_are_sorted_naturally():
    names = ["class 10", "class 2", "Apple", "banana", "10", "9", "apple"]
    expected = ["9", "10", "Apple", "apple", "banana", "class 2", "class 10"]
    assert sorted(names, key=natural_key) == expected
    assert sorted([*names[3:], *names[:3]], key=natural_key) == expected


def test_given_split_folders_hold(tmp_path):
    files = {
        f"{split}/{label}/{i}.png": png(100 * s + 10 * c + i)
        for s, split in enumerate(("train", "val", "test"))
        for c, label in enumerate(("cat", "dog"))
        for i in range(2)
    }
    index = index_of(write(tmp_path, files), val_fraction=0.9, test_fraction=0.09)
    assert index.split_counts == {"train": (2, 2), "val": (2, 2), "test": (2, 2)}
    assert all(row.path.startswith(f"{row.split}/") for row in index.rows)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
def test_names_of_the_val_folder(tmp_path, name):
    files = {f"train/{c}/1.png": png(i) for i, c in enumerate("ab")}
    files |= {f"{name}/{c}/1.png": png(10 + i) for i, c in enumerate("ab")}
    index = index_of(write(tmp_path, files), val_fraction=0.84)
    assert index.split_counts == {"train": (1, 1), "val": (1, 1)}


def test_val_is_carved_from_train_and_never_from_test(tmp_path):
    files = {f"train/{c}/{i}.png": png(100 * k + i) for k, c in enumerate("ab") for i in range(30)}
    files |= {
        f"test/{c}/{i}.png": png(999 + 30 * k + i) for k, c in enumerate("ab") for i in (1, 2)
    }
    index = index_of(write(tmp_path, files), val_fraction=0.3)
    assert {row.split for row in index.rows} == {"train", "val", "test"}
    for row in index.rows:
        is_test = row.path.startswith("test/")
        expected_val = split_position(row.digest, 0) < 0.3
        assert row.split == ("test" if is_test else "val" if expected_val else "train")


def test_split_and_class_folders_together_are_refused(tmp_path):
    write(two_classes(tmp_path), {"train/cat/1.png": png(50)})
    with pytest.raises(DatasetError, match="mixes split folders") as caught:
        index_of(tmp_path)
    assert "train/ beside cat/, dog/" in str(caught.value)


def test_class_called_train_is_a_class_among_others(tmp_path):
    files = {
        f"{c}/{i}.png": png(10 * k + i) for k, c in enumerate(("bus", "train")) for i in (0, 1)
    }
    assert index_of(write(tmp_path, files)).class_names == ("bus", "train")


def test_wrapper_folder_is_named_as_the_path_to_give(tmp_path):
    two_classes(tmp_path / "flowers")
    with pytest.raises(DatasetError, match="at least two class folders") as caught:
        index_of(tmp_path)
    assert f"give {tmp_path / 'flowers'} as the path" in caught.value.next_step


def test_one_class_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="only cat/"):
        index_of(write(tmp_path, {"cat/1.png": png(1)}))


def test_images_without_class_folders_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"no class folder \(2 files\)\n  1.png: lies beside"):
        index_of(write(tmp_path, {"1.png": png(1), "2.png": png(2)}))


def test_class_folders_that_are_all_links_to_elsewhere_are_refused_with_the_reason(tmp_path):
    two_classes(tmp_path / "elsewhere")
    (tmp_path / "root").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(DatasetError, match="cat: points outside the folder, so it is not followed"):
        index_of(tmp_path / "root")


def test_one_class_in_split_folders_is_not_taken_for_a_wrapper(tmp_path):
    with pytest.raises(DatasetError, match="only train/cat/") as caught:
        index_of(write(tmp_path, {"train/cat/1.png": png(1), "train/cat/2.png": png(2)}))
    assert "give" not in caught.value.next_step


def test_one_class_with_usable_images_is_refused_and_says_why(tmp_path):
    write(tmp_path, {"cat/1.png": png(1), "dog/1.png": b"text"})
    with pytest.raises(DatasetError, match="only the class cat") as caught:
        index_of(tmp_path)
    assert "dog/1.png: not an image" in str(caught.value)


def test_no_usable_image_is_refused_and_says_why(tmp_path):
    with pytest.raises(DatasetError, match=r"none\n  cat/1.png: the file is empty"):
        index_of(write(tmp_path, {"cat/1.png": b"", "dog/1.png": b""}))


def test_missing_folder_suggests_the_nearest_name(tmp_path):
    two_classes(tmp_path / "flowers")
    with pytest.raises(DatasetError, match="does not exist") as caught:
        index_of(tmp_path / "flowrs" / "train")
    assert f"did you mean {tmp_path / 'flowers'}?" in caught.value.next_step


def test_missing_folder_names_the_nearest_that_exists(tmp_path):
    with pytest.raises(DatasetError) as caught:
        index_of(tmp_path / "a" / "b")
    assert f"{tmp_path} is the nearest folder that exists" in caught.value.next_step


def test_a_file_that_is_no_manifest_is_refused(tmp_path):
    write(tmp_path, {"photo.png": png(1)})
    with pytest.raises(DatasetError, match="CSV or Parquet"):
        index_of(tmp_path / "photo.png")


def test_decomposed_and_composed_folder_names_are_one_class(tmp_path):
    files = {"train/caf\u00e9/1.png": png(1), "val/cafe\u0301/1.png": png(2)}
    files |= {"train/tea/1.png": png(3), "val/tea/1.png": png(4)}
    assert index_of(write(tmp_path, files)).class_names == ("caf\u00e9", "tea")


def test_hidden_and_junk_files_are_passed_over_and_counted(tmp_path):
    write(two_classes(tmp_path), {"cat/.DS_Store": b"x", "Thumbs.db": b"x", "__MACOSX/a": b"x"})
    index = index_of(tmp_path)
    assert (index.num_files_seen, index.num_ignored) == (12, 3)
    assert not index.left_out


# Bad files


def bomb():
    return png(1, size=(200, 100))


@pytest.mark.parametrize(
    ("name", "data", "kind", "reason"),
    [
        ("empty.png", b"", "zero_byte", "the file is empty (0 bytes)"),
        ("notes.jpg", b"these are notes", "not_an_image", "not an image in a supported format"),
        ("cut.png", png(9)[:-30], "truncated", "PNG file is cut short"),
        ("broken.png", png(9)[:50] + b"?" + png(9)[51:], "corrupt", "PNG file is damaged"),
        ("huge.png", bomb(), "too_large", "200 x 100 = 20,000 pixels"),
    ],
)
def test_bad_file_is_left_out_with_a_line(tmp_path, name, data, kind, reason):
    write(two_classes(tmp_path), {f"cat/{name}": data})
    index = index_of(tmp_path, max_pixels=10_000)
    found = problem(index, f"cat/{name}")
    assert (found.kind, found.left_out) == (kind, True)
    assert reason in found.reason
    assert len(index.rows) == 12
    assert index.num_files_seen == 13


def test_image_with_a_wrong_extension_is_used(tmp_path):
    write(two_classes(tmp_path), {"cat/photo.txt": png(55)})
    assert "cat/photo.txt" in split_by_path(index_of(tmp_path))


def test_files_in_the_root_get_a_line_but_only_images_count_as_left_out(tmp_path):
    write(two_classes(tmp_path), {"labels.txt": b"cat\ndog\n", "lost.png": png(3)})
    index = index_of(tmp_path)
    assert problem(index, "labels.txt").kind == "stray_file"
    assert [found.path for found in index.left_out] == ["lost.png"]


def test_empty_class_folder_gets_a_line(tmp_path):
    (two_classes(tmp_path) / "emu").mkdir()
    index = index_of(tmp_path)
    assert index.class_names == ("cat", "dog")
    assert problem(index, "emu").kind == "empty_class"


def test_symlink_that_leaves_the_root_is_left_out(tmp_path):
    outside = write(tmp_path / "outside", {"1.png": png(70)})
    root = two_classes(tmp_path / "root")
    (root / "cat" / "link.png").symlink_to(outside / "1.png")
    (root / "cat" / "folder").symlink_to(outside)
    (root / "cat" / "dangling.png").symlink_to(root / "nothing")
    index = index_of(root)
    assert len(index.rows) == 12
    for name, words in (
        ("link.png", "outside"),
        ("folder", "outside"),
        ("dangling.png", "nothing"),
    ):
        found = problem(index, f"cat/{name}")
        assert (found.kind, found.left_out) == ("symlink", True)
        assert words in found.reason
        assert str(tmp_path) not in found.reason


def test_symlinks_inside_the_root_are_followed(tmp_path):
    write(two_classes(tmp_path), {".pool/many/1.png": png(70), ".pool/one.png": png(71)})
    (tmp_path / "cat" / "one.png").symlink_to("../.pool/one.png")
    (tmp_path / "cat" / "many").symlink_to("../.pool/many")
    index = index_of(tmp_path)
    assert {"cat/one.png", "cat/many/1.png"} <= set(split_by_path(index))
    assert not index.left_out


def test_symlink_loops_end(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "cat" / "self").symlink_to("self")
    index = index_of(tmp_path)
    assert len(index.rows) == 12
    assert problem(index, "cat/up").kind == "symlink"
    assert problem(index, "cat/self").kind == "symlink"


def test_special_files_are_not_opened(tmp_path):
    two_classes(tmp_path)
    os.mkfifo(tmp_path / "cat" / "pipe.png")  # opening it would wait for ever
    index = index_of(tmp_path)
    assert problem(index, "cat/pipe.png").kind == "special_file"


def test_socket_is_not_opened(tmp_path, monkeypatch):
    two_classes(tmp_path)
    monkeypatch.chdir(tmp_path / "cat")  # the address of a socket may be 107 bytes long at most
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        assert problem(index_of(tmp_path), "cat/socket.png").kind == "special_file"


def test_name_that_is_not_utf8_gets_a_line_with_escapes(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(png(60))
    (tmp_path / "dog" / os.fsdecode(b"\xff")).mkdir()
    index = index_of(tmp_path)
    assert problem(index, r"cat/caf\xe9.png").kind == "bad_name"
    assert "everything in it is left out" in problem(index, r"dog/\xff").reason
    json.loads(index.to_json().encode("utf-8"))


def test_control_characters_do_not_break_a_line(tmp_path):
    write(two_classes(tmp_path), {"cat/two\nlines.png": b""})
    assert str(index_of(tmp_path).left_out[0]).startswith(r"cat/two\nlines.png: ")


def test_unreadable_file_and_folder_get_a_line(tmp_path, monkeypatch):
    write(two_classes(tmp_path), {"cat/private/1.png": png(88)})
    open_file, scan = Path.open, os.scandir

    def refuse_open(self, *arguments, **options):
        if self.name == "3.png" and self.parent.name == "cat":
            raise PermissionError(13, "Permission denied", str(self))
        return open_file(self, *arguments, **options)

    def refuse_scan(path):
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(Path, "open", refuse_open)
    monkeypatch.setattr(os, "scandir", refuse_scan)
    index = index_of(tmp_path)
    assert str(problem(index, "cat/3.png")) == "cat/3.png: cannot be read (permission denied)"
    assert problem(index, "cat/private").kind == "unreadable"
    assert len(index.rows) == 11


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_server_that_fails_costs_no_image(tmp_path, monkeypatch, kind, code):
    two_classes(tmp_path)
    open_file, scan = Path.open, os.scandir

    def fail_open(self, *arguments, **options):
        if kind == "file" and self.name == "3.png":
            raise OSError(code, os.strerror(code), str(self))
        return open_file(self, *arguments, **options)

    def fail_scan(path):
        if kind == "folder" and Path(path).name == "cat":
            raise OSError(code, os.strerror(code), str(path))
        return scan(path)

    monkeypatch.setattr(Path, "open", fail_open)
    monkeypatch.setattr(os, "scandir", fail_scan)
    with pytest.raises(DatasetError, match=os.strerror(code)) as caught:
        index_of(tmp_path)
    assert str(tmp_path / "cat") in caught.value.received
    assert is_worth_retrying(caught.value)


def test_strict_refuses_and_lists_all_that_would_be_left_out(tmp_path):
    write(two_classes(tmp_path), {"cat/empty.png": b"", "dog/text.png": b"text", "README": b"x"})
    with pytest.raises(DatasetError) as caught:
        index_of(tmp_path, strict=True)
    assert "2 left out" in str(caught.value)
    assert "cat/empty.png: the file is empty" in str(caught.value)
    assert "dog/text.png: not an image" in str(caught.value)


def test_strict_accepts_sound_data_and_warnings(tmp_path):
    write(two_classes(tmp_path), {"README": b"x"})
    assert len(index_of(tmp_path, strict=True).rows) == 12


# Splits


def test_split_is_a_pure_function_of_seed_and_content():
    digest = "ab" * 32
    assert split_position(digest, 0) == split_position(digest, 0)
    assert split_position(digest, 0) != split_position(digest, 1)
    # A fixed value: were it to change, every user's split would.
    assert split_position(digest, 0) == 0.8654541095530952


def test_shares_come_out_near_the_fractions_in_every_class():
    positions = np.array([split_position(f"{i:064x}", 3) for i in range(20_000)])
    counts, _ = np.histogram(positions, bins=10, range=(0, 1))
    # Binomial with p = 0.1: five standard deviations are 212.
    assert abs(counts - 2000).max() < 212
    assert positions.min() >= 0
    assert positions.max() < 1


def only_one(split_of, path):
    """Say whether an image is its class's only one to train on."""
    folder = path.partition("/")[0]
    own = [split for other, split in split_of.items() if other.startswith(f"{folder}/")]
    return own.count("train") == 1


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 40), min_size=6), st.sets(st.integers(0, 40)), st.integers(0, 3))
def test_adding_images_moves_no_other(tmp_path_factory, first, more, seed):
    assume(any(split_position(digest_of(png(i)), seed) >= 0.4 for i in first))  # some train
    root = tmp_path_factory.mktemp("images")
    write(root, {f"{'cat' if i % 2 else 'dog'}/{i}.png": png(i) for i in {0, 1} | first})
    options = {"split_seed": seed, "val_fraction": 0.2, "test_fraction": 0.2}
    before = split_by_path(index_of(root, **options))
    write(root, {f"{'cat' if i % 2 else 'dog'}/{i}.png": png(i) for i in more})
    after = split_by_path(index_of(root, **options))
    # But for the image that a class without any is given to train on.
    alone = {path for path in before if before[path] == "train" and only_one(before, path)}
    kept = before.keys() - alone
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}


def test_index_does_not_depend_on_machine_path_or_file_order(tmp_path, monkeypatch):
    first = two_classes(tmp_path / "a", number=8)
    second = tmp_path / "elsewhere" / "b"
    for source in sorted(first.rglob("*.png"), reverse=True):
        target = second / source.relative_to(first)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    one, other = index_of(first), index_of(second)
    assert one == other
    assert one.to_json() == other.to_json()
    assert str(tmp_path) not in one.to_json()


def test_renaming_and_relabelling_moves_no_image(tmp_path):
    root = two_classes(tmp_path, number=10)
    before = {row.digest: row.split for row in index_of(root).rows}
    (root / "cat" / "3.png").rename(root / "dog" / "was a cat.png")
    (root / "cat").rename(root / "kitten")
    assert {row.digest: row.split for row in index_of(root).rows} == before


def test_a_class_keeps_an_image_to_train_on(tmp_path):
    seeds = [s for s in range(60) if split_position(digest_of(png(s)), 0) >= 0.3][:8]
    held_out = [s for s in range(99) if split_position(digest_of(png(s)), 0) < 0.3][:4]
    files = {f"cat/{s}.png": png(s) for s in seeds}
    files |= {f"rare/{s}.png": png(s) for s in held_out}
    nearest = max(held_out, key=lambda s: split_position(digest_of(png(s)), 0))
    write(tmp_path, files | {f"rare/copy of {nearest}.png": png(nearest)})
    index = index_of(tmp_path)
    trained = {row.path for row in index.rows_of("train") if row.label == 1}
    assert trained == {f"rare/{nearest}.png", f"rare/copy of {nearest}.png"}
    found = [found for found in index.problems if "chance would" in found.reason]
    assert [(one.path, one.kind, one.left_out) for one in found] == [("rare", "few_images", False)]


def test_class_whose_given_splits_have_no_training_image_is_warned_of(tmp_path):
    files = {f"train/{c}/1.png": png(i) for i, c in enumerate("ab")}
    files |= {f"val/{c}/1.png": png(10 + i) for i, c in enumerate("abc")}
    found = problem(index_of(write(tmp_path, files)), "c")
    assert (found.kind, found.left_out) == ("few_images", False)
    assert "no train image, so it cannot be learned" in found.reason


def test_of_many_classes_without_training_images_each_is_named(tmp_path):
    files = {f"train/{c}/1.png": png(i) for i, c in enumerate("ab")}
    files |= {f"val/{c}/1.png": png(10 + i) for i, c in enumerate("abcdefgh")}
    found = [one for one in index_of(write(tmp_path, files)).problems if one.kind == "few_images"]
    assert [one.path for one in found] == list("cdefgh")


@settings(deadline=None, max_examples=30)
@given(
    counts=st.lists(st.integers(1, 4), min_size=2, max_size=30), seed=st.integers(0, 99),
    fractions=st.sampled_from([(0.15, 0.15), (0.5, 0.49), (0.9, 0.0), (0.0, 0.9)]),
)  # fmt: skip
def test_no_class_is_left_without_a_training_image(counts, seed, fractions):
    config = DatasetConfig(
        images="x", split_seed=seed, val_fraction=fractions[0], test_fraction=fractions[1]
    )
    images = [
        InspectedImage(
            ListedImage(f"{c}/{i}", "", str(c), None), digest_of(b"%d/%d" % (c, i)), Verdict()
        )
        for c, count in enumerate(counts)
        for i in range(count)
    ]
    chosen, _ = split_images(images, config)
    trained = {image.listed.label for image, s in zip(images, chosen, strict=True) if s == "train"}
    assert trained == {str(c) for c in range(len(counts))}


def test_empty_val_split_is_warned_of(tmp_path):
    found = problem(index_of(two_classes(tmp_path), val_fraction=0.0), "val")
    assert (found.kind, found.left_out) == ("few_images", False)


def test_nothing_to_train_on_is_refused(tmp_path):
    files = {f"val/{c}/1.png": png(i) for i, c in enumerate("ab")}
    with pytest.raises(DatasetError, match="to train on"):
        index_of(write(tmp_path, files))


# Duplicates


def test_duplicates_in_one_class_stay_together(tmp_path):
    write(two_classes(tmp_path), {"cat/copy.png": png(0)})
    index = index_of(tmp_path)
    splits = split_by_path(index)
    assert splits["cat/copy.png"] == splits["cat/0.png"]
    assert (len(index.rows), len(index.digests)) == (13, 12)


def test_training_copy_of_a_held_out_image_is_left_out(tmp_path):
    places = [f"{split}/{c}/{i}.png" for split in SPLITS for c in "ab" for i in (0, 1)]
    files = {place: png(number) for number, place in enumerate(places)}
    files |= {"train/a/seen.png": png(5000), "val/a/seen.png": png(5000), "test/a/x.png": png(5000)}
    index = index_of(write(tmp_path, files))
    assert "test/a/x.png" in split_by_path(index)
    assert {found.path for found in index.left_out} == {"train/a/seen.png", "val/a/seen.png"}
    found = problem(index, "train/a/seen.png")
    assert found.kind == "straddling_duplicate"
    assert "test/a/x.png in test has the same bytes" in found.reason


class CountedPath(str):
    """A path that counts how often it is compared with another."""

    num_compared = 0

    def __lt__(self, other):
        type(self).num_compared += 1
        return str.__lt__(self, other)


def test_many_copies_under_two_labels_are_told_apart_without_comparing_each_with_each():
    verdict = Verdict(reason=None, width=1, height=1, format="PNG")
    copies = [
        InspectedImage(
            ListedImage(CountedPath(f"{number:04}.png"), "", "ab"[number % 2], None), "d", verdict
        )
        for number in reversed(range(1000))
    ]
    kept, problems = resolve_duplicates(copies)
    assert kept == []
    reasons = {str(problem.path): problem.reason for problem in problems}
    assert "labelled b, but 0000.png has the same bytes and is labelled a" in reasons["0999.png"]
    assert "labelled a, but 0001.png has the same bytes and is labelled b" in reasons["0000.png"]
    assert CountedPath.num_compared < 50_000


def test_same_bytes_under_two_labels_are_all_left_out(tmp_path):
    write(two_classes(tmp_path), {"dog/cat.png": png(0)})
    index = index_of(tmp_path)
    assert {found.path for found in index.left_out} == {"cat/0.png", "dog/cat.png"}
    found = problem(index, "dog/cat.png")
    assert found.kind == "label_conflict"
    assert "cat/0.png has the same bytes and is labelled cat" in found.reason
    assert len(index.rows) == 11


# Digests and JSON


def test_images_digest_ignores_labels_splits_and_paths(tmp_path):
    root = two_classes(tmp_path)
    before = index_of(root)
    (root / "cat" / "0.png").rename(root / "dog" / "moved.png")
    after = index_of(root, split_seed=5)
    assert after.images_digest == before.images_digest
    assert after.labels_digest != before.labels_digest


def test_labels_digest_ignores_paths_but_not_duplicates_splits_or_class_names(tmp_path):
    root = two_classes(tmp_path, number=10)
    digest = index_of(root).labels_digest
    (root / "cat" / "0.png").rename(root / "cat" / "zzz.png")
    assert index_of(root).labels_digest == digest
    assert index_of(root, split_seed=1).labels_digest != digest
    write(root, {"cat/copy.png": png(1)})
    assert index_of(root).labels_digest != digest
    (root / "cat" / "copy.png").unlink()
    (root / "cat").rename(root / "civet")
    assert index_of(root).labels_digest != digest


def test_json_round_trip(tmp_path):
    write(two_classes(tmp_path), {"cat/empty.png": b"", "cat/Größe 猫.png": png(42)})
    index = index_of(tmp_path)
    assert DatasetIndex.from_json(index.to_json()) == index


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 99}'])
def test_other_json_is_refused(text):
    with pytest.raises(DatasetError, match="JSON of a data set index"):
        DatasetIndex.from_json(text)


def test_summary_is_short_and_says_where_the_rest_is(tmp_path):
    files = {f"cat/empty{i}.png": b"" for i in range(5)}
    index = index_of(write(two_classes(tmp_path), files | {"dog/text.png": b"text"}))
    lines = index.summary_lines(max_per_kind=2, listed_in="run/index.json")
    assert lines[0].startswith("12 images, 2 classes (cat, dog), train ")
    assert lines[0].endswith("; 6 left out: 5 empty file, 1 not an image")
    assert lines[1] == "  cat/empty0.png: the file is empty (0 bytes)"
    assert lines[3] == "  … and 3 more: empty file"
    assert lines[-1] == "  All of them: run/index.json"


def test_rows_of_gives_one_split(tmp_path):
    index = index_of(two_classes(tmp_path, number=20))
    assert {row.split for row in index.rows_of("val")} == {"val"}
    assert sum(len(index.rows_of(split)) for split in SPLITS) == len(index.rows)


def test_rows_are_numbered_by_what_the_images_hold_and_not_by_their_names(tmp_path):
    # Trainings, rungs, folds and draws of rankings all number images by this order.
    first = index_of(two_classes(tmp_path / "first", number=20))
    second = tmp_path / "second"
    for number, path in enumerate(sorted((tmp_path / "first").rglob("*.png"), reverse=True)):
        target = second / path.parent.name / f"{number:03}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    renamed = index_of(second)
    for split in SPLITS:
        rows, again = (index.rows_of(split) for index in (first, renamed))
        assert [row.digest for row in rows] == [row.digest for row in again]
        assert [row.path for row in rows] != [row.path for row in again]


def test_progress_reaches_the_number_of_files(tmp_path):
    calls = []
    build_index(
        DatasetConfig(images=two_classes(tmp_path)),
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (12, 12)


def test_labels_digest_of_some_splits_ignores_the_others(tmp_path):
    names = [f"{split}/{label}/0.png" for split in ("train", "val", "test") for label in "ab"]
    write(tmp_path, {name: png(number) for number, name in enumerate(names)})
    before = index_of(tmp_path)
    write(tmp_path, {"test/a/1.png": png(50)})
    after = index_of(tmp_path)
    assert before.labels_digest != after.labels_digest
    assert before.labels_digest_of(("train", "val")) == after.labels_digest_of(("train", "val"))
    assert before.labels_digest_of(("test",)) != after.labels_digest_of(("test",))


def test_images_that_are_only_judged_may_be_of_one_class_or_held_out(tmp_path):
    write(tmp_path, {f"test/cat/{number}.png": png(number) for number in range(3)})
    source = DatasetConfig(images=tmp_path, val_fraction=0.0, test_fraction=0.0)
    index = build_index(source, for_training=False)
    assert (len(index.rows), index.class_names, index.problems) == (3, ("cat",), ())

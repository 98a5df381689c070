"""Which rows belong to which image and label, and what decides a collection's digest."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from headstart.config import BackboneConfig, BottleneckConfig, Split, ViewsConfig
from headstart.errors import BackboneError, DamagedShardError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.preprocessing import Preprocessing
from headstart.tasks.bottlenecks.rows import (
    CutCollections,
    bottleneck_collections,
    labelled_rows,
    open_backbone,
    wanted_rows,
)
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.views.addresses import augmented_rows, plain_rows
from tests.pipeline import SIDE, save_backbone, tiny_network

NUM_AUGMENTED = 3
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def digest_of(name: str) -> str:
    return bytes_digest(name.encode())


def image(path: str, content: str, label: int, split: Split) -> ImageRow:
    return ImageRow(path, digest_of(content), label, split, SIDE, SIDE, "PNG")


INDEX = DatasetIndex(
    ("blue", "red"),
    (
        image("blue/1.png", "cat", 0, "train"),
        image("blue/2.png", "dog", 0, "val"),
        image("blue/copy of 1.png", "cat", 0, "train"),
        image("red/1.png", "cow", 1, "train"),
        image("red/2.png", "hen", 1, "val"),
    ),
)
"""Two files of one class have the same bytes; there is no test split."""


def value_of(content: str, view: int) -> list[float]:
    """Make up a bottleneck that no other image and view has."""
    return [int(digest_of(content)[:2], 16), view]


def fill(store: Store, num_augmented: int) -> CutCollections:
    """Keep a row for each view of each image, and of one that is not in the data set."""
    plain = RowCollection(store, "bottlenecks", "plain", (2,), "float16")
    augmented = RowCollection(store, "bottlenecks", "augmented", (2,), "float16")
    contents = ["elk", "hen", "cow", "dog", "cat"]
    views: list[tuple[RowCollection, range]] = [
        (plain, range(1)),
        (augmented, range(1, 1 + num_augmented)),
    ]
    for collection, numbers in views:
        with collection.lock(), collection.writer(9) as writer:
            for content in contents:
                for view in numbers:
                    row = np.array(value_of(content, view), np.float16)
                    writer.write(RowId(digest_of(content), view), row)
    return CutCollections("top", plain, augmented if num_augmented else None)


def positions(*numbers: int) -> npt.NDArray[np.int64]:
    return np.array(numbers, np.int64)


def test_the_made_up_rows_differ() -> None:
    assert len({value_of(name, 0)[0] for name in ("elk", "hen", "cow", "dog", "cat")}) == 5


def test_each_image_has_its_label_and_its_row(store: Store) -> None:
    rows = labelled_rows(fill(store, 0), INDEX, 0, SPLITS)
    assert list(rows) == ["train", "val"]  # there are no test images
    assert rows["train"].labels.tolist() == [0, 0, 1]
    assert rows["val"].labels.tolist() == [0, 1]
    assert rows["train"].labels.dtype == np.int32
    assert (len(rows["train"]), rows["train"].num_augmented) == (3, 0)
    gathered = rows["train"].gather(positions(0, 1, 2), 0)
    assert gathered.dtype == np.float16
    assert gathered.tolist() == [value_of(name, 0) for name in ("cat", "cat", "cow")]
    assert rows["val"].gather(positions(1, 0, 1), 0).tolist() == [
        value_of(name, 0) for name in ("hen", "dog", "hen")
    ]


@pytest.mark.parametrize("view", range(1 + NUM_AUGMENTED))
def test_each_view_has_its_row(store: Store, view: int) -> None:
    rows = labelled_rows(fill(store, NUM_AUGMENTED), INDEX, NUM_AUGMENTED, SPLITS)
    assert rows["train"].num_augmented == NUM_AUGMENTED
    assert rows["train"].positions.shape == (3, 1 + NUM_AUGMENTED)
    assert rows["train"].positions.dtype == np.int64
    assert rows["train"].gather(positions(2, 0, 1), view).tolist() == [
        value_of(name, view) for name in ("cow", "cat", "cat")
    ]
    assert rows["val"].gather(positions(0, 1), view).tolist() == [
        value_of(name, view) for name in ("dog", "hen")
    ]


def test_fewer_views_than_there_are_can_be_opened(store: Store) -> None:
    rows = labelled_rows(fill(store, NUM_AUGMENTED), INDEX, 2, SPLITS)
    assert rows["train"].num_augmented == 2
    assert rows["train"].gather(positions(2), 2).tolist() == [value_of("cow", 2)]


def test_copies_share_one_row(store: Store) -> None:
    rows = labelled_rows(fill(store, NUM_AUGMENTED), INDEX, NUM_AUGMENTED, ["train"])
    assert rows["train"].positions[0].tolist() == rows["train"].positions[1].tolist()
    assert [len(reader) for reader in rows["train"].readers] == [2, 2 * NUM_AUGMENTED]


def test_splits_are_opened_in_the_order_asked_for(store: Store) -> None:
    assert list(labelled_rows(fill(store, 0), INDEX, 0, ["val", "train"])) == ["val", "train"]


def test_a_row_that_is_gone_is_reported(store: Store) -> None:
    with pytest.raises(DamagedShardError, match="of 12 rows are missing"):
        labelled_rows(fill(store, 2), INDEX, NUM_AUGMENTED, SPLITS)


def test_wanted_rows_are_each_view_of_each_distinct_image_once(store: Store) -> None:
    digests = sorted(digest_of(name) for name in ("cat", "dog", "cow", "hen"))
    cut = fill(store, 2)
    (plain, plain_ids), (augmented, augmented_ids) = wanted_rows(cut, INDEX, 2)
    assert (plain, augmented) == (cut.plain, cut.augmented)
    assert plain_ids == plain_rows(digests) == [(name, 0) for name in digests]
    assert augmented_ids == augmented_rows(digests, 2)
    assert augmented_ids == [(name, view) for name in digests for view in (1, 2)]
    without = CutCollections("top", cut.plain, None)
    assert wanted_rows(without, INDEX, 0) == [(cut.plain, plain_ids)]


def make_backbone(size: int = SIDE, mode: str = "none", seed: int = 0) -> Backbone:
    return Backbone("tiny", size, Preprocessing(mode), tiny_network(seed, size=size))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


VIEWS = ViewsConfig(num_augmented=NUM_AUGMENTED)


def digests(
    store: Store,
    backbone: Backbone,
    views: ViewsConfig = VIEWS,
    config: BottleneckConfig = BottleneckConfig(),  # noqa: B008
) -> list[str]:
    """Return the digests of the head's own cut: plain, then augmented."""
    cuts = bottleneck_collections(store, backbone, views, config)
    return [collection.digest for collection in next(iter(cuts.values())).collections]


def changed(one: list[str], other: list[str]) -> list[bool]:
    return [old != new for old, new in zip(one, other, strict=True)]


@pytest.mark.parametrize(
    "config", [BottleneckConfig(cut="second"), BottleneckConfig(dtype="float32")]
)
def test_cut_and_storage_type_decide_the_digest(
    store: Store, backbone: Backbone, config: BottleneckConfig
) -> None:
    assert changed(digests(store, backbone), digests(store, backbone, VIEWS, config)) == [True] * 2


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"mode": "tf"}, {"size": 2 * SIDE}], ids=["weights", "pixels", "size"]
)
def test_the_network_decides_the_digest(
    store: Store, backbone: Backbone, other: dict[str, int]
) -> None:
    found = digests(store, make_backbone(**other))  # type: ignore[arg-type]
    assert changed(digests(store, backbone), found) == [True] * 2


def test_weights_behind_the_cut_do_not_decide_the_digest(store: Store, backbone: Backbone) -> None:
    network = tiny_network()
    layer = network.get_layer("third")
    layer.set_weights([2 * weight + 1 for weight in layer.get_weights()])
    other = Backbone("tiny", SIDE, Preprocessing("none"), network)
    second, top = BottleneckConfig(cut="second"), BottleneckConfig()
    assert digests(store, other, config=second) == digests(store, backbone, config=second)
    assert changed(digests(store, other, config=top), digests(store, backbone)) == [True] * 2


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("resize", "pad", [True, True]),
        ("seed", 1, [False, True]),  # the plain view has nothing random
        ("augmentations", ({"kind": "flip"},), [False, True]),
    ],
)
def test_the_recipe_of_a_view_decides_the_digest(
    store: Store, backbone: Backbone, field: str, value: object, expected: list[bool]
) -> None:
    views = ViewsConfig.model_validate({"num_augmented": NUM_AUGMENTED, field: value})
    assert changed(digests(store, backbone), digests(store, backbone, views)) == expected


def test_what_changes_no_row_does_not_decide_the_digest(store: Store, backbone: Backbone) -> None:
    config = BottleneckConfig(batch_size=7, num_parity_rows=3, extra_cuts=("second",))
    views = ViewsConfig(num_augmented=NUM_AUGMENTED + 4)
    assert digests(store, backbone, views, config) == digests(store, backbone)
    assert digests(store, backbone, ViewsConfig()) == digests(store, backbone)[:1]
    assert digests(store, make_backbone()) == digests(store, backbone)


def test_each_cut_has_collections_of_its_shape_once(store: Store, backbone: Backbone) -> None:
    config = BottleneckConfig(cut="second", extra_cuts=("pool", "second", "top"))
    cuts = bottleneck_collections(store, backbone, VIEWS, config)
    assert list(cuts) == ["second", "top"]  # pool is the layer of the top
    assert [one.shape for one in cuts["second"].collections] == [(5, 5, 8)] * 2
    assert [one.shape for one in cuts["top"].collections] == [(16,)] * 2
    assert len({one.digest for cut in cuts.values() for one in cut.collections}) == 4


def test_a_cut_that_is_none_is_refused(store: Store, backbone: Backbone) -> None:
    config = BottleneckConfig(extra_cuts=("secnd",))
    with pytest.raises(BackboneError, match="did you mean second"):
        bottleneck_collections(store, backbone, VIEWS, config)


def test_a_backbone_is_loaded_once_and_again_after_its_file_changed(tmp_path: Path) -> None:
    path = save_backbone(tmp_path / "net.keras")
    config = BackboneConfig(name=str(path))
    first = open_backbone(config, None)
    assert open_backbone(config, None) is first
    stat = path.stat()
    save_backbone(path, seed=1)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as an unpacked archive may have it
    second = open_backbone(config, None)
    assert second.fingerprint("top")["weights"] != first.fingerprint("top")["weights"]
    assert open_backbone(config, None) is second


def test_another_size_is_another_backbone(tmp_path: Path) -> None:
    config = BackboneConfig(name=str(save_backbone(tmp_path / "net.keras", size=None)))
    assert open_backbone(config, 24).image_size == 24
    assert open_backbone(config, 32).image_size == 32

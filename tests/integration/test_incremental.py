"""What a change to the data or the store makes the backbone compute: only what is new."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from headstart.tasks.store.garbage import Criteria, collect_garbage
from headstart.tasks.store.records import RowCollection, Shard
from headstart.tasks.views.recipes import plain_collection
from tests.pipeline import (
    COLOURS,
    NUM_IMAGES,
    NUM_PER_CLASS,
    Pipeline,
    add_images,
    computed,
    statuses,
)


def stored(collection: RowCollection) -> dict[str, npt.NDArray[np.float16]]:
    """Return all rows of a collection by image."""
    rows = [row_id for shard in collection.shards() for row_id in shard.row_ids]
    values = collection.select(rows).gather(range(len(rows)))
    return {row_id.image_digest: value for row_id, value in zip(rows, values, strict=True)}


def shard_files(pipeline: Pipeline) -> list[tuple[Shard, Path]]:
    collection = pipeline.collections()[0]
    return [(shard, pipeline.store.root / shard.entry.path) for shard in collection.shards()]


def test_ten_new_images_compute_ten_rows(finished: Pipeline) -> None:
    add_images(finished.images, "red", range(500, 510))
    summary = finished.run()
    assert finished.num_passed() == 10
    assert computed(summary)["views"] == computed(summary)["bottlenecks"] == 10
    assert statuses(summary)["head"] == "miss"
    rows = {outcome.name: outcome.rows for outcome in summary.stages}
    assert rows["bottlenecks"] == NUM_IMAGES + 10


def test_a_new_image_makes_its_own_views_alone_where_the_others_are_gone(
    finished: Pipeline,
) -> None:
    collect_garbage(finished.store, Criteria(views=True))
    next((finished.images / "red").iterdir()).unlink()
    assert computed(finished.run())["views"] == 0
    add_images(finished.images, "red", [600, 601])
    summary = finished.run()
    assert computed(summary)["views"] == computed(summary)["bottlenecks"] == 2
    assert finished.num_passed() == 2


def test_relabelling_computes_no_row(finished: Pipeline) -> None:
    moved = next((finished.images / "red").iterdir())
    moved.rename(finished.images / "blue" / "moved.png")
    summary = finished.run()
    assert finished.num_passed() == 0
    assert statuses(summary)["bottlenecks"] == "hit"
    assert statuses(summary)["head"] == "miss"


def test_a_test_image_does_not_train_the_head_again(pipeline: Pipeline, tmp_path: Path) -> None:
    images = tmp_path / "splits"
    for split in ("train", "val"):
        for label in COLOURS:
            add_images(images / split, label, range(3) if split == "train" else [9])
    pipeline.run(images=images)
    assert pipeline.num_passed() == 12
    add_images(images / "test", "red", [7])
    summary = pipeline.run(images=images)
    assert pipeline.num_passed() == 1
    assert statuses(summary)["head"] == "hit"
    assert statuses(summary)["evaluation"] == "miss"
    assert set(summary.metrics) == {"val", "test"}


def test_merging_and_renaming_classes_computes_no_row(finished: Pipeline) -> None:
    for path in (finished.images / "red").iterdir():
        path.rename(finished.images / "blue" / path.name)
    (finished.images / "red").rmdir()
    (finished.images / "blue").rename(finished.images / "not green")
    summary = finished.run()
    assert finished.num_passed() == 0
    assert statuses(summary)["bottlenecks"] == "hit"


def test_another_split_computes_no_row(finished: Pipeline) -> None:
    summary = finished.run("dataset.split_seed=7")
    assert finished.num_passed() == 0
    assert statuses(summary)["bottlenecks"] == "hit"
    assert statuses(summary)["head"] == "miss"


def test_removing_images_computes_no_row(finished: Pipeline) -> None:
    for path in sorted((finished.images / "red").iterdir())[:3]:
        path.unlink()
    summary = finished.run()
    assert finished.num_passed() == 0
    assert computed(summary)["bottlenecks"] == 0
    assert statuses(summary)["head"] == "miss"


@pytest.mark.parametrize("restores_time", [False, True])
def test_an_image_that_is_edited_in_place_is_noticed(
    finished: Pipeline, restores_time: bool
) -> None:
    path = next((finished.images / "red").iterdir())
    stat = path.stat()
    data = path.read_bytes()
    add_images(finished.images, "red", [900], ".tmp.png")
    new = (finished.images / "red" / "0900.tmp.png").read_bytes()
    (finished.images / "red" / "0900.tmp.png").unlink()
    path.write_bytes(new)
    if restores_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.read_bytes() != data
    summary = finished.run()
    assert finished.num_passed() == 1
    assert computed(summary)["bottlenecks"] == 1


@pytest.mark.parametrize(
    "change",
    ["bottlenecks.dtype=float32", "bottlenecks.cut=second", "views.resize=pad"],
)
def test_what_decides_a_bottleneck_computes_all_rows(finished: Pipeline, change: str) -> None:
    finished.run(change)
    assert finished.num_passed() == NUM_IMAGES


def test_other_weights_compute_all_rows(finished: Pipeline) -> None:
    from tests.pipeline import save_backbone

    save_backbone(finished.backbone, seed=1)
    finished.run()
    assert finished.num_passed() == NUM_IMAGES


def test_a_further_cut_writes_that_cut_alone(finished: Pipeline) -> None:
    before = {path: path.stat().st_mtime_ns for _, path in shard_files(finished)}
    summary = finished.run("bottlenecks.extra_cuts=[second, third]")
    assert finished.num_passed() == NUM_IMAGES  # one pass for both
    assert computed(summary)["bottlenecks"] == 2 * NUM_IMAGES
    assert statuses(summary)["head"] == "hit"
    assert {path: path.stat().st_mtime_ns for _, path in shard_files(finished)} == before


def test_more_views_compute_the_new_ones(finished: Pipeline) -> None:
    two = finished.run("views.num_augmented=2")
    assert finished.num_passed() == 2 * NUM_IMAGES
    assert computed(two)["views"] == computed(two)["bottlenecks"] == 2 * NUM_IMAGES
    three = finished.run("views.num_augmented=3")
    assert finished.num_passed() == NUM_IMAGES
    assert computed(three)["views"] == NUM_IMAGES
    again = finished.run("views.num_augmented=2")
    assert finished.num_passed() == 0
    assert set(statuses(again).values()) == {"hit"}


@pytest.mark.parametrize(
    "damage", ["delete", "shorten", "flip", "flip_and_restore_time", "index", "no_index"]
)
def test_damage_computes_the_rows_of_its_shard_and_no_other(
    finished: Pipeline, damage: str
) -> None:
    expected = stored(finished.collections()[0])
    metrics = finished.run("head.seed=1").metrics
    shard, path = shard_files(finished)[0]
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "delete":
        path.unlink()
    elif damage == "shorten":
        path.write_bytes(data[:-5])
    elif damage == "no_index":
        path.with_suffix(".index.npz").unlink()
    elif damage == "index":
        path.with_suffix(".index.npz").write_bytes(b"?")
    else:
        path.write_bytes(data)
    if damage == "flip_and_restore_time":
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    # Another head must read the rows, and so finds what looks whole from outside.
    summary = finished.run("head.seed=2")
    # A damaged index is written anew from its shard; a shard without one was never finished.
    lost = 0 if damage == "index" else len(shard.row_ids)
    assert finished.num_passed() == lost < NUM_IMAGES
    found = stored(finished.collections()[0])
    assert found.keys() == expected.keys()
    for digest, row in expected.items():
        np.testing.assert_allclose(found[digest], row, rtol=2e-3, atol=2e-3)
    assert finished.run("head.seed=1").metrics == metrics
    assert set(summary.metrics) == set(metrics)


def test_a_damaged_shard_of_views_is_made_again(finished: Pipeline) -> None:
    config = finished.config()
    collection = plain_collection(config.views, 16, finished.store)
    path = finished.store.root / collection.shards()[0].entry.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    summary = finished.run("bottlenecks.dtype=float32")
    assert summary.metrics["val"]["accuracy"] == 1.0
    assert finished.num_passed() >= NUM_IMAGES


def run_slowly(pipeline: Pipeline) -> None:
    """Run in a process of its own, with shards of few rows and a pause after each batch."""
    from headstart.tasks.bottlenecks import making
    from headstart.tasks.store import records

    records.MIN_SHARD_ROWS = 10
    original = making.freeze

    def freeze(*arguments: object) -> object:
        extract = original(*arguments)  # type: ignore[arg-type]

        def slow(pixels: object) -> object:
            time.sleep(0.4)
            return extract(pixels)

        return slow

    making.freeze = freeze  # type: ignore[assignment]
    pipeline.run()


def test_a_killed_run_goes_on_from_its_finished_shards(pipeline: Pipeline, tmp_path: Path) -> None:
    undisturbed = Pipeline(pipeline.images, pipeline.backbone, type(pipeline.store)(tmp_path / "u"))
    expected = undisturbed.run()
    pipeline.num_passed()
    spawn = multiprocessing.get_context("spawn")
    runner = spawn.Process(target=run_slowly, args=(pipeline,))
    runner.start()
    folder = pipeline.store.root / "rows" / "bottlenecks"
    deadline_s = time.monotonic() + 120
    while len(list(folder.glob("*/*.index.npz"))) < 2:
        assert time.monotonic() < deadline_s
        assert runner.is_alive()
        time.sleep(0.02)
    assert runner.pid is not None
    os.kill(runner.pid, signal.SIGKILL)
    runner.join()
    kept = sum(len(shard.row_ids) for shard, _ in shard_files(pipeline))
    assert 20 <= kept < NUM_IMAGES
    summary = pipeline.run()
    assert pipeline.num_passed() == NUM_IMAGES - kept
    assert computed(summary)["bottlenecks"] == NUM_IMAGES - kept
    assert computed(summary)["views"] == 0
    assert summary.metrics == expected.metrics


def test_two_runs_at_once_compute_each_row_once(pipeline: Pipeline) -> None:
    spawn = multiprocessing.get_context("spawn")
    runners = [spawn.Process(target=run_slowly, args=(pipeline,)) for _ in range(2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert [runner.exitcode for runner in runners] == [0, 0]
    rows = [row_id for shard, _ in shard_files(pipeline) for row_id in shard.row_ids]
    assert len(rows) == len(set(rows)) == NUM_IMAGES
    summary = pipeline.run()
    assert set(statuses(summary).values()) == {"hit"}


def test_a_copied_store_is_all_hits(finished: Pipeline, tmp_path: Path) -> None:
    # As `cp -r` does: the same bytes, other times.
    copy = shutil.copytree(finished.store.root, tmp_path / "copy", copy_function=shutil.copyfile)
    moved = Pipeline(finished.images, finished.backbone, type(finished.store)(copy))
    summary = moved.run()
    assert set(statuses(summary).values()) == {"hit"}
    assert finished.num_passed() == 0
    assert len(list((finished.images / "red").iterdir())) == NUM_PER_CLASS

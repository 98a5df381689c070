"""The scratch flow on a tiny data set: what it makes, reuses, resumes and refuses."""

import contextlib
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import ScratchConfig, build_config
from headstart.errors import BackboneError, ConfigError, DatasetError, TrainingError
from headstart.flows.diagnosis import Watch, watching
from headstart.tasks.dataset.pixel_source import folder_config, has_image_files
from headstart.tasks.dataset.pixels import (
    channel_statistics,
    index_images,
    open_images,
    open_labels,
)
from headstart.tasks.dataset.pixels import stage as make_pixels
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.report import data_uri
from headstart.tasks.export.predict import Predictor
from headstart.tasks.head.training import predict_logits
from headstart.tasks.progress import Advance, Reporter, copy_progress_to, use_reporter
from headstart.tasks.runs.config_file import write_config
from headstart.tasks.runs.run_folder import RunSummary
from headstart.tasks.scratch.batches import steps_an_epoch, training_batches
from headstart.tasks.scratch.schedule import MOST_VIEWS
from headstart.tasks.scratch.schedule import stage as make_schedule
from headstart.tasks.scratch.stage import _training_key
from headstart.tasks.scratch.stage import training as train
from headstart.tasks.scratch.subject import PixelRows
from headstart.tasks.scratch.training import refresh_statistics
from headstart.tasks.store.artifacts import Store, artefact, use_store
from headstart.tasks.views.epoch_stage import layout_of
from headstart.tasks.views.epoch_stage import stage as make_views
from tests.pipeline import statuses
from tests.scratch_data import NUM_CLASSES, SCRATCH, SIDE, bars, idx_bytes, write_idx

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idx(tmp_path_factory.mktemp("data") / "bars")


def config(data: Path, *settings: str) -> ScratchConfig:
    return build_config(ScratchConfig, str(data), settings=(*SCRATCH, *settings))


def run(data: Path, store: Path, *settings: str) -> RunSummary:
    from headstart.flows.scratch import scratch

    summary = scratch.fn(config(data, *settings), store)
    assert isinstance(summary, RunSummary)
    return summary


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    """Run once; return the store and what came out."""
    store = tmp_path_factory.mktemp("finished") / "store"
    return store, run(data, store)


def test_it_learns_and_says_so(finished: tuple[Path, RunSummary]) -> None:
    _, summary = finished
    assert [outcome.name for outcome in summary.stages] == [
        "pixels",
        "schedule",
        "epoch_views",
        "training",
        "evaluation",
        "export",
    ]
    assert summary.metrics["test"]["accuracy"] > 0.9
    assert set(summary.metrics) == {"test"}
    assert Path(summary.report).read_text().count("precomputed views per image") >= 1
    folder = Path(summary.run_dir)
    assert (folder / "config.yaml").exists()
    assert len(list((folder / "hard").rglob("*.png"))) == 2
    with Image.open(folder / "views.jpg") as sheet:
        assert sheet.size[0] > 5 * 192  # an original and four views beside each other
    page = Path(summary.report).read_text()
    assert data_uri((folder / "views.jpg").read_bytes(), "image/jpeg") in page
    assert "What the network sees" in page
    assert list((folder / "tensorboard").rglob("*tfevents*"))


def test_the_exported_model_classifies_gray_and_colour_files(
    finished: tuple[Path, RunSummary],
) -> None:
    _, summary = finished
    images, labels = bars(30, seed=5)
    predictor = Predictor.load(Path(summary.run_dir))
    files = []
    for number, image in enumerate(images):
        picture = Image.fromarray(image)
        file = Path(summary.run_dir) / f"new-{number}.png"
        (picture if number % 2 else picture.convert("RGB")).save(file)
        files.append(file)
    predicted = [one.top[0][0] for one in predictor.stream(files, lambda *_: None)]
    right = np.mean([int(name) == label for name, label in zip(predicted, labels, strict=True)])
    assert right > 0.9
    assert predictor.card.class_names == tuple(str(n) for n in range(NUM_CLASSES))
    assert predictor.card.image_size == SIDE


def test_a_second_run_computes_nothing(data: Path, finished: tuple[Path, RunSummary]) -> None:
    store, first = finished
    again = run(data, store)
    assert set(statuses(again).values()) == {"hit"}
    assert again.metrics == first.metrics


def test_a_training_by_epochs_is_the_same_again(
    data: Path,
    finished: tuple[Path, RunSummary],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = []

    def watch(folder: Path, section: str, **options: bool) -> AbstractContextManager[Watch]:
        watched.append(folder.name)
        assert section == "training"
        return watching(folder, section, **options)

    monkeypatch.setattr("headstart.flows.diagnosis.watching", watch)
    again = run(data, tmp_path / "store", "compare=true")
    assert watched == ["crash", "without-augmentation"]
    assert set(statuses(again).values()) == {"miss"}
    assert again.metrics == finished[1].metrics
    # A network without augmentation is trained beside it, and both are shown.
    assert len([outcome for outcome in again.stages if outcome.name == "training"]) == 2
    with Image.open(Path(again.run_dir) / "heatmaps.png") as sheet:
        assert sheet.size[0] > 1000
    page = Path(again.report).read_text()
    assert "with augmentation" in page
    assert data_uri((Path(again.run_dir) / "heatmaps.png").read_bytes(), "image/png") in page


def test_a_budget_ends_annealed_and_mirrors_are_judged_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = itertools.count(0.0, 0.05)  # each look at the clock takes this long
    monkeypatch.setattr("headstart.tasks.scratch.clock.time.monotonic", lambda: next(now_s))
    settings = ("training.budget_s=4", "views.num_views=2", "views.flip=true")
    told: list[tuple[str, int]] = []

    @contextlib.contextmanager
    def watch(title: str, total: int, unit: str) -> Iterator[Advance]:
        told.append((title, total))
        yield lambda count: None

    with copy_progress_to(watch):
        summary = run(data, tmp_path / "store", *settings)
    assert 1 <= dict(told)["training"] < 100  # the epochs expected, not fit's without end
    manifests = (tmp_path / "store" / "manifests").glob("training/*.json")
    (manifest,) = [json.loads(path.read_text()) for path in manifests]
    assert manifest["final_share"] > 0.9
    assert 10 < manifest["num_steps"] < 40
    assert "ms per training step" in Path(summary.report).read_text()
    assert set(summary.metrics) == {"test", "test_flip"}


def test_mirror_images_are_judged_left_to_right() -> None:
    inputs = keras.Input((2, 3, 1))
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    images = np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1)
    labels = np.zeros(2, np.int32)
    plain, mirrored = PixelRows(images, labels), PixelRows(images, labels, mirrored=True)
    assert predict_logits(model, plain).tolist() == images.reshape(2, 6).tolist()
    assert predict_logits(model, mirrored)[0].tolist() == [2, 1, 0, 5, 4, 3]


def test_averaged_weights_get_statistics_of_their_own() -> None:
    inputs = keras.Input((2, 2, 1))
    norm = keras.layers.BatchNormalization(momentum=0.5)
    model = keras.Model(inputs, norm(inputs))
    norm.moving_mean.assign([99.0])
    pixels = np.random.default_rng(0).normal(3.0, 2.0, (4, 8, 2, 2, 1)).astype(np.float32)
    refresh_statistics(model, tf.data.Dataset.from_tensor_slices((pixels, pixels)))
    assert norm.moving_mean.numpy()[0] == pytest.approx(pixels.mean(), abs=1e-5)
    variance = np.mean([batch.var() for batch in pixels])
    assert norm.moving_variance.numpy()[0] == pytest.approx(variance, rel=1e-4)
    assert norm.momentum == 0.5


def test_a_training_with_averaged_weights_is_as_right_as_its_evaluation_says(
    data: Path, tmp_path: Path
) -> None:
    summary = run(data, tmp_path / "store", "training.ema=0.9", "training.epochs=2")
    assert summary.metrics["test"]["loss"] < 5.0  # statistics of other weights gave more


def test_logits_do_not_depend_on_how_many_images_a_pass_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = keras.Input((2, 3, 1))
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    images = np.arange(42, dtype=np.uint8).reshape(7, 2, 3, 1)
    monkeypatch.setattr("headstart.tasks.head.batches.MAX_EVALUATION_BYTES", 800)  # 2 images
    rows = PixelRows(images, np.zeros(7, np.int32))
    assert predict_logits(model, rows).tolist() == images.reshape(7, 6).tolist()


def test_mean_and_deviation_do_not_depend_on_how_many_pixels_are_summed_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    at_once = channel_statistics(images)
    monkeypatch.setattr("headstart.tasks.dataset.pixels.CHUNK_PIXELS", 33)  # 2 images
    assert channel_statistics(images) == at_once


def test_a_trainings_log_holds_nothing_of_another(data: Path, tmp_path: Path, store: Store) -> None:
    cfg = config(data, "training.epochs=1")
    pixels = make_pixels(cfg.dataset, None)
    schedule = make_schedule(pixels, cfg.network, cfg.training)
    views = make_views(pixels, cfg.views, 1)
    (tmp_path / "logs" / "train").mkdir(parents=True)
    (tmp_path / "logs" / "train" / "events.out.tfevents.of-another").write_bytes(b"")
    made = train(pixels, views, schedule, cfg.network, cfg.training, tmp_path / "logs")
    names = {path.name for path in artefact(made, "tensorboard").rglob("*")}
    assert names
    assert "events.out.tfevents.of-another" not in names


def test_a_rate_that_is_too_high_is_told_as_such(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="finite") as caught:
        run(
            data,
            tmp_path / "store",
            "training.learning_rate=1000",
            "training.warmup=0",
            "training.weight_decay=1",
        )
    assert "lr-find" in caught.value.next_step


def test_a_folder_of_images_is_resized_and_split(tmp_path: Path, store: Store) -> None:
    images, labels = bars(60, seed=3)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "images" / f"class {label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((30, 30)).save(path)
    source = config(tmp_path / "images", "dataset.image_size=8").dataset
    assert has_image_files(source)
    pixels = make_pixels(source, dataset_stage(folder_config(source)))
    assert pixels.image_shape == (8, 8, 3)
    assert pixels.class_names == ("class 0", "class 1", "class 2")
    counts = {split: sum(of_class) for split, of_class in pixels.counts.items()}
    assert sum(counts.values()) == 60
    assert 0 < counts["test"] < counts["train"]
    rows = open_images(pixels, "train")
    assert pixels.mean == pytest.approx(rows.mean(axis=(0, 1, 2)).tolist())
    assert pixels.std == pytest.approx(rows.std(axis=(0, 1, 2)).tolist())


@pytest.mark.parametrize(("kind", "same"), [("class", False), ("labels", False), ("number", True)])
def test_a_training_is_kept_by_the_settings_that_its_targets_read(
    monkeypatch: pytest.MonkeyPatch, kind: str, same: bool
) -> None:
    monkeypatch.setattr("headstart.tasks.scratch.stage.open_labels", lambda *_: np.zeros(2))
    pixels: Any = SimpleNamespace(kind=kind, class_names=("a",), key="pixels")
    views: Any = SimpleNamespace(recipe={}, num_views=1)
    schedule: Any = SimpleNamespace(width=8, training_s=None)
    keys = [
        _training_key(pixels, views, schedule, told.network, told.training, Path())
        for told in (config(Path("i"), f"training.label_smoothing={share}") for share in (0.0, 0.2))
    ]
    assert (keys[0] == keys[1]) == same
    assert ("number_loss" in str(keys[0])) == (kind == "number")


def test_pixels_are_kept_by_what_decoded_them(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = config(write_split_folder(tmp_path / "images", {"train": 2, "test": 1})).dataset
    index = dataset_stage(folder_config(source))
    first = make_pixels(source, index)
    assert make_pixels(source, index).key == first.key
    monkeypatch.setattr("headstart.tasks.dataset.folder_pixels.codecs_digest", lambda: "others")
    assert make_pixels(source, index).key != first.key


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"another image", "other bytes than were indexed"), (None, "No such file")],
)
def test_an_image_that_is_not_what_was_indexed_is_named(
    tmp_path: Path, store: Store, content: bytes | None, reason: str
) -> None:
    source = config(write_split_folder(tmp_path / "images", {"train": 2, "test": 1})).dataset
    index = dataset_stage(folder_config(source))
    path = tmp_path / "images" / "train" / "class 1" / "1.png"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"1\.png: {reason}"):
        make_pixels(source, index)


def test_a_data_set_that_cannot_be_read_is_refused(
    data: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("headstart.tasks.dataset.pixels.file_digest", refuse)
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte: Permission denied"):
        make_pixels(config(data).dataset, None)


def write_split_folder(folder: Path, splits: dict[str, int]) -> Path:
    """Write images under split folders: so many of each class, none twice."""
    for seed, (split, number) in enumerate(splits.items()):
        for count, (image, label) in enumerate(
            zip(*bars(number * NUM_CLASSES, seed=seed), strict=True)
        ):
            path = folder / split / f"class {label}" / f"{count}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


@pytest.mark.parametrize(
    ("splits", "train", "test"),
    [
        ({"train": 5, "val": 3, "test": 2}, 24, 6),
        ({"train": 5, "val": 3}, 15, 9),
    ],
)
def test_validation_images_are_trained_on_or_tested_on(
    tmp_path: Path, store: Store, splits: dict[str, int], train: int, test: int
) -> None:
    source = config(write_split_folder(tmp_path / "images", splits)).dataset
    pixels = make_pixels(source, dataset_stage(folder_config(source)))
    assert {split: sum(counts) for split, counts in pixels.counts.items()} == {
        "train": train,
        "test": test,
    }
    assert len(open_labels(pixels, "train")) == len(open_images(pixels, "train")) == train


def test_splits_of_other_names_and_manifests_are_read_as_train_reads_them(
    tmp_path: Path, store: Store
) -> None:
    images = write_split_folder(tmp_path / "images", {"lernen": 4, "holdout": 2})
    names = "dataset.split_names={lernen: train, holdout: test}"
    pixels = make_pixels(source := config(images, names).dataset, index_images(source))
    counts = {split: sum(of_class) for split, of_class in pixels.counts.items()}
    assert counts == {"train": 12, "test": 6}

    rows = [f"{path.relative_to(images)},{path.parent.name},{path.parts[-3]}"
            for path in sorted(images.rglob("*.png"))]  # fmt: skip
    (tmp_path / "table.csv").write_text("\n".join(["file,what,part", *rows]))
    columns = ("dataset.path_column=file", "dataset.label_column=what", "dataset.split_column=part")
    source = config(tmp_path / "table.csv", names, f"dataset.root={images}", *columns).dataset
    assert make_pixels(source, index_images(source)).key == pixels.key


def test_how_image_files_are_read_says_nothing_of_other_formats(data: Path, store: Store) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.layout: only for image files"):
        make_pixels(config(data, "dataset.layout=classes").dataset, None)


def test_a_table_of_labels_is_read_as_that(tmp_path: Path, store: Store) -> None:
    images = write_split_folder(tmp_path / "images", {"train": 1})
    rows = [f"{path.relative_to(tmp_path)},a;b" for path in images.rglob("*.png")]
    (tmp_path / "table.csv").write_text("\n".join(["path,labels", *rows]))
    index = index_images(config(tmp_path / "table.csv").dataset)
    assert (index.kind, index.class_names) == ("labels", ("a", "b"))


def test_a_folder_without_images_to_test_on_says_how_to_bring_some(
    tmp_path: Path, store: Store
) -> None:
    source = config(write_split_folder(tmp_path / "images", {"train": 4})).dataset
    with pytest.raises(DatasetError, match="no test images") as caught:
        make_pixels(source, dataset_stage(folder_config(source)))
    assert "test/" in caught.value.next_step


def test_files_that_are_left_out_are_told_and_listed(tmp_path: Path) -> None:
    images = write_split_folder(tmp_path / "images", {"train": 8, "test": 4})
    (images / "train" / "class 1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    told = io.StringIO()
    with use_reporter(Reporter(Console(file=told, width=200))):
        summary = run(images, tmp_path / "store", "training.epochs=1", "dataset.image_size=20")
    assert [file["path"] for file in summary.left_out] == ["train/class 1/broken.png"]
    assert "train/class 1/broken.png: " in told.getvalue()
    assert "val_fraction" not in told.getvalue()  # nothing is validated here


def test_images_too_small_for_a_network_are_refused_before_their_views_are_made(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match="at least 67 pixels"):
        run(data, tmp_path / "store", "network.name=alexnet")
    assert not (tmp_path / "store" / "manifests" / "epoch_views").exists()


def test_images_of_two_sizes_are_refused(tmp_path: Path, store: Store) -> None:
    folder = write_idx(tmp_path / "mixed")
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((60, 22, 22))))
    with pytest.raises(DatasetError, match="train 20 x 20 x 1, test 22 x 22 x 1"):
        make_pixels(config(folder).dataset, None)


def test_images_that_are_not_square_are_refused(tmp_path: Path, store: Store) -> None:
    folder = write_idx(tmp_path / "wide")
    for split in ("train", "t10k"):
        flat = np.zeros((30, 20, 16), np.uint8)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(flat))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(30) % 3))
    with pytest.raises(DatasetError, match="20 x 16"):
        make_pixels(config(folder).dataset, None)


@pytest.mark.parametrize("is_folder_of_images", [False, True])
def test_data_goes_with_a_name_alone(data: Path, tmp_path: Path, is_folder_of_images: bool) -> None:
    source = config(tmp_path if is_folder_of_images else data, f"dataset.data={data}").dataset
    with pytest.raises(DatasetError, match="data set that has a name"):
        make_pixels(source, folder_config(source) if is_folder_of_images else None)


def test_the_written_configuration_is_the_same_run_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnist").mkdir()  # a name is a name, whatever lies here
    monkeypatch.chdir(tmp_path)
    made = ScratchConfig.model_validate({"dataset": {"images": "mnist", "data": "copies"}})
    write_config(tmp_path, made)
    again = build_config(ScratchConfig, file=tmp_path / "config.yaml")
    assert again.dataset.images == "mnist"
    assert again.dataset.data == tmp_path / "copies"


def test_a_view_that_turns_out_damaged_is_made_again(data: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    settings = ("training.epochs=2",)
    run(data, store, *settings)
    shard = next((store / "artefacts" / "epoch_view").rglob("*.tfrecord"))
    written, stat = shard.read_bytes(), shard.stat()
    damaged = bytearray(written)
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a failing disk would
    summary = run(data, store, *settings, "training.seed=1")
    assert shard.read_bytes() == written
    assert summary.metrics["test"]["num_images"] == 60


def test_epochs_beyond_the_most_views_share_them(data: Path, store: Store) -> None:
    cfg = config(data, f"training.epochs={MOST_VIEWS + 5}")
    schedule = make_schedule(make_pixels(cfg.dataset, None), cfg.network, cfg.training)
    assert (schedule.epochs, schedule.num_views) == (MOST_VIEWS + 5, MOST_VIEWS)
    assert schedule.reason == f"{MOST_VIEWS + 5} epochs, as requested"


# Batches


def test_an_epoch_has_each_image_once_at_most_and_drops_less_than_a_batch(
    data: Path, store: Store
) -> None:
    cfg = config(data)
    pixels = make_pixels(cfg.dataset, None)
    views = make_views(pixels, cfg.views, 2)
    labels = open_labels(pixels, "train")
    marked = np.arange(len(labels), dtype=np.int32)  # each image a class of its own
    batches = training_batches(views, layout_of(pixels), marked, 300, 32, 0.0, 0)
    steps = steps_an_epoch(32, 300)
    assert steps == 9
    epochs = []
    for epoch in range(4):
        chosen = batches.skip(epoch * steps).take(steps)
        seen = np.concatenate([targets.numpy().argmax(axis=1) for _, targets in chosen])
        assert len(seen) == len(set(seen.tolist())) == 288
        assert max(Counter(labels[seen].tolist()).values()) <= 100
        epochs.append(seen.tolist())
    dropped = [frozenset(range(300)) - set(epoch) for epoch in epochs]
    assert dropped[0] != dropped[1]  # not always the same images
    assert epochs[0] != epochs[2]  # view 1 again, in another order


def test_the_order_of_an_epoch_owes_nothing_to_the_process(data: Path, store: Store) -> None:
    cfg = config(data)
    pixels = make_pixels(cfg.dataset, None)
    views = make_views(pixels, cfg.views, 1)
    orders = []
    for process_seed in (0, 7):
        tf.random.set_seed(process_seed)
        marked = np.arange(300, dtype=np.int32)
        batches = training_batches(views, layout_of(pixels), marked, 300, 32, 0.0, 0)
        orders.append([targets.numpy().argmax(axis=1).tolist() for _, targets in batches.take(2)])
    assert orders[0] == orders[1]


def test_batches_are_no_larger_than_the_data_set() -> None:
    assert steps_an_epoch(512, 300) == 1


# The command


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def settings() -> list[str]:
    return [part for setting in SCRATCH for part in ("--set", setting)]


def test_plan_says_the_bytes_and_refuses_a_short_disk(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["scratch", str(data), *settings(), "--plan", "--json"]
    result = invoke(*arguments, "--store", str(tmp_path / "store"))
    plan = json.loads(result.stdout)
    assert result.exit_code == 0
    assert plan["num_views"] == plan["num_missing"] == 6
    assert plan["missing_bytes"] == 6 * plan["view_bytes"]
    assert plan["view_bytes"] > 300 * SIDE * SIDE

    class Usage:
        free = 1000

    monkeypatch.setattr("headstart.tasks.scratch.planning.shutil.disk_usage", lambda _: Usage)
    assert invoke(*arguments[:-1], "--store", str(tmp_path / "store")).exit_code == 4


def test_lr_find_draws_a_curve(data: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    result = invoke("lr-find", str(data), *settings(), "--steps", "12", "--json", "--store", store)
    found = json.loads(result.stdout)
    assert found["rates"] == sorted(found["rates"])
    assert len(found["rates"]) == len(found["losses"]) > 2
    assert found["suggested"] > 0
    picture = Image.open(io.BytesIO(Path(found["picture"]).read_bytes()))
    assert picture.size[0] > 300
    assert list(Path(found["run_dir"]).rglob("*tfevents*"))


def test_lr_find_replaces_its_own_curve_and_nothing_else(
    data: Path, tmp_path: Path, finished: tuple[Path, RunSummary]
) -> None:
    arguments = ["lr-find", str(data), *settings(), "--steps", "10"]
    arguments += ["--store", str(tmp_path / "store"), "--out"]
    curve = tmp_path / "curve"
    for _ in range(2):
        result = invoke(*arguments, str(curve))
        assert result.exit_code == 0, result.output
        assert {path.name for path in curve.iterdir()} == {"range_test.png", "tensorboard"}
        assert len(list(curve.rglob("*tfevents*"))) == 1
    (curve / "tensorboard" / "notes.txt").write_text("precious")
    run_dir = Path(finished[1].run_dir)
    for folder in (curve, run_dir):
        assert isinstance(invoke(*arguments, str(folder)).exception, ConfigError)
    assert (curve / "tensorboard" / "notes.txt").exists()
    assert (run_dir / "model.keras").exists()


def test_quick_and_a_name_are_enough_to_configure() -> None:
    from headstart.commands.scratch import _load

    made = _load("mnist", None, None, None, True, None, None, None)
    assert made.training.budget_s == 70.0
    assert _load("mnist", None, None, None, True, None, 3, None).training.budget_s is None
    other = _load("mnist", None, None, ["network.name=lenet5"], True, None, None, None)
    assert (other.network.width, other.network.pool_first) == (1.0, False)
    assert other.training.budget_s == 70.0
    with pytest.raises(ConfigError, match="only applies to resnet9"):
        _load("mnist", None, None, ["network.name=lenet5"], True, None, None, "0.5")
    assert _load("mnist", None, None, None, True, None, None, "auto").network.width == "auto"
    with pytest.raises(ConfigError, match=r"training\.seed"):
        _load("mnist", None, None, ["training.seed=4294967296"], False, None, None, None)
    with pytest.raises(ConfigError, match="by time or by epochs"):
        _load("mnist", None, None, None, False, 10.0, 3, None)
    with pytest.raises(ConfigError, match="width=auto"):
        _load("mnist", None, None, None, False, None, None, "auto")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_can_be_read_and_gives_its_own_command(path: Path) -> None:
    build_config(ScratchConfig, file=path)
    header = path.read_text().split("\ndataset:")[0]
    assert f"headstart scratch --config configs/{path.name}" in header
    assert all(word in header for word in ("Hardware", "Accuracy", "Training"))


def test_the_quick_recipe_is_what_quick_sets() -> None:
    from headstart.commands.scratch import _load

    file = build_config(ScratchConfig, file=CONFIGS / "fashion_mnist_quick.yaml")
    assert file == _load("fashion-mnist", None, None, None, True, None, None, None)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with use_store(Store(tmp_path / "store")), pytest.raises(DatasetError, match="fashion-mnist"):
        make_pixels(ScratchConfig.model_validate({"dataset": {"images": "nmist"}}).dataset, None)

import csv
import gc
import io
import itertools
import json
import os
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from headstart.errors import ConfigError, DatasetError, ExportError, OutputError
from headstart.standard_output import give_up, telling_failures
from headstart.tasks.explanation.subject import load_subject
from headstart.tasks.export import predict as predict_module
from headstart.tasks.export.image_files import find_images
from headstart.tasks.export.judging import judge
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.predict import Predictor
from headstart.tasks.export.prediction_output import OutputFormat, predict_to
from headstart.tasks.views.augment import plain_view
from headstart.tasks.views.recipes import Resize
from tests.exported import (
    CLASS_NAMES,
    SIZE,
    export_tiny,
    image_of,
    pipeline_logits,
    tiny_extractor,
    tiny_head,
)
from tests.pipeline import Pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = 8


def mean_colour_network(views: np.ndarray) -> np.ndarray:
    """Give each view's mean red, green and blue as shares: exact and easy to foresee."""
    means = views.mean(axis=(1, 2), dtype=np.float64) + 1e-3
    return (means / means.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def predictor() -> Predictor:
    card = ModelCard(class_names=("red", "grün", "blue"), image_size=SIDE, resize="squash")
    return Predictor(card, mean_colour_network)


def save(path: Path, colour: object, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def ignore_bad(path: str, reason: str) -> None:
    raise AssertionError(f"{path}: {reason}")


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_predictions_are_the_pipelines_own(tmp_path: Path, resize: Resize) -> None:
    images = [image_of(31, 57, 1), image_of(SIZE, SIZE, 2), image_of(90, 41, 3)]
    export_tiny(tmp_path, ("saved_model",), resize)
    expected = tf.nn.softmax(pipeline_logits(tiny_extractor(), tiny_head(), images, resize)).numpy()
    for predicted, row in zip(
        Predictor.load(tmp_path).predict(images, top_k=9), expected, strict=True
    ):
        assert [label for label, _ in predicted.top] == [CLASS_NAMES[i] for i in np.argsort(-row)]
        np.testing.assert_allclose([p for _, p in predicted.top], -np.sort(-row), atol=1e-5)
        assert (predicted.label, predicted.probability) == predicted.top[0]


def test_predict_takes_paths_bytes_arrays_and_pillow_images(
    predictor: Predictor, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.png", BLUE)
    pixels = np.asarray(Image.open(path))
    items = [path, str(path), path.read_bytes(), pixels, Image.open(path)]
    predictions = predictor.predict(items)
    assert [prediction.path for prediction in predictions] == [str(path)] * 2 + [None] * 3
    assert len({prediction.top for prediction in predictions}) == 1
    for item in items:
        assert [prediction.top for prediction in predictor.predict(item)] == [predictions[0].top]
    assert predictor.predict([]) == []


def test_predict_decodes_every_pixel_layout_as_training_does(
    predictor: Predictor, tmp_path: Path
) -> None:
    save(tmp_path / "gray.png", 90, mode="L")
    save(tmp_path / "clear.png", (250, 0, 0, 0), mode="RGBA")  # transparent: white
    save(tmp_path / "print.jpg", (0, 255, 255, 0), mode="CMYK")  # red
    predictions = predictor.predict(list(tmp_path.iterdir()))
    by_name = {Path(p.path or "").name: dict(p.top) for p in predictions}
    assert by_name["gray.png"] == dict.fromkeys(("red", "grün", "blue"), pytest.approx(1 / 3))
    assert by_name["clear.png"] == dict.fromkeys(("red", "grün", "blue"), pytest.approx(1 / 3))
    assert by_name["print.jpg"]["red"] > 0.9
    cmyk = predictor.predict(Image.open(tmp_path / "print.jpg"))[0]
    assert cmyk.label == "red"


def test_photos_are_turned_by_their_exif_orientation(tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    def network(views: np.ndarray) -> np.ndarray:
        seen.extend(views)
        return np.full((len(views), 1), 1.0, np.float32)

    card = ModelCard(class_names=("any",), image_size=SIDE, resize="squash")
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[: SIDE // 2] = 255  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    predictor = Predictor(card, network)
    predictor.predict([tmp_path / "a.png", Image.open(tmp_path / "a.png"), pixels])
    np.testing.assert_array_equal(seen[0], pixels[::-1])
    np.testing.assert_array_equal(seen[1], pixels[::-1])
    np.testing.assert_array_equal(seen[2], pixels)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (np.zeros((4, 4), np.uint8)[None], r"item 0: uint8 \[1, 4, 4\]"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (b"", "empty"),
        (b"no image at all", "not an image"),
        ("missing.jpg", "missing.jpg: no such file"),
        ("nu\0ll.jpg", "null"),
    ],
)
def test_predict_names_an_item_that_is_no_image(
    predictor: Predictor, item: object, reason: str
) -> None:
    with pytest.raises(DatasetError, match=reason):
        predictor.predict([item])  # type: ignore[list-item]


def test_stream_keeps_the_order_over_many_batches_with_bad_files_among_them(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_module, "BATCH_SIZE", 4)
    colours = list(itertools.islice(itertools.cycle((RED, GREEN, BLUE)), 50))
    expected = []
    for number, colour in enumerate(colours):
        path = tmp_path / f"{number:03}.png"
        if number % 7 == 3:
            path.write_bytes(b"")
            expected.append((str(path), "bad"))
        else:
            save(path, colour, size=(9 + number, 30 - number % 5))
            expected.append((str(path), {RED: "red", GREEN: "grün", BLUE: "blue"}[colour]))
    told: list[tuple[str, str]] = []
    for prediction in predictor.stream([tmp_path], lambda path, _: told.append((path, "bad"))):
        told.append((str(prediction.path), prediction.label))
    assert told == expected


def test_stream_gives_what_each_image_alone_gives(predictor: Predictor, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.fromarray(image_of(10 + 13 * number, 50 - 7 * number, number)).save(path)
    streamed = list(predictor.stream(paths, ignore_bad))
    assert streamed == [predictor.predict(path)[0] for path in paths]
    for prediction, path in zip(streamed, paths, strict=True):
        view = plain_view(np.asarray(Image.open(path)), SIDE, "squash").numpy()
        assert prediction.probability == float(mean_colour_network(view[None]).max())


def test_stream_reports_each_kind_of_bad_file_and_goes_on(
    predictor: Predictor, tmp_path: Path
) -> None:
    good = save(tmp_path / "good.png", RED)
    noisy = tmp_path / "noise.jpg"
    Image.fromarray(image_of(64, 64)).save(noisy)
    bad = {
        "truncated.jpg": ("cut short", noisy.read_bytes()[:900]),
        "text.jpg": ("not an image", b"just text, for sure no picture"),
        "empty.png": ("empty", b""),
    }
    for name, (_, data) in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "hollow").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    reasons = {name: reason for name, (reason, _) in bad.items()}
    reasons |= {"gone.jpg": "no such file", "hollow": "without images", "pipe.jpg": "FIFO"}
    told: dict[str, str] = {}
    paths = [tmp_path / name for name in reasons]
    predictions = list(
        predictor.stream(
            [*paths, good], lambda path, reason: told.update({Path(path).name: reason})
        )
    )
    assert [(prediction.path, prediction.label) for prediction in predictions] == [
        (str(good), "red")
    ]
    assert told.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in told[name]


def test_folders_are_walked_by_name_and_images_found_by_content(tmp_path: Path) -> None:
    save(tmp_path / "b.png", RED)
    save(tmp_path / "a" / "z.png", RED)
    save(tmp_path / "a" / "deep" / "y.png", RED)
    save(tmp_path / "c.png", RED).rename(tmp_path / "no_extension")
    save(tmp_path / ".hidden" / "x.png", RED)
    save(tmp_path / ".x.png", RED)
    (tmp_path / "labels.csv").write_text("path,label")
    (tmp_path / "broken.jpg").write_text("should be an image")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = [(os.path.relpath(f.path, tmp_path), bool(f.problem)) for f in find_images([tmp_path])]
    assert found == [
        ("b.png", False),
        ("broken.jpg", False),
        ("no_extension", False),
        ("a/z.png", False),
        ("a/deep/y.png", False),
        ("loop", True),
    ]


def test_pictures_that_are_not_read_are_told_and_not_passed_over(
    predictor: Predictor, tmp_path: Path
) -> None:
    save(tmp_path / "a.png", RED)
    (tmp_path / "b.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "c.SVG").write_text("<svg/>")
    told: dict[str, str] = {}
    asked = [tmp_path, "https://example.org/d.jpg", Path("s3://photos/e.jpg")]
    (found,) = predictor.stream(asked, told.__setitem__)
    assert found.label == "red"
    reasons = {path.rpartition("/")[2]: reason for path, reason in told.items()}
    assert "HEIC" in reasons["b.heic"]
    assert "SVG" in reasons["c.SVG"]
    assert "download" in reasons["d.jpg"]
    assert "download" in reasons["e.jpg"]


def test_folders_are_walked_as_data_sets_are(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("a.png", "@eaDir/thumbnail.png", "__MACOSX/b.png", "node_modules/c.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        save(images / name, RED)
    save(tmp_path / "b.png", RED).rename(tmp_path / "blob")
    (images / "linked.png").symlink_to(tmp_path / "blob")  # as caches of data sets have them
    (images / "inner").symlink_to(images / "@eaDir")
    (images / "out").symlink_to(tmp_path)
    os.mkfifo(images / "pipe.png")
    found = {os.path.relpath(f.path, images): f.problem for f in find_images([images])}
    assert [name for name, problem in found.items() if not problem] == [
        "a.png", "linked.png", "inner/thumbnail.png",
    ]  # fmt: skip
    assert "FIFO" in found["pipe.png"]
    assert "points outside the folder" in found["out"]
    assert "dataset." not in "".join(found.values())


def test_stream_reads_a_fixed_number_of_files_ahead(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_module, "BATCH_SIZE", 4)
    path = save(tmp_path / "a.png", RED)
    num_asked = 0

    def endless() -> Iterator[Path]:
        nonlocal num_asked
        while True:
            num_asked += 1
            yield path

    stream = predictor.stream(endless(), ignore_bad)
    for num_given, _ in enumerate(itertools.islice(stream, 100), start=1):
        assert num_asked <= num_given + (predict_module.NUM_BATCHES_AHEAD + 1) * 4
    stream.close()  # type: ignore[attr-defined]


def test_memory_does_not_grow_with_the_number_of_images(
    predictor: Predictor, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.png", RED)
    stream = predictor.stream(itertools.repeat(path), ignore_bad)
    for _ in itertools.islice(stream, 200):
        pass
    tracemalloc.start()
    try:
        for _ in itertools.islice(stream, 200):
            pass
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in itertools.islice(stream, 1000):
            pass
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        stream.close()  # type: ignore[attr-defined]
    assert after - before < 100_000  # 1,000 views alone would take 192,000 bytes


def test_json_has_an_object_a_line(predictor: Predictor, tmp_path: Path) -> None:
    good, bad = save(tmp_path / "ä.png", GREEN), tmp_path / "gone.png"
    stream = io.StringIO()
    assert predict_to(stream, predictor, [good, bad], "json", 2) == (1, 1)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["path"], first["label"]) == (str(good), "grün")
    assert first["probability"] == first["top"][0]["probability"] > 0.9
    assert [entry["label"] for entry in first["top"]] == ["grün", "red"]
    assert second == {"path": str(bad), "error": "no such file or directory"}


def test_csv_has_a_header_and_a_row_an_image(predictor: Predictor, tmp_path: Path) -> None:
    good, bad = save(tmp_path / "a, b.png", BLUE), tmp_path / "gone.png"
    stream = io.StringIO()
    predict_to(stream, predictor, [good, bad], "csv", 2)
    first, second = csv.DictReader(io.StringIO(stream.getvalue()))
    assert list(first) == ["path", "label", "probability", "label_2", "probability_2", "error"]
    assert (first["path"], first["label"], first["label_2"]) == (str(good), "blue", "red")
    assert float(first["probability"]) > 0.9
    assert second == dict.fromkeys(first, "") | {
        "path": str(bad),
        "error": "no such file or directory",
    }


@pytest.mark.parametrize("output_format", ["text", "json", "csv"])
def test_predictions_that_cannot_be_written_are_an_error(
    predictor: Predictor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output_format: OutputFormat,
) -> None:
    image = save(tmp_path / "red.png", RED)
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError, match="no space left"), telling_failures():
            predict_to(sys.stdout, predictor, [image], output_format, 2)
        give_up()


def test_text_has_a_line_an_image_whatever_its_name(predictor: Predictor, tmp_path: Path) -> None:
    good = save(tmp_path / "two\nlines.png", RED)
    stream = io.StringIO()
    predict_to(stream, predictor, [good, tmp_path / "gone.png"], "text", 1)
    assert stream.getvalue().splitlines() == [
        f"{tmp_path}/two\\nlines.png: red 100.0%",
        f"{tmp_path}/gone.png: unusable: no such file or directory",
    ]


@pytest.mark.parametrize("output_format", ["json", "csv", "text"])
def test_names_that_are_not_utf8_can_be_written(
    predictor: Predictor, tmp_path: Path, output_format: OutputFormat
) -> None:
    save(tmp_path / "a.png", RED).rename(os.fsdecode(bytes(tmp_path) + b"/\xff.png"))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert predict_to(stream, predictor, [tmp_path], output_format, 1) == (1, 0)


def test_more_classes_than_there_are_gives_all(predictor: Predictor, tmp_path: Path) -> None:
    stream = io.StringIO()
    predict_to(stream, predictor, [save(tmp_path / "a.png", RED)], "json", 99)
    assert len(json.loads(stream.getvalue())["top"]) == 3


def test_no_prediction_at_all_is_an_error_that_names_the_first_file(
    predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DatasetError, match=r"1 unusable, the first .*a\.jpg: the file is empty"):
        predict_to(io.StringIO(), predictor, [tmp_path], "json", 1)
    with pytest.raises(DatasetError, match="no paths"):
        predict_to(io.StringIO(), predictor, [], "json", 1)


def test_an_unknown_output_format_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match="text, json, csv"):
        predict_to(io.StringIO(), predictor, [], "xml", 1)  # type: ignore[arg-type]


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"model\.keras"):
        Predictor.load(tmp_path)


def test_a_model_of_large_images_takes_them_wherever_it_is_used(pipeline: Pipeline) -> None:
    large = pipeline.images / "red" / "large.png"
    Image.new("RGB", (400, 300), (205, 55, 45)).save(large)
    limit = "dataset.max_pixels=2000"
    small = pipeline.run(limit)
    assert json.loads((Path(small.run_dir) / "left_out.json").read_text())[0]["path"] in str(large)
    with pytest.raises(DatasetError, match="2,000"):
        Predictor.load(small.run_dir).predict(large)
    taken = pipeline.run("dataset.max_pixels=200000000")
    predictor = Predictor.load(taken.run_dir)
    assert predictor.max_pixels == 200_000_000
    assert predictor.predict(large)[0].label == "red"
    assert load_subject(Path(taken.run_dir)).max_pixels == 200_000_000
    judgement = judge(Path(taken.run_dir), pipeline.images)
    assert sum(group.num_images for group in judgement.groups.values()) == 37
    assert judge(Path(small.run_dir), pipeline.images).problems  # as in the training
    told = judge(Path(small.run_dir), pipeline.images, ["dataset.max_pixels=200000"])
    assert sum(group.num_images for group in told.groups.values()) == 37


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_picture_of_32_bits_a_pixel_is_refused_as_its_file_is(
    predictor: Predictor, mode: str
) -> None:
    image = Image.new(mode, (8, 8), 1)
    with pytest.raises(DatasetError, match="no fixed black and white"):
        predictor.predict(image)

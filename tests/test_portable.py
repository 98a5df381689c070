"""ONNX, OpenVINO and LiteRT files: right in their own engines, and used without TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import openvino
import pytest
import tensorflow as tf
from PIL import Image

from headstart.errors import ExportError
from headstart.tasks.export.model_files import ModelCard, read_card
from headstart.tasks.export.portable import matrix_views
from headstart.tasks.export.runtimes import load_network
from headstart.tasks.targets.target import Fit
from headstart.tasks.views.augment import plain_view
from headstart.tasks.views.pillow_view import pillow_view, resized
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

SIDES = [(31, 57), (SIZE, SIZE), (90, 40), (5, 7), (333, 251), (1, 80)]
PHOTOS = [image_of(height, width, seed) for seed, (height, width) in enumerate(SIDES)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")
    folder = tmp_path_factory.mktemp("run")
    export_tiny(folder, ("onnx", "openvino", "litert"))
    return folder


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_resizing_by_matrices_and_by_pillow_is_keras_own(resize: Resize) -> None:
    layer = keras.layers.Resizing(
        SIZE,
        SIZE,
        antialias=True,
        crop_to_aspect_ratio=resize == "crop",
        pad_to_aspect_ratio=resize == "pad",
    )
    for photo in PHOTOS:
        wanted = layer(photo.astype(np.float32)[np.newaxis]).numpy()
        by_matrices = matrix_views(tf.constant(photo[np.newaxis]), SIZE, resize)
        np.testing.assert_allclose(by_matrices, wanted, atol=1e-3)
        np.testing.assert_allclose(resized(photo, SIZE, resize), wanted[0], atol=1e-3)
        view = pillow_view(photo, SIZE, resize).astype(int)
        differing = np.abs(view - plain_view(photo, SIZE, resize).numpy().astype(int))
        assert differing.max() <= 1
        assert differing.mean() < 1e-2


def test_padding_of_a_thin_image_takes_no_square_of_its_length() -> None:
    thin = image_of(3, 30_000)
    difference = pillow_view(thin, SIZE, "pad") - plain_view(thin, SIZE, "pad").numpy().astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_files_take_images_of_any_size_in_batches(tmp_path: Path, resize: Resize) -> None:
    export_tiny(tmp_path, ("onnx", "openvino"), resize)
    engines = [load_network(tmp_path / name)[1] for name in ("model.onnx", "model.xml")]
    for photo in PHOTOS:
        twice = np.stack([photo, photo[::-1]])
        logits = pipeline_logits(tiny_extractor(), tiny_head(), list(twice), resize)
        for engine in engines:
            np.testing.assert_allclose(engine(twice), tf.nn.softmax(logits), atol=1e-3)


def test_files_can_take_views_alone(tmp_path: Path) -> None:
    export_tiny(tmp_path, ("onnx", "openvino"), input="views")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (taken,) = session.get_inputs()
    assert (taken.name, taken.shape) == ("views", ["batch", SIZE, SIZE, 3])
    assert [output.name for output in session.get_outputs()] == ["logits", "probabilities"]
    views = np.stack([image_of(SIZE, SIZE, seed) for seed in range(3)])
    wanted = tf.nn.softmax(pipeline_logits(tiny_extractor(), tiny_head(), list(views)))
    for name in ("model.onnx", "model.xml"):
        np.testing.assert_allclose(load_network(tmp_path / name)[1](views), wanted, atol=1e-4)


def test_answers_that_are_numbers_are_called_so_in_every_format(tmp_path: Path) -> None:
    fit = Fit(offset=(1e9, 0.0, 5.0, -3.0), scale=(1e8, 1.0, 2.0, 1e-3))
    formats = ("saved_model", "onnx", "openvino", "litert")
    export_tiny(tmp_path, formats, input="views", target="number", fit=fit)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["logits", "numbers"]
    signatures = tf.saved_model.load(tmp_path / "saved_model").signatures
    assert signatures["serving_views"].structured_outputs.keys() == {"logits", "numbers"}
    view = image_of(SIZE, SIZE)
    wanted = pipeline_logits(tiny_extractor(), tiny_head(), [view]) * fit.scale + fit.offset
    for name in ("model.keras", "saved_model", "model.onnx", "model.xml", "model.tflite"):
        answer = load_network(tmp_path / name)[1](view[np.newaxis])
        np.testing.assert_allclose(answer, wanted, rtol=1e-3, atol=1e-5)


def test_other_programs_find_the_class_names_in_the_metadata(run: Path) -> None:
    session = onnxruntime.InferenceSession(run / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(CLASS_NAMES)
    assert (metadata["image_size"], metadata["input"]) == (str(SIZE), "images")
    assert metadata.keys() - {"headstart"} == ModelCard.model_fields.keys() - {"digests"}
    model = openvino.Core().read_model(run / "model.xml")
    names = model.get_rt_info(["headstart", "class_names"]).astype(str)
    assert json.loads(names) == list(CLASS_NAMES)
    assert read_card(run / "model.xml") == read_card(run / "model.onnx").model_copy(
        update={"digests": read_card(run / "model.xml").digests}
    )


def test_weights_of_another_model_are_damage(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_bytes((run / "model.xml").read_bytes())
    with pytest.raises(ExportError, match=r"model\.bin"):
        load_network(tmp_path / "model.xml")
    (tmp_path / "model.bin").write_bytes((run / "model.bin").read_bytes()[::-1])
    with pytest.raises(ExportError, match="weights is another one"):
        load_network(tmp_path / "model.xml")


@pytest.mark.parametrize(
    ("name", "packages", "install"),
    [
        ("model.onnx", ("onnxruntime", "openvino"), "onnxruntime"),  # the second reads it too
        ("model.xml", ("openvino",), r"headstart\[openvino\]"),
    ],
)
def test_a_missing_engine_is_told_with_its_extra(
    run: Path,
    name: str,
    packages: tuple[str, ...],
    install: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=f"pip install '{install}'"):
        load_network(run / name)


def test_predict_and_evaluate_import_no_tensorflow_and_say_the_same(
    run: Path, tmp_path: Path
) -> None:
    for number, label in enumerate([*CLASS_NAMES[:2], CLASS_NAMES[0]]):
        (tmp_path / "images" / label).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(PHOTOS[number])
        image.save(tmp_path / "images" / label / f"{number}.png")
    code = (
        "import sys\n"
        "blocked = sys.argv[1] == 'blocked'\n"
        "if blocked:\n"
        "    sys.modules.update(tensorflow=None, keras=None)\n"
        "from headstart.cli import app\n"
        "for name in sys.argv[3:]:\n"
        "    for command in ('predict', 'evaluate'):\n"
        "        app([command, name, sys.argv[2], '--json'], standalone_mode=False)\n"
        "        print('\\0')\n"
    )

    def answers(*arguments: object) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\0\n")[:-1]

    images = tmp_path / "images"
    files = [run / name for name in ("model.onnx", "model.xml", "model.tflite")]
    received = answers("blocked", images, *files)
    predicted, judged = answers("free", images, run / "model.keras")
    wanted = [json.loads(line) for line in predicted.splitlines()]
    for lines in received[::2]:
        for line, one in zip(map(json.loads, lines.splitlines()), wanted, strict=True):
            assert line.keys() == one.keys()
            assert (line["path"], line["label"]) == (one["path"], one["label"])
            assert line["probability"] == pytest.approx(one["probability"], abs=1e-3)
    figures = json.loads(judged)
    for text in received[1::2]:
        assert json.loads(text).keys() == figures.keys()
        assert json.loads(text)["confusion"] == figures["confusion"]

import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from headstart.errors import ExportError
from headstart.tasks.export.file_names import FILE_NAMES
from headstart.tasks.export.joining import join
from headstart.tasks.export.model_files import ModelCard, read_card, read_keras, write_card
from headstart.tasks.export.proof import prove
from headstart.tasks.export.runtimes import load_network, without_info_lines
from headstart.tasks.export.writing import export_model
from headstart.tasks.views.recipes import Resize
from tests.exported import (
    CLASS_NAMES,
    EXACT,
    SIZE,
    export_tiny,
    image_of,
    pipeline_logits,
    tiny_extractor,
    tiny_head,
)

RESIZES: tuple[Resize, ...] = ("squash", "crop", "pad")
IMAGES = [image_of(31, 57, 1), image_of(SIZE, SIZE, 2), image_of(90, 40, 3), image_of(5, 7, 4)]
MAX_PIXELS = 10**6

# Keras' own saving: np.array(variable) under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def softmax(logits: np.ndarray) -> np.ndarray:
    return tf.nn.softmax(logits).numpy()


def encoded(image: np.ndarray, name: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    export_tiny(folder, EXACT)
    return folder


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return pipeline_logits(tiny_extractor(), tiny_head(), IMAGES)


def join_and_read_back(folder: Path, resize: Resize, dtype: str = "float16") -> keras.Model:
    join(tiny_extractor(), tiny_head(), SIZE, resize, dtype).save(folder / "joined.keras")
    return read_keras(folder / "joined.keras")


@pytest.mark.parametrize("resize", RESIZES)
def test_joined_model_gives_the_pipelines_logits_on_images_of_odd_sizes(
    tmp_path: Path, resize: Resize
) -> None:
    extractor, head = tiny_extractor(), tiny_head()
    joined = join_and_read_back(tmp_path, resize)
    both = keras.Model(joined.input, [joined.get_layer("logits").output, joined.output])
    expected = pipeline_logits(extractor, head, IMAGES, resize)
    for image, row in zip(IMAGES, expected, strict=True):
        logits, probabilities = both(image[np.newaxis])
        np.testing.assert_allclose(logits[0], row, atol=1e-4)
        np.testing.assert_allclose(probabilities[0], softmax(row), atol=1e-5)


def test_joined_model_rounds_the_bottleneck_to_the_storage_dtype(tmp_path: Path) -> None:
    extractor = tiny_extractor()
    images = np.stack([image_of(SIZE, SIZE, seed) for seed in range(4)])
    exact = extractor(images.astype(np.float32)).numpy()
    received = {}
    for dtype in ("float16", "float32"):
        joined = join_and_read_back(tmp_path, "squash", dtype)
        cut = keras.Model(joined.input, joined.get_layer("bottleneck").output)
        received[dtype] = tf.function(cut)(tf.constant(images)).numpy()
    assert np.array_equal(received["float16"], received["float16"].astype(np.float16))
    np.testing.assert_allclose(received["float32"], exact, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(received["float32"], exact.astype(np.float16))


def test_joined_model_is_flat_and_every_layer_starts_at_the_image(tmp_path: Path) -> None:
    joined = join_and_read_back(tmp_path, "squash")
    names = [operation.name for operation in joined.operations]
    assert not any(isinstance(layer, keras.Model) for layer in joined.layers)
    assert len(names) == len(set(names))
    assert {"conv", "norm", "view", "bottleneck", "logits", "probabilities"} <= set(names)
    assert joined.get_layer("logits").output.shape == (None, len(CLASS_NAMES))
    for layer in joined.layers[1:]:
        keras.Model(joined.input, layer.output)


def test_join_takes_a_sequential_extractor_and_a_spatial_cut() -> None:
    extractor = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(2, 5, 5)])
    bottleneck = keras.Input(extractor.output_shape[1:])
    pooled = keras.ops.mean(bottleneck, axis=(1, 2))
    head = keras.Model(bottleneck, keras.layers.Dense(3, name="logits")(pooled))
    joined = join(extractor, head, SIZE, "squash", "float32")
    expected = softmax(pipeline_logits(extractor, head, IMAGES[:1], "squash", "float32"))
    np.testing.assert_allclose(joined(IMAGES[0][np.newaxis]), expected, atol=1e-5)


def test_a_layer_that_is_renamed_keeps_its_adapted_statistics() -> None:
    statistics = keras.layers.Normalization(name="dropout")  # a name that the extractor has too
    statistics.adapt(np.random.default_rng(1).normal(5, 3, (16, 8)))
    bottleneck = keras.Input((8,))
    head = keras.Model(bottleneck, keras.layers.Dense(3, name="logits")(statistics(bottleneck)))
    joined = join(tiny_extractor(), head, SIZE, "squash", "float32")
    image = image_of(SIZE, SIZE)  # of the size of a view: nothing is resized
    expected = softmax(pipeline_logits(tiny_extractor(), head, [image], "squash", "float32"))
    np.testing.assert_allclose(joined(image[np.newaxis]), expected, atol=1e-5)


def test_join_refuses_a_head_of_another_cut() -> None:
    bottleneck = keras.Input((9,))
    head = keras.Model(bottleneck, keras.layers.Dense(3, name="logits")(bottleneck))
    with pytest.raises(ExportError, match=r"\[9\][\s\S]*\[8\]"):
        join(tiny_extractor(), head, SIZE, "squash")


def test_keras_file_loads_in_a_process_without_headstart(run: Path, logits: np.ndarray) -> None:
    np.save(run / "image.npy", IMAGES[0])
    script = textwrap.dedent("""
        import sys
        sys.modules["headstart"] = None  # any import of it fails
        import keras, numpy as np
        model = keras.models.load_model("model.keras", safe_mode=True)
        print(model(np.load("image.npy")[None]).numpy()[0].tolist())
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=run, capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(json.loads(done.stdout), softmax(logits[0]), atol=1e-5)


def test_saved_model_serves_images_encoded_bytes_and_views(run: Path, logits: np.ndarray) -> None:
    signatures = tf.saved_model.load(run / "saved_model").signatures
    from_bytes = signatures["serving_bytes"](tf.constant([encoded(image) for image in IMAGES]))
    np.testing.assert_allclose(from_bytes["probabilities"], softmax(logits), atol=1e-5)
    np.testing.assert_allclose(from_bytes["logits"], logits, atol=1e-4)
    for image, row in zip(IMAGES, logits, strict=True):
        answer = signatures["serving_default"](tf.constant(image[np.newaxis]))
        np.testing.assert_allclose(answer["logits"][0], row, atol=1e-4)
    views = signatures["serving_views"](tf.constant(IMAGES[1][np.newaxis]))
    np.testing.assert_allclose(views["logits"][0], logits[1], atol=1e-4)


@pytest.mark.parametrize(("size", "resize"), [(227, "crop"), (41, "pad"), (61, "crop")])
def test_saved_model_resizes_as_the_pipeline_does_where_the_stock_layer_does_not(
    tmp_path: Path, size: int, resize: Resize
) -> None:
    export_tiny(tmp_path, ("saved_model",), resize, size)
    images = [image_of(60 + 7 * seed, 90 - 5 * seed, seed) for seed in range(8)]
    expected = pipeline_logits(tiny_extractor(size), tiny_head(), images, resize)
    signatures = tf.saved_model.load(tmp_path / "saved_model").signatures
    from_bytes = signatures["serving_bytes"](tf.constant([encoded(image) for image in images]))
    np.testing.assert_allclose(from_bytes["logits"], expected, atol=1e-4)
    for image, row in zip(images, expected, strict=True):
        answer = signatures["serving_default"](tf.constant(image[np.newaxis]))
        np.testing.assert_allclose(answer["logits"][0], row, atol=1e-4)


def test_export_refuses_a_keras_file_that_resizes_in_another_way(tmp_path: Path) -> None:
    card = ModelCard(class_names=CLASS_NAMES, image_size=SIZE, resize="pad")
    joined = join(tiny_extractor(), tiny_head(), SIZE, "crop")
    with pytest.raises(ExportError, match=r"does not resize images as the pipeline does"):
        export_model(joined, ["saved_model"], tmp_path, card)


@pytest.mark.parametrize(
    ("name", "options"),
    [("JPEG", {"quality": 60}), ("JPEG", {"progressive": True}), ("BMP", {}), ("GIF", {})],
)
def test_saved_model_decodes_as_the_pipeline_does(
    run: Path, name: str, options: dict[str, object]
) -> None:
    data = encoded(IMAGES[0], name, **options)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    expected = softmax(pipeline_logits(tiny_extractor(), tiny_head(), [pixels]))
    serve = tf.saved_model.load(run / "saved_model").signatures["serving_bytes"]
    np.testing.assert_allclose(serve(tf.constant([data]))["probabilities"], expected, atol=1e-5)


@pytest.mark.parametrize("name", [FILE_NAMES[kind] for kind in EXACT])
def test_each_format_loads_with_its_card_wherever_it_is_moved(
    run: Path, logits: np.ndarray, tmp_path: Path, name: str
) -> None:
    if name == "model.xml":
        shutil.copy(run / "model.bin", tmp_path / "moved-model.bin")
    moved = (run / name).rename(tmp_path / f"moved-{name}")
    try:
        card, network = load_network(moved)
    finally:
        moved.rename(run / name)
    assert (card.class_names, card.image_size, card.resize) == (CLASS_NAMES, SIZE, "squash")
    received = network(IMAGES[1][np.newaxis])
    assert received.dtype == np.float32
    # Behind a float16 rounding, see TOLERANCES of the proof.
    np.testing.assert_allclose(received, softmax(logits[1:2]), atol=1e-4)


def test_what_litert_chose_is_no_news_but_its_warnings_are(capfd: pytest.CaptureFixture) -> None:
    with without_info_lines():
        os.write(2, b"INFO: Created a delegate.\nfully_quantize: 0\nWARNING: It is slow.\n")
    assert capfd.readouterr().err == "WARNING: It is slow.\n"


def test_labels_are_one_a_line_and_the_card_is_json(run: Path) -> None:
    lines = (run / "labels.txt").read_text(encoding="utf-8").split("\n")
    assert lines == ["daisy", "日本 ünï", "two\\nlines", "back\\\\slash", ""]
    card = json.loads((run / "model.json").read_text(encoding="utf-8"))
    assert card["class_names"] == list(CLASS_NAMES)
    assert card["tensorflow_version"] == tf.__version__


def test_export_writes_keras_always_and_nothing_that_was_not_asked_for(tmp_path: Path) -> None:
    export_tiny(tmp_path, ())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "labels.txt",
        "model.json",
        "model.keras",
    ]


def test_export_refuses_class_names_that_do_not_fit(tmp_path: Path) -> None:
    card = ModelCard(class_names=("a", "b"), image_size=SIZE, resize="squash")
    joined = join(tiny_extractor(), tiny_head(), SIZE, "squash")
    with pytest.raises(ExportError, match="4 probabilities"):
        export_model(joined, ["keras"], tmp_path, card)


@pytest.mark.parametrize("formats", [("keras",), ("saved_model",), ("litert", "onnx", "openvino")])
def test_proof_passes_on_the_pipelines_logits_and_fails_on_others(
    tmp_path: Path, logits: np.ndarray, formats: tuple[str, ...]
) -> None:
    card = export_tiny(tmp_path, formats)
    files = [encoded(IMAGES[0]), encoded(IMAGES[1], "TIFF"), *map(encoded, IMAGES[2:])]
    proofs = prove(tmp_path, card, files, logits, MAX_PIXELS)
    assert proofs.keys() >= set(formats)
    for proof in proofs.values():
        assert proof.largest_difference < 1e-4
        assert proof.num_same_labels == proof.num_images >= len(IMAGES)
    wrong = logits.copy()
    wrong[1, 0] += 0.1
    with pytest.raises(ExportError, match="differs by"):
        prove(tmp_path, card, files, wrong, MAX_PIXELS)
    with pytest.raises(ExportError, match="differs by nan"):
        prove(tmp_path, card, files, np.full_like(logits, np.nan), MAX_PIXELS)


def test_proof_notices_another_resize(tmp_path: Path, logits: np.ndarray) -> None:
    export_tiny(tmp_path, ("saved_model",), "pad")
    card = read_card(tmp_path / "model.keras")
    with pytest.raises(ExportError, match="differs by"):
        prove(tmp_path, card, [encoded(image) for image in IMAGES], logits, MAX_PIXELS)


def test_file_with_a_pickled_lambda_is_refused_calmly(tmp_path: Path) -> None:
    image = keras.Input((None, None, 3))
    path = tmp_path / "unsafe.keras"
    keras.Model(image, keras.layers.Lambda(lambda x: x + 1)(image)).save(path)
    write_card(path, ModelCard(class_names=("a",), image_size=8, resize="squash"))
    with pytest.raises(ExportError, match=r"(?i)lambda"):
        load_network(path)


@pytest.mark.parametrize("name", [FILE_NAMES[kind] for kind in EXACT])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_truncated_model_is_refused_calmly(
    run: Path, tmp_path: Path, name: str, share: float
) -> None:
    if (run / name).is_dir():
        source, broken = run / name / "saved_model.pb", tmp_path / "saved_model.pb"
        write_card(tmp_path, read_card(run / name))
    else:
        source, broken = run / name, tmp_path / name
    data = source.read_bytes()
    broken.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ExportError):
        load_network(tmp_path if (run / name).is_dir() else broken)


def test_other_files_and_folders_are_refused_calmly(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such file"):
        load_network(tmp_path / "missing.keras")
    with pytest.raises(ExportError, match=r"none of model\.keras, saved_model"):
        load_network(tmp_path)
    os.mkfifo(tmp_path / "waiting.onnx")
    with pytest.raises(ExportError, match="a fifo, socket or device"):
        load_network(tmp_path / "waiting.onnx")
    with pytest.raises(ExportError, match="another kind of file"):
        load_network(run / "labels.txt")
    foreign = tmp_path / "foreign.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(foreign)
    with pytest.raises(ExportError, match="not written by headstart"):
        load_network(foreign)

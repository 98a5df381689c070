"""Model files from strangers and from bad disks: refused by name, before anything in them runs."""

import inspect
import io
import json
import os
import re
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.config import BackboneConfig
from headstart.errors import BackboneError, ExportError
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.backbones.content import content_digest
from headstart.tasks.backbones.foreign_files import _FORBIDDEN, keras_problem, saved_model_problem
from headstart.tasks.explanation.subject import load_subject
from headstart.tasks.export.embedding import Embedder
from headstart.tasks.export.file_names import FILE_NAMES
from headstart.tasks.export.model_files import ModelCard, read_whole_keras, write_card
from headstart.tasks.export.runtimes import load_network
from tests.exported import EXACT, export_tiny
from tests.pipeline import tiny_network

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    export_tiny(folder, EXACT)
    return folder


class Program(tf.Module):
    """A SavedModel that takes images, as one of ours does, and does something besides."""

    def __init__(self, act: object) -> None:
        super().__init__()
        self.weight = tf.Variable(tf.ones([3, 2]))
        self._act = act

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")])
    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([self._act() or tf.no_op()]):
            return {"probabilities": tf.reduce_mean(images, [1, 2]) @ self.weight}


def save_program(folder: Path, act: object) -> Path:
    program = Program(act)
    signatures = {"serving_default": program.__call__, "serving_views": program.__call__}
    tf.saved_model.save(program, str(folder), signatures)
    return folder


ACTS = {
    "WriteFile": lambda: tf.io.write_file("stolen", "x"),
    "ReadFile": lambda: tf.identity(tf.io.read_file("secret")),
    "MatchingFiles": lambda: tf.io.matching_files("*"),
    "EagerPyFunc": lambda: tf.py_function(lambda: 1.0, [], tf.float32),
    "PyFunc": lambda: tf.numpy_function(lambda: np.float32(1), [], tf.float32),
    "SaveV2": lambda: tf.raw_ops.SaveV2(
        prefix="stolen", tensor_names=["a"], shape_and_slices=[""], tensors=[tf.ones([1])]
    ),
    "RestoreV2": lambda: tf.raw_ops.RestoreV2(
        prefix="secret", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )[0],
    "PrintV2": lambda: tf.print("x", output_stream="file://stolen"),
    "DecodeProtoV2": lambda: tf.identity(
        tf.raw_ops.DecodeProtoV2(
            bytes=[b""],
            message_type="a.B",
            field_names=[],
            output_types=[],
            descriptor_source="secret",
        ).sizes
    ),
    "TextLineDataset": lambda: tf.data.experimental.to_variant(tf.data.TextLineDataset("secret")),
}


@pytest.mark.parametrize("op", ACTS)
def test_a_program_that_does_more_than_compute_is_refused_by_name(tmp_path: Path, op: str) -> None:
    folder = save_program(tmp_path / "program", ACTS[op])
    assert op in saved_model_problem(folder)
    write_card(folder, ModelCard(class_names=("a", "b"), image_size=8, resize="squash"))
    with pytest.raises(ExportError, match=op):
        load_network(folder)
    with pytest.raises(BackboneError, match=op):
        load_backbone(BackboneConfig(name=str(folder)), None)


def test_every_op_that_names_a_file_or_an_address_is_refused() -> None:
    telling = re.compile(
        r"file|directory|\bpath|(?<!top)_path|address|_url|descriptor_source", re.IGNORECASE
    )
    named = {
        name: telling.findall(" ".join(inspect.signature(getattr(tf.raw_ops, name)).parameters))
        for name in dir(tf.raw_ops)
        if name[0].isupper()
    }
    named = {name: found for name, found in named.items() if found}
    assert {"ReadFile", "WriteFile", "RecordInput", "DecodeProtoV2"} <= set(named)
    assert [name for name in named if not _FORBIDDEN.search(name)] == []


def test_programs_that_compute_pass(tmp_path: Path, run: Path) -> None:
    assert saved_model_problem(save_program(tmp_path / "program", tf.no_op)) == ""
    assert saved_model_problem(run / "saved_model") == ""
    tiny_network().export(tmp_path / "exported", verbose=False)
    assert saved_model_problem(tmp_path / "exported") == ""


def test_a_runs_folder_is_not_run_as_a_program_where_it_has_a_keras_file(
    tmp_path: Path, run: Path
) -> None:
    save_program(tmp_path / "saved_model", ACTS["WriteFile"])
    (tmp_path / "model.keras").write_bytes((run / "model.keras").read_bytes())
    assert load_network(tmp_path)[0].backbone == "tiny"


def repack(source: Path, target: Path, **changed: bytes) -> Path:
    """Copy a .keras file, with some members replaced and all of them deflated."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name.replace(".", "_"), old.read(name)))
    return target


def test_a_keras_file_that_was_deflated_passes(tmp_path: Path, run: Path) -> None:
    load_network(repack(run / "model.keras", tmp_path / "model.keras"))


def bomb_of(shape: tuple[int, ...]) -> bytes:
    """Return an HDF5 file with an array of zeros that takes no room in it."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("layers/first/vars/0", shape, "f4", chunks=True, compression="gzip")
    return buffer.getvalue()


def test_a_file_that_becomes_too_large_is_not_opened(tmp_path: Path, run: Path) -> None:
    zeros = repack(run / "model.keras", tmp_path / "a.keras", model_weights_h5=bytes(300 * 2**20))
    assert "when they are unpacked" in keras_problem(zeros)
    arrays = repack(
        run / "model.keras", tmp_path / "b.keras", model_weights_h5=bomb_of((10**6, 10**4))
    )
    assert "that become 40,000,000,000" in keras_problem(arrays)
    for path in (zeros, arrays):
        for load in (load_network, load_subject):
            with pytest.raises(ExportError, match="become"):
                load(path)
        with pytest.raises(BackboneError, match="become"):
            load_backbone(BackboneConfig(name=str(path)), None)


def test_weights_that_lie_elsewhere_are_not_fetched(tmp_path: Path, run: Path) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/passwd", "/")
    path = repack(run / "model.keras", tmp_path / "a.keras", model_weights_h5=buffer.getvalue())
    assert "lies outside the file" in keras_problem(path)


def test_a_keras_file_that_names_a_program_is_refused(tmp_path: Path, run: Path) -> None:
    config = json.dumps({"class_name": "TFSMLayer", "config": {"filepath": "elsewhere"}})
    for number, text in enumerate((config, config.replace("SML", "SM\\u004c"))):
        path = repack(run / "model.keras", tmp_path / f"{number}.keras", config_json=text.encode())
        with pytest.raises(ExportError, match="runs a SavedModel"):
            load_network(path)


def test_a_configuration_that_asks_for_more_weights_than_the_file_holds_is_refused(
    tmp_path: Path,
) -> None:
    images = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(4, "softmax", name="top")(keras.layers.Flatten()(images))
    keras.Model(images, outputs).save(tmp_path / "small.keras")
    with zipfile.ZipFile(tmp_path / "small.keras") as archive:
        config = archive.read("config.json").replace(b'"units": 4', b'"units": 400000000')
    path = repack(tmp_path / "small.keras", tmp_path / "large.keras", config_json=config)
    with pytest.raises(BackboneError, match="too few for the weights"):
        load_backbone(BackboneConfig(name=str(path)), None)
    with pytest.raises(ExportError, match="too few for the weights"):
        load_subject(path)
    write_card(path, ModelCard(class_names=("a", "b"), image_size=8, resize="squash"))
    for load in (load_network, Embedder.load, read_whole_keras):
        with pytest.raises(ExportError, match="too few for the weights"):
            load(path)
    assert keras.models.load_model(tmp_path / "small.keras").count_params() == 4 * 193


def test_views_that_no_memory_has_room_for_are_no_card(tmp_path: Path) -> None:
    tiny_network().save(path := tmp_path / "model.keras")
    card = ModelCard(class_names=("a", "b"), image_size=8, resize="squash")
    write_card(path, card.model_copy(update={"image_size": 10**6}))
    with pytest.raises(ExportError, match="no card"):
        load_network(path)


def test_a_fifo_in_the_place_of_a_program_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "saved_model.pb")
    assert "FIFO" in saved_model_problem(tmp_path)


def flip(path: Path, place: int) -> None:
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    "name",
    [
        *sorted({FILE_NAMES[kind] for kind in EXACT} - {"saved_model"}),
        "model.bin",
        "saved_model/saved_model.pb",
    ],
)
def test_flipped_bits_in_a_model_are_found_before_it_is_loaded(
    run: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged .tflite file may end the process; so no loader may see it."""
    path = run / name
    model = run / name.partition("/")[0].replace(".bin", ".xml")
    whole = path.read_bytes()
    for loader in ("keras", "litert", "saved_model", "onnx", "openvino"):
        monkeypatch.setattr(f"headstart.tasks.export.runtimes._load_{loader}", lambda path: None)
    places = np.random.default_rng(0).integers(0, len(whole) * 8 // 10, 25)
    for place in places.tolist():
        flip(path, place)
        try:
            load_network(model)
            # What no part of the model lies in, as the date of an archive's member.
            assert name == "model.keras"
        except ExportError:
            pass
        path.write_bytes(whole)
    flip(path, len(whole) // 2)
    with pytest.raises(ExportError):
        load_network(model)
    path.write_bytes(whole)
    load_network(model)


def test_a_changed_card_is_damage(run: Path) -> None:
    path = run / "saved_model" / "assets.extra" / "headstart.json"
    whole = path.read_text()
    path.write_text(whole.replace("daisy", "dandy"))
    with pytest.raises(ExportError, match="checksum"):
        load_network(run / "saved_model")
    path.write_text(whole)


def test_a_folder_is_no_backbone_and_its_files_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"?")
    monkeypatch.setattr(Path, "rglob", None)
    with pytest.raises(BackboneError, match="SavedModel folder"):
        load_backbone(BackboneConfig(name=str(tmp_path)), None)


def test_what_lies_beside_a_saved_model_is_not_part_of_it(tmp_path: Path) -> None:
    folder = save_program(tmp_path / "program", tf.no_op)
    before = content_digest(folder)
    (folder / "photos").mkdir()
    (folder / "photos" / "1.jpg").write_bytes(b"?")
    assert content_digest(folder) == before


def test_weights_with_a_damaged_head_are_refused_in_words(tmp_path: Path) -> None:
    # HDF5 says of an object whose header is damaged that there is no such key.
    with h5py.File(tmp_path / "weights.h5", "w", track_order=False) as file:
        file["layers/first/vars/0"] = np.ones(3)
        place = h5py.h5o.get_info(file["layers"].id).addr
    weights = bytearray((tmp_path / "weights.h5").read_bytes())
    weights[place] ^= 0xFF
    with zipfile.ZipFile(tmp_path / "changed.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(weights))
    assert "damaged" in keras_problem(tmp_path / "changed.keras")

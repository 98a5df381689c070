"""Exported models on disk: what a file says of itself, and how it is read back.

Each file carries its `ModelCard` inside, so that a single file can be moved and still be used: a
.keras file is a zip archive and gets one more member; a .tflite file gets a zip archive appended,
as the TFLite metadata convention has it; a SavedModel has the folder ``assets.extra`` for such
files; ONNX and OpenVINO have metadata. Keras, LiteRT and TensorFlow Serving ignore the addition.
`headstart.tasks.export.runtimes` loads what is found to be whole.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

import headstart
from headstart.config import DatasetConfig, TargetKind
from headstart.errors import ExportError, HeadstartError
from headstart.reading import read_regular
from headstart.tasks.backbones.foreign_files import (
    keras_problem,
    saved_model_problem,
    within_bounds,
)
from headstart.tasks.export import onnx_file, openvino_file
from headstart.tasks.export.file_names import kind_of
from headstart.tasks.store.fingerprint import bytes_digest, file_digest
from headstart.tasks.store.sealing import sealed_text, unseal
from headstart.tasks.store.versions import version_of
from headstart.tasks.targets.target import NO_FIT, Fit
from headstart.tasks.views.recipes import Resize

if TYPE_CHECKING:
    import keras

_COLUMNS = (
    *("target", "path_column", "path_suffix", "label_column", "label_separator", "label_columns"),
    *("label_values", "no_label", "target_columns", "repeated_paths", "strip_prefix"),
    *("decimal_sign", "thousands_sign", "number_unit", "missing_values"),
)
_CARD_NAME = "headstart.json"
_CARD_FOLDER = "assets.extra"  # Source: TensorFlow's SavedModel README
_FLATBUFFER = "flatbuffer"
MAX_CARD_BYTES = 64 * 2**20
MAX_IMAGE_SIZE = 4096
"""Side of a view that a model may ask for; headstart's own have up to 2,048 pixels."""
_CARD_ENTRY = "headstart"
"""Name of the card among the metadata of ONNX and OpenVINO."""


MAX_PIXELS: int = DatasetConfig.model_fields["max_pixels"].default
"""Of an image, where a model does not say that it was trained on larger ones."""


class ModelCard(BaseModel, frozen=True, extra="ignore"):
    """What a user of an exported model has to know besides its weights.

    Attributes:
        class_names: Names of the classes, in the order of the probabilities.
        image_size: Side of a view in pixels.
        resize: How an image becomes a view.
        backbone: Name of the backbone.
        cut: Name of the cut that the head was trained behind.
        preprocessing: What was done to the pixels before the backbone; it is inside the model.
        storage_dtype: Type that the bottlenecks were stored and are rounded in.
        input: What an ONNX or OpenVINO model takes: images of any size, or views of image_size.
        headstart_version: Version that wrote the model.
        tensorflow_version: TensorFlow it was written with.
        keras_version: Keras it was written with.
        run: Anything else about the run, as JSON.
        target: What the model answers: class, labels or number.
        fit: Thresholds of labels; of numbers the scale, which is inside the model, and half the
            width of the interval around each answer.
        columns: Settings of ``dataset`` by which a manifest of labels or numbers is read.
        max_pixels: Images with more pixels are refused, as they were from the data set.
        digests: SHA-256 of each part of the file that it lies in, by name; empty in a file of an
            earlier version.
    """

    class_names: tuple[str, ...] = Field(min_length=1)
    image_size: int = Field(gt=0, le=MAX_IMAGE_SIZE)
    resize: Resize
    backbone: str = ""
    cut: str = ""
    preprocessing: str = ""
    storage_dtype: str = "float16"
    input: Literal["images", "views"] = "images"
    headstart_version: str = headstart.__version__
    tensorflow_version: str = version_of("tensorflow")
    keras_version: str = version_of("keras")
    run: dict[str, Any] = {}
    target: TargetKind = "class"
    fit: Fit = NO_FIT
    columns: dict[str, Any] = {}
    max_pixels: int = Field(MAX_PIXELS, gt=0, le=2**31 - 1)
    digests: dict[str, str] = {}


def columns_of(source: DatasetConfig) -> dict[str, Any]:
    """Return the settings by which another manifest like a data set's is read."""
    fields = source.model_dump(mode="json", include=set(_COLUMNS))
    return {name: value for name, value in fields.items() if value}


def write_card(path: Path, card: ModelCard) -> None:
    """Put a card into an exported file or folder.

    Args:
        path: A file, or a SavedModel folder, without a card so far.
        card: Gets the digests of the file's content before it is written.
    """
    card = card.model_copy(update={"digests": _digests(path)})
    text = sealed_text(card.model_dump(mode="json"))
    kind = kind_of(path)
    if kind == "onnx":
        onnx_file.append_metadata(path, {_CARD_ENTRY: text, **_for_others(card)})
        return
    if kind == "openvino":
        openvino_file.append_metadata(path, {_CARD_ENTRY: text, **_for_others(card)})
        return
    if path.is_dir():
        (path / _CARD_FOLDER).mkdir(exist_ok=True)
        (path / _CARD_FOLDER / _CARD_NAME).write_text(text, encoding="utf-8")
        return
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_CARD_NAME, text)


def read_card(path: Path) -> ModelCard:
    """Read the card of an exported file or folder.

    Raises:
        ExportError: There is none: the model is damaged, or was not exported by headstart.
    """
    try:
        text: str | bytes
        kind = kind_of(path)
        if kind == "onnx":
            text = onnx_file.read_metadata(path)[_CARD_ENTRY]
        elif kind == "openvino":
            text = openvino_file.read_metadata(path)[_CARD_ENTRY]
        elif path.is_dir():
            text = read_regular(path / _CARD_FOLDER / _CARD_NAME, MAX_CARD_BYTES)
        else:
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo(_CARD_NAME).file_size > MAX_CARD_BYTES:
                    raise ValueError(f"a card of more than {MAX_CARD_BYTES:,} bytes")
                text = archive.read(_CARD_NAME)
        return ModelCard.model_validate(unseal(json.loads(text)))
    except Exception as error:  # of a damaged one, whatever zipfile, zlib and XML stumble on
        raise ExportError(
            "the model has no card with its class names inside",
            f"{path}: damaged, or not written by headstart ({first_line(error)})",
            "give a model, or the folder of a run, that `headstart train` has written",
        ) from None


def check_content(path: Path, card: ModelCard) -> None:
    """Refuse a model whose bytes are not those that its card was written for.

    Args:
        path: A file of one of the formats, or a SavedModel folder.
        card: Read from the same file.

    Raises:
        ExportError: The bytes are others.
    """
    if not card.digests:
        return
    try:
        now = _digests(path)
        other = sorted(name for name, digest in card.digests.items() if now.get(name) != digest)
        reason = f"{', '.join(other)} is another one" if other else ""
    except Exception as error:  # whatever zipfile and zlib stumble on in a damaged file
        reason = first_line(error)
    if reason:
        raise ExportError(
            "the model is damaged",
            f"{path}: {reason}",
            "restore it from a backup, or run the training again: finished results are hits",
        )


def check_safe(path: Path) -> None:
    """Refuse a model that would do more than compute, or fill the memory.

    Raises:
        ExportError: The model does more than compute, is too large, or is damaged.
    """
    if path.is_dir():
        problem = saved_model_problem(path)
    else:
        problem = keras_problem(path) if kind_of(path) == "keras" else ""
    if problem:
        raise ExportError(
            "the model was refused: it does more than compute, is too large, or is damaged",
            f"{path}: {problem}",
            "give the model.keras that was exported with it, or a model from a source you trust",
        )


def read_keras(path: Path) -> "keras.Model":
    """Read a .keras file without running code that it may hold.

    Returns:
        The model, not compiled.

    Raises:
        ExportError: It would do more than compute, or fill the memory, or it cannot be loaded.
    """
    check_safe(path)
    return _load_keras(path)


def read_whole_keras(path: Path) -> "keras.Model":
    """Read a .keras file of headstart's as `read_keras` does, once it is known to be whole.

    Raises:
        ExportError: It is damaged, or not written by headstart.
    """
    check_safe(path)
    check_content(path, read_card(path))
    return _load_keras(path)


def _load_keras(path: Path) -> "keras.Model":
    import keras

    try:
        # safe_mode by name: the global switch that allows pickled Lambdas is not for our files.
        with within_bounds(path):
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except HeadstartError:  # of who ends this thread's work
        raise
    except Exception as error:  # whatever zipfile, HDF5 and the layers that it names stumble on
        raise ExportError(
            "the .keras file cannot be loaded",
            f"{path}: {first_line(error)}",
            "restore it from a backup, or export the model again",
        ) from error


def freeze(model: "keras.Model") -> Any:
    """Trace what lies behind the view of a joined model, with the weights as constants.

    Constants let TensorFlow fold batch normalisation into the convolutions, and a SavedModel of
    them is written, loaded and run in a fraction of the time that one with variables takes.

    Returns:
        A concrete function from views uint8 [N, image_size, image_size, 3] to the list of logits
        and probabilities, each float32 [N, num_classes].
    """
    import keras
    import tensorflow as tf

    from headstart.tasks.backbones.frozen_graph import fold_variables
    from headstart.tasks.export.joining import LOGITS, VIEW

    # The last call of a layer is the one in the joined model, if that was not read from a file.
    view, logits = (model.get_layer(name)._inbound_nodes[-1].outputs[0] for name in (VIEW, LOGITS))
    network = keras.Model(view, [logits, model.output])
    spec = tf.TensorSpec(view.shape, tf.uint8, name="views")
    values = [(variable, variable.numpy()) for variable in network.variables]

    def forward(views: Any) -> Any:
        constants = [(variable, tf.constant(value)) for variable, value in values]
        with keras.StatelessScope(constants):  # in it, a variable's value is the constant
            return network(tf.cast(views, tf.float32), training=False)

    function = tf.function(forward, input_signature=[spec], autograph=False).get_concrete_function()
    # A SavedModel inside keeps variables of its own, which Keras does not know.
    return fold_variables(function) if function.variables else function


def _for_others(card: ModelCard) -> dict[str, str]:
    """Give each field of a card by itself, text as it is and all else as JSON."""
    fields = card.model_dump(mode="json", exclude={"digests"})
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
    }


def _digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each part of an exported model, but of its card."""
    if path.is_dir():
        card = path / _CARD_FOLDER / _CARD_NAME
        files = (item for item in sorted(path.rglob("*")) if item.is_file() and item != card)
        return {item.relative_to(path).as_posix(): file_digest(item) for item in files}
    kind = kind_of(path)
    if kind == "onnx":
        return {"network": onnx_file.network_digest(path)}
    if kind == "openvino":
        return openvino_file.part_digests(path)
    if not zipfile.is_zipfile(path):
        return {_FLATBUFFER: file_digest(path)}
    with zipfile.ZipFile(path) as archive:
        members = [item for item in archive.infolist() if item.filename != _CARD_NAME]
        if kind == "keras":
            return {item.filename: _member_digest(archive, item) for item in members}
        start = min(item.header_offset for item in archive.infolist())
    return {_FLATBUFFER: bytes_digest(path.read_bytes()[:start])}


def _member_digest(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    with archive.open(member) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def first_line(error: Exception) -> str:
    """Return what an error of another library says, short enough for a message."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

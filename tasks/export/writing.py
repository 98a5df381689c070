"""Export: the joined model written in each format, with its labels and its card.

`headstart.tasks.export.proof` then reads each file back and holds it against the pipeline.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.errors import ExportError
from headstart.tasks.export.file_names import FILE_NAMES, Format
from headstart.tasks.export.joining import LOGITS, VIEW
from headstart.tasks.export.litert import write_litert
from headstart.tasks.export.model_files import ModelCard, freeze, read_keras, write_card
from headstart.tasks.export.portable import write_onnx, write_openvino
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.views.augment import plain_view

LABELS_NAME, CARD_NAME = "labels.txt", "model.json"
"""Files written beside the models: class names, one a line, and the card."""

MAX_OFF_IN_HALVES = 0.01
"""Share of a number's deviation that float16 may move its answer by."""
_CHECKED_SHAPES = ((31, 57, 3), (90, 40, 3))
"""Of the images that the resizing of a .keras file is checked with: one lies, one stands."""

MAX_GRAPH_BYTES = 2**31 - 2**20
"""A frozen graph is one protocol buffer, which ends at 2 GiB; 1 MiB is left for its nodes."""


def export_model(
    model: keras.Model,
    formats: Sequence[str],
    folder: Path,
    card: ModelCard,
    calibration: NDArray[np.uint8] | None = None,
) -> list[Path]:
    """Write a joined model in each format, with its labels and its card.

    The other formats are made from the .keras file as it reads back. The SavedModel holds the
    weights as constants: it is for serving; to train on, load the .keras file. Its signatures,
    each giving "probabilities" (of numbers "numbers") and "logits":

    - ``serving_default``: ``images`` uint8 [N, H, W, 3] of any size;
    - ``serving_bytes``: ``encoded`` string [N], files in JPEG, PNG, GIF (first frame) or BMP, of
      any and differing sizes. TensorFlow decodes them, which drops transparency and does not turn
      photos by their EXIF orientation;
    - ``serving_views``: ``views`` uint8 [N, image_size, image_size, 3], resized already.

    A .tflite file takes one such view: ``views`` uint8 [1, image_size, image_size, 3]. ONNX and
    OpenVINO files take what the card says: ``images`` or ``views``, as those signatures do.

    Args:
        model: Joined network, from `headstart.tasks.export.joining.join`.
        formats: Those asked for; `formats_of` says which are written.
        folder: An existing folder that nobody reads yet; publish it once it is proven.
        card: What goes with the model; its class names give the labels.
        calibration: Views for litert_int8, see `headstart.tasks.export.litert.write_litert`.

    Raises:
        ExportError: A format cannot hold this model, or the class names do not fit it.
    """
    num_classes = int(model.output.shape[-1])
    if len(card.class_names) != num_classes:
        raise ExportError(
            f"the number of class names does not match the model's {num_classes} probabilities",
            f"{len(card.class_names)} class names",
        )
    formats = formats_of(model, formats)
    written: list[Path] = []
    if "keras" in formats:
        written.append(folder / FILE_NAMES["keras"])
        model.save(written[0])
    writers = {kind: write for kind, write in _WRITERS.items() if kind in formats}
    litert = [kind for kind in formats if kind.startswith("litert")]
    if writers or litert:
        _check_size(model)
        if written:
            # From the file, not from memory: what proves them then proves the .keras file too.
            model = read_keras(written[0])
            _check_views(model, card)
        network = freeze(model)
        for kind, write in writers.items():
            written.append(folder / FILE_NAMES[kind])
            write(card, network, written[-1])
        for kind in litert:
            if kind == "litert_float16":
                _check_halves(card)
            written.append(folder / FILE_NAMES[kind])
            name = TARGETS[card.target].answer_name
            write_litert(kind, network, written[-1], calibration, name)
    for path in written:
        write_card(path, card)
    (folder / CARD_NAME).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    lines = "".join(f"{_one_line(name)}\n" for name in card.class_names)
    (folder / LABELS_NAME).write_text(lines, encoding="utf-8", newline="\n")
    return [*written, folder / CARD_NAME, folder / LABELS_NAME]


def formats_of(model: keras.Model, wanted: Sequence[str]) -> tuple[Format, ...]:
    """Say in which formats a joined model is written.

    Args:
        model: Joined network, from `headstart.tasks.export.joining.join`.
        wanted: Names of the formats asked for.

    Returns:
        Those and "keras", sorted. A backbone that is a SavedModel is a TensorFlow program: a
        .keras file could name it, but not hold it, so that "saved_model" takes its place.
    """
    holds_program = any(isinstance(layer, keras.layers.TFSMLayer) for layer in model.layers)
    always: Format = "saved_model" if holds_program else "keras"
    formats = {always, *wanted} - ({"keras"} if holds_program else set())
    return tuple(kind for kind in sorted(get_args(Format)) if kind in formats)


def decode_in_graph(encoded: Any) -> Any:
    """Decode an image with TensorFlow, to the pixels that `headstart.tasks.dataset.decode` gives.

    They are the same for JPEG and 8-bit files without transparency or EXIF orientation.

    Args:
        encoded: Scalar string tensor: a file in JPEG, PNG, GIF (first frame) or BMP.

    Returns:
        uint8 [H, W, 3].
    """
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(pixels, [None, None, 3])


def _write_saved_model(card: ModelCard, network: Any, path: Path) -> None:
    # The pipeline's own resizing, not the stock layer of the .keras file: in a graph that does not
    # know the images' sides, the layer's crop or padding is a pixel off at some sizes (227, say).
    def make_view(image: Any) -> Any:
        return plain_view(image, card.image_size, card.resize)

    def decode_view(encoded: Any) -> Any:
        return make_view(decode_in_graph(encoded))

    view_spec = tf.TensorSpec(network.inputs[0].shape, tf.uint8, name="views")
    image_spec = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    bytes_spec = tf.TensorSpec([None], tf.string, name="encoded")
    one_view = tf.TensorSpec(view_spec.shape[1:], tf.uint8)

    def answer(views: Any) -> dict[str, Any]:
        logits, answers = network(views)
        return {LOGITS: logits, TARGETS[card.target].answer_name: answers}

    def serve_views(views: Any) -> Any:
        return answer(views)

    def serve_images(images: Any) -> Any:
        views = tf.map_fn(make_view, images, fn_output_signature=one_view)
        return answer(views)

    def serve_bytes(encoded: Any) -> Any:
        # One by one: images of different sizes make no batch before they are views.
        views = tf.map_fn(decode_view, encoded, fn_output_signature=one_view)
        return answer(views)

    signatures = {
        "serving_default": _function(serve_images, image_spec),
        "serving_bytes": _function(serve_bytes, bytes_spec),
        "serving_views": _function(serve_views, view_spec),
    }
    tf.saved_model.save(tf.Module(), str(path), signatures=signatures)


_Writer = Callable[[ModelCard, Any, Path], None]
_WRITERS: dict[Format, _Writer] = {
    "saved_model": _write_saved_model,
    "onnx": write_onnx,
    "openvino": write_openvino,
}


def _function(call: Callable[[Any], Any], spec: tf.TensorSpec) -> Any:
    return tf.function(call, input_signature=[spec], autograph=False)


def _check_halves(card: ModelCard) -> None:
    """Refuse numbers whose mean and deviation float16 cannot hold: all constants are halved."""
    for name, mean, deviation in zip(
        card.class_names, card.fit.offset, card.fit.scale, strict=False
    ):
        halves = [float(np.float16(value)) for value in np.clip((mean, deviation), -65504, 65504)]
        off = abs(halves[0] - mean) + abs(halves[1] - deviation)
        if off > MAX_OFF_IN_HALVES * deviation:
            raise ExportError(
                "litert_float16 cannot hold numbers of this size",
                f"{name}: {mean:g}, give or take {deviation:g}, in float16 {halves[0]:g} and "
                f"{halves[1]:g}",
                "leave litert_float16 out of export.formats, or take another unit and subtract a "
                "constant in the manifest",
            )


def _check_size(model: keras.Model) -> None:
    num_bytes = 4 * model.count_params()
    if num_bytes > MAX_GRAPH_BYTES:
        raise ExportError(
            "the weights are too large for any format but keras "
            f"({MAX_GRAPH_BYTES:,} bytes at most)",
            f"weights of {num_bytes:,} bytes",
            "export the keras format alone: --set export.formats=[keras]",
        )


def _check_views(model: keras.Model, card: ModelCard) -> None:
    """Hold the resizing inside a .keras file against the pipeline's, which the SavedModel uses."""
    make_views = keras.Model(model.input, model.get_layer(VIEW).output)
    for shape in _CHECKED_SHAPES:
        image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        expected = plain_view(image, card.image_size, card.resize)
        if not np.array_equal(make_views(image[np.newaxis])[0], expected):
            raise ExportError(
                "the .keras file does not resize images as the pipeline does",
                f"other pixels, views.resize={card.resize}, image of {shape[0]} x {shape[1]}",
                "export with the headstart and Keras versions that trained the head",
            )


def _one_line(name: str) -> str:
    """Escape what would break a line, and the backslash, so that the name can be read back."""
    return name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")

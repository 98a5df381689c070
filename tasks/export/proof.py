"""The proof that exported files give the pipeline's own predictions."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from headstart.config import TargetKind
from headstart.errors import ExportError
from headstart.tasks.dataset.decode import decode_image
from headstart.tasks.export.file_names import FILE_NAMES, QUANTISED, Format
from headstart.tasks.export.joining import VIEW
from headstart.tasks.export.model_files import ModelCard, read_keras
from headstart.tasks.export.runtimes import answer_of, load_network
from headstart.tasks.export.writing import decode_in_graph
from headstart.tasks.store.files import without_wildcards
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.views.augment import plain_view
from headstart.tasks.views.recipes import Resize

TOLERANCES = {"float32": 1e-4, "float16": 1e-3}
"""Largest accepted difference of a probability, by the storage dtype of the bottlenecks.

Another batch size or format orders float32 sums differently: about 1e-6 of a value, so 1e-4 is
far above noise and far below what a wrong resize, channel order or weight makes. Behind a float16
rounding, noise can push a value over to the next float16, 2**-11 = 5e-4 of it away."""

ROOM: dict[TargetKind, float] = {"class": 1.0, "labels": 1.0, "number": 10.0}
"""How much more a standardised number moves than a probability, whose slope is 1/4 at the most;
and float32 leaves up to 6e-4 of the deviation of numbers that are far from 0."""

OTHER_TOLERANCE = 1e-3
"""The least tolerance for other engines, whose kernels fuse and order sums their own way."""
OTHER_ENGINES: tuple[Format, ...] = ("onnx", "openvino", "litert", *QUANTISED)
"""Formats that TensorFlow does not compute."""
QUANTISED_TOLERANCES: dict[Format, float] = {"litert_float16": 2e-2, "litert_int8": 1.0}
"""Rounded weights move probabilities by hundredths. What integers cost no bound can tell: the
export stage judges them by held-out images."""


class Proof(NamedTuple):
    """What a file gave for the proof images.

    Attributes:
        largest_difference: Largest difference of a probability from the pipeline's.
        num_same_labels: Images whose likeliest class is the pipeline's too.
    """

    largest_difference: float
    num_same_labels: int
    num_images: int


class _Answer(NamedTuple):
    """Probabilities [len(rows), num_classes] that one way into a file gave for some images."""

    way: str
    rows: list[int]
    probabilities: NDArray[np.float32]


def prove(
    folder: Path,
    card: ModelCard,
    encoded_images: Sequence[bytes],
    logits: NDArray[np.float32],
    max_pixels: int,
) -> dict[Format, Proof]:
    """Read every exported model back and compare its predictions with the pipeline's.

    Args:
        folder: Folder that `headstart.tasks.export.writing.export_model` wrote into.
        card: The card of the model.
        encoded_images: The bytes of a few image files.
        logits: float32 [len(encoded_images), num_classes]: what the head makes of their stored
            bottlenecks (plain views).
        max_pixels: Images with more pixels are refused.

    Raises:
        ExportError: A format differs by more than its tolerance.
    """
    target = TARGETS[card.target]
    expected = target.answers(logits, card.fit)
    # Of numbers in their deviations, so that the tolerance does not depend on the unit.
    unit = target.answer_unit(card.fit)
    images = [decode_image(data, max_pixels) for data in encoded_images]
    proofs: dict[Format, Proof] = {}
    for kind, answer in _answers(folder, card, encoded_images, images):
        path, wanted = folder / FILE_NAMES[kind], expected[answer.rows]
        difference = float(np.max(np.abs(answer.probabilities - wanted) / unit))
        tolerance = TOLERANCES[card.storage_dtype] * ROOM[card.target]
        if kind in OTHER_ENGINES:
            other = QUANTISED_TOLERANCES.get(kind, OTHER_TOLERANCE)
            tolerance = max(tolerance, other * ROOM[card.target])
        if not difference <= tolerance:  # so that NaN fails too
            raise ExportError(
                "the exported model's probabilities differ from the pipeline's by more than "
                f"{tolerance:g}",
                f"{path}: {answer.way} differs by {difference:.3g}",
                "export again; if it persists, report it with the backbone and the cut",
            )
        same = int(target.agree(answer.probabilities, wanted, card.fit).sum())
        earlier = proofs.get(kind, Proof(0.0, 0, 0))
        proofs[kind] = Proof(
            max(earlier.largest_difference, difference),
            earlier.num_same_labels + same,
            earlier.num_images + len(answer.rows),
        )
    return proofs


def exact_rows(
    extractor: Any, encoded: Sequence[bytes], image_size: int, resize: Resize, max_pixels: int
) -> NDArray[np.float32]:
    """Compute bottlenecks of image files by the Keras model, whatever made those of the store.

    Returns:
        float32 [len(encoded), *shape].
    """
    images = [decode_image(data, max_pixels) for data in encoded]
    views = np.stack([plain_view(image, image_size, resize) for image in images])
    rows: NDArray[np.float32] = keras.tree.flatten(extractor(views, training=False))[0].numpy()
    return rows


def _answers(
    folder: Path, card: ModelCard, encoded: Sequence[bytes], images: list[NDArray[np.uint8]]
) -> Iterator[tuple[Format, _Answer]]:
    saved_model = folder / FILE_NAMES["saved_model"]
    if saved_model.exists():
        for answer in _ask_saved_model(saved_model, encoded, images):
            yield "saved_model", answer
    else:  # a SavedModel is made from the .keras file, so that its proof would be the same again
        yield "keras", _ask_keras(folder / FILE_NAMES["keras"], images)
    for kind in OTHER_ENGINES:
        path = folder / FILE_NAMES[kind]
        if not path.exists():
            continue
        network = load_network(path)[1]
        # At their own sizes where the model resizes them itself.
        whole = not kind.startswith("litert") and card.input == "images"
        views = images if whole else [
            plain_view(image, card.image_size, card.resize).numpy() for image in images
        ]  # fmt: skip
        rows = [network(view[np.newaxis]) for view in views]
        way = "an image" if whole else "a view"
        yield kind, _Answer(way, list(range(len(images))), np.concatenate(rows))


def _ask_keras(path: Path, images: list[NDArray[np.uint8]]) -> _Answer:
    model = read_keras(path)
    # In two parts, because images of different sizes make a batch only once they are views.
    view = model.get_layer(VIEW).output
    resize, network = keras.Model(model.input, view), keras.Model(view, model.output)
    views = tf.concat([resize(image[np.newaxis]) for image in images], axis=0)
    return _Answer("the model", list(range(len(images))), network(views, training=False).numpy())


def _ask_saved_model(
    path: Path, encoded: Sequence[bytes], images: list[NDArray[np.uint8]]
) -> Iterator[_Answer]:
    with without_wildcards(path) as plain:
        loaded = tf.saved_model.load(str(plain))
    alike = [row for row, data in enumerate(encoded) if _decodes_alike(data, images[row])]
    others = [row for row in range(len(images)) if row not in alike] or [0]

    def ask_bytes() -> _Answer:
        answers = loaded.signatures["serving_bytes"](tf.constant([encoded[row] for row in alike]))
        return _Answer("serving_bytes", alike, answer_of(answers).numpy())

    def ask_images() -> _Answer:
        serve = loaded.signatures["serving_default"]
        rows = [answer_of(serve(tf.constant(images[row][np.newaxis]))) for row in others]
        return _Answer("serving_default", others, np.concatenate(rows))

    # TensorFlow optimises each signature's graph at its first call, on one core: two at a time.
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask) for ask in ([ask_bytes] if alike else []) + [ask_images]]
        yield from (answer.result() for answer in asked)


def _decodes_alike(encoded: bytes, image: NDArray[np.uint8]) -> bool:
    """Tell whether TensorFlow decodes a file, and to the pixels that the pipeline saw."""
    try:
        pixels: Any = decode_in_graph(tf.constant(encoded)).numpy()
    except tf.errors.InvalidArgumentError:
        return False
    return bool(np.array_equal(pixels, image))

"""Predict with an exported model: single images, or streams of any length.

Images are decoded and resized by threads ahead of the network, in a window of fixed length, so
memory stays the same for one image and for a million.
"""

import io
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import DatasetError
from headstart.tasks.dataset.decode import use_pixels
from headstart.tasks.export.answers import ANSWERS, Prediction
from headstart.tasks.export.image_files import FoundFile, find_images, read_image_file
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.runtimes import Network, load_network, needs_tensorflow
from headstart.tasks.views.pillow_view import pillow_view
from headstart.tasks.views.recipes import Resize

Item = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Image.Image
"""One image: a path, the bytes of a file, RGB pixels uint8 [H, W, 3], or a Pillow image."""
View = NDArray[np.uint8]
"""Pixels as the network takes them, [image_size, image_size, 3]."""
MakeView = Callable[[NDArray[np.uint8], int, Resize], View]
"""From pixels of any size, the side of the view, and how it is made."""
OnBad = Callable[[str, str], None]
"""Called with the path of a file that cannot be predicted and the reason."""

BATCH_SIZE = 32
"""Views a forward pass; more make a CPU no faster."""
NUM_BATCHES_AHEAD = 2
"""Batches that are decoded, or being decoded, while the network computes one."""

_WIDE_MODES = ("I", "F")
"""Of Pillow, which `convert` would cut off at 255."""
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}


class Predictor:
    """An exported model, ready for images.

    Args:
        card: What the model says of itself.
        network: Views to probabilities or numbers.
        make_view: Resizes an image; by TensorFlow, as in training, where not given.

    Attributes:
        card: What the model says of itself: class names, image size and more.
        max_pixels: Images with more pixels are refused.
    """

    def __init__(
        self, card: ModelCard, network: Network, make_view: MakeView | None = None
    ) -> None:
        self.card = card
        self.max_pixels = card.max_pixels
        self._network = network
        self._make_view = make_view or _tensorflow_view(card)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load an exported model.

        Args:
            path: A run's folder, a SavedModel folder, or a .keras, .onnx, .xml or .tflite file.
                The last three need no TensorFlow.

        Returns:
            A predictor.

        Raises:
            ExportError: There is no such model, it cannot be loaded, or it is not headstart's.
        """
        make_view = None if needs_tensorflow(Path(path)) else pillow_view
        return cls(*load_network(Path(path)), make_view)

    def predict(self, items: Item | Sequence[Item], top_k: int = 5) -> list[Prediction]:
        """Predict images that are at hand.

        Args:
            items: One image or several.
            top_k: Classes to name; all where there are fewer.

        Returns:
            One prediction an image, in their order.

        Raises:
            DatasetError: One of the items is not a usable image.
        """
        batch, _ = as_items(items)
        predictions: list[Prediction] = []
        for start in range(0, len(batch), BATCH_SIZE):
            part = batch[start : start + BATCH_SIZE]
            paths = [_path_of(item) for item in part]
            views = [self._view_or_raise(item, start + i) for i, item in enumerate(part)]
            predictions += self._predict_views(views, paths, top_k)
        return predictions

    def stream(
        self, paths: Iterable[str | os.PathLike[str]], on_bad: OnBad, top_k: int = 5
    ) -> Iterator[Prediction]:
        """Predict files and all images in folders, in their order, as they are read.

        What is read in a folder, `headstart.tasks.export.image_files.find_images` says.

        Args:
            paths: Image files, and folders of them.
            on_bad: Called, in order too, for each file that cannot be used.
            top_k: Classes to name; all where there are fewer.

        Yields:
            One prediction an image.
        """
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1), "decode") as pool:
            reads = _read_ahead(pool, self._try_view, find_images(paths))
            try:
                while window := list(islice(reads, BATCH_SIZE)):
                    yield from self._predict_window(window, on_bad, top_k)
            finally:
                reads.close()

    def _predict_window(
        self, window: list["_Read"], on_bad: OnBad, top_k: int
    ) -> Iterator[Prediction]:
        good = [(read.view, read.path) for read in window if read.view is not None]
        views, paths = [view for view, _ in good], [path for _, path in good]
        predictions = iter(self._predict_views(views, paths, top_k))
        for read in window:
            if read.view is None:
                on_bad(read.path, read.reason)
            else:
                yield next(predictions)

    def _predict_views(
        self, views: Sequence[NDArray[np.uint8]], paths: Sequence[str | None], top_k: int
    ) -> list[Prediction]:
        if not views:
            return []
        rows, make = self._network(np.stack(views)), ANSWERS[self.card.target].make
        return [make(self.card, path, row, top_k) for path, row in zip(paths, rows, strict=True)]

    def _view(self, item: Item) -> NDArray[np.uint8]:
        if isinstance(item, Image.Image):
            data = _encode(item)
        elif isinstance(item, str | os.PathLike | bytes):
            data = item if isinstance(item, bytes) else read_image_file(item, self.max_pixels)
        elif hasattr(item, "__array__"):
            return self._resized(_checked(np.asarray(item)))
        else:
            raise _no_image(item)
        return use_pixels(data, self.max_pixels, self._resized)

    def _resized(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._make_view(pixels, self.card.image_size, self.card.resize)

    def _view_or_raise(self, item: Item, position: int) -> NDArray[np.uint8]:
        try:
            return self._view(item)
        except DatasetError as error:
            name = _path_of(item) or f"item {position}"
            received = f"{name}: {error.received}"
            raise DatasetError(error.problem, received, error.next_step) from None

    def _try_view(self, found: FoundFile) -> "_Read":
        if found.problem:
            return _Read(found.path, None, found.problem)
        try:
            return _Read(found.path, self._view(found.path), "")
        except DatasetError as error:
            return _Read(found.path, None, error.received)
        except MemoryError:
            return _Read(found.path, None, "too large for the available memory")


def _tensorflow_view(card: ModelCard) -> MakeView:
    import tensorflow as tf

    from headstart.tasks.views.augment import plain_view

    traced = tf.function(
        lambda pixels: plain_view(pixels, card.image_size, card.resize),
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
        autograph=False,
    )

    def make_view(pixels: NDArray[np.uint8], image_size: int, resize: Resize) -> View:
        view: View = traced(tf.constant(pixels)).numpy()
        return view

    return make_view


@dataclass(frozen=True)
class _Read:
    """A file's view, or why there is none."""

    path: str
    view: NDArray[np.uint8] | None
    reason: str


def _read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[FoundFile], _Read], files: Iterator[FoundFile]
) -> Generator[_Read, None, None]:
    """Read files in threads, a fixed number ahead, and give them in their order."""
    pending: deque[Future[_Read]] = deque()
    try:
        for found in files:
            pending.append(pool.submit(read, found))
            if len(pending) > NUM_BATCHES_AHEAD * BATCH_SIZE:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def as_items(images: Any) -> tuple[list[Any], bool]:
    """Take apart what a person gave to be predicted.

    Args:
        images: An `Item`; or several, as an array [n, H, W, 3] or in anything to go through.

    Returns:
        The items, and whether one was given as such. Those in a list are not looked at.

    Raises:
        DatasetError: It is neither.
    """
    if isinstance(images, str | os.PathLike | bytes | Image.Image):
        return [images], True
    if hasattr(images, "__array__") and not isinstance(images, list | tuple):
        array = np.asarray(images)
        is_several = array.ndim == 4 or (array.ndim == 1 and array.dtype.kind in "OU")
        return (list(array), False) if is_several else ([array], True)
    try:
        return list(images), False
    except TypeError:
        raise _no_image(images) from None


def _no_image(item: object) -> DatasetError:
    return DatasetError(
        "this is not an image",
        f"{type(item).__name__} {item!r:.40}",
        "give the path or the bytes of an image file, a Pillow image, or an array of RGB pixels, "
        "uint8 [H, W, 3]",
    )


def _path_of(item: Item) -> str | None:
    return os.fspath(item) if isinstance(item, str | os.PathLike) else None


def _checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DatasetError(
            "an array must be an image of RGB pixels, uint8 [H, W, 3]",
            f"{pixels.dtype} {list(pixels.shape)}",
            "convert it, or give the path of the file",
        )
    return pixels


def _encode(image: Image.Image) -> bytes:
    """Encode without loss, so that Pillow images take the one way of `decode_image`."""
    exif = image.getexif()
    if image.mode in _WIDE_MODES:
        raise DatasetError(
            "the pixels have no fixed black and white",
            f"a Pillow image of mode {image.mode}, 32 bits a pixel",
            "convert it to 8 or 16 bits, scaled as the training images are",
        )
    if image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0, exif=exif)
    return buffer.getvalue()

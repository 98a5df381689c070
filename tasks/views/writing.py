"""The views stage: every image's file becomes pixels of one size, kept as rows in the store.

Two collections, so that asking for augmentation later leaves the plain views where they are:
view 0 depends on the size and the way of resizing alone, views 1 and up on the augmentations
and the seed besides. The number of views is in neither, so more of them computes the new ones.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import ViewsConfig
from headstart.errors import DatasetError
from headstart.tasks.dataset.decode import UndecodableImage, use_pixels
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.progress import Advance, reporter
from headstart.tasks.running.spreading import available_cores, is_spread, map_pieces
from headstart.tasks.store.artifacts import Store, use_store
from headstart.tasks.store.assigned_rows import ExpectedRows
from headstart.tasks.store.fingerprint import bytes_digest, digest
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.store.remote_store import open_store
from headstart.tasks.views.augment import augmented_view, check_augmentations, plain_view, view_seed
from headstart.tasks.views.recipes import augmented_collection, plain_collection, randomness

IMAGES_AHEAD_A_WORKER = 4
"""Images in hand for each worker: enough that none waits for a slow one, few enough that memory
does not depend on the number of images."""

_NEXT = "run the command again: it reads the images again"

Pixels = npt.NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")


class ViewCounts(NamedTuple):
    """What a pass over a data set's views came to.

    Attributes:
        num_rows: Views the data set has, of its distinct images.
        num_rows_computed: Views that were not in the store and had to be made.
        num_images_read: Image files read for that.
    """

    num_rows: int
    num_rows_computed: int
    num_images_read: int


class ImageJob(NamedTuple):
    """One image and the views of it that are missing.

    Attributes:
        digest: SHA-256 of its bytes when the data set was indexed.
        views: Numbers of the views to make, ascending.
    """

    file: Path
    digest: str
    views: tuple[int, ...]


class ViewsPiece(NamedTuple):
    """Images whose views a worker makes: as many as fill a shard of plain ones.

    Attributes:
        expected: The views to be made, by the collections that they are written into.
        config: How images become pixels.
        image_size: Side of a view in pixels.
        num_images: Distinct images of the data set, which decides the size of a shard.
    """

    store: str
    expected: ExpectedRows
    config: ViewsConfig
    image_size: int
    max_pixels: int
    num_images: int
    jobs: tuple[ImageJob, ...]


def write_views(
    index: DatasetIndex,
    root: Path,
    config: ViewsConfig,
    image_size: int,
    store: Store,
    max_pixels: int,
    num_workers: int | None = None,
) -> ViewCounts:
    """Make the views that the store lacks, of every distinct image of a data set.

    Interrupted, it keeps what is whole; the next call makes the rest. The files written are the
    same for any number of workers.

    Args:
        index: Index of the data set.
        root: Folder that its paths start at.
        config: How images become pixels, and how many augmented views there are.
        image_size: Side of a view in pixels.
        store: Where the views are kept.
        max_pixels: Images with more pixels are refused.
        num_workers: Threads that read, decode and resize; one a core where not given.

    Returns:
        Views there are, views made, and images read.

    Raises:
        ConfigError: An augmentation cannot be applied to views of this size.
        DatasetError: A file is gone, or is not the one that was indexed.
    """
    check_augmentations(config.augmentations, image_size)
    collections = _collections(config, image_size, store)
    with ExitStack() as locks:
        for collection in collections:
            locks.enter_context(collection.lock())
        jobs = _missing_jobs(index, root, config.num_augmented, collections)
        advance = locks.enter_context(reporter().track("views", len(jobs), "images"))
        num_images = len(index.digests)
        size = collections[0].shard_rows(num_images)
        parts = [tuple(jobs[start : start + size]) for start in range(0, len(jobs), size)]
        if jobs and is_spread():
            expected = ExpectedRows.of(collections)
            common = (store.location, expected, config, image_size, max_pixels, num_images)
            for count in map_pieces(write_piece, [ViewsPiece(*common, part) for part in parts]):
                advance(count)
            store.look_again()
        elif jobs:
            maker = ViewMaker(config, image_size, max_pixels)
            num_threads = num_workers or available_cores()
            counts = _num_wanted(num_images, config.num_augmented)
            _write(parts, maker, collections, counts, num_threads, advance)
    return ViewCounts(
        num_rows=len(index.digests) * (1 + config.num_augmented),
        num_rows_computed=sum(len(job.views) for job in jobs),
        num_images_read=len(jobs),
    )


def write_piece(piece: ViewsPiece) -> int:
    """Make the views of a piece's images, unless its shards are there, and write them.

    Raises:
        ConfigError: This worker would make other views than those asked for.
        DatasetError: A file is gone, or is not the one that was indexed.
    """
    with use_store(open_store(piece.store)) as store:
        collections = _collections(piece.config, piece.image_size, store)
        piece.expected.check(collections)
        rows = _rows_of(piece.jobs)
        counts = _num_wanted(piece.num_images, piece.config.num_augmented)
        if not all(map(RowCollection.holds, collections, rows, counts)):
            maker = _maker(piece.config, piece.image_size, piece.max_pixels)
            cores = available_cores()
            _write([piece.jobs], maker, collections, counts, cores, lambda count: None)
    return len(piece.jobs)


@lru_cache(maxsize=2)
def _maker(config: ViewsConfig, image_size: int, max_pixels: int) -> "ViewMaker":
    """Trace a maker once a process."""
    return ViewMaker(config, image_size, max_pixels)


class ViewMaker:
    """Makes views of image files; may be called from several threads.

    It computes on the CPU also where there is a GPU: the last bit of a pixel may differ between
    them, and views in the store serve both.
    """

    def __init__(self, config: ViewsConfig, image_size: int, max_pixels: int) -> None:
        self._image_size = image_size
        self._max_pixels = max_pixels
        self._seeds_digest = digest(randomness(config))
        # Traced once, for images of all sizes; AutoGraph has nothing to convert here.
        image = tf.TensorSpec([None, None, 3], tf.uint8)
        self._plain = tf.function(
            lambda pixels: plain_view(pixels, image_size, config.resize),
            input_signature=[image],
            autograph=False,
        )
        self._augmented = tf.function(
            lambda pixels, seed: augmented_view(
                pixels, image_size, config.resize, config.augmentations, seed
            ),
            input_signature=[image, tf.TensorSpec([2], tf.int32)],
            autograph=False,
        )

    def __call__(self, job: ImageJob) -> list[Pixels]:
        """Read an image and make its views.

        Returns:
            A view each, uint8 ``[image_size, image_size, 3]``, in the order of ``job.views``.

        Raises:
            DatasetError: The file is gone, or is not the one that was indexed.
        """
        data = self._read(job)
        try:
            return use_pixels(data, self._max_pixels, lambda pixels: self._make_all(pixels, job))
        except UndecodableImage as error:
            received = f"{job.file}: {error.reason}"
            raise DatasetError("an indexed image cannot be decoded", received, _NEXT) from None

    def _make_all(self, pixels: Pixels, job: ImageJob) -> list[Pixels]:
        with tf.device("CPU:0"):
            image = tf.constant(pixels)
            return [self._make(pixels, image, job.digest, view) for view in job.views]

    def _make(self, pixels: Pixels, image: tf.Tensor, image_digest: str, view: int) -> Pixels:
        if view:
            seed = tf.constant(view_seed(image_digest, view, self._seeds_digest), tf.int32)
            return np.asarray(self._augmented(image, seed))
        if pixels.shape[:2] == (self._image_size, self._image_size):
            return pixels  # what plain_view returns, without its passes over the pixels
        return np.asarray(self._plain(image))

    def _read(self, job: ImageJob) -> bytes:
        try:
            data = job.file.read_bytes()
        except OSError as error:
            received = f"{job.file}: {error.strerror or type(error).__name__}"
            raise DatasetError("an image cannot be read", received, _NEXT) from error
        if bytes_digest(data) != job.digest:
            problem = "an image was changed after the run had begun"
            raise DatasetError(problem, f"{job.file}: other bytes than were indexed", _NEXT)
        return data


def _collections(config: ViewsConfig, image_size: int, store: Store) -> list[RowCollection]:
    collections = [plain_collection(config, image_size, store)]
    if config.num_augmented:
        collections.append(augmented_collection(config, image_size, store))
    return collections


def _num_wanted(num_images: int, num_augmented: int) -> tuple[int, int]:
    """Return how many rows a data set has in each collection, there or missing."""
    return num_images, num_images * num_augmented


def _rows_of(jobs: Sequence[ImageJob]) -> tuple[list[RowId], list[RowId]]:
    """List the rows that jobs write into each collection, in the order of writing."""
    rows = [RowId(job.digest, view) for job in jobs for view in job.views]
    return [row for row in rows if not row.view], [row for row in rows if row.view]


def _missing_jobs(
    index: DatasetIndex, root: Path, num_augmented: int, collections: Sequence[RowCollection]
) -> list[ImageJob]:
    """List what is to be made, by image digest: the order in which it will be written."""
    views = [range(1), range(1, 1 + num_augmented)]
    missing: dict[str, list[int]] = {}
    for collection, numbers in zip(collections, views, strict=False):
        wanted = [RowId(image, view) for image in index.digests for view in numbers]
        for row_id in collection.missing(wanted):
            missing.setdefault(row_id.image_digest, []).append(row_id.view)
    files = {row.digest: row.path for row in reversed(index.rows)}  # a duplicate's first path
    return [ImageJob(root / files[name], name, tuple(missing[name])) for name in sorted(missing)]


def _write(
    parts: Sequence[Sequence[ImageJob]],
    maker: Callable[[ImageJob], list[Pixels]],
    collections: Sequence[RowCollection],
    num_wanted: Sequence[int],
    num_workers: int,
    advance: Advance,
) -> None:
    """Write parts of the jobs as one stream; no shard has rows of two parts."""
    jobs = [job for part in parts for job in part]
    ends = {part[-1].digest for part in parts}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(collection.writer(count))
            for collection, count in zip(collections, num_wanted, strict=False)
        ]
        made = stack.enter_context(closing(_map_in_order(maker, jobs, num_workers)))
        for job, views in zip(jobs, made, strict=True):
            for view, pixels in zip(job.views, views, strict=True):
                writers[min(view, 1)].write(RowId(job.digest, view), pixels)
            if job.digest in ends:
                for writer in writers:
                    writer.flush()
            advance(1)


def _map_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], num_workers: int
) -> Generator[Result, None, None]:
    """Call a function in threads and yield the results in order, few of them ahead.

    Closed early, or by an interrupt, it waits for the calls that have begun and makes no more.
    """
    pool = ThreadPoolExecutor(num_workers, "views")
    ahead: deque[Future[Result]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > num_workers * IMAGES_AHEAD_A_WORKER:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

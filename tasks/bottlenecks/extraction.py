"""The pass: views through the frozen backbone, activations into shards.

The backbone runs as a frozen graph: its variables become constants, so that TensorFlow folds
batch normalisation into the convolutions. Reading, computing and writing overlap.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.engines import Extract
from headstart.tasks.backbones.frozen_graph import fold_variables
from headstart.tasks.bottlenecks.halving import Halving
from headstart.tasks.progress import reporter
from headstart.tasks.running.devices import num_replicas, replicate, strategy
from headstart.tasks.store.records import RowCollection, RowId, RowReader, RowWriter

BATCHES_AHEAD = 3
"""Batches a device that are read before, and left to write behind, the one that is computed."""


@dataclass(frozen=True)
class Target:
    """Where one cut's activations of some rows go.

    Attributes:
        output: Which output of the backbone, counted from 0.
        num_wanted: How many the data set needs there, missing or not, which decides the size of
            a shard.
    """

    output: int
    collection: RowCollection
    rows: frozenset[RowId]
    num_wanted: int


def piece_rows(targets: Sequence[Target]) -> int:
    """Return how many views make a piece: a shard at the cut whose shards have fewest rows."""
    return min(target.collection.shard_rows(target.num_wanted) for target in targets)


class Waiting:
    """How long an engine has nothing to do, because views come late or results are not taken.

    Args:
        now: Clock to read, in seconds from any beginning.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started_s = now()
        self._waited_s = 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Count the length of a with block."""
        since_s = self._now()
        try:
            yield
        finally:
            self._waited_s += self._now() - since_s

    def words(self) -> str:
        """Say which share of the time so far it was."""
        share = self._waited_s / max(1e-9, self._now() - self._started_s)
        return f", the engine waited {share:.0%}"


class _Batch(NamedTuple):
    reader: RowReader
    targets: Sequence[Target]
    positions: range
    ends_piece: bool


_Read = tuple[_Batch, npt.NDArray[np.uint8]]


def extractor_of(backbone: Backbone, cuts: Sequence[str], pooled: bool) -> Any:
    """Build the Keras model of a pass.

    Args:
        backbone: The network that the cuts are in.
        cuts: Names of the cuts to compute.
        pooled: Average each activation over its positions.

    Returns:
        A model from a batch of pixels to one float32 output a cut.
    """
    model = backbone.extractor(cuts)
    if not pooled:
        return model
    averages = [
        keras.ops.mean(one, axis=tuple(range(1, one.ndim - 1))) if one.ndim > 2 else one
        for one in keras.tree.flatten(model.outputs)
    ]
    return keras.Model(model.inputs, averages)


def freeze(backbone: Backbone, cuts: Sequence[str], pooled: bool = False) -> Extract:
    """Turn a backbone into a frozen graph.

    Args:
        backbone: The network that the cuts are in.
        cuts: Names of the cuts to compute.
        pooled: Average each activation over its positions.

    Returns:
        A function of a uint8 batch [n, image_size, image_size, 3] that returns one float32
        activation [n, *activation shape] a cut.
    """
    extractor = extractor_of(backbone, cuts, pooled)
    size = backbone.image_size
    signature = tf.TensorSpec([None, size, size, 3], tf.uint8)
    function = tf.function(
        lambda images: extractor(images, training=False), autograph=False
    ).get_concrete_function(signature)
    frozen: Extract = fold_variables(function)
    return frozen


def run_pass(
    extract: Extract,
    sources: Sequence[tuple[RowReader, Sequence[Target]]],
    batch_size: int,
) -> int:
    """Send views through the backbone once, and write what is missing at each cut.

    Neither a batch nor a shard has rows of two pieces, so that what is written does not depend
    on whether the pieces go through one process as a stream or through many.

    Args:
        extract: From `freeze`, or of another engine.
        sources: Readers of views, each with the targets that want its rows.
        batch_size: Views a forward pass.

    Raises:
        BackboneError: An activation is NaN or infinite, or too large for the storage type; or
            there is too little memory for one image.
    """
    total = sum(len(reader) for reader, _ in sources)
    over = strategy()
    with ExitStack() as stack:
        writers = {
            target.collection.digest: stack.enter_context(
                target.collection.writer(target.num_wanted)
            )
            for _, targets in sources
            for target in targets
        }
        waiting = Waiting()
        advance = stack.enter_context(
            reporter().track("bottlenecks", total, "images", waiting.words)
        )
        # Last in, first out: the threads end before the writers publish what they were given.
        reading = stack.enter_context(ThreadPoolExecutor(1, "read"))
        writing = stack.enter_context(ThreadPoolExecutor(1, "write"))
        written: deque[Future[None]] = deque()
        compute, size = Halving(replicate(extract, over)), num_replicas(over)
        batches = _read_ahead(reading, _batches(sources, batch_size), BATCHES_AHEAD * size)
        while some := _next(batches, size, waiting):
            # On a GPU this returns before the result is there; the writing thread waits for it.
            activations = compute([pixels for _, pixels in some])
            for (batch, _), outputs in zip(some, activations, strict=True):
                written.append(writing.submit(_write, outputs, batch, writers, advance))
            with waiting():
                while len(written) > BATCHES_AHEAD * size:
                    written.popleft().result()
        for future in written:
            future.result()
    return total


def _next(batches: Iterator[_Read], size: int, waiting: Waiting) -> list[_Read]:
    with waiting():
        return list(islice(batches, size))


def _batches(
    sources: Sequence[tuple[RowReader, Sequence[Target]]], batch_size: int
) -> Iterator[_Batch]:
    for reader, targets in sources:
        size = piece_rows(targets)
        for first in range(0, len(reader), size):
            end = min(first + size, len(reader))
            for start in range(first, end, batch_size):
                stop = min(start + batch_size, end)
                yield _Batch(reader, targets, range(start, stop), ends_piece=stop == end)


def _read_ahead(
    reading: ThreadPoolExecutor, batches: Iterator[_Batch], num_ahead: int
) -> Iterator[_Read]:
    ahead: deque[tuple[_Batch, Future[Any]]] = deque()
    for batch in batches:
        ahead.append((batch, reading.submit(batch.reader.gather, batch.positions)))
        if len(ahead) > num_ahead:
            ready, future = ahead.popleft()
            yield ready, future.result()
    for ready, future in ahead:
        yield ready, future.result()


def _write(
    activations: Sequence[Any],
    batch: _Batch,
    writers: dict[str, RowWriter],
    advance: Callable[[int], None],
) -> None:
    row_ids = [batch.reader.row_ids[position] for position in batch.positions]
    for target in batch.targets:
        values = np.asarray(activations[target.output])
        stored = _store_as(values, target.collection.dtype, row_ids)
        writer = writers[target.collection.digest]
        for row_id, row in zip(row_ids, stored, strict=True):
            if row_id in target.rows:
                writer.write(row_id, row)
        if batch.ends_piece:
            writer.flush()
    advance(len(row_ids))


def _store_as(
    values: npt.NDArray[np.float32], dtype: np.dtype[Any], row_ids: Sequence[RowId]
) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):  # looked for, and reported with the image, below
        stored = values.astype(dtype)
    finite = np.isfinite(stored).reshape(len(row_ids), -1).all(axis=1)
    if finite.all():
        return stored
    row = int(np.argmin(finite))
    if np.isfinite(values[row]).all():
        raise BackboneError(
            f"an activation at the cut does not fit into {dtype.name} (up to "
            f"{np.finfo(dtype).max:,.0f})",
            f"{np.abs(values[row]).max():,.0f} for image {row_ids[row].image_digest}",
            "store them as float32: --set bottlenecks.dtype=float32",
        )
    raise BackboneError(
        "an activation at the cut is not a finite number",
        f"NaN or Inf for image {row_ids[row].image_digest}",
        "check the backbone's weights and preprocessing (`headstart cuts BACKBONE`)",
    )

"""The pass: views through the frozen backbone, activations into shards.

The backbone runs as a frozen graph: its variables become constants, so that TensorFlow folds
batch normalisation into the convolutions. Reading, computing and writing overlap.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.frozen_graph import fold_variables
from headstart.tasks.progress import reporter
from headstart.tasks.records import RowCollection, RowId, RowReader, RowWriter

BATCHES_AHEAD = 3
"""Batches read before, and left to write behind, the one that is computed."""

Extract = Callable[[Any], Sequence[Any]]


@dataclass(frozen=True)
class Target:
    """Where one cut's activations of some rows go.

    Attributes:
        output: Which output of the backbone, counted from 0.
        collection: Where they are kept.
        rows: The rows that are missing there.
    """

    output: int
    collection: RowCollection
    rows: frozenset[RowId]


def freeze(backbone: Backbone, cuts: Sequence[str]) -> Extract:
    """Turn a backbone into a frozen graph.

    Args:
        backbone: The network.
        cuts: Names of the cuts to compute.

    Returns:
        A function of a uint8 batch [n, image_size, image_size, 3] that returns one float32
        activation [n, *activation shape] a cut.
    """
    extractor = backbone.extractor(cuts)
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

    Args:
        extract: From `freeze`.
        sources: Readers of views, each with the targets that want its rows.
        batch_size: Views a forward pass.

    Returns:
        The number of views that went through the backbone.

    Raises:
        BackboneError: An activation is NaN or infinite, or too large for the storage type.
    """
    total = sum(len(reader) for reader, _ in sources)
    with ExitStack() as stack:
        writers = {
            target.collection.digest: stack.enter_context(
                target.collection.writer(len(target.rows))
            )
            for _, targets in sources
            for target in targets
        }
        advance = stack.enter_context(reporter().track("bottlenecks", total, "images"))
        # Last in, first out: the threads end before the writers publish what they were given.
        reading = stack.enter_context(ThreadPoolExecutor(1, "read"))
        writing = stack.enter_context(ThreadPoolExecutor(1, "write"))
        written: deque[Future[None]] = deque()
        for row_ids, pixels, targets in _read_ahead(reading, sources, batch_size):
            # On a GPU this returns before the result is there; the writing thread waits for it.
            activations = extract(tf.constant(pixels))
            written.append(writing.submit(_write, activations, row_ids, targets, writers, advance))
            if len(written) > BATCHES_AHEAD:
                written.popleft().result()
        for future in written:
            future.result()
    return total


def _read_ahead(
    reading: ThreadPoolExecutor,
    sources: Sequence[tuple[RowReader, Sequence[Target]]],
    batch_size: int,
) -> Iterator[tuple[list[RowId], npt.NDArray[np.uint8], Sequence[Target]]]:
    batches = (
        (reader, targets, range(start, min(start + batch_size, len(reader))))
        for reader, targets in sources
        for start in range(0, len(reader), batch_size)
    )
    ahead: deque[tuple[Future[Any], list[RowId], Sequence[Target]]] = deque()
    for reader, targets, positions in batches:
        row_ids = [reader.row_ids[position] for position in positions]
        ahead.append((reading.submit(reader.gather, positions), row_ids, targets))
        if len(ahead) > BATCHES_AHEAD:
            future, row_ids, targets = ahead.popleft()
            yield row_ids, future.result(), targets
    for future, row_ids, targets in ahead:
        yield row_ids, future.result(), targets


def _write(
    activations: Sequence[Any],
    row_ids: Sequence[RowId],
    targets: Sequence[Target],
    writers: dict[str, RowWriter],
    advance: Callable[[int], None],
) -> None:
    for target in targets:
        values = activations[target.output].numpy()
        stored = _store_as(values, target.collection.dtype, row_ids)
        for row_id, row in zip(row_ids, stored, strict=True):
            if row_id in target.rows:
                writers[target.collection.digest].write(row_id, row)
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
            f"Activations at the cut fit into {dtype.name} (up to {np.finfo(dtype).max:,.0f}).",
            f"{np.abs(values[row]).max():,.0f} for image {row_ids[row].image_digest}",
            "store them as float32: --set bottlenecks.dtype=float32",
        )
    raise BackboneError(
        "Activations at the cut are finite numbers.",
        f"NaN or Inf for image {row_ids[row].image_digest}",
        "check the backbone's weights and preprocessing (`headstart cuts BACKBONE`)",
    )

"""The nearest rows by cosine similarity: exactly, or by an index where there are very many."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest, artefact
from headstart.tasks.store.versions import version_of
from headstart.tasks.views.addresses import plain_rows

Vectors = npt.NDArray[np.float32]
BLOCK_ROWS = 8192
"""Rows of the collection compared at a time: 42 MB of float32 at 1,280 values each."""
NUM_LINKS = 32
"""Neighbours that the index links each row to (M of HNSW). Source: faiss's wiki, Guidelines."""
EFFORT = 128
"""Candidates kept while the index is built and searched; what recall costs."""
NUM_CHECKED = 100
"""Rows that are looked up in a new index, and exactly."""
CHECKED_K = 10


class Nearest(NamedTuple):
    """The nearest rows of some queries.

    Attributes:
        rows: int64 [num_queries, k], the nearest first.
        similarities: float32 [num_queries, k]: cosines.
    """

    rows: npt.NDArray[np.int64]
    similarities: Vectors


def collection_blocks(features: Features) -> Iterator[Vectors]:
    """Read the plain bottlenecks of the distinct images of a data set, as directions.

    Yields:
        float32 [n, C] of length 1, in the order of the index's digests; spatial bottlenecks are
        averaged over their positions.
    """
    digests = index_of(features.dataset).digests
    reader = features.collections.plain.select(plain_rows(digests))
    for start in range(0, len(digests), BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, len(digests)))
        yield directions(pooled(np.asarray(reader.gather(rows))))


def pooled(rows: npt.NDArray[Any]) -> Vectors:
    """Average over all axes but the first and the last: [n, ..., C] -> float32 [n, C]."""
    values = rows.astype(np.float32)
    averaged: Vectors = values.mean(axis=tuple(range(1, values.ndim - 1)))
    return averaged


def directions(vectors: Vectors) -> Vectors:
    """Scale rows to length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled


def search_exactly(blocks: Iterator[Vectors], queries: Vectors, k: int) -> Nearest:
    """Compare queries with every row, block by block.

    Args:
        blocks: Directions float32 [n, C].
        queries: Directions float32 [num_queries, C].
        k: Rows wanted; fewer where there are fewer.

    Returns:
        The nearest; of equal ones the first.
    """
    rows = np.empty((len(queries), 0), np.int64)
    similarities = np.empty((len(queries), 0), np.float32)
    start = 0
    for block in blocks:
        numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
        rows = np.concatenate([rows, numbers], axis=1)
        similarities = np.concatenate([similarities, queries @ block.T], axis=1)
        best = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        rows = np.take_along_axis(rows, best, axis=1)
        similarities = np.take_along_axis(similarities, best, axis=1)
        start += len(block)
    return Nearest(rows, similarities)


class IndexManifest(Manifest):
    """An index over a collection."""

    recall: float
    """Share of the true 10 nearest that it finds, of rows drawn from the collection."""


def _index_key(features: Features) -> dict[str, Any]:
    return {
        "images": features.dataset.images_digest,
        "rows": features.collections.plain.recipe,
        "faiss": version_of("faiss-cpu"),
        "links": NUM_LINKS,
        "effort": EFFORT,
    }


def _build(folder: Path, features: Features) -> Made:
    import faiss

    index: Any = None
    num_rows = len(index_of(features.dataset).digests)
    with reporter().track("indexing", num_rows, "images") as advance:
        for block in collection_blocks(features):
            if index is None:
                index = faiss.IndexHNSWFlat(block.shape[1], NUM_LINKS, faiss.METRIC_INNER_PRODUCT)
                index.hnsw.efConstruction = EFFORT
            index.add(block)
            advance(len(block))
    faiss.write_index(index, str(folder / "index.faiss"))
    drawn = np.random.default_rng(0).choice(num_rows, min(NUM_CHECKED, num_rows), replace=False)
    queries = np.stack([index.reconstruct(int(row)) for row in drawn])
    found = _asking(index)(queries, CHECKED_K).rows
    exact = search_exactly(collection_blocks(features), queries, CHECKED_K).rows
    shared = [len(set(a) & set(b)) / len(b) for a, b in zip(found, exact, strict=True)]
    return Made(num_rows, num_rows, fields={"recall": float(np.mean(shared))})


def open_index(manifest: IndexManifest) -> Callable[[Vectors, int], Nearest]:
    """Open an index: from directions and a number of rows to the nearest."""
    import faiss

    return _asking(faiss.read_index(str(artefact(manifest, "index.faiss"))))


def _asking(index: Any) -> Callable[[Vectors, int], Nearest]:
    def ask(queries: Vectors, k: int) -> Nearest:
        index.hnsw.efSearch = max(EFFORT, 2 * k)
        similarities, rows = index.search(queries, min(k, index.ntotal))
        return Nearest(rows, similarities)

    return ask


index_stage = Stage(
    "search_index",
    1,
    IndexManifest,
    _build,
    _index_key,
    lambda made: f"{made.num_rows:,} images; it finds {made.recall:.1%} of the nearest {CHECKED_K}",
)

"""Find the images of a collection most similar to a query, by their cached bottlenecks.

Run by ``headstart search`` and from Python. The collection is extracted once, under the key that
``headstart train`` uses; every further query costs its own image alone.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from headstart.config import TransferConfig
from headstart.errors import DatasetError
from headstart.flows.body import on_store
from headstart.flows.dataset_to_bottlenecks import make_bottlenecks
from headstart.tasks.bottlenecks.features import Features, extractor_to
from headstart.tasks.bottlenecks.rows import check_names
from headstart.tasks.dataset.building import dataset_root
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.export.image_files import find_images, read_image_file
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import mending_damage
from headstart.tasks.searching.found import Hit
from headstart.tasks.searching.nearest import (
    Nearest,
    Vectors,
    collection_blocks,
    directions,
    index_stage,
    open_index,
    pooled,
    search_exactly,
)

MAX_EXACT = 100_000
"""Images up to which every one is compared: a tenth of a second a query on one core."""


def run(
    config: TransferConfig,
    queries: Sequence[Path],
    k: int,
    store: Path | None = None,
    on_bad: Callable[[str, str], None] | None = None,
) -> dict[str, list[Hit]]:
    """Find the images of a collection that are the most like each query.

    Args:
        config: The collection, the backbone and the cut.
        queries: Image files, and folders of them.
        k: How many to find for each.
        store: Folder of the store; the default one where not given.
        on_bad: Called with the path of a query that cannot be read, and the reason; where not
            given, that is an error.

    Returns:
        By query, the most similar first.

    Raises:
        DatasetError: No query can be read, or one cannot and nobody listens.
    """
    with on_store(store, config):
        return mending_damage(lambda: _run(config, queries, k, on_bad))


def _run(
    config: TransferConfig,
    queries: Sequence[Path],
    k: int,
    on_bad: Callable[[str, str], None] | None,
) -> dict[str, list[Hit]]:
    check_names(config.backbone, config.views.image_size, config.bottlenecks)
    # Of a recipe with augmented views, the plain ones are all that is compared.
    views = config.views.model_copy(update={"num_augmented": 0})
    config = config.model_copy(update={"views": views})
    dataset = dataset_stage(config.dataset)
    make_bottlenecks(dataset, config.dataset, config.views, config.backbone, config.bottlenecks)
    features = Features.of(dataset, config)
    names, vectors = _embed(features, config, queries, on_bad)
    nearest = _search(features, vectors, k)
    index, root = index_of(dataset), dataset_root(config.dataset)
    row_of = {row.digest: row for row in reversed(index.rows)}
    wanted = [row_of[digest] for digest in index.digests]

    def hit(row: int, similarity: float) -> Hit:
        (target,) = features.target.to_array([wanted[row]], len(index.class_names))
        name = features.target.words(target, index.class_names)
        return Hit(str(root / wanted[row].path), round(float(similarity), 6), name)

    return {
        # An index that finds too few (of many equal rows) fills up with rows of -1.
        name: [hit(int(row), one) for row, one in zip(rows, found, strict=True) if row >= 0]
        for name, rows, found in zip(names, *nearest, strict=True)
    }


def _search(features: Features, vectors: Vectors, k: int) -> Nearest:
    num_images = len(index_of(features.dataset).digests)
    if num_images > MAX_EXACT and find_spec("faiss"):
        return open_index(index_stage(features))(vectors, k)
    if num_images > MAX_EXACT:
        reporter().note(
            f"     {num_images:,} images are compared one by one; for an index of them: pip "
            "install 'headstart[search]'"
        )
    return search_exactly(collection_blocks(features), vectors, k)


def _embed(
    features: Features,
    config: TransferConfig,
    queries: Sequence[Path],
    on_bad: Callable[[str, str], None] | None,
) -> tuple[list[str], Vectors]:
    """Compute the bottlenecks of query files, rounded as those of the store are."""
    from headstart.tasks.export.proof import exact_rows

    network = features.network
    extractor = extractor_to(network, features.start)
    names: list[str] = []
    rows: list[Vectors] = []
    for found in find_images(queries):
        try:
            if found.problem:
                raise DatasetError("a query cannot be used", found.problem)
            data = read_image_file(found.path, config.dataset.max_pixels)
            made = exact_rows(
                extractor,
                [data],
                network.image_size,
                config.views.resize,
                config.dataset.max_pixels,
            )
        except DatasetError as error:
            if on_bad is None:
                received = f"{found.path}: {error.received}"
                raise DatasetError(error.problem, received, error.next_step) from None
            on_bad(found.path, error.received)
            continue
        names.append(found.path)
        rows.append(directions(pooled(made.astype(features.dtype))))
    if not rows:
        raise DatasetError(
            "there is no query that can be read",
            ", ".join(map(str, queries)) or "no paths",
            "give image files, or folders with images in them",
        )
    return names, np.concatenate(rows)

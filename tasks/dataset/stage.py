"""The data set stage: its manifest, its key, its function."""

from functools import lru_cache
from pathlib import Path

from headstart.config import DatasetConfig, TargetKind
from headstart.tasks.dataset.building import build_index
from headstart.tasks.dataset.file_cache import FileCache
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.progress import reporter
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest, artefact, current_store
from headstart.tasks.store.fingerprint import digest


class DatasetManifest(Manifest):
    """A data set that has been indexed; the index itself is a file of the artefact."""

    class_names: tuple[str, ...]
    kind: TargetKind = "class"
    images_digest: str
    labels_digest: str
    headline: str


def _index_dataset(folder: Path, config: DatasetConfig) -> Made:
    store = current_store()
    with (
        FileCache(store.root / "index" / "files.sqlite") as cache,
        reporter().track_to("reading images", "files") as on_progress,
    ):
        index = build_index(config, cache, on_progress)
    (folder / "index.json").write_text(index.to_json(), encoding="utf-8")
    return Made(
        num_rows=len(index.rows),
        num_rows_computed=index.num_decoded,
        fields={
            "key_fields": {
                "images": index.images_digest,
                "labels": index.labels_digest,
                "paths": digest([row.path for row in index.rows]),
                # With their reasons, which the artefact holds: on a hit, those of other data would
                # be told. Not what headstart wrote among the images: each run would change the
                # next one's.
                "problems": digest([list(p) for p in index.problems if p.kind != "own_output"]),
                **_groups(index),
            },
            "class_names": index.class_names,
            "kind": index.kind,
            "images_digest": index.images_digest,
            "labels_digest": index.labels_digest,
            "headline": index.summary_lines()[0],
        },
    )


def _groups(index: DatasetIndex) -> dict[str, str]:
    """Tell which images belong together, where something says so: folds keep them so."""
    if not any(row.group for row in index.rows):
        return {}
    return {"groups": digest([(row.digest, row.group) for row in index.rows])}


@lru_cache(maxsize=4)
def _read_index(path: Path) -> DatasetIndex:
    return DatasetIndex.from_json(path.read_text(encoding="utf-8"))


def index_of(dataset: DatasetManifest) -> DatasetIndex:
    """Read the index of a data set stage from the current store."""
    return _read_index(artefact(dataset, "index.json"))


stage = Stage("dataset", 1, DatasetManifest, _index_dataset, describe=lambda made: made.headline)

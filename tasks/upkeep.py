"""Looking after the store: what is in it, how large it is, whether it is whole, what may go."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.tasks.artifacts import FileEntry, Store
from headstart.tasks.records import open_collection

STALE_S = 24 * 3600
"""Half-written files this old belong to no run that is still going."""
DAY_S = 24 * 3600


@dataclass(frozen=True)
class Holding:
    """Something that the store holds: a collection of rows, or a stage's artefact.

    Attributes:
        kind: views, bottlenecks, or the stage's name.
        name: Folder name: the digest of the recipe, or the key.
        path: The folder.
        what: A few words on what it holds.
        num_rows: Rows in it.
        num_bytes: Bytes on disk.
        used_s: Unix time in seconds at which it was last made or read.
    """

    kind: str
    name: str
    path: Path
    what: str
    num_rows: int
    num_bytes: int
    used_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the holding as JSON data."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class Verdict:
    """What a check of the whole store found."""

    num_files: int
    damaged: tuple[str, ...]
    """Set aside; the next run that needs them makes them again."""


def list_holdings(store: Store) -> list[Holding]:
    """List what the store holds, the largest first."""
    holdings = [*_collections(store), *_artefacts(store)]
    return sorted(holdings, key=lambda holding: -holding.num_bytes)


def usage(store: Store, holdings: list[Holding]) -> dict[str, int]:
    """Add up the bytes of each kind of holding, the largest first, and of what else there is."""
    totals: dict[str, int] = {}
    for holding in holdings:
        totals[holding.kind] = totals.get(holding.kind, 0) + holding.num_bytes
    for name in ("runs", "set-aside", "tmp", "demo"):
        if num_bytes := _size(store.root / name):
            totals[name] = num_bytes
    totals["index and manifests"] = max(0, _size(store.root) - sum(totals.values()))
    return dict(sorted(totals.items(), key=lambda pair: -pair[1]))


def verify(store: Store) -> Verdict:
    """Hash every file of the store that has a known digest, and set the damaged ones aside."""
    damaged: list[str] = []
    num_files = 0
    for recipe in sorted((store.root / "rows").glob("*/*/recipe.json")):
        collection = open_collection(store, recipe.parent.parent.name, recipe.parent)
        if collection is None:
            damaged.append(store.relative(recipe.parent))
            store.set_aside(recipe.parent)
            continue
        found, hurt = collection.verify()
        damaged += hurt
        num_files += found
    for path, own in _manifests(store):
        hurt = [entry.path for entry in own if not entry.is_intact(store.root, thorough=True)]
        num_files += len(own)
        if hurt:
            damaged += hurt
            store.set_aside(path)
    return Verdict(num_files, tuple(damaged))


def collect_garbage(
    store: Store, *, views: bool, unused_days: float | None, dry_run: bool
) -> list[tuple[str, int]]:
    """Remove what no run needs any more.

    Args:
        store: Where.
        views: Remove all views: they are only read to compute bottlenecks.
        unused_days: Remove collections and artefacts that no run has used for this long.
        dry_run: Only say what would go.

    Returns:
        (path relative to the store, bytes) of what is removed.
    """
    now_s = time.time()
    staged = (store.root / "tmp").glob("*")
    doomed = [path for path in staged if now_s - path.stat().st_mtime > STALE_S]
    doomed += (store.root / "set-aside").glob("*")
    for holding in list_holdings(store):
        old = unused_days is not None and now_s - holding.used_s > unused_days * DAY_S
        if old or (views and holding.kind == "views"):
            doomed.append(holding.path)
            manifest = store.manifest_path(holding.kind, holding.name)
            if manifest.exists():
                doomed.append(manifest)
    removed = [(store.relative(path), _size(path)) for path in doomed]
    if not dry_run:
        for path in doomed:
            _remove(path)
    return removed


def _collections(store: Store) -> Iterator[Holding]:
    for recipe in sorted((store.root / "rows").glob("*/*/recipe.json")):
        folder, kind = recipe.parent, recipe.parent.parent.name
        collection = open_collection(store, kind, folder)
        num_rows = sum(len(shard.row_ids) for shard in collection.shards()) if collection else 0
        yield Holding(
            kind,
            folder.name,
            folder,
            collection.describe() if collection else "damaged",
            num_rows,
            _size(folder),
            recipe.stat().st_mtime,
        )


def _artefacts(store: Store) -> Iterator[Holding]:
    for folder in sorted((store.root / "artefacts").glob("*/*")):
        stage, key = folder.parent.name, folder.name
        path = store.manifest_path(stage, key)
        fields: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            fields = json.loads(path.read_text())
        used = path if path.exists() else folder
        num_rows = int(fields.get("num_rows", 0))
        yield Holding(stage, key, folder, "", num_rows, _size(folder), used.stat().st_mtime)


def _manifests(store: Store) -> Iterator[tuple[Path, tuple[FileEntry, ...]]]:
    """Yield each manifest's path and the files of its own.

    Not as a Manifest, which would refuse to be read where a file is damaged.
    """
    for path in sorted((store.root / "manifests").glob("*/*.json")):
        try:
            files = [FileEntry(**entry) for entry in json.loads(path.read_text())["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            store.set_aside(path)
            continue
        yield path, tuple(entry for entry in files if entry.path.startswith("artefacts/"))


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

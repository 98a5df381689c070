"""Looking after the store: what is in it, how large it is, whether it is whole.

Listing and measuring change nothing, and may go on beside runs that add and remove files.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.tasks.store.artifacts import FileEntry, Store
from headstart.tasks.store.records import open_collection


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
class StoreCheck:
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
    for name in ("runs", "set-aside", "tmp", "demo", "manifests", "index", "prefect"):
        if num_bytes := store.num_bytes(store.root / name):
            totals[name] = num_bytes
    if rest := store.num_bytes(store.root) - sum(totals.values()):
        totals["everything else"] = max(0, rest)
    return dict(sorted(totals.items(), key=lambda pair: -pair[1]))


def verify(store: Store) -> StoreCheck:
    """Hash every file of the store that has a known digest, and set the damaged ones aside."""
    damaged: list[str] = []
    num_files = 0
    for folder in store.folders("rows/*/*"):
        collection = open_collection(store, folder.parent.name, folder)
        if collection is None:
            damaged.append(store.relative(folder))
            store.set_aside(folder)
            continue
        found, hurt = collection.verify()
        damaged += hurt
        num_files += found
    for path, files in read_manifests(store):
        if files is None:
            store.set_aside(path)
            continue
        own = [entry for entry in files if entry.path.startswith("artefacts/")]
        hurt = [entry.path for entry in own if not store.holds(entry, thorough=True)]
        num_files += len(own)
        if hurt:
            damaged += hurt
            store.set_aside(path)
    return StoreCheck(num_files, tuple(damaged))


def read_manifests(store: Store) -> Iterator[tuple[Path, tuple[FileEntry, ...] | None]]:
    """Yield each manifest's path and the files it vouches for; None where it cannot be read.

    Not as a Manifest, which would refuse to be read where a file is damaged.
    """
    for folder in store.folders("manifests/*"):
        for path in sorted(folder.glob("*.json")):
            try:
                entries = json.loads(path.read_text())["files"]
                yield path, tuple(FileEntry(**entry) for entry in entries)
            except FileNotFoundError:  # removed meanwhile
                continue
            except (OSError, ValueError, KeyError, TypeError):
                yield path, None


def _collections(store: Store) -> Iterator[Holding]:
    for folder in store.folders("rows/*/*"):
        collection = open_collection(store, folder.parent.name, folder)
        yield Holding(
            folder.parent.name,
            folder.name,
            folder,
            collection.describe() if collection else "damaged",
            collection.num_rows() if collection else 0,
            store.num_bytes(folder),
            modified_s(folder / "recipe.json", folder),
        )


def _artefacts(store: Store) -> Iterator[Holding]:
    for folder in store.folders("artefacts/*/*"):
        stage, key = folder.parent.name, folder.name
        path = store.manifest_path(stage, key)
        fields: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            fields = json.loads(path.read_text())
        num_rows = int(fields.get("num_rows", 0))
        used_s = modified_s(path, folder)
        yield Holding(stage, key, folder, "", num_rows, store.num_bytes(folder), used_s)


def modified_s(*paths: Path) -> float:
    """Return the modification time of the first path that is there, in Unix seconds; else 0."""
    for path in paths:
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0

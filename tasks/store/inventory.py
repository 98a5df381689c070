"""Looking after the store: what is in it, and how large it is.

Listing and measuring change nothing, and may go on beside runs that add and remove files.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.tasks.store.artifacts import FileEntry, Store
from headstart.tasks.store.records import open_collection
from headstart.tasks.store.sealing import is_own, read_sealed


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


def list_holdings(store: Store) -> list[Holding]:
    """List what the store holds, the largest first."""
    holdings = [*_collections(store), *_artefacts(store)]
    return sorted(holdings, key=lambda holding: -holding.num_bytes)


def usage(store: Store, holdings: list[Holding]) -> dict[str, int]:
    """Add up the bytes of each kind of holding, the largest first, and of what else there is."""
    totals: dict[str, int] = {}
    for holding in holdings:
        totals[holding.kind] = totals.get(holding.kind, 0) + holding.num_bytes
    for name in ("runs", "set-aside", "tmp", "demo", "manifests", "index", "remembered", "prefect"):
        if num_bytes := store.num_bytes(store.root / name):
            totals[name] = num_bytes
    if rest := store.num_bytes(store.root) - sum(totals.values()):
        totals["everything else"] = max(0, rest)
    return dict(sorted(totals.items(), key=lambda pair: -pair[1]))


def read_manifests(
    store: Store, stage: str = "*", key: str = "*"
) -> Iterator[tuple[Path, tuple[FileEntry, ...] | None]]:
    """Yield each manifest's path and the files it vouches for; None where it is damaged.

    Not as a Manifest, which would refuse to be read where a file is damaged.

    Args:
        store: Where.
        stage: Whose manifests; all where not given.
        key: Which of them; all where not given.
    """
    for folder in store.folders(f"manifests/{stage}"):
        for path in sorted(folder.glob(f"{key}.json")):
            try:
                fields = read_sealed(path)
                names = (fields["stage"], fields["key"], fields["key_fields"])
                if is_own(*names, folder.name, path.stem):
                    yield path, tuple(FileEntry(**entry) for entry in fields["files"])
                    continue
            except OSError:  # removed meanwhile, or somebody else's
                continue
            except (ValueError, KeyError, TypeError, AttributeError):
                pass
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
            fields = read_sealed(path)
        num_rows = int(fields.get("num_rows", 0))
        used_s = modified_s(path, folder)
        yield Holding(stage, key, folder, "", num_rows, store.num_bytes(folder), used_s)


def modified_s(*paths: Path) -> float:
    """Return the modification time of the first path that is there, in Unix seconds; else 0."""
    for path in paths:
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0

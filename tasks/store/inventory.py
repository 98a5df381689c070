"""Looking after the store: what is in it, and how large it is.

Listing and measuring change nothing, and may go on beside runs that add and remove files.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headstart.reading import MAX_CONFIG_BYTES, read_regular
from headstart.tasks.store.artifacts import FileEntry, Store
from headstart.tasks.store.records import open_collection
from headstart.tasks.store.sealing import is_own, read_sealed


@dataclass(frozen=True)
class Holding:
    """Something that the store holds: a collection of rows, or a stage's artefact.

    Attributes:
        kind: views, bottlenecks, or the stage's name.
        name: Folder name: the digest of the recipe, or the key.
        what: A few words on what it holds.
        num_rows: Number of rows in it; 0 of an artefact.
        num_bytes: Bytes that it takes on disk.
        used_s: Unix time in seconds at which it was last made or read.
        runs: Names of the runs in the store's runs/ that use it, the newest first.
    """

    kind: str
    name: str
    path: Path
    what: str
    num_rows: int
    num_bytes: int
    used_s: float
    runs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the holding as JSON data."""
        return {**asdict(self), "path": str(self.path)}


def list_holdings(store: Store) -> list[Holding]:
    """List what the store holds, the largest first."""
    users = _users(store)
    holdings = [
        replace(one, runs=tuple(users.get(f"{one.kind}/{one.name}", ())))
        for one in (*_collections(store), *_artefacts(store))
    ]
    return sorted(holdings, key=lambda holding: -holding.num_bytes)


def _users(store: Store) -> dict[str, list[str]]:
    """List the runs, the newest first, that use each "kind/name"."""
    files = {path.stem: entries or () for path, entries in read_manifests(store)}
    users: dict[str, list[str]] = {}
    runs = store.root / "runs"
    found = [*runs.glob("*/run.json")]
    with suppress(OSError, UnicodeDecodeError):  # those that --out has put elsewhere
        listed = read_regular(runs / "elsewhere.txt", MAX_CONFIG_BYTES).decode().splitlines()
        found += [Path(line) / "run.json" for line in listed if line]
    for path in sorted(found, key=lambda path: -modified_s(path)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            for outcome in read_sealed(path)["stages"]:
                used = {f"{outcome['name']}/{outcome['key']}"}
                # rows/<kind>/<digest of the recipe>/…
                places = (Path(entry.path).parts for entry in files.get(outcome["key"], ()))
                used |= {f"{place[1]}/{place[2]}" for place in places if place[0] == "rows"}
                for name in used:
                    users.setdefault(name, []).append(path.parent.name)
    return {name: list(dict.fromkeys(runs)) for name, runs in users.items()}


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
        store: Store to look through.
        stage: Name of the stage; all where not given.
        key: Key of the artefact; all where not given.
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
        what = _words(fields)
        yield Holding(stage, key, folder, what, num_rows, store.num_bytes(folder), used_s)


def _words(manifest: dict[str, Any]) -> str:
    """Say of a manifest what a person knows it by: a data set, a kind of head, an accuracy."""
    if "headline" in manifest:
        return str(manifest["headline"])
    told = manifest.get("key_fields", {})
    settings = told.get(manifest.get("stage"))
    kind = settings.get("kind") if isinstance(settings, dict) else None
    metrics = manifest.get("metrics")
    accuracies = [
        f"{split} accuracy {one['accuracy']:.4f}"
        for split, one in (metrics.items() if isinstance(metrics, dict) else ())
        if isinstance(one, dict) and isinstance(one.get("accuracy"), float)
    ]
    backbone = told.get("backbone")
    parts = [kind, backbone if isinstance(backbone, str) else None, *manifest.get("formats", ())]
    return ", ".join([*(part for part in parts if part), *accuracies])


def modified_s(*paths: Path) -> float:
    """Return the modification time of the first path that is there, in Unix seconds; else 0."""
    for path in paths:
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0

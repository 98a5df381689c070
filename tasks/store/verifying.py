"""Checking the whole store: every byte that has a known digest is hashed.

What is damaged is set aside, and made again when it is needed. A check never makes things worse:
what cannot be read by whoever checks is no damage, and neither is what a run is writing just now.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

from headstart.tasks.store.artifacts import FileEntry, Store
from headstart.tasks.store.fingerprint import file_digest
from headstart.tasks.store.inventory import read_manifests
from headstart.tasks.store.locking import try_alone
from headstart.tasks.store.records import RowCollection, open_collection
from headstart.tasks.store.sealing import read_sealed

DAY_S = 24 * 3600
NOTED = "index/verified.json"
"""When each shard was hashed last; lost, all of them are hashed again."""
NOTED_EVERY_S = 60.0
"""So much work of a check that is interrupted is done again."""


@dataclass
class StoreCheck:
    """What a check of the whole store found.

    Attributes:
        damaged: Set aside, as paths relative to the store; the next run that needs them makes
            them again. Of promoted models: left where they are, for they cannot be made again.
        unreadable: What this user may not read; left alone.
        busy: What a run is writing; left alone.
        num_recent: Shards that were hashed recently enough, and not now.
    """

    num_files: int = 0
    damaged: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    num_recent: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON data."""
        return {
            "files": self.num_files,
            "damaged": self.damaged,
            "unreadable": self.unreadable,
            "busy": self.busy,
            "recent": self.num_recent,
        }


def verify(
    store: Store,
    older_than_days: float | None = None,
    promoted: Mapping[str, str] | None = None,
) -> StoreCheck:
    """Hash the files of the store that have a known digest, and set the damaged ones aside.

    Args:
        store: Store whose shards and artefacts are hashed.
        older_than_days: Leave out shards that were hashed by this function more recently.
        promoted: SHA-256 of the files of promoted models, which no run makes again, by path.
    """
    check = StoreCheck()
    with _Notes(store, older_than_days) as notes:
        for folder in store.folders("rows/*/*"):
            _verify_collection(store, folder, check, notes)
    for path, files in read_manifests(store):
        _verify_manifest(store, path, files, check)
    for name, sha256 in (promoted or {}).items():
        if _can_be_read(store, name, check) and not _has_digest(store.root / name, sha256):
            check.damaged.append(name)
    return check


class _Notes:
    """Remembers when shards were hashed, also where the check is interrupted."""

    def __init__(self, store: Store, older_than_days: float | None) -> None:
        self._store = store
        self._limit_s = None if older_than_days is None else time() - older_than_days * DAY_S
        self._checked_s: dict[str, float] = {}
        with suppress(OSError, ValueError):
            self._checked_s = read_sealed(store.root / NOTED)
        self._written_s = time()

    def __enter__(self) -> "_Notes":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def is_recent(self, path: str) -> bool:
        return self._limit_s is not None and self._checked_s.get(path, 0.0) > self._limit_s

    def note(self, path: str) -> None:
        self._checked_s[path] = time()
        if time() - self._written_s > NOTED_EVERY_S:
            self._write()

    def _write(self) -> None:
        if self._store.is_writable:
            there = {
                path: at
                for path, at in self._checked_s.items()
                if (self._store.root / path).exists()
            }
            self._store.write_json(self._store.root / NOTED, there)
        self._written_s = time()


def _verify_collection(store: Store, folder: Path, check: StoreCheck, notes: _Notes) -> None:
    recipe = folder / "recipe.json"
    collection = open_collection(store, folder.parent.name, folder)
    if collection is None:
        _set_recipe_aside(store, recipe, check)
        return
    for path, entry in collection.checked_shards():
        name = store.relative(path)
        if entry is not None and notes.is_recent(name):
            check.num_recent += 1
        elif entry is not None and _is_sound(store, entry, check):
            notes.note(name)
        elif name not in check.unreadable:
            _set_shard_aside(store, collection, path, check)


def _set_recipe_aside(store: Store, recipe: Path, check: StoreCheck) -> None:
    """Set a damaged recipe aside; the rows stay, and whoever needs them writes it again."""
    name = store.relative(recipe)
    try:
        recipe.read_bytes()
    except FileNotFoundError:
        return
    except OSError:
        check.unreadable.append(name)
        return
    check.damaged.append(name)
    store.set_aside(recipe)


def _set_shard_aside(
    store: Store, collection: RowCollection, path: Path, check: StoreCheck
) -> None:
    """Look at a shard again while nobody writes into its collection, and set it aside."""
    name = store.relative(path)
    if not store.is_writable:
        check.damaged.append(name)
        return
    with try_alone(collection.lock_path) as held:
        if not held:
            check.busy.append(name)
            return
        entry = dict(collection.checked_shards()).get(path)
        if entry is None and not path.exists() and not path.with_suffix(".index.npz").exists():
            return  # another check was quicker
        if entry is None or not store.holds(entry, thorough=True):
            check.damaged.append(name)
            collection.set_aside(path)


def _verify_manifest(
    store: Store, path: Path, files: tuple[FileEntry, ...] | None, check: StoreCheck
) -> None:
    own = [entry for entry in files or () if entry.path.startswith("artefacts/")]
    hurt = [entry.path for entry in own if not _is_sound(store, entry, check)]
    hurt = [name for name in hurt if name not in check.unreadable]
    if files is not None and not hurt:
        return
    stage, key = path.parent.name, path.stem
    if not store.is_writable:
        check.damaged += hurt or [store.relative(path)]
        return
    with try_alone(store.lock_path(f"{stage}/{key}")) as held:
        if not held:
            check.busy.append(store.relative(path))
            return
        again = next((now for other, now in read_manifests(store, stage, key)), ())
        gone = [
            entry.path
            for entry in again or ()
            if entry.path.startswith("artefacts/") and not store.holds(entry, thorough=True)
        ]
        if again is None or gone:
            check.damaged += gone or [store.relative(path)]
            store.set_aside(path)


def _is_sound(store: Store, entry: FileEntry, check: StoreCheck) -> bool:
    return _can_be_read(store, entry.path, check) and store.holds(entry, thorough=True)


def _can_be_read(store: Store, name: str, check: StoreCheck) -> bool:
    """Say whether this user may read a file, or would find out that it is gone."""
    check.num_files += 1
    try:
        with (store.root / name).open("rb"):
            return True
    except PermissionError:
        check.unreadable.append(name)
        return False
    except OSError:
        return True


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        return file_digest(path) == sha256
    except OSError:
        return False

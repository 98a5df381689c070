"""Removing from the store what no run needs any more, and merging small shards.

Both happen while no run uses the store, and no run begins meanwhile: whatever lies under tmp/
was then left by a run that was killed.
"""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from headstart.tasks.store.artifacts import IN_USE, FileEntry, Store
from headstart.tasks.store.inventory import list_holdings, modified_s, read_manifests
from headstart.tasks.store.records import Compaction, open_collection
from headstart.tasks.store.remembered import FOLDER
from headstart.tasks.store.sealing import read_sealed

DAY_S = 24 * 3600


@dataclass(frozen=True)
class Criteria:
    """What is garbage, besides what killed runs and damage left behind.

    Attributes:
        views: All views are: they are only read to compute bottlenecks.
        unused_days: Collections and artefacts that no run has used for this long are.
    """

    views: bool = False
    unused_days: float | None = None

    def is_old(self, used_s: float) -> bool:
        """Say whether something was last used, in Unix seconds, too long ago."""
        return self.unused_days is not None and time.time() - used_s > self.unused_days * DAY_S


def list_garbage(store: Store, criteria: Criteria) -> list[tuple[str, int]]:
    """List what `collect_garbage` would remove: (path relative to the store, bytes).

    Raises:
        RecordError: Nothing can be removed from this store.
    """
    store.check_removable()
    return [(store.relative(path), store.num_bytes(path)) for path in _garbage(store, criteria)]


def collect_garbage(store: Store, criteria: Criteria) -> list[tuple[str, int]]:
    """Remove what no run needs any more.

    Args:
        store: Must be writable, and in use by no run.
        criteria: Which rows and artefacts count as unneeded.

    Returns:
        (path relative to the store, bytes) of what was removed.

    Raises:
        RecordError: A run is using the store.
    """
    with store.unused():
        removed = list_garbage(store, criteria)
        # Manifests first: who is killed half-way leaves files that nobody asks for, and no
        # manifest of files that are gone.
        for name, _ in sorted(removed, key=lambda entry: not entry[0].startswith("manifests/")):
            store.remove(store.root / name)
        for path in (store.root / "locks").glob("*"):  # empty files, and nobody holds them now
            if path.name != IN_USE:
                store.remove(path)
    return removed


def merge_small_shards(store: Store) -> list[Compaction]:
    """Merge the small shards that runs over a few new images each leave behind.

    Manifests that vouch for a shard which was merged vouch for the merged ones afterwards, so
    that nothing becomes a miss.

    Raises:
        RecordError: A run is using the store.
    """
    with store.unused():
        done = []
        for folder in store.folders("rows/*/*"):
            collection = open_collection(store, folder.parent.name, folder)
            if collection is None:
                continue
            with collection.lock():
                compaction = collection.write_merged()
                if compaction is not None:
                    _vouch_for_merged(store, compaction)
                    # A shard without an index does not exist for any reader; not so the reverse.
                    for entry in sorted(compaction.old, key=lambda entry: entry.is_shard):
                        store.remove(store.root / entry.path)
                    done.append(compaction)
        return done


def _vouch_for_merged(store: Store, compaction: Compaction) -> None:
    old = {entry.path for entry in compaction.old}
    for path, files in read_manifests(store):
        if files is None or old.isdisjoint(entry.path for entry in files):
            continue
        stat = path.stat()
        fields = read_sealed(path)
        kept = {entry.path: entry for entry in files if entry.path not in old}
        kept.update((entry.path, entry) for entry in compaction.new)
        fields["files"] = [entry.model_dump(mode="json") for entry in kept.values()]
        store.write_json(path, fields)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # it was not used now


def _garbage(store: Store, criteria: Criteria) -> list[Path]:
    left_over = ("tmp", "set-aside")
    doomed = [path for name in left_over for path in sorted((store.root / name).glob("*"))]
    doomed += [
        holding.path
        for holding in list_holdings(store)
        if criteria.is_old(holding.used_s) or (criteria.views and holding.kind == "views")
    ]
    going = {store.relative(path) for path in doomed}
    doomed += _shards_without_index(store, going)
    doomed += _stray_manifests(store, criteria, going)
    known = sorted((store.root / FOLDER).glob("*/*"))
    doomed += [path for path in known if criteria.is_old(modified_s(path))]
    # Prefect's copies of manifests: where it has none, it asks the store.
    doomed += sorted((store.root / "prefect").glob("*"))
    return doomed


def _shards_without_index(store: Store, going: set[str]) -> Iterator[Path]:
    """Yield shards that no reader sees: their run was killed before it published the index."""
    for folder in store.folders("rows/*/*"):
        if store.relative(folder) not in going:
            shards = sorted(folder.glob("*.tfrecord"))
            yield from (path for path in shards if not path.with_suffix(".index.npz").exists())


def _stray_manifests(store: Store, criteria: Criteria, going: set[str]) -> Iterator[Path]:
    """Yield manifests that are old, or vouch for files that are gone or going."""
    for path, files in read_manifests(store):
        is_old = criteria.is_old(modified_s(path))
        if files is None or is_old or _is_broken(store, files, going):
            yield path


def _is_broken(store: Store, files: Iterable[FileEntry], going: set[str]) -> bool:
    return any(
        not going.isdisjoint(str(parent) for parent in PurePosixPath(entry.path).parents)
        or not store.holds(entry)
        for entry in files
    )

"""The store: one content-addressed folder tree, and the manifests that say what is in it.

Layout under the root (nothing in it holds an absolute path, so the tree can be moved)::

    store.json                     version of this layout
    manifests/<stage>/<key>.json   what a finished stage made, checked against the disk when read
    artefacts/<stage>/<key>/       the files of a stage that makes whole files
    rows/<kind>/<digest>/          shards of rows, shared by all runs (see records.py)
    runs/<name>/                   one folder a run: report, model, metrics
    index/                         what is known of image files (see dataset/file_cache.py)
    locks/  tmp/  set-aside/       locks; half-written files; damaged files

Everything is written under tmp/ and renamed, so a reader never sees half an artefact.
"""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from stat import S_ISREG
from typing import Any, Self, TypeVar

from pydantic import (
    BaseModel,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from headstart.errors import RecordError
from headstart.tasks.store.disk_space import explain_full_disk
from headstart.tasks.store.fingerprint import digest, file_digest
from headstart.tasks.store.layout import LAYOUT_FILE, STORE_LAYOUT, begin_store, layout_of
from headstart.tasks.store.locking import hold_alone, hold_shared, try_exclusive
from headstart.tasks.store.sealing import is_own, read_sealed, seal, sealed_text, unseal
from headstart.tasks.store.staging import owned_folder, remove_if_abandoned

IN_USE = "in-use.lock"
"""File under locks/ that every run holds, together with the others."""

M = TypeVar("M", bound="Manifest")


class FileEntry(BaseModel, frozen=True, extra="forbid"):
    """One file of the store as it was when it was published."""

    path: str
    """Relative to the store's root, with forward slashes."""
    num_bytes: int
    sha256: str
    mtime_ns: int
    """A shard whose modification time is this one is taken to hold its bytes still, until they
    are read; of any other file the bytes are hashed."""

    @property
    def is_shard(self) -> bool:
        """Whether it is a shard of rows: large, and hashed whenever its rows are read."""
        return self.path.endswith(".tfrecord")

    def is_intact(self, root: Path, *, thorough: bool = False) -> bool:
        """Say whether the file can be read and holds what was published.

        Args:
            root: Folder of the store, which the entry's path starts at.
            thorough: Hash the bytes of a shard too, even where size and modification time leave
                no doubt; other files are small or are handed out, and are hashed in any case.
        """
        path = root / self.path
        try:
            stat = path.stat()
        except OSError:
            return False
        if stat.st_size != self.num_bytes:
            return False
        if self.is_shard and stat.st_mtime_ns == self.mtime_ns and not thorough:
            return True
        try:
            if file_digest(path) != self.sha256:
                return False
        except OSError:
            return False
        if stat.st_mtime_ns != self.mtime_ns:
            # The store was copied: remember that these bytes were checked. On a read-only
            # store the next reader hashes again, which is slow but right.
            with contextlib.suppress(OSError):
                os.utime(path, ns=(stat.st_atime_ns, self.mtime_ns))
        return True


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """What a finished stage made. Reading one back checks the disk.

    A manifest whose files are gone, short or changed does not validate, so that neither the
    store nor Prefect's result cache can replay it.
    """

    stage: str
    key: str
    key_fields: dict[str, Any]
    """What the key was made of; `headstart why` compares these."""
    files: tuple[FileEntry, ...] = ()
    num_rows: int
    num_rows_computed: int
    """Rows that were computed when this was made; a replay computes none."""
    duration_s: float = 0.0
    """Seconds it took to make: what a hit saves."""

    @property
    def files_digest(self) -> str:
        """SHA-256 of what was made, whenever, wherever and by however many workers."""
        # An index repeats what its shard holds, and its shard's modification time.
        files = [[entry.path, entry.sha256] for entry in self.files if not _is_index(entry.path)]
        return digest([self.stage, self.key, sorted(files)])

    @model_serializer(mode="wrap")
    def _seal(self, fields_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # In every dump: Prefect keeps copies of its own.
        return seal(fields_of(self))

    @model_validator(mode="before")
    @classmethod
    def _unseal(cls, fields: Any) -> Any:
        return unseal(fields) if isinstance(fields, dict) else fields

    @model_validator(mode="after")
    def _check_disk(self) -> Self:
        store = current_store()
        for entry in self.files:
            if not store.holds(entry):
                raise ValueError(f"{entry.path} is missing or was changed")
        return self


class Store:
    """A store folder, made where it does not exist.

    A store that cannot be written serves whatever is in it.

    Raises:
        RecordError: The folder cannot be written, or holds another layout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        layout = self.root / LAYOUT_FILE
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            found = layout_of(layout)
            if found is None:
                begin_store(layout)
                found = STORE_LAYOUT
        except OSError as error:
            raise RecordError(
                "the store's folder cannot be written",
                f"{self.root}: {error}",
                "choose another folder with --store or HEADSTART_STORE",
            ) from None
        if found != STORE_LAYOUT:
            raise RecordError(
                "the store has a layout that this version of headstart cannot read "
                f"({STORE_LAYOUT})",
                f"layout {found} in {layout}",
                "choose another folder with --store or HEADSTART_STORE",
            )

    @property
    def location(self) -> str:
        """What `remote_store.open_store` takes to open this store again, in another process."""
        return str(self.root)

    def relative(self, path: Path) -> str:
        """Return a path inside the store relative to its root, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def holds(self, entry: FileEntry, *, thorough: bool = False) -> bool:
        """Say whether a file still holds what was published; see `FileEntry.is_intact`."""
        return entry.is_intact(self.root, thorough=thorough)

    def pull(self, path: Path) -> None:
        """Fetch a small file from where the store really lies; nothing to do for a folder."""

    def refresh(self, folder: Path) -> None:
        """Fetch a folder's small files from where the store really lies; nothing to do here."""

    def look_again(self) -> None:
        """Forget what was seen of where the store really lies; nothing to do for a folder."""

    def folders(self, pattern: str) -> list[Path]:
        """List the folders that match a pattern relative to the root, by name."""
        return sorted(path for path in self.root.glob(pattern) if path.is_dir())

    def num_bytes(self, path: Path) -> int:
        """Add up the bytes of a file or folder; of what is removed meanwhile, nothing."""
        total = 0
        for inner in (path, *path.rglob("*")):
            with contextlib.suppress(OSError):
                stat = inner.stat()
                total += stat.st_size if S_ISREG(stat.st_mode) else 0
        return total

    def remove(self, path: Path) -> None:
        """Delete a file or folder of the store, within `unused`."""
        if path.is_dir() and not path.is_symlink():
            # Out of sight in one step: half a folder would be a damaged one.
            if path.parent != self.root / "tmp":
                (self.root / "tmp").mkdir(exist_ok=True)
                path = path.rename(self.root / "tmp" / uuid.uuid4().hex)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def entry(self, path: Path) -> FileEntry:
        """Describe a published file."""
        stat = path.stat()
        return FileEntry(
            path=self.relative(path),
            num_bytes=stat.st_size,
            sha256=file_digest(path),
            mtime_ns=stat.st_mtime_ns,
        )

    @property
    def is_writable(self) -> bool:
        """Whether something can be added to the store."""
        return os.access(self.root, os.W_OK)

    def check_writable(self, what: str) -> None:
        """Refuse to begin work whose result could not be kept.

        Args:
            what: What would be made, for instance "bottlenecks".

        Raises:
            RecordError: The store cannot be written.
        """
        if not self.is_writable:
            raise RecordError(
                f"the store cannot be written and does not hold the {what}",
                f"{self.root} is read-only and does not",
                "choose another store with --store or HEADSTART_STORE, or copy this one",
            )

    def check_there(self) -> None:
        """Refuse to write into a store that is no longer there: it would be half a store.

        Raises:
            RecordError: It was moved or deleted.
        """
        if not (self.root / LAYOUT_FILE).exists():
            raise RecordError(
                "the store was moved or deleted during the run",
                f"{self.root} has no {LAYOUT_FILE} any more",
                "put it back, or give the command again: what is missing is computed again",
            )

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield a new folder under tmp/ that is removed at the end with what is left in it.

        Raises:
            RecordError: The disk is full.
        """
        self.check_there()
        with contextlib.ExitStack() as stack:
            if self.is_writable:
                folder = stack.enter_context(owned_folder(self.root / "tmp"))
            else:
                # Of a store that cannot be written, the folder lies elsewhere: what is made in
                # it may turn out to be there already.
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(explain_full_disk(self.root))
            yield folder

    def sweep(self) -> None:
        """Remove from tmp/ what killed processes have left there."""
        if self.is_writable:
            for folder in (self.root / "tmp").glob("*"):
                remove_if_abandoned(folder)

    def publish(self, staged: Path, target: Path) -> None:
        """Move a finished file or folder to its place; what is there already is replaced."""
        self.check_there()
        target.parent.mkdir(parents=True, exist_ok=True)
        if staged.is_dir() and target.exists():
            # rename() cannot replace a folder that is not empty.
            with self.staging() as aside:
                target.rename(aside / "old")
                staged.rename(target)
        else:
            staged.replace(target)

    def write_json(self, path: Path, fields: dict[str, Any]) -> None:
        """Write JSON with its checksum aside, then rename it into place."""
        with self.staging() as folder:
            staged = folder / path.name
            staged.write_text(sealed_text(fields))
            self.publish(staged, path)

    def set_aside(self, path: Path) -> None:
        """Move a damaged file or folder to set-aside/, for whoever wants to look at it.

        In a store that cannot be written it stays where it is.
        """
        if not self.is_writable:
            return
        wanted = target = self.root / "set-aside" / self.relative(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while target.exists():
            number += 1
            target = wanted.with_name(f"{wanted.name}-{number}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(target)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the one writer's lock of an artefact; it is freed when the process dies.

        Args:
            name: Name of the artefact, for instance "head/<key>".
        """
        self.check_there()
        if not self.is_writable:  # nobody writes through this process
            yield
            return
        with hold_alone(self.lock_path(name), name):
            yield

    def lock_path(self, name: str) -> Path:
        """Return the file of the lock of that name."""
        return self.root / "locks" / (name.replace("/", "-") + ".lock")

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep garbage collection away for the length of a with block."""
        with hold_shared(self.root / "locks" / IN_USE):
            self.sweep()
            yield

    def check_removable(self) -> None:
        """Refuse to remove anything from a store that cannot be written.

        Raises:
            RecordError: The store is open for reading only.
        """
        if not self.is_writable:
            raise RecordError(
                "nothing can be removed from a store that cannot be written",
                f"{self.root} is read-only",
                "give the command as someone who may write there",
            )

    @contextlib.contextmanager
    def unused(self) -> Iterator[None]:
        """Keep runs away for the length of a with block, in which things may be removed.

        Raises:
            RecordError: A run is using the store.
        """
        self.check_removable()
        with try_exclusive(self.root / "locks" / IN_USE) as held:
            if not held:
                raise RecordError(
                    "a run is using the store, so nothing can be removed from it",
                    f"a run is using {self.root}",
                    "give the same command again when it has finished",
                )
            yield

    def note_use(self, manifest: Manifest) -> None:
        """Note that a manifest, and what it refers to, were used now; for `cache gc`."""
        parts = {Path(entry.path).parent.parts for entry in manifest.files}
        others = [
            # Of rows a recipe has the age, of another stage's files that stage's manifest.
            self.manifest_path(*names[:2])
            if kind == "artefacts"
            else self.root.joinpath(kind, *names, "recipe.json")
            for kind, *names in parts
        ]
        for path in (self.manifest_path(manifest.stage, manifest.key), *others):
            with contextlib.suppress(OSError):  # not every folder has a recipe
                os.utime(path)

    def manifest_path(self, stage: str, key: str) -> Path:
        """Return where a stage's manifest lies or would lie."""
        return self.root / "manifests" / stage / f"{key}.json"

    def artefact_path(self, stage: str, key: str) -> Path:
        """Return where a stage's files lie or would lie."""
        return self.root / "artefacts" / stage / key

    def read_manifest(self, stage: str, key: str, model: type[M]) -> M | None:
        """Return a stored manifest, or None where it or one of its files is not intact."""
        try:
            found = model.model_validate_json(self.manifest_path(stage, key).read_bytes())
        except (OSError, ValidationError):
            return None
        return found if is_own(found.stage, found.key, found.key_fields, stage, key) else None

    def write_manifest(self, manifest: Manifest) -> None:
        """Publish a manifest: from now on the stage is a hit."""
        path = self.manifest_path(manifest.stage, manifest.key)
        self.write_json(path, manifest.model_dump(mode="json"))

    def manifests(self, stage: str) -> Iterator[dict[str, Any]]:
        """Yield a stage's stored manifests as plain data, newest first, their files unchecked."""
        folder = self.root / "manifests" / stage
        for path in sorted(folder.glob("*.json"), key=_time_ns, reverse=True):
            with contextlib.suppress(OSError, ValueError):
                yield read_sealed(path)


def _time_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # removed meanwhile
        return 0


def default_root() -> Path:
    """Return HEADSTART_STORE, or headstart's place under the XDG cache folder."""
    if named := os.environ.get("HEADSTART_STORE"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(cache).expanduser() / "headstart"
    except RuntimeError:  # no HOME, and a user that the system does not know
        raise RecordError(
            "there is no home folder to hold the store",
            "no HOME, no --store and no HEADSTART_STORE",
            "set HEADSTART_STORE (or HOME), or give --store",
        ) from None


_current: ContextVar[Store | None] = ContextVar("headstart_store", default=None)


def current_store() -> Store:
    """Return the store in use: the one of `use_store`, else the default one."""
    return _current.get() or Store(default_root())


def store_in_use() -> Store | None:
    """Return the store of `use_store`; None where none is in use."""
    return _current.get()


@contextlib.contextmanager
def use_store(store: Store) -> Iterator[Store]:
    """Make a store the current one of this thread, for the length of a with block.

    Meanwhile nothing is removed from it by `headstart cache gc`.
    """
    token = _current.set(store)
    try:
        with store.in_use():
            yield store
    finally:
        _current.reset(token)


def artefact(manifest: Manifest, name: str) -> Path:
    """Return the path of a file that a stage made, in the current store."""
    return current_store().artefact_path(manifest.stage, manifest.key) / name


def _is_index(path: str) -> bool:
    return path.endswith(".index.npz")

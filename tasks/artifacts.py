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
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from headstart.errors import RecordError
from headstart.tasks.fingerprint import file_digest

STORE_LAYOUT = 1

M = TypeVar("M", bound="Manifest")


class FileEntry(BaseModel):
    """One file of the store as it was when it was published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Relative to the store's root, with forward slashes."""
    num_bytes: int
    sha256: str
    mtime_ns: int
    """A file whose modification time is this one is taken to hold its bytes still."""

    def is_intact(self, root: Path, *, thorough: bool = False) -> bool:
        """Say whether the file still holds what was published.

        Args:
            root: The store's root.
            thorough: Hash the bytes in any case; else only where size and modification time
                leave a doubt (after an edit, or a copy of the store).
        """
        path = root / self.path
        try:
            stat = path.stat()
        except OSError:
            return False
        if stat.st_size != self.num_bytes:
            return False
        if stat.st_mtime_ns == self.mtime_ns and not thorough:
            return True
        if file_digest(path) != self.sha256:
            return False
        if stat.st_mtime_ns != self.mtime_ns:
            # The store was copied: remember that these bytes were checked. On a read-only
            # store the next reader hashes again, which is slow but right.
            with contextlib.suppress(OSError):
                os.utime(path, ns=(stat.st_atime_ns, self.mtime_ns))
        return True


class Manifest(BaseModel):
    """What a finished stage made. Reading one back checks the disk.

    A manifest whose files are gone, short or changed does not validate, so that neither the
    store nor Prefect's result cache can replay it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    @model_validator(mode="after")
    def _check_disk(self) -> Self:
        root = current_store().root
        for entry in self.files:
            if not entry.is_intact(root):
                raise ValueError(f"{entry.path} is missing or is not what was written")
        return self


class Store:
    """A store folder, made where it does not exist.

    Args:
        root: Where the store is or shall be.

    Raises:
        RecordError: The folder cannot be written, or holds another layout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        layout = self.root / "store.json"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not layout.exists():
                if any(path.name != "tmp" for path in self.root.iterdir()) and not layout.exists():
                    raise RecordError(
                        "A store is an empty or new folder, or one that headstart made.",
                        f"{self.root} holds other files",
                        "choose another folder with --store or HEADSTART_STORE",
                    )
                (self.root / "tmp").mkdir(exist_ok=True)
                self.write_json(layout, {"layout": STORE_LAYOUT})
            found = json.loads(layout.read_text())["layout"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(
                "The store is a folder that can be written.",
                f"{self.root}: {error}",
                "choose another folder with --store or HEADSTART_STORE",
            ) from None
        if found != STORE_LAYOUT:
            raise RecordError(
                f"This version of headstart reads store layout {STORE_LAYOUT}.",
                f"layout {found} in {layout}",
                "choose another folder with --store or HEADSTART_STORE",
            )

    def relative(self, path: Path) -> str:
        """Return a path inside the store relative to its root, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def entry(self, path: Path) -> FileEntry:
        """Describe a published file."""
        stat = path.stat()
        return FileEntry(
            path=self.relative(path),
            num_bytes=stat.st_size,
            sha256=file_digest(path),
            mtime_ns=stat.st_mtime_ns,
        )

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield a new folder under tmp/ that is removed at the end with what is left in it."""
        parent = self.root / "tmp"
        parent.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staged: Path, target: Path) -> None:
        """Move a finished file or folder to its place; what is there already is replaced."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if staged.is_dir() and target.exists():
            # rename() cannot replace a folder that is not empty.
            with self.staging() as aside:
                target.rename(aside / "old")
                staged.rename(target)
        else:
            staged.replace(target)

    def write_json(self, path: Path, value: Any) -> None:
        """Write JSON aside, then rename it into place."""
        with self.staging() as folder:
            staged = folder / path.name
            staged.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
            self.publish(staged, path)

    def set_aside(self, path: Path) -> None:
        """Move a damaged file out of the way, to set-aside/, for whoever wants to look at it."""
        target = self.root / "set-aside" / self.relative(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.replace(target)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the one writer's lock of an artefact; it is freed when the process dies.

        Args:
            name: Of the artefact, for instance "head/<key>".
        """
        path = self.root / "locks" / (name.replace("/", "-") + ".lock")
        path.parent.mkdir(exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            from headstart.tasks.progress import reporter

            reporter().note(f"waiting for another run that is making {name}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def manifest_path(self, stage: str, key: str) -> Path:
        """Return where a stage's manifest lies or would lie."""
        return self.root / "manifests" / stage / f"{key}.json"

    def artefact_path(self, stage: str, key: str) -> Path:
        """Return where a stage's files lie or would lie."""
        return self.root / "artefacts" / stage / key

    def read_manifest(self, stage: str, key: str, model: type[M]) -> M | None:
        """Return a stored manifest, or None where it or one of its files is not intact."""
        try:
            return model.model_validate_json(self.manifest_path(stage, key).read_bytes())
        except (OSError, ValidationError):
            return None

    def write_manifest(self, manifest: Manifest) -> None:
        """Publish a manifest: from now on the stage is a hit."""
        path = self.manifest_path(manifest.stage, manifest.key)
        self.write_json(path, manifest.model_dump(mode="json"))

    def manifests(self, stage: str) -> Iterator[dict[str, Any]]:
        """Yield the stored manifests of a stage as plain data, newest first, unchecked."""
        folder = self.root / "manifests" / stage
        paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in reversed(paths):
            with contextlib.suppress(OSError, ValueError):
                yield json.loads(path.read_text())


def default_root() -> Path:
    """Return HEADSTART_STORE, or headstart's place under the XDG cache folder."""
    if named := os.environ.get("HEADSTART_STORE"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "headstart"


_current: ContextVar[Store | None] = ContextVar("headstart_store", default=None)


def current_store() -> Store:
    """Return the store in use: the one of `use_store`, else the default one."""
    return _current.get() or Store(default_root())


@contextlib.contextmanager
def use_store(store: Store) -> Iterator[Store]:
    """Make a store the current one of this thread, for the length of a with block."""
    token = _current.set(store)
    try:
        yield store
    finally:
        _current.reset(token)


def artefact(manifest: Manifest, name: str) -> Path:
    """Return the path of a file that a stage made, in the current store."""
    return current_store().artefact_path(manifest.stage, manifest.key) / name

"""A store in a bucket: s3://, gs:// or any other URL that fsspec knows, with a folder as cache.

The bucket is the truth. A folder on this machine mirrors what a run touches, and all code works
on that folder as on any store:

* What is published goes to the bucket first, whole and verified, and appears here after that.
  A shard goes before its index, files before the manifest that names them, so that whatever can
  be seen in the bucket is complete. An upload that is cut off leaves no object (S3, GCS) or one
  that no index names.
* Indexes, recipes and manifests come here when they are asked for; shards when they are read,
  each checked by its SHA-256. What does not pass is removed from the bucket, and computed again.
* Shards are evicted here, the least recently used first, once they exceed `max_cache_bytes`.

There are no locks in a bucket, so two machines that extract the same rows at once both do the
work. They cannot spoil it: a shard's object is named by its own SHA-256, so that neither
overwrites the other's, and the index that lands last names the shard that it was made with.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from headstart.addresses import without_secrets
from headstart.errors import ConfigError, RecordError
from headstart.tasks.store.artifacts import FileEntry, M, Store, default_root
from headstart.tasks.store.fingerprint import bytes_digest, file_digest
from headstart.tasks.store.layout import STORE_LAYOUT
from headstart.tasks.store.sealing import unseal

URL = re.compile(r"^([a-z][a-z0-9+.-]+):(?:/+(.*))?$")
"""At least two letters before the colon, or C:/ would be one. A Path has taken one of the two
slashes away, and both of s3://."""
FOLDER_SCHEMES = ("file", "local")
"""URLs of folders of this machine, which need no mirror; they have no host."""
SHARED = ("rows", "artefacts", "manifests")
"""What lies in the bucket; runs, locks and what is known of image files are a machine's own."""
DEFAULT_CACHE_BYTES = 50 * 2**30
IN_USE_S = 60.0
"""A shard read this recently is not evicted: someone may be about to open it."""
LISTING_S = 10.0
"""A listing of the bucket is believed for so long."""


def open_store(location: Path | str | None = None) -> Store:
    """Open a store.

    Args:
        location: A folder, or a URL; HEADSTART_STORE or the default folder where None.

    Returns:
        The store; a `RemoteStore` for a URL.

    Raises:
        ConfigError: The URL's protocol needs a package that is not installed, or it names nothing.
        RecordError: The store cannot be used.
    """
    place = location or default_root()
    url = url_of(place)
    return RemoteStore(url) if url else Store(_folder_of(place))


def url_of(location: Path | str) -> str | None:
    """Return the URL that a location is; None for a folder, be it as file:///folder."""
    found = URL.match(str(location))
    if not found or found[1] in FOLDER_SCHEMES:
        return None
    return f"{found[1]}://{(found[2] or '').rstrip('/')}"


def _folder_of(location: Path | str) -> Path:
    """Return the folder that a location without a URL of a bucket is."""
    found = URL.match(str(location))
    if not found:
        return Path(location)
    if not found[2]:
        raise ConfigError(
            "the store's URL does not name a folder of this machine",
            str(location),
            "give the folder itself",
        )
    return Path(f"/{found[2]}")


def folder_here(location: Path | str | None = None) -> Path:
    """Return the folder of a store on this machine, without opening it: of a URL, the mirror."""
    place = location or default_root()
    if url := url_of(place):
        return mirrors_root() / bytes_digest(url.encode())[:16]
    return _folder_of(place).expanduser().absolute()


def mirrors_root() -> Path:
    """Return HEADSTART_MIRROR, or headstart's place for mirrors under the XDG cache folder."""
    if named := os.environ.get("HEADSTART_MIRROR"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "headstart-mirrors"


class RemoteStore(Store):
    """A store in a bucket.

    Args:
        url: Address of the bucket and folder, such as ``s3://bucket/headstart``.
        max_cache_bytes: Shards kept on this machine; HEADSTART_MIRROR_BYTES or 50 GiB where
            None. While one run reads more than that, what it has open stays until it ends.

    Raises:
        ConfigError: The URL's protocol needs a package that is not installed, or
            HEADSTART_MIRROR_BYTES is not a number.
        RecordError: The bucket cannot be used, or holds another layout.
    """

    def __init__(self, url: str, max_cache_bytes: int | None = None) -> None:
        self.url = url.rstrip("/")
        self._files, self._prefix = _connect(self.url)
        self._max_cache_bytes = max_cache_bytes or _cache_bytes()
        self._listings: dict[str, tuple[float, dict[str, int]]] = {}
        super().__init__(folder_here(self.url))
        layout = self.root / "store.json"
        theirs = self._download("store.json")
        if theirs is None:
            self._upload(layout, "store.json")
        elif _layout_in(theirs) != STORE_LAYOUT:
            raise RecordError(
                "the bucket's prefix holds a store with a different layout",
                f"another store.json in {without_secrets(self.url)}",
                "choose another prefix with --store",
            )

    @property
    def location(self) -> str:
        """The URL."""
        return self.url

    def publish(self, staged: Path, target: Path) -> None:
        """Upload a finished file or folder, then move it to its place in the mirror."""
        name = self.relative(target)
        if name.startswith(SHARED):
            if staged.is_dir():
                for path in sorted(staged.rglob("*")):
                    if path.is_file():
                        self._upload(path, f"{name}/{path.relative_to(staged).as_posix()}")
            else:
                self._upload(staged, _object_name(name, lambda: file_digest(staged)))
        super().publish(staged, target)
        if target.suffix == ".tfrecord":
            self._evict()

    def holds(self, entry: FileEntry, *, thorough: bool = False) -> bool:
        """Say whether a file is here as it was published, or in the bucket; see `Store.holds`.

        A shard that is only in the bucket is fetched where it has to be hashed, any other file
        in any case.
        """
        path = self.root / entry.path
        if super().holds(entry, thorough=thorough):
            if thorough:  # it is about to be read
                self._touch(path)
            return True
        name = _object_name(entry.path, lambda: entry.sha256)
        if path.suffix == ".tfrecord" and not thorough and not path.exists():
            return self._is_there(name, entry.num_bytes)
        self._fetch(name, path)
        if not super().holds(entry, thorough=True):
            return False
        if path.suffix == ".tfrecord":
            self._touch(path)
            self._evict()
        return True

    def pull(self, path: Path) -> None:
        """Fetch a file whose object is named as it is: no shard of rows."""
        if not path.exists():
            self._fetch(self.relative(path), path)

    def refresh(self, folder: Path) -> None:
        """Fetch what a folder has in the bucket but shards, and forget what it has not there."""
        name = self.relative(folder)
        here = {path.name for path in folder.glob("*.index.npz")}
        theirs = self._listing(name)
        if not here <= theirs.keys():  # gone there, or put there by another process of this machine
            theirs = self._listing(name, fresh=True)
        for file in theirs:
            if not file.endswith(".tfrecord"):
                self.pull(folder / file)
        for file in here - theirs.keys():
            (folder / file).unlink(missing_ok=True)

    def look_again(self) -> None:
        """Forget what was seen of the bucket: workers have written there since."""
        self._listings.clear()

    def read_manifest(self, stage: str, key: str, model: type[M]) -> M | None:
        """Return a stored manifest, or None; see `Store.read_manifest`."""
        self.pull(self.manifest_path(stage, key))
        return super().read_manifest(stage, key, model)

    def manifests(self, stage: str) -> Iterator[dict[str, Any]]:
        """Yield the stored manifests of a stage; see `Store.manifests`."""
        self.refresh(self.root / "manifests" / stage)
        return super().manifests(stage)

    def set_aside(self, path: Path) -> None:
        """Move a damaged file out of the way here, and remove it from the bucket."""
        super().set_aside(path)
        folder, _, file = self.relative(path).rpartition("/")
        stem = file.removesuffix(".tfrecord")
        with self._talking():
            for other in self._listing(folder, fresh=True):
                if other == file or (stem != file and other.startswith(f"{stem}-")):
                    with contextlib.suppress(FileNotFoundError):  # another reader was quicker
                        self._files.rm_file(self._key(f"{folder}/{other}"))
        self._listings.pop(folder, None)

    def folders(self, pattern: str) -> list[Path]:
        """List folders that the bucket has, as the mirror's paths, their small files fetched.

        Args:
            pattern: Pattern of the folders, relative to the root, for instance "rows/*/*".
        """
        depth = pattern.count("/") + 1
        with self._talking():
            self._files.invalidate_cache()
            found = self._files.find(self._key(pattern.partition("/*")[0]))
        names = {
            "/".join(key.removeprefix(self._key("")).split("/")[:depth])
            for key in found
            if key.removeprefix(self._key("")).count("/") >= depth
        }
        folders = [self.root / name for name in sorted(names)]
        for folder in folders:
            self.refresh(folder)
        return folders

    def num_bytes(self, path: Path) -> int:
        """Add up the bytes of a folder in the bucket, or here where it is a machine's own."""
        name = self.relative(path) if path != self.root else ""
        if name and not name.startswith(SHARED):
            return super().num_bytes(path)
        with self._talking():
            self._files.invalidate_cache()
            try:
                return int(self._files.du(self._key(name).rstrip("/")))
            except FileNotFoundError:
                return 0

    def check_removable(self) -> NoReturn:
        """Refuse: nobody can know whether another machine is using the bucket.

        Raises:
            RecordError: Raised in any case.
        """
        raise RecordError(
            "headstart does not remove anything from a store in a bucket",
            f"{without_secrets(self.url)} may be in use by any machine",
            "when no run uses it, remove what `headstart cache ls` names with the bucket's own "
            "tools, for instance all of rows/views; what is missing is computed again",
        )

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _listing(self, folder: str, *, fresh: bool = False) -> dict[str, int]:
        """Return the sizes of a folder's objects in bytes, by name."""
        made_s, sizes = self._listings.get(folder, (0.0, {}))
        if fresh or not made_s or time.monotonic() - made_s > LISTING_S:
            with self._talking():
                self._files.invalidate_cache()
                try:
                    found = self._files.ls(self._key(folder), detail=True)
                except FileNotFoundError:
                    found = []
            sizes = {
                info["name"].rpartition("/")[2]: int(info["size"] or 0)
                for info in found
                if info["type"] == "file"
            }
            self._listings[folder] = (time.monotonic(), sizes)
        return sizes

    def _is_there(self, name: str, size: int) -> bool:
        folder, _, file = name.rpartition("/")
        if self._listing(folder).get(file) == size:
            return True
        # What is said to be gone is removed for good: a listing that is old, or was made while
        # the shard arrived, is not asked about that.
        with self._talking():
            self._files.invalidate_cache()
            try:
                return bool(self._files.info(self._key(name))["size"] == size)
            except FileNotFoundError:
                return False

    def _upload(self, path: Path, name: str) -> None:
        """Put a file into the bucket, and make sure that it is what arrived."""
        key, size = self._key(name), path.stat().st_size
        with self._talking():
            self._files.put_file(os.fspath(path), key)
            if not self._has_arrived(path, key, size):
                self._files.rm_file(key)
                raise OSError(f"{name} was corrupted on the way")
        folder, _, file = name.rpartition("/")
        if folder in self._listings:
            self._listings[folder][1][file] = size

    def _has_arrived(self, path: Path, key: str, size: int) -> bool:
        self._files.invalidate_cache()
        info = self._files.info(key)
        if info["size"] != size:
            return False
        # S3 gives the MD5 of what was put in one piece and is not encrypted with a KMS key; of
        # anything else the bytes have to be read back.
        tag = str(info.get("ETag", "")).strip('"')
        if tag and tag == hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest():
            return True
        with self._files.open(key, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file_digest(path)

    def _fetch(self, name: str, path: Path) -> None:
        """Download an object aside and rename it; nothing happens where there is none."""
        with self.staging() as folder:
            staged = folder / "object"
            with self._talking():
                try:
                    self._files.get_file(self._key(name), os.fspath(staged))
                except FileNotFoundError:
                    return
            super().publish(staged, path)

    def _download(self, name: str) -> bytes | None:
        with self._talking():
            try:
                return bytes(self._files.cat_file(self._key(name)))
            except FileNotFoundError:
                return None

    def _touch(self, path: Path) -> None:
        """Note when a file was last read; its modification time stays what its index says."""
        with contextlib.suppress(OSError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def _evict(self) -> None:
        stats = []
        for path in (self.root / "rows").rglob("*.tfrecord"):
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                stats.append((path, path.stat()))
        total = sum(stat.st_size for _, stat in stats)
        for path, stat in sorted(stats, key=lambda pair: pair[1].st_atime_ns):
            if total <= self._max_cache_bytes or time.time() - stat.st_atime < IN_USE_S:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each protocol's library has exceptions of its own
            raise RecordError(
                f"the object store at {without_secrets(self.url)} cannot be read or written",
                without_secrets(f"{type(error).__name__}: {error}"),
                "check the address, the credentials and the network; what is finished is kept, and "
                "the same command does the rest",
            ) from error


def _layout_in(text: bytes) -> Any:
    try:
        return unseal(json.loads(text))["layout"]
    except (ValueError, KeyError):
        return None


def _cache_bytes() -> int:
    text = os.environ.get("HEADSTART_MIRROR_BYTES", str(DEFAULT_CACHE_BYTES))
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ConfigError(
        "HEADSTART_MIRROR_BYTES must be a number of bytes, at least 1",
        repr(text),
        "for instance 53687091200, 50 GiB",
    )


def _connect(url: str) -> tuple[Any, str]:
    import fsspec

    # It prints the traceback of each error that it tries again after; the last one is told of.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    if not url.partition("://")[2]:
        raise ConfigError(
            "the store's URL does not name a bucket", url, "for instance s3://bucket/prefix"
        )
    try:
        files, prefix = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        extra = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}.get(url.partition(":")[0])
        raise ConfigError(
            "the store's URL has a protocol that is unknown, or whose package is not installed",
            without_secrets(f"{url}: {error}"),
            f"pip install 'headstart[{extra}]'" if extra else "check the spelling of the protocol",
        ) from None
    return files, prefix.rstrip("/")


def _object_name(name: str, digest: Any) -> str:
    """Name a file's object: as the file, but a shard of rows after its content besides.

    What lies under artefacts/ has its key in its path, and so is the same for all who write it.
    """
    if not (name.startswith("rows/") and name.endswith(".tfrecord")):
        return name
    return f"{name.removesuffix('.tfrecord')}-{digest()[:16]}.tfrecord"

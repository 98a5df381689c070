"""What is already known about image files, so that an unchanged file is not read again.

One SQLite file with two tables. ``files`` maps a file's identity and stat to the SHA-256 of its
bytes, as git's index does; ``verdicts`` maps that SHA-256 to what a full decode found. The file
lies inside the store and the store may be moved, so it holds no path: a file is keyed by the
SHA-256 of its absolute path.

It is only a cache. Whatever is wrong with it (damaged, locked for too long, on a full or
read-only disk) costs time, never a run.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import PIL

from headstart.tasks.dataset.decode import ACCEPTS_VERSION, DECODER_VERSION, Flaw

RACY_WINDOW_NS = 2_000_000_000
"""A file read within 2 s of its last change is not remembered by its stat: a second change in
the same tick of the file system's clock would leave the stat as it is. FAT has the coarsest
tick, 2 s.

Source: git, Documentation/technical/racy-git.adoc.
"""

_BUSY_TIMEOUT_S = 30.0
_SCHEMA_VERSION = 2
_DECODER = f"{DECODER_VERSION}.{ACCEPTS_VERSION}/{PIL.__version__}"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""What is asked is right: an error in it means that the schema is another one."""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS files (
    file BLOB PRIMARY KEY, stat TEXT NOT NULL, digest BLOB NOT NULL, checksum BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (
    digest BLOB, max_pixels INTEGER, width INTEGER NOT NULL, height INTEGER NOT NULL,
    format TEXT NOT NULL, flaw TEXT NOT NULL, reason TEXT NOT NULL, decoder TEXT NOT NULL,
    checksum BLOB NOT NULL, PRIMARY KEY (digest, max_pixels)
) WITHOUT ROWID;
PRAGMA user_version = {_SCHEMA_VERSION};
"""

_log = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """What a full decode of some bytes found.

    Attributes:
        width: Pixels across; 0 where undecodable.
        height: Pixels down; 0 where undecodable.
        format: Pillow's name of the format; empty where undecodable.
        flaw: Empty where usable, otherwise what is wrong; never "unreadable" in the cache.
        reason: Why it is not usable; where it is, what the decoder complained of, if anything.
    """

    width: int = 0
    height: int = 0
    format: str = ""
    flaw: Flaw | Literal["", "unreadable"] = ""
    reason: str = ""


class FileCache:
    """Digests of unchanged files and verdicts on known bytes, shared by threads and processes.

    New entries gather in memory until `flush`, so that the write lock is held for moments only.

    Args:
        path: The SQLite file; made, with its folder, where it does not exist. A damaged one is
            set aside under another name and begun anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._new_files: list[tuple[Any, ...]] = []
        self._new_verdicts: list[tuple[Any, ...]] = []
        self._connection = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def digest_of(self, file: str, stat: os.stat_result) -> str | None:
        """Look up the digest of a file that has not changed since it was hashed.

        Args:
            file: Path of the file.
            stat: What ``os.stat`` says of it now.

        Returns:
            SHA-256 in hexadecimal, or None where the file is new, changed or too recent to tell.
        """
        row = self._select(
            "SELECT file, stat, digest, checksum FROM files WHERE file = ? AND stat = ?",
            (_file_key(file), _stat_text(stat)),
        )
        return None if row is None else bytes(row[2]).hex()

    def remember_digest(
        self, file: str, stat: os.stat_result, hashed_at_ns: int, digest: str
    ) -> None:
        """Note the digest of a file, unless it was read too soon after its last change.

        Args:
            file: Path of the file.
            stat: Its stat before it was read.
            hashed_at_ns: Unix time in ns at which reading began.
            digest: SHA-256 of the bytes in hexadecimal.
        """
        if hashed_at_ns <= max(stat.st_mtime_ns, stat.st_ctime_ns) + RACY_WINDOW_NS:
            return
        entry = (_file_key(file), _stat_text(stat), bytes.fromhex(digest))
        with self._lock:
            self._new_files.append(_with_checksum(entry))

    def verdict_of(self, digest: str, max_pixels: int) -> Verdict | None:
        """Look up what decoding some bytes gave.

        Returns:
            The verdict, or None where there is none. A refusal by another version of Pillow or
            of the decoder does not count: this one may know more formats.
        """
        row = self._select(
            "SELECT * FROM verdicts"
            " WHERE digest = ? AND max_pixels = ? AND (flaw = '' OR decoder = ?)",
            (bytes.fromhex(digest), max_pixels, _DECODER),
        )
        return None if row is None else Verdict(*row[2:7])

    def remember_verdict(self, digest: str, max_pixels: int, verdict: Verdict) -> None:
        """Note what decoding some bytes gave.

        Args:
            digest: SHA-256 of the bytes in hexadecimal.
            max_pixels: The pixel limit they were decoded under.
            verdict: Size and format, or why it could not be decoded.
        """
        entry = (bytes.fromhex(digest), max_pixels, *verdict, _DECODER)
        with self._lock:
            self._new_verdicts.append(_with_checksum(entry))

    def flush(self) -> None:
        """Write the new entries in one short transaction; a killed run keeps them."""
        with self._lock:
            if not (self._new_files or self._new_verdicts):
                return
            try:
                self._write()
            except sqlite3.Error as error:
                self._recover(error)
                with contextlib.suppress(sqlite3.Error):
                    self._write()
            self._new_files.clear()
            self._new_verdicts.clear()

    def close(self) -> None:
        """Write the new entries and close the file."""
        with self._lock:
            self.flush()
            self._connection.close()

    def _write(self) -> None:
        with self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            transaction.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", self._new_files
            )
            transaction.executemany(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self._new_verdicts,
            )

    def _select(self, query: str, values: tuple[Any, ...]) -> Any:
        with self._lock:
            try:
                row = self._connection.execute(query, values).fetchone()
                return row if row is not None and _with_checksum(row[:-1]) == row else None
            except sqlite3.Error as error:
                self._recover(error)
                return None

    def _recover(self, error: sqlite3.Error) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        if _is_damage(error):
            self._set_aside(error)
            self._connection = self._open()
        else:
            self._connection = self._open_in_memory(error)

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.is_dir():
                self._set_aside("it is a folder")
            try:
                return _connect(self._path)
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise
                self._set_aside(error)
                return _connect(self._path)
        except (sqlite3.Error, OSError) as error:
            return self._open_in_memory(error)

    def _open_in_memory(self, error: object) -> sqlite3.Connection:
        _log.warning("%s cannot be used (%s): this run keeps no file cache.", self._path, error)
        return _connect(":memory:")

    def _set_aside(self, error: object) -> None:
        aside = f"{self._path}.damaged-{time.time_ns()}"
        is_other = isinstance(error, _UnknownSchemaError)
        what = "is of another version" if is_other else "is damaged"
        _log.warning("%s %s (%s): set aside, begun anew.", self._path, what, error)
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")


def _connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        # Readers and one writer at once. The mode is the file's own and stays; that another
        # process is just setting it too is the one case in which SQLite does not wait.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _SCHEMA_VERSION):
            raise _UnknownSchemaError(f"schema {version}, not {_SCHEMA_VERSION}")
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        connection.execute("SELECT 1 FROM files, verdicts LIMIT 1").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class _UnknownSchemaError(sqlite3.DatabaseError):
    """The file was written by another version of this module."""


def _is_damage(error: sqlite3.Error) -> bool:
    # Locked, full, read-only and I/O errors are not damage: the file may serve others still.
    if isinstance(error, _UnknownSchemaError):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary of an extended code
    return code in _DAMAGED or "Could not decode" in str(error)


def _file_key(file: str) -> bytes:
    return hashlib.sha256(os.fsencode(os.path.abspath(file))).digest()  # noqa: PTH100 - a million


def _with_checksum(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    # SQLite gives back a flipped bit without a word.
    return (*entry, hashlib.sha256(repr(entry).encode(errors="surrogateescape")).digest()[:8])


def _stat_text(stat: os.stat_result) -> str:
    # ctime is what tells an edit in place whose size and mtime were put back. As text: the inode
    # numbers of some file systems exceed SQLite's signed integers.
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"

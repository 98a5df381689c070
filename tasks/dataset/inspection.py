"""The bytes behind listed files: their SHA-256, and whether they decode.

A file is read once for both; distinct bytes are decoded once ever. Reading and decoding run in
threads, as hashlib and Pillow release the interpreter lock.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from headstart.tasks.dataset.decode import UndecodableImage, inspect_image, read_image
from headstart.tasks.dataset.file_cache import FileCache, Verdict
from headstart.tasks.dataset.listing import ListedImage
from headstart.tasks.dataset.problems import Problem, refuse_passing

BATCH_FILES = 256
"""Files between two commits of the cache: what a killed run has to do again at most."""


class InspectedImage(NamedTuple):
    """A listed file whose bytes decode.

    Attributes:
        listed: Path, class and split of the file.
        digest: SHA-256 of its bytes, in hexadecimal.
        verdict: Its size and format.
    """

    listed: ListedImage
    digest: str
    verdict: Verdict


@dataclass
class Inspection:
    """What looking into all files gave.

    Attributes:
        images: The usable ones, in the order listed.
        problems: One for each of the others.
        num_hashed: Files read this time.
        num_decoded: Files decoded this time.
    """

    images: list[InspectedImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    num_hashed: int = 0
    num_decoded: int = 0


def inspect_files(
    files: Sequence[ListedImage],
    max_pixels: int,
    cache: FileCache | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Hash and decode what the cache does not know already.

    Args:
        files: The files to look into.
        max_pixels: Images with more pixels are refused.
        cache: What earlier runs found; None reads and decodes everything.
        on_progress: Called with (files done, files in all) after each batch.

    Returns:
        The usable images, and a problem for each other file.

    Raises:
        DatasetError: The disk or the file server fails.
    """
    inspector = _Inspector(max_pixels, cache)
    pool = ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 1))  # one more hides the reads
    looks: list[str | Verdict] = []
    try:
        for start in range(0, len(files), BATCH_FILES):
            batch = files[start : start + BATCH_FILES]
            known = [inspector.recall(listed) for listed in batch]
            # Only what must be read goes through the pool: a look-up is cheaper than the way.
            to_read = [listed for listed, look in zip(batch, known, strict=True) if look is None]
            read = pool.map(inspector.read, to_read)
            looks += [next(read) if look is None else look for look in known]
            if cache is not None:
                cache.flush()
            if on_progress is not None:
                on_progress(len(looks), len(files))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # Ctrl-C waits for the files in hand only
    inspection = inspector.inspection
    for listed, look in zip(files, looks, strict=True):
        verdict = look if isinstance(look, Verdict) else inspector.verdicts[look]
        if isinstance(look, str) and not verdict.flaw:
            inspection.images.append(InspectedImage(listed, look, verdict))
            if verdict.reason:
                reason = f"used, though: {verdict.reason}"
                inspection.problems.append(Problem(listed.path, "decoder_note", reason, False))
        else:
            problem = Problem(listed.path, verdict.flaw or "unreadable", verdict.reason)
            inspection.problems.append(problem)
    return inspection


class _Inspector:
    """What the threads share."""

    def __init__(self, max_pixels: int, cache: FileCache | None) -> None:
        self.inspection = Inspection()
        self.verdicts: dict[str, Verdict] = {}
        self._claimed: set[str] = set()
        self._max_pixels = max_pixels
        self._cache = cache
        self._lock = threading.Lock()

    def recall(self, listed: ListedImage) -> str | None:
        """Give the digest of a file that is known, with a verdict on its bytes; else None."""
        if self._cache is None:
            return None
        try:
            digest = self._cache.digest_of(listed.file, os.stat(listed.file))  # noqa: PTH116 - many
        except OSError:
            return None  # read() will tell
        return digest if digest is not None and self._is_known(digest) else None

    def read(self, listed: ListedImage) -> str | Verdict:
        """Give the digest of a file, its verdict being in `verdicts` when all have ended.

        A file without a digest, as it was not read to its end, has a verdict of its own.

        Raises:
            DatasetError: The disk or the file server fails.
        """
        try:
            return self._read(listed.file)
        except OSError as error:
            refuse_passing(error, listed.file)
            reason = f"cannot be read ({(error.strerror or type(error).__name__).lower()})"
            return Verdict(flaw="unreadable", reason=reason)

    def _read(self, file: str) -> str | Verdict:
        started_ns = time.time_ns()
        with Path(file).open("rb") as stream:
            before = os.fstat(stream.fileno())
            try:
                data = read_image(stream, self._max_pixels)
            except UndecodableImage as error:
                return Verdict(flaw=error.flaw, reason=error.reason)
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            self.inspection.num_hashed += 1
        if self._cache:
            # Changed while it was read, it has another stat by now, and this one matches nothing.
            self._cache.remember_digest(file, before, started_ns, digest)
        if not self._is_known(digest) and self._claim(digest):
            self._decode(digest, data)
        return digest

    def _is_known(self, digest: str) -> bool:
        if digest in self.verdicts:
            return True
        verdict = self._cache.verdict_of(digest, self._max_pixels) if self._cache else None
        if verdict is not None:
            self.verdicts[digest] = verdict
        return verdict is not None

    def _claim(self, digest: str) -> bool:
        """Let one thread alone decode bytes that several files hold."""
        with self._lock:
            is_first = digest not in self._claimed
            self._claimed.add(digest)
            return is_first

    def _decode(self, digest: str, data: bytes) -> None:
        with self._lock:
            self.inspection.num_decoded += 1
        try:
            facts = inspect_image(data, self._max_pixels)
            verdict = Verdict(facts.width, facts.height, facts.format, reason=facts.notes)
        except UndecodableImage as error:
            verdict = Verdict(flaw=error.flaw, reason=error.reason)
        self.verdicts[digest] = verdict
        if self._cache:
            self._cache.remember_verdict(digest, self._max_pixels, verdict)

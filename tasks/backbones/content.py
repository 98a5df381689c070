"""What a backbone's files hold, as a digest."""

import hashlib
from pathlib import Path

from headstart.tasks.backbones.foreign_files import saved_model_files
from headstart.tasks.store.fingerprint import file_digest


def content_digest(path: Path) -> str | None:
    """Digest a file, or the names and bytes of the files that make up a SavedModel.

    Returns:
        64 hexadecimal characters; None where there is none.
    """
    if path.is_file():
        return file_digest(path)
    return digest_folder(path) if (path / "saved_model.pb").is_file() else None


def digest_folder(path: Path) -> str:
    """Digest the names and bytes of the files that make up a SavedModel."""
    digest = hashlib.sha256()
    for file in saved_model_files(path):
        digest.update(f"{file.relative_to(path).as_posix()}:{file_digest(file)};".encode())
    return digest.hexdigest()

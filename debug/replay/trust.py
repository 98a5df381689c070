"""Whether a crash bundle was written here: replaying one runs the code in it.

A bundle is sealed with a secret of this user's on this machine. One from elsewhere, or one that
was changed, has no such seal and is replayed only where a person says so.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

SEAL = "seal"
"""The file in a bundle that holds its seal."""


def seal(folder: Path) -> None:
    """Seal a bundle that is written in full."""
    (folder / SEAL).write_text(_seal_of(folder, _secret()), encoding="utf-8")


def is_sealed_here(folder: Path) -> bool:
    """Tell whether this user wrote a bundle on this machine, and nobody changed it since."""
    try:
        given = (folder / SEAL).read_text(encoding="utf-8")
        return hmac.compare_digest(given.encode(), _seal_of(folder, _secret()).encode())
    except (OSError, UnicodeDecodeError):
        return False


def _seal_of(folder: Path, secret: bytes) -> str:
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / SEAL:
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _secret() -> bytes:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    file = Path(base) / "headstart" / "bundle-secret"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f"{file.name}-{secrets.token_hex(8)}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(secrets.token_bytes(32))
        try:
            os.link(aside, file)  # the first of two writers wins
        except FileExistsError:
            pass
        finally:
            aside.unlink()
    return file.read_bytes()

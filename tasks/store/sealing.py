"""JSON that tells whether it is what was written: a mapping with its own SHA-256 among its fields.

A file system gives back a flipped bit without a word, and one digit more or less is valid JSON.
"""

import json
from pathlib import Path
from typing import Any

from headstart.reading import MAX_TABLE_BYTES, read_regular
from headstart.tasks.store.fingerprint import bytes_digest, digest

SEAL = "checksum"
"""Field with the SHA-256 of all the others."""


def seal(fields: dict[str, Any]) -> dict[str, Any]:
    """Return JSON data with its checksum among the fields.

    Args:
        fields: A mapping of JSON values; a checksum that it has already is made anew.
    """
    bare = {name: value for name, value in fields.items() if name != SEAL}
    return {**bare, SEAL: _checksum(bare)}


def unseal(fields: dict[str, Any]) -> dict[str, Any]:
    """Check JSON data against its checksum.

    Args:
        fields: What `seal` gave, after a while on a disk. Data without a checksum, as earlier
            versions wrote it, is taken as it is.

    Raises:
        ValueError: It is not what was written.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"a {type(fields).__name__} instead of a mapping")
    bare = {name: value for name, value in fields.items() if name != SEAL}
    if SEAL in fields and fields[SEAL] != _checksum(bare):
        raise ValueError("damaged: its checksum does not match")
    if SEAL not in fields and (name := _renamed_seal(fields)):
        raise ValueError(f"damaged: unknown checksum {name}")
    return bare


def sealed_text(fields: dict[str, Any]) -> str:
    """Write JSON data with its checksum, as every JSON file that headstart keeps has it.

    Its order stays: what is read back is told as it was when it was made.
    """
    return json.dumps(seal(fields), indent=1) + "\n"


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON file that was written sealed, and check it.

    Returns:
        Its fields, without the checksum.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not what was written.
    """
    try:
        return unseal(json.loads(read_regular(path, MAX_TABLE_BYTES)))
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None


def is_own(
    found_stage: str, found_key: str, key_fields: dict[str, Any], stage: str, key: str
) -> bool:
    """Say whether a manifest is the one that its place in the store is for.

    Args:
        found_stage: The stage that it names.
        found_key: The key that it names.
        key_fields: What it says that the key was made of.
        stage: Folder that it lies in.
        key: Name of its file.
    """
    return (found_stage, found_key) == (stage, key) and digest(key_fields) == key


def _renamed_seal(fields: dict[str, Any]) -> str:
    """Return the field that a flipped bit in its name makes of a checksum; "" without one."""
    for name, value in fields.items():
        if isinstance(value, str) and len(value) == 64:
            others = {other: fields[other] for other in fields if other != name}
            try:
                if value == _checksum(others):
                    return name
            except TypeError:  # objects of Python's: never written, nor read
                return ""
    return ""


def _checksum(bare: dict[str, Any]) -> str:
    # Not the canonical JSON of keys, which refuses a loss that is NaN.
    return bytes_digest(json.dumps(bare, sort_keys=True).encode())

"""Digests: what an artefact was made from, as one SHA-256.

SHA-256 because digests name files that outlive the program: a collision would replay a wrong
artefact in silence. Changing anything here renames every artefact, so every cache starts cold.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

LEAST_GATHERED = 3
"""Fields of a mapping that is on one side alone, from which they are told in one line."""


def canonical_json(value: Any) -> str:
    """Write a value as the one JSON text that equal values share.

    Args:
        value: Nested mappings with string keys, sequences, strings, bools, integers, finite
            floats, None or pydantic models.

    Returns:
        JSON with sorted keys and no white space; tuples and lists read the same.

    Raises:
        TypeError: The value holds something that has no canonical form; nothing is hashed by
            its memory address or its repr.
        ValueError: The value holds a float that is not finite.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Any) -> str:
    """Return the SHA-256 (64 hexadecimal characters) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def bytes_digest(data: bytes) -> str:
    """Return the SHA-256 (64 hexadecimal characters) of some bytes."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 (64 hexadecimal characters) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed_fields(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """List the leaves in which two nested mappings differ.

    Args:
        old: Key fields of an earlier artefact.
        new: Key fields of the wanted artefact.
        prefix: Dotted name of the mappings, for the recursion.

    Returns:
        (dotted name, old value, new value) a leaf, sorted by name; None where it is absent.
    """
    old, new = _fields(old), _fields(new)
    # A mapping that is on one side alone is told leaf by leaf, too.
    if isinstance(old, Mapping) and new is None:
        new = {}
    if isinstance(new, Mapping) and old is None:
        old = {}
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        changes: list[tuple[str, Any, Any]] = []
        for name in sorted({*old, *new}):
            changes += changed_fields(old.get(name), new.get(name), f"{prefix}{name}.")
        return changes
    return [] if _plain(old) == _plain(new) else [(prefix.rstrip("."), old, new)]


def gather(changes: Sequence[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    """Sum up changes for people: a mapping that is on one side alone takes one line, and the last.

    Returns:
        (dotted name, old, new), where the value of a mapping is how many fields it has.
    """
    single, whole = list(changes), []
    for side in (1, 2):
        names = {one[0].rpartition(".")[0] for one in single if one[side] is None}
        prefixes = {".".join(name.split(".")[:n]) for name in names for n in range(1, 9)} - {""}
        for prefix in sorted(prefixes, key=len):
            within = [one for one in single if one[0].startswith(f"{prefix}.")]
            if len(within) >= LEAST_GATHERED and all(one[side] is None for one in within):
                single = [one for one in single if one not in within]
                told = f"{len(within)} fields"
                whole.append((prefix, None, told) if side == 1 else (prefix, told, None))
    return [*single, *whole]


def _fields(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"A key holds finite numbers only. Received: {value!r}")
        return value
    if isinstance(value, Mapping):
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise TypeError(f"A key's mappings have string names. Received: {wrong[0]!r}")
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item) for item in value]
    raise TypeError(
        "A key holds mappings, sequences, strings, bools, numbers and None only. "
        f"Received: {value!r} of type {type(value).__name__}"
    )

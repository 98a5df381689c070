"""What an .onnx file says of itself, read and written without any engine.

An ONNX file is one protocol buffer. Its metadata are a repeated field, so that entries can be put
behind what is there already: the network keeps its bytes, and its digest.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

METADATA_FIELD = 14
"""``metadata_props`` of ``ModelProto``. Source: onnx/onnx.proto."""
_LENGTH_DELIMITED = 2
_FIXED_BYTES = {1: 8, 5: 4}
_CHUNK_BYTES = 2**20


def append_metadata(path: Path, entries: Mapping[str, str]) -> None:
    """Put entries into a model's metadata, which has none of these names so far."""
    with path.open("ab") as file:
        for key, value in entries.items():
            entry = _field(1, key.encode()) + _field(2, value.encode())
            file.write(_field(METADATA_FIELD, entry))


def read_metadata(path: Path) -> dict[str, str]:
    """Read a model's metadata.

    Raises:
        ValueError: It is no protocol buffer.
    """
    found: dict[str, str] = {}
    with path.open("rb") as file:
        for number, start, end in _fields(file, path.stat().st_size):
            if number == METADATA_FIELD:
                file.seek(start)
                entry = _Entry(file.read(end - start))
                found[entry.key] = entry.value
    return found


def network_digest(path: Path) -> str:
    """Return the SHA-256 of all that is not metadata.

    Raises:
        ValueError: It is no protocol buffer.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number, start, end in _fields(file, path.stat().st_size):
            if number != METADATA_FIELD:
                digest.update(number.to_bytes(4))
                file.seek(start)
                while start < end:
                    chunk = file.read(min(_CHUNK_BYTES, end - start))
                    digest.update(chunk)
                    start += len(chunk)
    return digest.hexdigest()


class _Entry:
    """One entry of the metadata, ``StringStringEntryProto``."""

    def __init__(self, data: bytes) -> None:
        self.key = self.value = ""
        place = 0
        while place < len(data):
            tag, place = _varint_of(data, place)
            length, place = _varint_of(data, place)
            text = data[place : place + length].decode()
            place += length
            if tag >> 3 == 1:
                self.key = text
            else:
                self.value = text


def _fields(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield each top-level field's number and where its content begins and ends."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(20)
        tag, used = _varint_of(head, 0)
        number, kind = tag >> 3, tag & 7
        start = place + used
        if kind == _LENGTH_DELIMITED:
            length, used = _varint_of(head, used)
            start = place + used
        elif kind == 0:
            length = _varint_of(head, used)[1] - used
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"not an ONNX file: wire type {kind} at byte {place:,}")
        if start + length > size:
            raise ValueError("cut short")
        yield number, start, start + length
        place = start + length


def _varint_of(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("not an ONNX file: a number without an end")
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content

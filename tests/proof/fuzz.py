"""Change the bytes of valid files at random, and have them read as the product reads them.

    python -m tests.proof.fuzz KIND COUNT SEED

Each file is read or refused with one of headstart's errors, within a bound of memory. What is read
in one child of 50 changes is told by its number where the child dies.
"""

import io
import json
import os
import random
import resource
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf  # noqa: F401
import yaml
from PIL import Image

from headstart.config import DatasetConfig, TransferConfig, build_config
from headstart.errors import HeadstartError
from headstart.tasks.dataset.building import build_index
from headstart.tasks.dataset.decode import decode_image, inspect_image
from headstart.tasks.dataset.exclusion import read_exclusions
from headstart.tasks.export.model_files import read_keras
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.records import RowId
from headstart.tasks.store.tfrecord import scan_tfrecord, write_tfrecord
from tests.pipeline import save_backbone, write_images
from tests.proof.kills import ended, in_child

MAX_PIXELS = 10_000_000
MEMORY_BYTES = 6 * 2**30
"""Of address space beyond what the child begins with; TensorFlow's threads take some of it."""
PER_CHILD = 50
Change = Callable[[bytes, random.Random], bytes]


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def make_image(folder: Path) -> list[Path]:
    paths = []
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        paths.append(folder / f"a.{kind.lower()}")
        paths[-1].write_bytes(picture(kind))
    return paths


def make_csv(folder: Path) -> list[Path]:
    images = write_images(folder / "images")
    lines = [f"{path.relative_to(folder)},{path.parent.name}" for path in images.rglob("*.png")]
    (folder / "a.csv").write_text("path,label\n" + "\n".join(lines))
    return [folder / "a.csv"]


def make_parquet(folder: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = sorted(write_images(folder / "images").rglob("*.png"))
    table = {
        "path": [str(path.relative_to(folder)) for path in images],
        "label": [path.parent.name for path in images],
    }
    pq.write_table(pa.table(table), folder / "a.parquet")
    return [folder / "a.parquet"]


def make_yaml(folder: Path) -> list[Path]:
    fields = TransferConfig.model_validate({"dataset": {"images": "photos"}})
    (folder / "a.yaml").write_text(yaml.safe_dump(fields.model_dump(mode="json")))
    return [folder / "a.yaml"]


def make_tfrecord(folder: Path) -> list[Path]:
    rows = [RowId(bytes_digest(bytes([number])), 0) for number in range(20)]
    values = np.arange(40, dtype=np.float32).reshape(20, 2)
    write_tfrecord(folder / "a.tfrecord", zip(rows, values, strict=True))
    return [folder / "a.tfrecord"]


def make_bundle(folder: Path) -> list[Path]:
    from headstart.debug.replay.bundle import SCHEMA

    place = folder / "crash-1"
    place.mkdir()
    facts = {
        "schema": SCHEMA,
        "sources": [{"name": "__main__.py"}],
        "state": [{"dtype": "float32"}, {"dtype": "int64"}],
        "batches": [],
    }
    (place / "bundle.json").write_text(json.dumps(facts))
    np.savez_compressed(place / "state.npz", v0=np.ones((3, 3), np.float32), v1=np.arange(4))
    np.savez_compressed(place / "batches.npz", a0=np.ones(2))
    return sorted(place.iterdir())


def read_image(path: Path) -> None:
    inspect_image(path.read_bytes(), MAX_PIXELS)
    decode_image(path.read_bytes(), MAX_PIXELS)


def read_model(path: Path) -> None:
    read_keras(path)


def read_bundle(path: Path) -> None:
    from headstart.debug.replay import bundle

    bundle.read_bundle(path.parent)


KINDS: dict[str, tuple[Callable[[Path], list[Path]], Callable[[Path], object]]] = {
    "image": (make_image, read_image),
    "csv": (make_csv, lambda path: build_index(DatasetConfig(images=path))),
    "list": (make_csv, read_exclusions),
    "parquet": (make_parquet, lambda path: build_index(DatasetConfig(images=path))),
    "yaml": (make_yaml, lambda path: build_config(TransferConfig, "photos", path)),
    "keras": (lambda folder: [save_backbone(folder / "a.keras")], read_model),
    "tfrecord": (make_tfrecord, lambda path: scan_tfrecord(path, 8)),
    "bundle": (make_bundle, read_bundle),
}
REFUSALS: dict[str, tuple[type[Exception], ...]] = {"tfrecord": (ValueError,)}
"""What a reader within the store raises, which its caller turns into a shard set aside."""


def changed(data: bytes, chance: random.Random) -> bytes:
    """Flip bits, cut, repeat, or put in what numbers and texts end at."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(out)) if out else 0
        way = chance.randrange(5)
        if way == 0 and out:
            out[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            del out[at : at + chance.randrange(1, 65)]
        elif way == 2:
            out[at:at] = out[at : at + chance.randrange(1, 65)] * chance.randrange(1, 4)
        elif way == 3:
            out[at : at + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        else:
            out[at:at] = chance.choice((b"[" * 200, b"&a [*a]", b'"', b"\n", b"\xff\xfe", b"~x/"))
    return bytes(out)


def rezipped(data: bytes, chance: random.Random) -> bytes:
    """Change a member of an archive and write its checksum anew: the damage is in the content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        chosen = chance.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, changed(content, chance) if name == chosen else content)
    return buffer.getvalue()


def attempts(kind: str, folder: Path, numbers: range, seed: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY_BYTES,) * 2)
    make, read = KINDS[kind]
    paths = make(folder)
    valid = {path: path.read_bytes() for path in paths}
    for number in numbers:
        chance = random.Random(f"{seed} {number}")
        path = chance.choice(paths)
        is_archive = zipfile.is_zipfile(io.BytesIO(valid[path]))
        change = rezipped if is_archive and number % 2 else changed
        path.write_bytes(change(valid[path], chance))
        print(f"{number}", flush=True)
        try:
            read(path)
        except (HeadstartError, *REFUSALS.get(kind, ())):
            pass
        except Exception as error:
            print(f"{number}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            (folder.parent / "wrong").touch()
        path.write_bytes(valid[path])


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    num_wrong = 0
    for first in range(0, count, PER_CHILD):
        numbers = range(first, min(first + PER_CHILD, count))
        with tempfile.TemporaryDirectory() as name:
            folder, log = Path(name) / "files", Path(name) / "log"
            folder.mkdir()
            code = ended(in_child(lambda at, n=numbers: attempts(kind, at, n, seed), folder, log))  # type: ignore[misc]
            lines = log.read_text(errors="replace").splitlines()
            if code:
                num_wrong += 1
                print(f"{kind}: the child ended with {code}: {' '.join(lines[-12:])}", flush=True)
            wrong = [line for line in lines if line.partition(":")[0].isdigit() and ":" in line]
            num_wrong += len(wrong)
            for line in wrong:
                print(f"{kind} {line}", flush=True)
    print(f"{kind}: {count} changed files, {num_wrong} with a fault")
    sys.exit(1 if num_wrong else 0)


if __name__ == "__main__":
    main()

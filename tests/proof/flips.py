"""Flip one bit of a file of the store or of a run, and see that somebody notices.

    python -m tests.proof.flips COUNT SEED

Each kind of file has the reader that the product has for it. A flip is noticed where that reader
refuses, or where `verify` sets the file aside, and then calls the store sound; it is harmless where
what is read is the same as before. All else is a fault, a traceback as well.
"""

import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError
from headstart.tasks.dataset import file_cache
from headstart.tasks.models.registry import Registry
from headstart.tasks.store import records
from headstart.tasks.store.artifacts import Store, use_store
from headstart.tasks.store.inventory import read_manifests
from headstart.tasks.store.records import open_collection
from headstart.tasks.store.sealing import read_sealed
from headstart.tasks.store.verifying import verify
from tests.pipeline import ROWS_A_SHARD
from tests.proof.kills import ended, in_child, make_current, prepare, train

Read = Callable[[Path, Path], Any]


def through_verify(root: Path, file: Path) -> Any:
    store = Store(root / "store")
    if found := verify(store).damaged:
        again = verify(store).damaged
        if again:
            raise AssertionError(f"set aside, and still damaged: {again}")
        raise ValueError(f"{len(found)} set aside")
    return rows_of(store) if file.suffix == ".npz" else file.read_bytes()


def rows_of(store: Store) -> Any:
    return [
        (shard.row_ids, collection.select(shard.row_ids).gather(range(len(shard.row_ids))).tolist())
        for folder in store.folders("rows/*/*")
        if (collection := open_collection(store, folder.parent.name, folder)) is not None
        for shard in collection.shards()
    ]


def through_registry(root: Path, file: Path) -> Any:
    registry = Registry(Store(root / "store"))
    entries = registry.entries()
    for entry in entries.values():
        registry.folder_of(entry.versions[0])
    return {name: entry.model_dump_json() for name, entry in entries.items()}


def through_card(root: Path, file: Path) -> Any:
    from headstart.tasks.export.model_files import check_content, check_safe, read_card

    check_safe(file)
    check_content(file, card := read_card(file))
    return card.model_dump_json()


def through_store(root: Path, file: Path) -> Any:
    store = Store(root / "store")
    return [str(path) for path, _ in read_manifests(store)]


def through_memory(root: Path, file: Path) -> Any:
    check, _, text = file.read_text(encoding="utf-8").partition("\n")
    from headstart.tasks.store.fingerprint import bytes_digest

    if check != bytes_digest(text.encode()):
        raise ValueError("its checksum is another one")
    return text


def through_file_cache(root: Path, file: Path) -> Any:
    from headstart.config import DatasetConfig
    from headstart.tasks.dataset.building import build_index
    from headstart.tasks.dataset.file_cache import FileCache

    with use_store(Store(root / "store")), FileCache(file) as cache:
        rows = build_index(DatasetConfig(images=root / "images"), cache).rows
        return [(row.path, row.digest, row.width, row.height) for row in rows]


KINDS: dict[str, tuple[str, Read]] = {
    "manifest": ("store/manifests/*/*.json", through_verify),
    "artefact": ("store/artefacts/*/*/**/*", through_verify),
    "shard": ("store/rows/*/*/*.tfrecord", through_verify),
    "index of a shard": ("store/rows/*/*/*.index.npz", through_verify),
    "recipe": ("store/rows/*/*/recipe.json", through_verify),
    "registry": ("store/models/registry.json", through_registry),
    "promoted model": ("store/models/*/*/model.keras", through_registry),
    "layout": ("store/store.json", through_store),
    "memory": ("store/remembered/*/*", through_memory),
    "what is known of files": ("store/index/files.sqlite", through_file_cache),
    "run.json": ("run/run.json", lambda root, file: read_sealed(file)),
    "model of a run": ("run/model.keras", through_card),
}
REFUSALS = (HeadstartError, OSError, ValueError)


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    stat = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # bit rot leaves the time as it was


def outcome(root: Path, file: Path, read: Read, sound: Any) -> str:
    try:
        found = read(root, file)
    except REFUSALS:
        return "noticed"
    except AssertionError as error:
        return f"fault: {error}"
    except Exception as error:
        return f"fault: {type(error).__name__}: {error}"
    return "harmless" if json.dumps(found, default=str) == sound else "fault: silently another"


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    records.MIN_SHARD_ROWS = ROWS_A_SHARD
    file_cache.RACY_WINDOW_NS = 0  # or the images, being new, would be read again in any case
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        place, whole = Path(folder) / "place", Path(folder) / "whole"
        place.mkdir()
        for act in (prepare, train, make_current):
            if ended(in_child(act, place, Path(folder) / "log")):
                raise SystemExit((Path(folder) / "log").read_text())
        shutil.copytree(place, whole)
        tally: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        sound = {}
        for number in range(count):
            kind = list(KINDS)[number % len(KINDS)]
            pattern, read = KINDS[kind]
            file = chance.choice(sorted(one for one in place.glob(pattern) if one.is_file()))
            if file not in sound:
                sound[file] = json.dumps(read(place, file), default=str)
            bit = chance.randrange(8 * file.stat().st_size)
            flip(file, bit)
            told = outcome(place, file, read, sound[file])
            tally[kind][told.partition(":")[0]] += 1
            if told.startswith("fault"):
                print(f"{kind}: bit {bit} of {file.relative_to(place)}: {told}", flush=True)
            if told == "harmless" or read is not through_verify:
                shutil.copy2(whole / file.relative_to(place), file)
            else:  # the images stay: what is known of them is known by their inodes
                shutil.rmtree(place / "store")
                shutil.copytree(whole / "store", place / "store")
            if number % 200 == 199:
                print(f"{number + 1} bits", flush=True)
    for kind, counts in tally.items():
        print(f"{kind}: " + ", ".join(f"{number} {word}" for word, number in counts.items()))
    sys.exit(1 if any(counts["fault"] for counts in tally.values()) else 0)


if __name__ == "__main__":
    main()

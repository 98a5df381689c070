"""Kill a flow, look at the store that it leaves, go on, and compare with a run left alone.

    python -m tests.proof.kills FLOW COUNT SEED

Half of the kills come at a random moment, half at the n-th change of a file (opened to be
written, renamed, removed, a folder made or removed). It prints a line a failure, and one in the
end. This process imports TensorFlow and runs no op itself: what it forks would hang.
"""

import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf  # noqa: F401

from headstart.config import FinetuneConfig, RankConfig, ScratchConfig, build_config
from headstart.flows import finetune, rank, scratch, transfer
from headstart.tasks.models.promotion import promote
from headstart.tasks.models.registry import Registry
from headstart.tasks.store import records
from headstart.tasks.store.artifacts import Store, use_store
from headstart.tasks.store.garbage import Criteria, collect_garbage
from headstart.tasks.store.verifying import verify
from tests.pipeline import LADDER, QUICK, ROWS_A_SHARD, Pipeline, save_backbone, write_images
from tests.scratch_data import SCRATCH, write_idx
from tests.test_rank_flow import SMALL

TIMED_MEMBERS = {"metadata.json", "mtime_ns.npy", "config.json"}
"""Of archives: dates, and of a Keras model's configuration the numbers of its objects in memory."""
Act = Callable[[Path], object]
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
CHANGING_MODES = set("wxa+")
TIMED = {"rung", "baseline", "candidate", "screening"}
"""Stages whose manifests hold what was measured by the clock, or ended by it."""


def train(folder: Path) -> object:
    pipeline = Pipeline(folder / "images", folder / "net.keras", Store(folder / "store"))
    return transfer.run(pipeline.config(), folder / "store", folder / "run")


def climb(folder: Path) -> object:
    settings = (*QUICK, *LADDER, f"backbone.name={folder / 'net.keras'}")
    config = build_config(FinetuneConfig, folder / "images", settings=settings)
    return finetune.finetune.fn(config, folder / "store", folder / "run")


def learn(folder: Path) -> object:
    config = build_config(ScratchConfig, str(folder / "bars"), settings=SCRATCH)
    return scratch.scratch.fn(config, folder / "store", folder / "run")


def order(folder: Path) -> object:
    config = build_config(
        RankConfig,
        folder / "images",
        settings=SMALL,
        overrides={"candidates.backbones": [str(folder / "net.keras")]},
    )
    return rank.rank.fn(config, folder / "store", folder / "run")


def collect(folder: Path) -> object:
    return collect_garbage(Store(folder / "store"), Criteria(views=True))


def make_current(folder: Path) -> object:
    with use_store(Store(folder / "store")) as store:
        promote(folder / "run", "colours", force=True)
        registry = Registry(store)
        version = registry.entry("colours").in_use
        assert version is not None
        return registry.folder_of(version)  # raises where it is not whole


FLOWS: dict[str, tuple[Act, bool]] = {
    "train": (train, False),
    "finetune": (climb, False),
    "scratch": (learn, False),
    "rank": (order, False),
    "gc": (collect, True),
    "promote": (make_current, True),
}
"""What is killed, and whether a finished run must be there before."""


def prepare(folder: Path) -> None:
    write_images(folder / "images")
    save_backbone(folder / "net.keras")
    write_idx(folder / "bars", num_train=120, num_test=30)


def in_child(act: Act, folder: Path, log: Path) -> int:
    """Fork, act, and return the child's process number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.chdir(folder)
        act(folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # what TensorFlow does at exit may hang


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def counted(act: Act, at: int | None) -> Act:
    """Count changes of files below the folder; die at one, or write their number down."""

    def run(folder: Path) -> None:
        count, below = 0, f"{folder}/"
        own = threading.local()

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            is_open = event == "open" and CHANGING_MODES & set(str(arguments[1] or ""))
            if getattr(own, "busy", False) or not (is_open or event in CHANGES):
                return
            own.busy = True
            if str(arguments[0]).startswith(below):
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
            own.busy = False

        sys.addaudithook(look)
        act(folder)
        if at is None:
            (folder / "count").write_text(str(count))

    return run


def contents(store: Store) -> dict[str, Any]:
    """Return what the finished stages hold that does not depend on the clock."""
    found = {}
    for path in sorted((store.root / "manifests").glob("*/*.json")):
        if path.parent.name in TIMED:
            continue
        fields = json.loads(path.read_text())
        files = {
            entry["path"].rpartition("/")[2]: digest_of(store.root / entry["path"], entry)
            for entry in fields.get("files", ())
            if "tfevents" not in entry["path"] and path.parent.name != "export"
        }
        found[f"{path.parent.name}/{path.stem}"] = (files, fields.get("metrics"))
    return found


def digest_of(path: Path, entry: dict[str, Any]) -> Any:
    """Return what a file holds; of an archive its members, since it has the time in it."""
    if path.name == "index.json":  # but for how many files were looked at anew
        lines = path.read_text().splitlines()
        return [one for one in lines if not one.startswith(('"num_hashed"', '"num_decoded"'))]
    if not zipfile.is_zipfile(path):
        return entry["sha256"]
    with zipfile.ZipFile(path) as archive:
        return {
            member.filename: _weights(archive, member) or member.CRC
            for member in archive.infolist()
            if member.filename not in TIMED_MEMBERS
        }


def _weights(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> list[int]:
    """Return checksums of the arrays of an HDF5 member, without the names that Keras counts on."""
    found: list[int] = []
    if member.filename.endswith(".h5"):
        with h5py.File(io.BytesIO(archive.read(member))) as file:
            file.visititems(
                lambda name, one: (
                    found.append(zlib.crc32(one[()].tobytes()))
                    if isinstance(one, h5py.Dataset)
                    else None
                )
            )
    return found


def look_into(folder: Path) -> Iterator[str]:
    check = verify(Store(folder / "store"))
    if check.damaged or check.busy or check.unreadable:
        yield f"verify: {check.to_dict()}"


class Proof:
    """The kills of one flow."""

    def __init__(self, flow: str, seed: int, work: Path) -> None:
        self.act, needs_run = FLOWS[flow]
        self.flow, self.random, self.work = flow, random.Random(seed), work
        self.template, self.log = work / "template", work / "log"
        self.template.mkdir()
        self._must(prepare, self.template)
        if needs_run:
            # In the place where the attempts are: the run's configuration names its images.
            self._must(train, self._fresh())
            shutil.rmtree(self.template)
            (work / "place").rename(self.template)
        place = self._fresh()
        started_s = time.monotonic()
        self._must(counted(self.act, None), place)
        self.seconds = time.monotonic() - started_s
        self.num_changes = int((place / "count").read_text())
        self.expected = self._finish(place)

    def attempt(self, number: int) -> Iterator[str]:
        """Kill once, and yield what is wrong afterwards."""
        place = self._fresh()
        at = self.random.randint(1, self.num_changes) if number % 2 else None
        wait_s = self.random.uniform(0.0, self.seconds)
        pid = in_child(self.act if at is None else counted(self.act, at), place, self.log)
        if at is None:
            time.sleep(wait_s)
            os.kill(pid, signal.SIGKILL)
        ended(pid)
        where = f"change {at} of {self.num_changes}" if at else f"{wait_s:.2f} s"
        if (place / "store").exists():
            yield from (f"{where}: {told}" for told in look_into(place))
        if ended(in_child(self.act, place, self.log)):
            yield f"{where}: it does not go on: {self.log.read_text()[-1500:]}"
            return
        yield from (f"{where}: afterwards {told}" for told in look_into(place))
        if left := list((place / "store" / "tmp").glob("*")):
            yield f"{where}: {len(left)} left in tmp/"
        found = self._finish(place)
        for name in sorted(found.keys() | self.expected.keys()):
            if name.startswith("views/") and name not in self.expected:
                continue  # of those images alone that still lacked bottlenecks
            if found.get(name) != self.expected.get(name):
                yield f"{where}: {name} is {found.get(name)}, not {self.expected.get(name)}"

    def _finish(self, place: Path) -> dict[str, Any]:
        if self.flow == "gc":  # what is removed is made again
            self._must(train, place)
        return contents(Store(place / "store"))

    def _fresh(self) -> Path:
        place = self.work / "place"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.template, place)
        return place

    def _must(self, act: Act, folder: Path) -> None:
        if ended(in_child(act, folder, self.log)):
            raise SystemExit(f"undisturbed, it fails: {self.log.read_text()[-3000:]}")


def main() -> None:
    flow, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    records.MIN_SHARD_ROWS = ROWS_A_SHARD
    with tempfile.TemporaryDirectory() as work:
        proof = Proof(flow, seed, Path(work))
        num_wrong = 0
        for number in range(count):
            wrong = list(proof.attempt(number))
            num_wrong += bool(wrong)
            for line in wrong:
                print(f"kill {number} of {flow}, {line}", flush=True)
    print(
        f"{flow}: {count} kills, {num_wrong} with a fault; undisturbed {proof.seconds:.1f} s and "
        f"{proof.num_changes} changes of files"
    )
    sys.exit(1 if num_wrong else 0)


if __name__ == "__main__":
    main()

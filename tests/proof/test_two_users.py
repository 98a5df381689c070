"""One store and two users of the machine: it is read by a group, written by a group, and no more.

Two users are two uids, which only the superuser can take on.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import QUICK, Pipeline

pytestmark = [
    pytest.mark.proof,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can act as two others"),
]
OWNER, OTHER, GROUP = 20_001, 20_002, 30_000
OPEN = """
set -e
mount --bind "$1" "$2"
mount -t tmpfs -o mode=755 tmpfs "$1"
for inner in "$2"/* "$2"/.[!.]*; do
  [ -d "$inner" ] || continue
  mkdir "$1/${inner##*/}"
  mount --bind "$inner" "$1/${inner##*/}"
done
shift 2
exec "$@"
"""
"""Lets others enter a folder, for the programs that are started here alone: a Python that lies in
the superuser's home can then be run by anybody. What is in the folder keeps its modes."""


def acting_as(uid: int, door: Path) -> list[str]:
    """Return what begins the line of a command that another user gives.

    Args:
        uid: Who.
        door: An empty folder.
    """
    act = ["setpriv", f"--reuid={uid}", f"--regid={GROUP}", "--clear-groups", sys.executable]
    above = reversed(Path(sys.executable).resolve().parents)
    closed = next((folder for folder in above if not folder.stat().st_mode & 0o001), None)
    opened = ["unshare", "--mount", "sh", "-c", OPEN, "sh", str(closed), str(door)]
    return act if closed is None else [*opened, *act]


class Shared:
    """A folder with images, a backbone and a store, where two users work."""

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        self.folder, self.door = folder, folder / "door"
        self.door.mkdir()
        self.images = Path(shutil.copytree(pipeline.images, folder / "images"))
        self.backbone = Path(shutil.copy2(pipeline.backbone, folder / "net.keras"))
        for uid in (OWNER, OTHER):
            (folder / f"home-{uid}").mkdir()
            os.chown(folder / f"home-{uid}", uid, GROUP)

    def make_store(self, mode: int) -> Path:
        store = self.folder / "store"
        store.mkdir()
        os.chown(store, OWNER, GROUP)
        store.chmod(mode)
        return store

    def headstart(
        self, uid: int, *arguments: str, umask: int, home: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        home = home or self.folder / f"home-{uid}"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
            "HOME": str(home),
            "HEADSTART_STORE": str(self.folder / "store"),
        }
        return subprocess.run(
            [*acting_as(uid, self.door), "-m", "headstart.cli", *arguments],
            env=environment,
            cwd=home,
            umask=umask,
            capture_output=True,
            text=True,
            timeout=1200,
        )

    def train(self, uid: int, *settings: str, umask: int) -> Any:
        chosen = (*QUICK, f"backbone.name={self.backbone}", *settings)
        options = [part for setting in chosen for part in ("--set", setting)]
        out = self.folder / f"home-{uid}" / "run"
        options += ["--out", str(out), "--overwrite", "--json"]
        done = self.headstart(uid, "train", str(self.images), *options, umask=umask)
        assert done.returncode == 0, done.stderr + done.stdout
        return {one["name"]: one["status"] for one in json.loads(done.stdout)["stages"]}


@pytest.fixture
def shared(pipeline: Pipeline) -> Iterator[Shared]:
    # Not below pytest's own folders, which only their owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = Shared(Path(folder), pipeline)
        asked = [*acting_as(OTHER, made.door), "-c", "import headstart.cli"]
        try:
            # In a folder of no importance: -c looks for modules there.
            subprocess.run(asked, cwd="/", check=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("another user may not read this Python or this clone")
        yield made


def test_a_group_that_may_read_finds_everything(shared: Shared) -> None:
    store = shared.make_store(0o2750)
    assert set(shared.train(OWNER, umask=0o027).values()) == {"miss"}
    before = sorted((path, path.lstat().st_mtime_ns) for path in store.rglob("*"))
    assert set(shared.train(OTHER, umask=0o027).values()) == {"hit"}
    assert sorted((path, path.lstat().st_mtime_ns) for path in store.rglob("*")) == before
    done = shared.headstart(
        OTHER,
        *("train", str(shared.images), "--backbone", str(shared.backbone)),
        *("--out", str(shared.folder / f"home-{OTHER}" / "another")),
        umask=0o027,
    )
    assert done.returncode == 4, done.stderr  # what is not there cannot be kept
    assert "read-only" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_group_that_may_write_works_as_one(shared: Shared) -> None:
    store = shared.make_store(0o2770)
    shared.train(OWNER, umask=0o007)
    first = shared.train(OTHER, "head.seed=1", umask=0o007)
    assert [first[name] for name in ("dataset", "views", "bottlenecks", "head")] == [
        *("hit", "hit", "hit"),
        "miss",
    ]
    assert set(shared.train(OWNER, "head.seed=1", umask=0o007).values()) == {"hit"}
    for uid in (OWNER, OTHER):
        done = shared.headstart(uid, "cache", "verify", umask=0o007)
        assert done.returncode == 0, done.stdout + done.stderr
    done = shared.headstart(OTHER, "cache", "gc", "--yes", umask=0o007)
    assert done.returncode in (0, 2), done.stdout + done.stderr
    assert {path.lstat().st_gid for path in store.rglob("*")} == {GROUP}


def test_commands_on_a_store_and_a_home_that_cannot_be_written(shared: Shared) -> None:
    store = shared.make_store(0o2750)
    shared.train(OWNER, umask=0o022)
    run = shared.folder / f"home-{OWNER}" / "run"
    home = shared.folder / "nobody-may-write-here"
    home.mkdir(mode=0o755)
    before = sorted(path for path in store.rglob("*"))
    backbone, out = str(shared.backbone), shared.folder / f"home-{OTHER}"
    quick = ("--set", "baseline.max_seconds=0.5", "--set", "baseline.image_size=16")
    expected: dict[str, tuple[int, ...]] = {}
    for arguments, codes in (
        (("models",), (0,)),
        (("sources", "ls"), (0,)),
        (("cache", "verify"), (0,)),
        (("predict", str(run), str(shared.images)), (0,)),
        (("explain", str(run), str(shared.images), "--out", str(out / "explained")), (0,)),
        (
            ("audit", str(shared.images), "--backbone", backbone, "--out", str(out / "audit")),
            (0, 4),
        ),
        (("rank", str(shared.images), "--backbones", backbone, *quick), (4,)),
        (("survey", "--backbones", backbone, "--out", str(out / "survey")), (0, 2, 4, 5)),
        (("promote", str(run)), (4,)),
        (("retrain", str(shared.images), "--set", f"backbone.name={backbone}"), (4,)),
    ):
        done = shared.headstart(OTHER, *arguments, umask=0o022, home=home)
        told = f"{arguments}: {done.returncode}: {done.stdout[-600:]} {done.stderr[-1200:]}"
        if done.returncode not in codes or "Traceback" in done.stderr:
            expected[told] = codes
    assert not expected, "\n".join(expected)
    assert sorted(path for path in store.rglob("*")) == before

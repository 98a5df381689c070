"""Crash bundles: all that a failing training step needs to be taken again elsewhere.

A bundle is a folder without absolute paths and without pickles:

    bundle.json    what failed, versions, logged losses, shapes of the files below
    model.keras    architecture and compile configuration
    state.npz      weights, optimizer and metric state before the snapshot's step
    batches.npz    the batches from that step to the failing one
    seal           says that it was written here (headstart.debug.replay.trust)
    sources/       the user's files that define the model's own classes and functions

Replaying runs the code in ``sources/`` and in the model: one that was not written here (it has no
seal of this user's) is replayed only with ``--trust``.
"""

import contextlib
import hashlib
import inspect
import json
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.debug.callsites import is_users
from headstart.debug.guard import harmless
from headstart.debug.replay.flight import Flight, Snapshot
from headstart.debug.replay.trust import seal
from headstart.errors import RecordError

SCHEMA = 1
"""Version of the layout; a reader refuses any other."""
MAX_GROWTH = 10
"""Times that a file of arrays may grow when it is unpacked; they are written as they are."""
ALLOWANCE_BYTES = 64 * 2**20
"""What it may grow by whatever its size."""
_ABSOLUTE_PATH = re.compile(r"(?<![\w.])/(?:[^\s/:'\",]+/)+")


@dataclass(frozen=True)
class Bundle:
    """A crash bundle read back.

    Args:
        folder: Folder it was read from.
        facts: The contents of ``bundle.json``.
        values: State before the snapshot's step, in the order of ``facts['state']``.
        batches: The batches, from the snapshot's step to the failing one.
    """

    folder: Path
    facts: dict[str, Any]
    values: list[npt.NDArray[Any]]
    batches: list[Any]

    @property
    def step(self) -> int:
        """The step that failed."""
        return int(self.facts["step"])

    @property
    def first_step(self) -> int:
        """The step before which the state was taken."""
        return int(self.facts["snapshot_step"])


def write_bundle(folder: Path, flight: Flight, model: Any, error: BaseException) -> Path:
    """Write what a recorder holds as a crash bundle.

    Args:
        folder: Where bundles are written.
        flight: What the recorder of the failed run holds.
        model: The model that was trained.
        error: Exception that ended the training.

    Returns:
        The bundle's folder: ``crash-<step>`` under the one given.

    Raises:
        RecordError: The recorder holds no state from before the failure.
    """
    snapshot = last_good(flight, model)
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".crash-", dir=folder))
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "step": flight.step,
        "snapshot_step": snapshot.step,
        "error_type": type(error).__name__,
        "error": without_paths(str(error)),
        "losses": {str(step): loss.hex() for step, loss in flight.losses.items()
                   if step >= snapshot.step},
        "versions": versions(),
        "steps_per_execution": int(model.steps_per_execution),
        "run_eagerly": bool(model.run_eagerly),
    }  # fmt: skip
    batches = [batch for step, batch in flight.batches if step >= snapshot.step]
    facts["batches"] = _write_batches(aside / "batches.npz", batches)
    facts["state"] = _write_state(aside / "state.npz", snapshot)
    facts["random"] = _random_state(snapshot)
    facts["sources"] = _copy_sources(aside / "sources", model)
    try:
        model.save(aside / "model.keras")
    except Exception as problem:  # replay says so; the rest of the bundle is still worth having
        facts["model_error"] = without_paths(str(problem))
    text = json.dumps(facts, indent=2)
    (aside / "bundle.json").write_text(text, encoding="utf-8")
    with harmless("the seal of the bundle"):  # without one, replaying it needs --trust
        seal(aside)
    return _rename(aside, folder / f"crash-{flight.step:06d}")


def read_bundle(folder: Path) -> Bundle:
    """Read a crash bundle.

    Args:
        folder: A bundle, or a folder that holds bundles: then the newest.

    Returns:
        The bundle.

    Raises:
        RecordError: There is none, or it was written by another version.
    """
    folder = find_bundle(folder)
    try:
        return _read(folder)
    except RecordError:
        raise
    except Exception as error:  # whatever json, zipfile, zlib and NumPy stumble on
        raise RecordError(
            "the crash bundle is incomplete or damaged",
            f"{folder}: {type(error).__name__}: {error}",
            "copy it again from where it was written",
        ) from error


def _read(folder: Path) -> Bundle:
    facts = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    if facts.get("schema") != SCHEMA:
        raise RecordError(
            f"the crash bundle was written by another version (schema {SCHEMA} is needed)",
            f"{folder}: schema {facts.get('schema')}",
            "replay it with the headstart version that wrote it",
        )
    names = [entry["name"] for entry in facts["sources"]]
    outside = [name for name in names if Path(name).name != name or name in ("", ".", "..")]
    if outside:
        raise RecordError(
            "the crash bundle refers to a source file outside its folder", f"{folder}: {outside[0]}"
        )
    with _arrays(folder / "state.npz") as arrays:
        entries = facts["state"]
        values = [_typed(arrays[f"v{i}"], entry["dtype"]) for i, entry in enumerate(entries)]
    with _arrays(folder / "batches.npz") as arrays:
        batches = [_unflatten(layout, arrays) for layout in facts["batches"]]
    return Bundle(folder, facts, values, batches)


@contextlib.contextmanager
def _arrays(path: Path) -> Iterator[Any]:
    """Open arrays that may come from anybody: a bundle is read before it is trusted."""
    if not path.is_file():  # a FIFO would be waited for
        raise ValueError(f"{path.name} is not a regular file")
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MAX_GROWTH * path.stat().st_size + ALLOWANCE_BYTES:
        raise ValueError(
            f"{path.name} unpacks to {unpacked:,} bytes, far more than its size on disk allows"
        )
    # Opened here: NumPy leaves a damaged one open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


def find_bundle(folder: Path) -> Path:
    """Return a bundle's folder: the one given, or the newest below it.

    Args:
        folder: A bundle or any folder above bundles.

    Returns:
        The folder that has the ``bundle.json``.

    Raises:
        RecordError: No bundle lies there.
    """
    found = [folder / "bundle.json", *folder.glob("**/crash-*/bundle.json")]
    found = [path for path in found if path.is_file()]
    if not found:
        raise RecordError(
            "there is no crash bundle (bundle.json) in this folder",
            str(folder),
            "train with a FlightRecorder, or give the folder of the failed run",
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent


def versions() -> dict[str, str]:
    """Return the versions that bear on whether a replay is exact to the bit."""
    return {
        "python": sys.version.split()[0],
        "tensorflow": str(tf.__version__),
        "keras": str(keras.__version__),
        "numpy": np.__version__,
    }


def without_paths(text: str) -> str:
    """Return a text with every absolute path cut to its file name."""
    return _ABSOLUTE_PATH.sub("", text)


def last_good(flight: Flight, model: Any) -> Snapshot:
    """Return the latest snapshot before the failing step whose weights are still finite.

    Args:
        flight: What the recorder holds.
        model: The model that was trained.

    Returns:
        The snapshot.

    Raises:
        RecordError: The recorder holds no such state.
    """
    wanted = {id(v) for v in (*model.variables, *model.optimizer.variables)}
    for snapshot in reversed(flight.snapshots):
        whole = wanted <= set(map(id, snapshot.variables))
        floats = [value for value in snapshot.values if value.dtype.is_floating]
        if whole and all(bool(tf.reduce_all(tf.math.is_finite(value))) for value in floats):
            return snapshot
    raise RecordError(
        "the recorder has no snapshot from before the failure",
        f"{len(flight.snapshots)} snapshots, none whole and finite",
        "take snapshots more often (every=1), or build the model before fit",
    )


def _write_state(path: Path, snapshot: Snapshot) -> list[dict[str, Any]]:
    arrays: dict[str, Any] = {}
    entries = []
    pairs = zip(snapshot.variables, snapshot.values, strict=True)
    for i, (variable, value) in enumerate(pairs):
        array = value.numpy()
        arrays[f"v{i}"] = _plain(array)
        entries.append(
            {"path": variable.path, "shape": list(array.shape), "dtype": array.dtype.name}
        )
    np.savez(path, **arrays)
    return entries


def _write_batches(path: Path, batches: list[Any]) -> list[Any]:
    arrays: dict[str, npt.NDArray[Any]] = {}
    layouts = [_flatten(batch, arrays) for batch in batches]
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return layouts


def _flatten(structure: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    if isinstance(structure, dict):
        return {"dict": {key: _flatten(value, arrays) for key, value in structure.items()}}
    if isinstance(structure, list | tuple):
        return {"tuple": [_flatten(value, arrays) for value in structure]}
    if structure is None:
        return None
    array = np.asarray(structure)
    if array.dtype.kind == "O":  # strings; NumPy would pickle them
        array = array.astype(np.bytes_)
    name = f"a{len(arrays)}"
    arrays[name] = _plain(array)
    return {"array": name, "dtype": np.asarray(structure).dtype.name}


def _unflatten(layout: Any, arrays: Any) -> Any:
    if layout is None:
        return None
    if "dict" in layout:
        return {key: _unflatten(value, arrays) for key, value in layout["dict"].items()}
    if "tuple" in layout:
        return tuple(_unflatten(value, arrays) for value in layout["tuple"])
    return _typed(arrays[layout["array"]], layout["dtype"])


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """NumPy files know no bfloat16 and its kin: keep their bytes."""
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _typed(array: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    if dtype == "object" or array.dtype.name == dtype:
        return array
    return array.view(tf.as_dtype(dtype).as_numpy_dtype)


def _random_state(snapshot: Snapshot) -> dict[str, Any]:
    numpy_random = dict(snapshot.numpy_random)
    state = {key: np.asarray(value).tolist() for key, value in numpy_random.pop("state").items()}
    version, words, gauss = snapshot.python_random
    return {
        "python": [version, list(words), gauss],
        "numpy": {**numpy_random, "state": state},
        "tensorflow": None
        if snapshot.tf_generator is None
        else snapshot.tf_generator.numpy().tolist(),
    }


def _copy_sources(folder: Path, model: Any) -> list[dict[str, str]]:
    entries = []
    for file, module in sorted(_user_files(model)):
        folder.mkdir(exist_ok=True)
        name = f"{module}.py"
        shutil.copyfile(file, folder / name)
        path = Path(file)
        here = Path.cwd()
        original = str(path.relative_to(here)) if path.is_relative_to(here) else path.name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entries.append({"name": name, "module": module, "original": original, "sha256": digest})
    return entries


def _user_files(model: Any) -> set[tuple[str, str]]:
    """Files and modules of the user's that define parts of the model."""
    found = set()
    for part in _parts(model):
        kind = part if inspect.isfunction(part) or inspect.isclass(part) else type(part)
        for owner in [kind, *(kind.__mro__[1:] if inspect.isclass(kind) else ())]:
            try:
                file = inspect.getfile(owner)
            except (TypeError, OSError):
                continue
            if is_users(file) and Path(file).is_file():
                found.add((str(Path(file).resolve()), str(owner.__module__)))
    return found


def _parts(model: Any) -> Iterator[Any]:
    yield model
    for layer in model._flatten_layers(include_self=False):
        yield layer
        yield from (value for value in vars(layer).values() if inspect.isfunction(value))
    yield model.optimizer
    yield getattr(model.optimizer, "_learning_rate", None)
    yield from tf.nest.flatten(model.loss)
    yield from model.metrics


def _rename(aside: Path, folder: Path) -> Path:
    """Give the finished bundle its name; an older one of the same step keeps its own."""
    target, number = folder, 1
    while target.exists():
        target, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return aside.rename(target)

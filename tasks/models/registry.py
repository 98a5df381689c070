"""Which model is in use: a JSON file in the store, and a copy of every model that was promoted.

Layout under the store's root::

    models/registry.json       every name, its version in use, all its versions
    models/<name>/<0001>/      what was promoted: model, report, figures, configuration

A promoted model is copied, so that nothing done to the run's folder reaches what is in use; and
a version is never changed, so that an earlier one is promoted again by its folder.
"""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from headstart.config import Split
from headstart.errors import ConfigError, RecordError
from headstart.tasks.dataset.image_manifest import MANIFEST_SUFFIXES
from headstart.tasks.export.seen_images import SEEN_FILE
from headstart.tasks.runs.run_folder import RUN_FILE
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.fingerprint import file_digest
from headstart.tasks.store.sealing import read_sealed

MODEL_FILE = "model.keras"
COPIED = (MODEL_FILE, RUN_FILE, "config.yaml", "metrics.json", "report.html", SEEN_FILE)
"""Files of a run that are kept with a promoted model, where the run has them."""
CURRENT = "current"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(rf"({_NAME.pattern})@({CURRENT}|[0-9]+)")


class Version(BaseModel, frozen=True, extra="forbid"):
    """One promoted model."""

    number: int
    folder: str
    """Relative to the store's root."""
    run: str
    """Folder of the run it was copied from."""
    sha256: str
    """Of the model file."""
    promoted: datetime
    split: Split | None
    """The split that it was judged on; None where it was not."""
    accuracy: float | None
    """There; None where the model was judged by another figure."""
    accuracy_before: float | None
    """Of the version it replaced, on the same images; None for the first and for a forced one."""
    forced: bool
    metric: str = "accuracy"
    """What it was judged by."""
    value: float | None = None
    """Of that figure, where it is another than the accuracy."""
    value_before: float | None = None


class Attempt(BaseModel, frozen=True, extra="forbid"):
    """What the last retraining started from: the same again would give the same."""

    dataset: str
    """Digest of images, labels and splits."""
    config: str
    """Digest of the configuration."""
    run: str
    decision: str


class Entry(BaseModel, frozen=True, extra="forbid"):
    """A name and its versions."""

    current: int | None = None
    """Number of the version in use."""
    versions: tuple[Version, ...] = ()
    last_attempt: Attempt | None = None

    @property
    def in_use(self) -> Version | None:
        """The version in use."""
        return next((one for one in self.versions if one.number == self.current), None)


class Registry:
    """The models of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.root / "models"
        self._path = self._folder / "registry.json"

    def entries(self) -> dict[str, Entry]:
        """Read all names with their versions.

        Raises:
            RecordError: The registry's file is damaged.
        """
        if not self._path.exists():
            return {}
        try:
            fields = read_sealed(self._path)
            models: dict[str, Any] = fields.pop("models")
            if fields:  # a damaged checksum's name
                raise ValueError(f"it has unknown fields: {', '.join(fields)}")
            return {name: Entry.model_validate(entry) for name, entry in models.items()}
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise RecordError(
                "the registry of models cannot be read as the JSON that headstart writes",
                f"{self._path}: {error}",
                "restore it from a backup; the models themselves lie beside it",
            ) from None

    def entry(self, name: str) -> Entry:
        """Return what is known of a name; an empty entry where nothing is."""
        return self.entries().get(name, Entry())

    def add(
        self,
        name: str,
        run: Path,
        split: Split | None,
        value: float | None,
        value_before: float | None,
        forced: bool,
        metric: str = "accuracy",
    ) -> Version:
        """Copy a run's model and make it the one in use.

        Args:
            name: Under which it is used.
            run: Folder of a finished run, or of an earlier version.
            split: The split that it was judged on, if it was.
            value: How good it is there.
            value_before: How good the version in use so far is, on the same images.
            forced: Whether it was promoted without being better.
            metric: The figure that these are of.
        """
        check_name(name)
        check_run(run)
        self._store.check_writable("promoted model")
        with self._store.lock("registry"):
            entries = self.entries()
            entry = entries.get(name, Entry())
            number = 1 + max((one.number for one in entry.versions), default=0)
            target = self._folder / name / f"{number:04}"
            with self._store.staging() as folder:
                staged = folder / "version"
                staged.mkdir()
                for file in COPIED:
                    if (run / file).is_file():
                        shutil.copyfile(run / file, staged / file)
                sha256 = file_digest(staged / MODEL_FILE)
                self._store.publish(staged, target)
            version = Version(
                number=number,
                folder=self._store.relative(target),
                run=str(run),
                sha256=sha256,
                promoted=datetime.now(UTC),
                split=split,
                accuracy=value if metric == "accuracy" else None,
                accuracy_before=value_before if metric == "accuracy" else None,
                forced=forced,
                metric=metric,
                value=None if metric == "accuracy" else value,
                value_before=None if metric == "accuracy" else value_before,
            )
            update = {"current": number, "versions": (*entry.versions, version)}
            self._write({**entries, name: entry.model_copy(update=update)})
        return version

    def note_attempt(self, name: str, attempt: Attempt) -> None:
        """Remember what a retraining started from and what came of it."""
        check_name(name)
        self._store.check_writable("last attempt")
        with self._store.lock("registry"):
            entries = self.entries()
            entry = entries.get(name, Entry())
            self._write({**entries, name: entry.model_copy(update={"last_attempt": attempt})})

    def folder_of(self, version: Version) -> Path:
        """Return the folder of a version, whose model is the one that was promoted.

        Raises:
            RecordError: It is damaged or gone.
        """
        folder = self._store.root / version.folder
        try:
            is_own = file_digest(folder / MODEL_FILE) == version.sha256
        except OSError:
            is_own = False
        if not is_own:
            raise RecordError(
                "a promoted model is damaged or missing",
                f"{folder / MODEL_FILE} is missing, or not the file that was promoted",
                f"restore it from a backup, or promote {version.run} again",
            )
        return folder

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each promoted model's file, by its path in the store."""
        return {
            f"{version.folder}/{MODEL_FILE}": version.sha256
            for entry in self.entries().values()
            for version in entry.versions
        }

    def resolve(self, reference: str) -> Path | None:
        """Find the model that a reference means.

        Args:
            reference: NAME@current, NAME@3, or "current" where the store has one name only.

        Returns:
            The version's folder; None where the text is not of this form.

        Raises:
            ConfigError: There is no such name or version.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is None and reference != CURRENT:
            return None
        entries = {name: entry for name, entry in self.entries().items() if entry.versions}
        if match is None:
            if len(entries) != 1:
                raise _no_model(reference, entries)
            name, wanted = next(iter(entries)), CURRENT
        else:
            name, wanted = match[1], match[2]
        entry = entries.get(name, Entry())
        number = entry.current if wanted == CURRENT else int(wanted)
        for version in entry.versions:
            if version.number == number:
                return self.folder_of(version)
        raise _no_model(reference, entries)

    def _write(self, entries: dict[str, Entry]) -> None:
        models = {name: entry.model_dump(mode="json") for name, entry in entries.items()}
        self._store.write_json(self._path, {"models": models})


def _no_model(reference: str, entries: dict[str, Entry]) -> ConfigError:
    known = ", ".join(f"{name}@{one.number}" for name in entries for one in entries[name].versions)
    return ConfigError(
        "there is no such model: expected the path of a run or a model file, "
        "NAME@current or NAME@NUMBER",
        f"{reference!r}; the store has {known or 'no promoted model'}",
        "`headstart models` lists them, `headstart promote RUN` adds one",
    )


def check_name(name: str) -> None:
    """Refuse a name that cannot be a folder's.

    Raises:
        ConfigError: It is not 1 to 64 letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "invalid name for a model: use up to 64 letters, digits, dots, dashes and underscores",
            repr(name),
            "choose one with --name",
        )


def check_run(run: Path) -> None:
    """Refuse a folder that is not that of a finished run with a model.

    Raises:
        ConfigError: The folder has no summary of a finished run, or no .keras file.
    """
    if (run / RUN_FILE).is_file() and not (run / MODEL_FILE).is_file():
        raise without_keras_file(run)
    if not (run / RUN_FILE).is_file():
        raise ConfigError(
            f"this is not the folder of a finished run, which has {RUN_FILE} and {MODEL_FILE}",
            f"{run}",
            "give the run_dir that `headstart train --json` names",
        )


def without_keras_file(run: Path) -> ConfigError:
    """Say that a run has no model.keras, as one over a backbone that is a SavedModel has none."""
    return ConfigError(
        f"the run has no {MODEL_FILE}, which is the file that is compared, promoted and "
        "registered: a run with a SavedModel backbone has only a SavedModel",
        str(run),
        "train on a backbone of `headstart backbones` or a .keras file; saved_model/ of the run "
        "can be served and used by `headstart predict` as it is",
    )


def default_name(images: Path) -> str:
    """Return the name of a data set's model where none was chosen: that of the data set."""
    images = images.resolve()
    is_manifest = images.suffix.lower() in MANIFEST_SUFFIXES and not images.is_dir()
    name = images.stem if is_manifest else images.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64] or "model"

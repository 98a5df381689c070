"""The folder of a run whose results are pages and tables: made, filled and summed up."""

import json
import shutil
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from headstart.config import Config, build_config
from headstart.errors import ConfigError
from headstart.tasks.running.stage import Outcome
from headstart.tasks.store.artifacts import Store

RUN_FILE = "run.json"
"""Written last: a folder that has it is a finished run."""
CONFIG_FILE = "config.yaml"
WATCHED = ("tensorboard", "crash")
"""Folders with what was seen of each training."""


def open_folder(store: Store, flow: str, config: Config, out: Path | None) -> Path:
    """Make the folder of a new run, with its configuration in the form that ``--config`` reads.

    Args:
        store: Under whose runs/ it goes where no other place is asked for.
        flow: Begins its name there.
        config: Of the run.
        out: A folder of the user's choice; an earlier run of the same flow in it is replaced.

    Returns:
        The folder, which exists.

    Raises:
        ConfigError: The chosen folder cannot be written, or holds something else than such a run.
    """
    folder = _new_folder(store, flow) if out is None else _chosen_folder(config, out)
    (folder / RUN_FILE).unlink(missing_ok=True)
    for name in WATCHED:  # of an earlier run: this one's would stand among them
        shutil.rmtree(folder / name, ignore_errors=True)
    fields = config.model_dump(mode="json")
    dataset = fields.get("dataset")
    for name in ("images", "exclude", "root"):  # so that it is the same run from any working folder
        if dataset and dataset.get(name):
            dataset[name] = str(Path(dataset[name]).expanduser().absolute())
    text = yaml.safe_dump(fields, sort_keys=False)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    return folder


def _new_folder(store: Store, flow: str) -> Path:
    stamp = f"{flow}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = store.root / "runs" / stamp, 1
    while folder.exists():  # two runs in one second
        number += 1
        folder = folder.with_name(f"{stamp}-{number}")
    folder.mkdir(parents=True)
    return folder


def _chosen_folder(config: Config, out: Path) -> Path:
    folder = out.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = any(folder.iterdir()) and not _is_of(type(config), folder)
    except OSError as error:
        raise ConfigError(
            "--out is a folder that can be written.", f"{folder}: {error}", "choose another"
        ) from None
    if foreign:
        raise ConfigError(
            "--out is a new or empty folder, or that of an earlier run of the same command.",
            f"{folder} holds other files",
            "choose another folder",
        )
    return folder


def _is_of(model: type[Config], folder: Path) -> bool:
    try:
        build_config(model, file=folder / CONFIG_FILE)
    except ConfigError:
        return False
    return True


def close_folder(folder: Path, summary: dict[str, Any]) -> None:
    """Write a run's summary; the run is finished."""
    text = json.dumps(summary, indent=1)
    (folder / RUN_FILE).write_text(text + "\n", encoding="utf-8")


def seconds_since(started_s: float) -> float:
    """Return the seconds since a monotonic time, to the millisecond."""
    return round(time.monotonic() - started_s, 3)


def cold_seconds(outcomes: Sequence[Outcome]) -> float:
    """Estimate what stages take where nothing is in the store.

    Args:
        outcomes: How they went.

    Returns:
        Seconds: of each stage what making it took, scaled up to all rows where some were in the
        store. Where all were, what they took is not known, and only what it took without them
        counts.
    """
    return sum(outcome.made_s / (outcome.share_computed or 1.0) for outcome in outcomes)

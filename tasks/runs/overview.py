"""The runs of a store side by side: what each was of, what came out, and when."""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from headstart.config import CONFIG_OF
from headstart.errors import ConfigError
from headstart.reading import MAX_CONFIG_BYTES, read_regular
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.evaluation.report_content import percent
from headstart.tasks.runs.config_file import CONFIG_FILE, read_config
from headstart.tasks.runs.run_folder import ELSEWHERE_FILE, FAILED_FILE, RUN_FILE, RUNS_FOLDER
from headstart.tasks.store.sealing import read_sealed

SORTS = ("when", "data", "backbone", "cut", "head", "accuracy", "seconds", "name")
"""By what runs can be put in order."""


@dataclass(frozen=True)
class RunLine:
    """A run in a line.

    Attributes:
        command: The command that makes such runs: train, finetune, rank, …
        backbone: Name of the backbone or the network; empty where there are several or none.
        cut: Where it was cut; empty where it was not.
        head: linear, mlp or tail; the command where that trains something else.
        split: The split that the accuracy was measured on; None where there is none.
        accuracy: Share in [0, 1]; None where the run has none.
        accuracy_interval: Its interval of confidence.
        metric: What the run is known by where it has no classes: mAP of labels, MAE of numbers.
        value: Value of that metric on the split.
        value_interval: Its interval of confidence.
        seconds: Duration; None where the run is not finished.
        when: End of a finished run, else the beginning, in local time.
        report: File name of its page; None where there is none.
        status: finished, failed, or unfinished: at work, or killed.
        reason: Why it failed; empty where it did not.
    """

    name: str
    folder: str
    command: str
    data: str
    backbone: str
    cut: str
    head: str
    split: str | None
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    seconds: float | None
    when: datetime
    report: str | None
    status: str
    reason: str
    metric: str | None = None
    value: float | None = None
    value_interval: tuple[float, float] | None = None

    @property
    def accuracy_text(self) -> str:
        """The accuracy with its interval, or what else the run is known by."""
        if self.metric is not None and self.value is not None:
            text = f"{self.split} {self.metric} {self.value:.4g}"
            if self.value_interval is None:
                return text
            least, most = self.value_interval
            return f"{text} ({least:.4g} to {most:.4g})"
        if self.accuracy is None:
            return ""
        text = f"{self.split} {percent(self.accuracy)}"
        if self.accuracy_interval is None:
            return text
        low, high = (f"{100 * bound:.1f}" for bound in self.accuracy_interval)
        return f"{text} ({low} to {high})"

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON data."""
        return {**asdict(self), "when": self.when.astimezone().isoformat(timespec="seconds")}


def list_runs(store_root: Path) -> list[RunLine]:
    """List the runs of a store, the newest first, those that ``--out`` put elsewhere too."""
    runs = store_root / RUNS_FOLDER
    folders = list(runs.iterdir()) if runs.is_dir() else []
    with contextlib.suppress(OSError):
        data = read_regular(runs / ELSEWHERE_FILE, MAX_CONFIG_BYTES)
        named = data.decode(errors="surrogateescape")
        folders += [Path(line) for line in dict.fromkeys(named.splitlines()) if line]
    lines = [read_run(folder) for folder in folders]
    return sort_runs([line for line in lines if line is not None], "when")


def sort_runs(lines: Sequence[RunLine], by: str, *, descending: bool = True) -> list[RunLine]:
    """Put runs in order; those that lack what they are ordered by come last.

    Args:
        lines: Runs in any order.
        by: An entry of `SORTS`: what they are ordered by.
        descending: The largest, newest or last letter first.
    """
    newest = sorted(lines, key=lambda line: line.when, reverse=True)
    has = [line for line in newest if getattr(line, by) not in (None, "")]
    lacks = [line for line in newest if getattr(line, by) in (None, "")]
    return [*sorted(has, key=lambda line: getattr(line, by), reverse=descending), *lacks]


def read_run(folder: Path) -> RunLine | None:
    """Read what is known of a run; None where the folder is not that of one."""
    try:
        if folder.is_symlink() or not folder.is_dir():
            return None
        config = read_config(folder)
        command = _command(config)
        began = (folder / CONFIG_FILE).stat().st_mtime
        described = _describe(config, command)
    except (OSError, ValueError, yaml.YAMLError, AttributeError, TypeError):
        return None
    fields, when = _read(folder / RUN_FILE), began
    status, reason, seconds = "finished", "", None
    if fields is None:
        failure = _read(folder / FAILED_FILE)
        status = "unfinished" if failure is None else "failed"
        reason = str((failure or {}).get("problem", ""))
    else:
        when = (folder / RUN_FILE).stat().st_mtime
        seconds = fields.get("seconds")
    return RunLine(
        name=folder.name,
        folder=str(folder),
        command=command,
        **described,
        **_judged(fields or {}),
        seconds=seconds,
        when=datetime.fromtimestamp(when),
        report=Path(fields["report"]).name if fields and "report" in fields else None,
        status=status,
        reason=reason,
    )


def find_run(store_root: Path, text: str) -> RunLine:
    """Find a run by its number in the list, a part of its name, or its folder.

    Args:
        store_root: Folder of the store whose runs are listed.
        text: Number, part of the name, or folder; 1 is the newest run.

    Raises:
        ConfigError: No run fits, or several do.
    """
    lines = list_runs(store_root)
    if text.isdecimal() and 1 <= int(text) <= len(lines):
        return lines[int(text) - 1]
    if (line := read_run(Path(text).expanduser().absolute())) is not None:
        return line
    found = [line for line in lines if line.name == text] or [
        line for line in lines if text and text in line.name
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(line.name for line in found[:5])
    raise ConfigError(
        "several runs have this in their name" if found else "there is no such run",
        repr(text) + (f": {names}" if found else f"; the store has {len(lines):,} runs"),
        "give a number or a name that `headstart runs` lists, or a run's folder",
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_sealed(path)
    except (OSError, ValueError):
        return None


def _command(config: dict[str, Any]) -> str:
    """Say of a configuration's sections which command they are of."""
    found = set(config)

    def likeness(command: str) -> float:
        known = set(CONFIG_OF[command].model_fields)
        return len(found & known) / len(found | known)

    return max(CONFIG_OF, key=likeness)


def _describe(config: dict[str, Any], command: str) -> dict[str, Any]:
    backbone = config.get("backbone", {}).get("name") or config.get("network", {}).get("name", "")
    trains = command in ("train", "retrain", "sweep", "finetune")
    head = config["head"]["kind"] if command in ("train", "retrain") else command
    if budget_s := (config.get("budget") or {}).get("seconds"):
        head = f"best in {budget_s:g} s"
    return {
        "data": Path(config.get("dataset", {}).get("images") or "").name,
        "backbone": Path(backbone).name,
        "cut": config.get("bottlenecks", {}).get("cut", "") if trains else "",
        "head": head,
    }


def _judged(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what a run is judged by: of test where there is one, else of val."""
    metrics = fields.get("metrics")
    for split in ("test", "val"):
        figures = metrics.get(split) if isinstance(metrics, dict) else None
        if not isinstance(figures, dict):
            continue
        judge = next((one for one in JUDGES.values() if one.main in figures), None)
        if judge is None or not isinstance(figures[judge.main], float):
            continue
        interval = figures.get(f"{judge.main}_interval")
        told = figures[judge.main], tuple(interval) if interval else None
        if judge.main == "accuracy":
            return {"split": split, "accuracy": told[0], "accuracy_interval": told[1]}
        return {
            "split": split,
            "accuracy": None,
            "accuracy_interval": None,
            "metric": judge.main_name,
            "value": told[0],
            "value_interval": told[1],
        }
    return {"split": None, "accuracy": None, "accuracy_interval": None}

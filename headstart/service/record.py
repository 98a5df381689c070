"""The record of a running `headstart up`: who it is and where it answers.

It lies in the store, so that a run over the same store finds the server that records it, and its
report the address it can be opened at. Nothing here imports Prefect.
"""

import uuid
from pathlib import Path

from pydantic import BaseModel, ValidationError

from headstart.reading import MAX_CONFIG_BYTES, read_regular

FOLDER = "service"
"""Folder of the store that `headstart up` keeps its database, its logs and its record in."""
RECORD_NAME = "service.json"
HEARTBEAT_S = 30
"""Seconds between a flow run's signs of life; Prefect allows no less. Its own default of 180 is too
long for the automation that ends silent runs."""


class Started(BaseModel, frozen=True):
    """A process, told apart from a later one that got the same number."""

    name: str
    pid: int
    birth: int
    """When the system started it, in clock ticks since boot."""

    @classmethod
    def of(cls, name: str, pid: int) -> "Started":
        """Describe a process that runs now."""
        return cls(name=name, pid=pid, birth=birth_of(pid) or 0)

    def is_alive(self) -> bool:
        """Say whether it still runs."""
        return birth_of(self.pid) == self.birth


class ServiceRecord(BaseModel, frozen=True):
    """A running `headstart up`."""

    up: Started
    children: tuple[Started, ...] = ()
    offspring: tuple[Started, ...] = ()
    """What the children had started a moment ago: flow runs, and the processes of these."""
    api_url: str
    """Of the Prefect server, with /api."""
    dashboard_url: str
    tensorboard_url: str
    runs_url: str
    """Where the store's runs/ can be opened in a browser, without a slash at the end."""
    pool: str
    """Name of the work pool."""
    token: str = ""
    """That the Prefect server wants to see; see `headstart.service.guard`."""

    def pages(self) -> dict[str, str]:
        """Return the addresses to open in a browser, by name."""
        return {
            "Prefect": f"{self.dashboard_url}/?token={self.token}",
            "TensorBoard": f"{self.tensorboard_url}/",
            "reports": self.runs_url,
        }

    def variables(self) -> dict[str, str]:
        """Return what makes the prefect command and scripts talk to the server."""
        from headstart.service.guard import auth_string

        auth = {"PREFECT_API_AUTH_STRING": auth_string(self.token)} if self.token else {}
        beat = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}
        return {"PREFECT_API_URL": self.api_url, **auth, **beat}

    def write(self, store_root: Path) -> None:
        """Write the record into a store, in one step, for its owner's eyes."""
        path = record_path(store_root)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        aside.touch(mode=0o600, exist_ok=False)  # the token is in it
        aside.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        aside.replace(path)


def record_path(store_root: Path) -> Path:
    """Return where a store's record lies or would lie."""
    return store_root / FOLDER / RECORD_NAME


def read_record(store_root: Path) -> ServiceRecord | None:
    """Return a store's record, of a service that runs or that was killed; None without one."""
    try:
        data = read_regular(record_path(store_root), MAX_CONFIG_BYTES)
        return ServiceRecord.model_validate_json(data)
    except (OSError, ValidationError):
        return None


def running_service(store_root: Path) -> ServiceRecord | None:
    """Return the record of the `headstart up` that runs over a store now."""
    record = read_record(store_root)
    return record if record is not None and record.up.is_alive() else None


def birth_of(pid: int) -> int | None:
    """Return when a process was started, in clock ticks since boot; None if it has ended."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in ("Z", "X") else int(stat[19])


def descendants(pids: list[int]) -> list[Started]:
    """List the processes that some processes have started, and these in turn.

    Returns:
        Those that run now, without the given ones themselves.
    """
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        if stat := _stat(pid):
            parents.setdefault(int(stat[1]), []).append(pid)
    found: list[Started] = []
    waiting = list(pids)
    while waiting:
        for pid in parents.get(waiting.pop(), ()):
            waiting.append(pid)
            found.append(Started.of("child", pid))
    return found


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on; a name before it may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()

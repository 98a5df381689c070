"""The processes that `headstart up` starts: each in a session of its own, with a log file."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from headstart.addresses import open_url
from headstart.errors import ServiceError
from headstart.service.record import Started, descendants

LOOPBACK = "127.0.0.1"
STOP_LIMIT_S = 10.0
"""Seconds a process gets to end by itself; Prefect's server and worker take one or two."""
KILL_LIMIT_S = 5.0
NUM_PORTS_TRIED = 50
ANSWER_LIMIT_S = 5.0
LOG_TAIL_LINES = 8
"""Lines of a log shown when a process did not start."""


class Child:
    """A process that runs for as long as `headstart up` does.

    It leads a session of its own, so that Ctrl-C in the terminal reaches `headstart up` alone,
    which ends its children in order.

    Args:
        name: Such as "worker"; used in messages and in the service's record.
        command: Program and arguments, not run by a shell.
        environment: All of its variables.
        log: File that its output is appended to.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again where it has ended."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """Its number, once it was started."""
        return self._process.pid if self._process else None

    def has_ended(self) -> bool:
        """Say whether it was started and runs no more."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """End it and all that it started."""
        if self._process is None:
            return
        # Before it ends: afterwards nobody knows whose children they were.
        started = descendants([self._process.pid])
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_LIMIT_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        end_all(started)

    def tail(self) -> str:
        """Return the last lines of its log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(line for line in lines[-LOG_TAIL_LINES:] if line.strip())


def end_all(processes: Iterable[Started]) -> list[Started]:
    """End processes, by force where they do not end by themselves.

    Args:
        processes: Some that may have ended already.

    Returns:
        Those that still ran.
    """
    alive = [process for process in processes if process.is_alive()]
    for sign, limit_s in ((signal.SIGTERM, STOP_LIMIT_S), (signal.SIGKILL, KILL_LIMIT_S)):
        for process in alive:
            if process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, sign)
        deadline_s = time.monotonic() + limit_s
        while any(process.is_alive() for process in alive) and time.monotonic() < deadline_s:
            time.sleep(0.05)
    return alive


def choose_port(wanted: int | None, default: int, what: str, stack: ExitStack) -> int:
    """Choose a TCP port on loopback.

    Args:
        wanted: The user's choice; None for the default or the next free one after it.
        default: First port to try where the user chose none.
        what: What will listen there, for the error.
        stack: At whose end the port is given back; until then no other `headstart up` of this
            user takes it, even before anything listens there.

    Raises:
        ServiceError: The user's choice is taken, or no port is free.
    """
    candidates = range(default, default + NUM_PORTS_TRIED) if wanted is None else (wanted,)
    for port in candidates:
        lock = FileLock(Path(tempfile.gettempdir()) / f"headstart-{os.getuid()}-port-{port}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            if _is_free(port):
                stack.callback(lock.release)
                return port
            lock.release()
    raise ServiceError(
        f"no free port on {LOOPBACK} for {what}",
        f"{candidates[0]} is taken" if wanted is not None else f"none from {default} on is free",
        "choose another port, or leave the option out to get the next free one",
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do it: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def answers(url: str) -> bool:
    """Say whether a page on this machine can be fetched."""
    try:
        with open_url(url, ANSWER_LIMIT_S) as reply:
            return bool(reply.status == 200)
    except (OSError, ValueError, http.client.HTTPException):
        return False

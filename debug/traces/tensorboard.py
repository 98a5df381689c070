"""TensorBoard on loopback, with the pages that a run has something to show on.

with start_tensorboard(run_dir) as board:
    print(board.url)
"""

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from headstart.errors import ServiceError

START_LIMIT_S = 180.0
"""Seconds in which TensorBoard must say its address; on a busy machine its imports took over 60."""
STOP_LIMIT_S = 10.0
"""Seconds it gets to end by itself."""
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
"""What TensorBoard is started with besides: it shall be quiet, and leave the GPU to others."""
_ADDRESS = re.compile(r"(http://\S+?)/? \(Press CTRL")


@dataclass
class Board:
    """A running TensorBoard.

    Args:
        url: Its address, which nobody else knows, without a slash at the end.
        log_dir: Folder that it shows.
        process: The child process; it leads a process group of its own.
    """

    url: str
    log_dir: Path
    process: "subprocess.Popen[str]"

    def __enter__(self) -> "Board":
        """Return the board itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop it."""
        self.stop()

    def pages(self) -> dict[str, str]:
        """Return the addresses of the pages that have something to show, by name.

        The debugger's tab is labelled inactive by TensorBoard even where it works, so its address
        is the way to it.
        """
        found = {"overview": self.url}
        if any(self.log_dir.rglob("*.metadata")):
            found["debugger"] = f"{self.url}/#debugger-v2"
        if any(self.log_dir.rglob("*.xplane.pb")):
            found["profile"] = f"{self.url}/#profile"
        if any(self.log_dir.rglob("*tfevents*")):
            found["scalars"] = f"{self.url}/#timeseries"
            found["graph"] = f"{self.url}/#graphs"
        return found

    def wait(self) -> None:
        """Wait until it ends or the user interrupts; then stop it."""
        try:
            self.process.wait()
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    def stop(self) -> None:
        """End TensorBoard and the data server that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


def start_tensorboard(log_dir: Path, port: int = 0) -> Board:
    """Start TensorBoard on loopback and wait until it answers.

    Args:
        log_dir: What to show: a run's folder, a dump, a profile, or a folder above them.
        port: TCP port; 0 lets the system choose.

    Returns:
        The running board; close it with ``stop`` or a ``with`` block.

    Raises:
        ServiceError: There is no such folder, or TensorBoard did not start.
    """
    if not log_dir.is_dir():
        raise ServiceError(
            "there is no such folder of logs, dumps or profiles", str(log_dir), "check the path"
        )
    process = subprocess.Popen(
        # Below a path that no page from elsewhere can guess: TensorBoard asks nobody who they are,
        # and its debugger shows the program.
        [*command(_shown(log_dir), port), "--path_prefix", f"/{secrets.token_urlsafe(16)}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **ENVIRONMENT},
    )
    lines: Queue[str] = Queue()
    threading.Thread(target=_drain, args=(process, lines), daemon=True).start()
    url = _address(process, lines)
    return Board(url, log_dir, process)


def command(log_dir: Path, port: int) -> list[str]:
    """Return the command that serves a folder on loopback, with debugger and profiler.

    Args:
        log_dir: Folder to show.
        port: TCP port; 0 lets the system choose.
    """
    return [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir),
            "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]  # fmt: skip


def _shown(log_dir: Path) -> Path:
    """The folder to give TensorBoard: its debugger reads only a dump directly below --logdir."""
    dumps = {path.parent for path in log_dir.rglob("*.metadata")}
    return dumps.pop() if len(dumps) == 1 else log_dir


def _drain(process: "subprocess.Popen[str]", lines: "Queue[str]") -> None:
    """Read on for as long as it runs: a full pipe would stop it."""
    assert process.stderr is not None
    try:
        for line in process.stderr:
            lines.put(line)
    except ValueError:  # closed by stop
        return


def _address(process: "subprocess.Popen[str]", lines: "Queue[str]") -> str:
    seen: list[str] = []
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=0.2)
        except Empty:
            if process.poll() is not None:
                break
            continue
        seen.append(line)
        match = _ADDRESS.search(line)
        if match:
            return match[1]
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    raise ServiceError(
        f"TensorBoard did not start within {START_LIMIT_S:.0f} s",
        "".join(seen[-5:]).strip(),
        "try `tensorboard --logdir` by hand, or another --port",
    )

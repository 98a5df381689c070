"""The process in which a program runs: started, held within its cap and its time, and ended."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from headstart.debug.running.child import RunSpec

CAP_HEADROOM = 0.8
"""Share of the cap at which the process is ended: what it writes until then must fit the rest."""
POLL_S = 0.02
GRACE_S = 10.0
"""Seconds a stopped process has to write what it knows."""
TOLD_S = 0.5
"""Seconds after Ctrl-C at a terminal in which the process has got it as well."""


@dataclass
class Ended:
    """How a child process ended.

    Args:
        exit_code: Its exit code; negative for a signal.
        dropped: What the disk cap cut off, in a sentence; empty where it did not.
        stopped: Why it was stopped from outside, in a sentence; empty where it was not.
    """

    exit_code: int
    dropped: str = ""
    stopped: str = ""


Launch = Callable[[RunSpec, int], Ended]
"""Runs a specification in a process of its own, given the disk cap in bytes of its dump."""


def subprocess_launcher(output: TextIO | None, limit_s: float | None = None) -> Launch:
    """Return what runs a specification in a new Python process.

    Args:
        output: Where the script's own output goes in the first run; None discards it.
        limit_s: Seconds after which it is stopped; None waits.

    Returns:
        A `Launch`.
    """

    def launch(spec: RunSpec, cap_bytes: int) -> Ended:
        spec_file = Path(spec.outcome_file).with_suffix(".spec.json")
        spec_file.write_text(json.dumps(asdict(spec)), encoding="utf-8")
        stream: Any = output if spec.stage == "watch" and output is not None else subprocess.DEVNULL
        # Else TensorFlow fills a screen before the first line of the script's own.
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
        if spec.stage != "watch":
            environment["TF_XLA_FLAGS"] = (
                environment.get("TF_XLA_FLAGS", "") + " --tf_xla_auto_jit=-1"
            ).strip()
        process = subprocess.Popen(
            [sys.executable, "-m", "headstart.debug.running.child", str(spec_file)],
            stdin=None if spec.stage == "watch" else subprocess.DEVNULL,
            stdout=stream,
            stderr=None if stream is output and output is not None else subprocess.DEVNULL,
            env=environment,
        )
        folder = Path(spec.dump_folder) if spec.dump_folder else None
        deadline = None if limit_s is None else time.monotonic() + limit_s
        try:
            return wait_within_cap(process.pid, process.poll, folder, cap_bytes, deadline)
        except KeyboardInterrupt:  # the child got it too, and writes what it knows
            _stop(process.pid, process.poll, is_told=True)
            return Ended(-signal.SIGINT, stopped="It was interrupted.")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    return launch


def wait_within_cap(
    pid: int,
    poll: Callable[[], int | None],
    folder: Path | None,
    cap_bytes: int,
    deadline: float | None = None,
) -> Ended:
    """Wait for a process, and end it before its folder reaches a cap, or at a deadline.

    Args:
        pid: Number of the process.
        poll: Returns its exit code, or None while it runs.
        folder: Folder that it fills; None where it fills nothing.
        cap_bytes: Most that the folder may take.
        deadline: Latest end, by ``time.monotonic``; None waits without a limit.

    Returns:
        How it ended.
    """
    previous = 0
    while (exit_code := poll()) is None:
        if deadline is not None and time.monotonic() > deadline:
            _stop(pid, poll, is_told=False)
            return Ended(-signal.SIGINT, stopped="It was stopped at its time limit.")
        if folder is not None:
            written = folder_bytes(folder)
            growth, previous = max(0, written - previous), written
            # The next look comes a poll later: what may be written until then counts already.
            if written + 2 * growth > CAP_HEADROOM * cap_bytes:
                os.kill(pid, signal.SIGKILL)
                while poll() is None:
                    time.sleep(POLL_S)
                kept = _cut_to(folder, cap_bytes)
                return Ended(
                    -signal.SIGKILL,
                    f"The dump was stopped at {kept:,} bytes, near its cap of {cap_bytes:,}: "
                    "what the script did after that was not recorded.",
                )
        time.sleep(POLL_S)
    return Ended(exit_code)


def _stop(pid: int, poll: Callable[[], int | None], is_told: bool) -> None:
    """Let a process say where it stands and what it knows, and end it where it does not end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)  # its stacks, for the case that it hangs
        if is_told:  # by the terminal; a signal to this process alone does not reach it
            time.sleep(TOLD_S)
        if poll() is None:
            os.kill(pid, signal.SIGINT)
        end = time.monotonic() + GRACE_S
        while poll() is None and time.monotonic() < end:
            time.sleep(POLL_S)
        if poll() is None:
            os.kill(pid, signal.SIGKILL)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder, 0 where there is none."""
    return sum(path.stat().st_size for path in folder.glob("**/*") if path.is_file())


def _cut_to(folder: Path, cap_bytes: int) -> int:
    """Cut the longest file where a folder is over its cap after all; readers take a cut record."""
    excess = folder_bytes(folder) - cap_bytes
    if excess > 0:
        longest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
        os.truncate(longest, max(0, longest.stat().st_size - excess))
    return folder_bytes(folder)

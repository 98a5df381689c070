"""The ladder: run a script, find what breaks it, and instrument only as much as that takes.

1. *watch*: the script as it is, with the symptom rules and an eye on exceptions and on the first
   NaN. Most faults are known after this.
2. *dump*: only where something turned NaN or Inf: the same script under a Debugger V2 dump, up to
   the same point; the first bad op is read from it.
3. *check*: only where the dump met its disk cap first: TensorFlow's check_numerics, which writes
   nothing and stops at the first bad op.

Each rung is a process of its own: instrumentation cannot be taken back
(``headstart.debug.dump.dump``).
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from headstart.debug.callsites import CallSite, is_users
from headstart.debug.diagnosis import Diagnosis, ranked
from headstart.debug.running.child import Outcome, RunSpec, Stage
from headstart.errors import ConfigError

DEFAULT_CAP_BYTES = 1 << 30
CAP_HEADROOM = 0.8
"""Share of the cap at which the process is ended: what it writes until then must fit the rest."""
POLL_S = 0.02
OVERFLOW_CONFIDENCE = 0.4
"""Of an op that overflowed because the training diverged: the divergence is the cause."""
GROWTH_SYMPTOMS = ("divergence", "exploding-gradient", "learning-rate-too-high")
DOMAIN_OPS = (
    "Log",
    "Log1p",
    "Sqrt",
    "Rsqrt",
    "RealDiv",
    "Div",
    "Reciprocal",
    "Pow",
    "Acos",
    "Asin",
)
"""Ops that fail by the value of their argument and not by its size."""


@dataclass(frozen=True)
class ScriptRun:
    """What running a script under the debugger showed.

    Args:
        diagnoses: Findings, most likely first; empty for a healthy run.
        status: ``healthy``, ``diagnosed`` or ``unrunnable``.
        message: Why the script could not be run.
        stages: The rungs of the ladder that were climbed.
        dump_folder: The dump, where it was kept.
        dropped: What the disk cap cut off.
    """

    diagnoses: tuple[Diagnosis, ...]
    status: str
    message: str = ""
    stages: tuple[str, ...] = ()
    dump_folder: str | None = None
    dropped: str = ""

    @property
    def exit_code(self) -> int:
        """0 for a healthy run, 1 with a diagnosis, 2 where the script could not be run."""
        return {"healthy": 0, "diagnosed": 1, "unrunnable": 2}[self.status]


@dataclass
class Ended:
    """How a child process ended.

    Args:
        exit_code: Its exit code; negative for a signal.
        dropped: What the disk cap cut off, in a sentence; empty where it did not.
    """

    exit_code: int
    dropped: str = ""


Launch = Callable[[RunSpec, int], Ended]
"""Runs a specification in a process of its own, given the disk cap in bytes of its dump."""


@dataclass
class Ladder:
    """Runs a script rung by rung.

    Args:
        script: The Python file.
        arguments: Its arguments.
        folder: An existing folder for outcomes and the dump.
        launch: How to run a child process.
        dump_mode: Tensor mode of the dump.
        cap_bytes: Most that the dump may take on disk.
    """

    script: str
    arguments: tuple[str, ...]
    folder: Path
    launch: Launch
    dump_mode: str = "CONCISE_HEALTH"
    cap_bytes: int = DEFAULT_CAP_BYTES
    stages: list[Stage] = field(default_factory=list)
    dropped: str = ""

    def climb(self) -> ScriptRun:
        """Run the rungs that are needed.

        Returns:
            What they showed.
        """
        watched = self.run_stage("watch")
        if watched.status == "unrunnable":
            return self._result([], "unrunnable", watched.message)
        diagnoses = [Diagnosis.from_dict(fields) for fields in watched.diagnoses]
        if watched.status == "fault":
            numerical = self._numerical(watched.sign or {}, watched.numpy_warning)
            diagnoses = _joined(diagnoses, numerical)
        ordered = ranked(diagnoses)
        return self._result(ordered, "diagnosed" if ordered else "healthy")

    def _result(self, found: list[Diagnosis], status: str, message: str = "") -> ScriptRun:
        dump = str(self.folder / "dump") if "dump" in self.stages else None
        return ScriptRun(tuple(found), status, message, tuple(self.stages), dump, self.dropped)

    def _numerical(self, sign: dict[str, Any], heard: dict[str, Any] | None) -> list[Diagnosis]:
        """Find the op behind a sign; the sign itself where none can be found."""
        from headstart.debug.dump.dump import read_dump
        from headstart.debug.dump.rootcause import diagnose_dump
        from headstart.debug.running.numpy_warnings import NumpyWarning, explained
        from headstart.errors import RecordError

        dumped = self.run_stage("dump")
        try:
            found = diagnose_dump(read_dump(self.folder / "dump"))
        except RecordError:
            found = []
        if not found and self.dropped:
            checked = self.run_stage("check")
            found = [Diagnosis.from_dict(fields) for fields in checked.diagnoses]
        place = dumped.sign or sign
        warning = NumpyWarning(**heard) if heard else None
        found = [explained(_in_training(diagnosis, place), warning) for diagnosis in found]
        return found or [_of_sign(sign)]

    def run_stage(self, stage: Stage) -> Outcome:
        """Run one rung and return what became of it.

        Args:
            stage: The rung.

        Returns:
            The outcome that the child process wrote, or what its end tells where it wrote none.
        """
        self.stages.append(stage)
        outcome_file = self.folder / f"{stage}.json"
        spec = RunSpec(
            script=self.script,
            arguments=self.arguments,
            stage=stage,
            outcome_file=str(outcome_file),
            dump_folder=str(self.folder / "dump") if stage == "dump" else None,
            dump_mode=self.dump_mode,
        )
        ended = self.launch(spec, self.cap_bytes)
        self.dropped = self.dropped or ended.dropped
        if outcome_file.exists():
            return Outcome(**json.loads(outcome_file.read_text(encoding="utf-8")))
        if ended.dropped:
            return Outcome("fault")
        return Outcome("raised", [_of_crash(ended, outcome_file).to_dict()])


def _joined(watched: list[Diagnosis], numerical: list[Diagnosis]) -> list[Diagnosis]:
    """Put a divergence before the op that overflowed because of it."""
    grew = any(found.symptom in GROWTH_SYMPTOMS for found in watched)
    return [
        *watched,
        *(
            replace(found, confidence=min(found.confidence, OVERFLOW_CONFIDENCE))
            if grew and found.op_type not in DOMAIN_OPS
            else found
            for found in numerical
        ),
    ]


def _in_training(found: Diagnosis, sign: dict[str, Any]) -> Diagnosis:
    """Add to a finding from a dump what the sign knows of the training loop."""
    return replace(
        found,
        step=found.step if found.step is not None else sign.get("step"),
        batch=found.batch if found.batch is not None else sign.get("batch"),
        evidence={**found.evidence, "first_sign": sign},
    )


def _of_sign(sign: dict[str, Any]) -> Diagnosis:
    where, name = sign.get("where", "result"), sign.get("name", "?")
    return Diagnosis(
        symptom="nan" if sign.get("value", "nan") == "nan" else "inf",
        cause=f"The {where} {name!r} became {sign.get('value', 'NaN')}; no op that made it was "
        "recorded.",
        file=sign.get("file"),
        line=sign.get("line"),
        step=sign.get("step"),
        batch=sign.get("batch"),
        phase="metric" if where == "metric" else "forward",
        confidence=0.3,
        evidence={"first_sign": sign},
    ).with_source()


def _of_crash(ended: Ended, outcome_file: Path) -> Diagnosis:
    """Diagnose a process that ended without a word."""
    site = _last_user_line(outcome_file.with_suffix(".crash"))
    killed = ended.exit_code == -signal.SIGKILL
    name = signal.Signals(-ended.exit_code).name if ended.exit_code < 0 else str(ended.exit_code)
    reason = "the system killed it, most often because memory ran out" if killed else "it crashed"
    return Diagnosis(
        symptom="out-of-memory" if killed else "crash",
        cause=f"The process ended by {name} without an exception: {reason}.",
        file=site.file if site else None,
        line=site.line if site else None,
        phase="runtime",
        confidence=0.6,
        suggestions=("use a smaller batch, and look for what keeps tensors alive",)
        if killed
        else (),
        evidence={"exit_code": ended.exit_code},
    ).with_source()


def _last_user_line(crash_file: Path) -> CallSite | None:
    """Read the user's innermost line from what faulthandler wrote."""
    if not crash_file.exists():
        return None
    for line in crash_file.read_text(encoding="utf-8", errors="replace").splitlines():
        parts = line.strip().split('"')
        if len(parts) == 3 and is_users(parts[1]):
            number = parts[2].removeprefix(", line ").split(" ")[0]
            if number.isdigit():
                return CallSite(parts[1], int(number))
    return None


def run_script(
    script: Path,
    arguments: tuple[str, ...] = (),
    *,
    keep_dump: Path | None = None,
    dump_mode: str = "CONCISE_HEALTH",
    cap_bytes: int = DEFAULT_CAP_BYTES,
    output: TextIO | None = None,
) -> ScriptRun:
    """Run a script under the debugger, each rung of the ladder in a new process.

    The script runs twice where it turns NaN or Inf: what it writes, it writes twice.

    Args:
        script: The Python file.
        arguments: Its arguments.
        keep_dump: A new or empty folder for the outcomes and the dump; None keeps nothing.
        dump_mode: Tensor mode of the dump.
        cap_bytes: Most that the dump may take on disk; bytes.
        output: Where the script's own output goes in the first run; None discards it. That of
            later runs is discarded.

    Returns:
        What was found.

    Raises:
        ConfigError: There is no such script, or the folder is not empty.
    """
    if not script.is_file():
        raise ConfigError("A Python script is expected.", str(script))
    if keep_dump is not None and keep_dump.exists() and any(keep_dump.iterdir()):
        raise ConfigError(
            "A new or empty folder is expected: two dumps in one cannot be read.", str(keep_dump)
        )
    with tempfile.TemporaryDirectory(prefix="headstart-debug-") as scratch:
        folder = keep_dump or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        launch = subprocess_launcher(output)
        ladder = Ladder(str(script.resolve()), arguments, folder, launch, dump_mode, cap_bytes)
        result = ladder.climb()
    return result if keep_dump else replace(result, dump_folder=None)


def subprocess_launcher(output: TextIO | None) -> Launch:
    """Return what runs a specification in a new Python process.

    Args:
        output: Where the script's own output goes in the first run; None discards it.

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
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=None if stream is output and output is not None else subprocess.DEVNULL,
            env=environment,
        )
        folder = Path(spec.dump_folder) if spec.dump_folder else None
        return wait_within_cap(process.pid, process.poll, folder, cap_bytes)

    return launch


def wait_within_cap(
    pid: int, poll: Callable[[], int | None], folder: Path | None, cap_bytes: int
) -> Ended:
    """Wait for a process, and end it before its folder reaches a cap.

    Args:
        pid: The process.
        poll: Returns its exit code, or None while it runs.
        folder: What it fills; None where it fills nothing.
        cap_bytes: Most that the folder may take.

    Returns:
        How it ended.
    """
    previous = 0
    while (exit_code := poll()) is None:
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

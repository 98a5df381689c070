"""The programs of tests/debug/faults: what each declares, and running them quickly."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.running.ladder import Ladder, ScriptRun
from headstart.debug.running.process import Ended

FAULTS = Path(__file__).parent / "faults"
BUGGY = sorted((FAULTS / "buggy").glob("*.py"))
HEALTHY = sorted((FAULTS / "healthy").glob("*.py"))
NUM_WORKERS = 2


@dataclass(frozen=True)
class Declared:
    """What a buggy program says of itself in ``# FAULT:``, ``# CAUSE:`` and ``# WRONG``."""

    symptom: str
    cause: str | None
    lines: tuple[int, ...]

    @classmethod
    def of(cls, program: Path) -> "Declared":
        text = program.read_text()
        cause = re.search(r"^# CAUSE: (.+)$", text, re.MULTILINE)
        return cls(
            symptom=re.search(r"^# FAULT: (.+)$", text, re.MULTILINE)[1],
            cause=cause[1] if cause else None,
            lines=tuple(
                number
                for number, line in enumerate(text.splitlines(), start=1)
                if line.endswith("# WRONG")
            ),
        )

    def fits(self, found: Diagnosis, program: Path) -> bool:
        """Tell whether a diagnosis has the symptom and names the line or the declared cause."""
        if not re.search(self.symptom, found.symptom):
            return False
        names_line = found.file == str(program) and found.line in self.lines
        return names_line or bool(self.cause and re.search(self.cause, found.cause, re.IGNORECASE))


class Zygotes:
    """A few processes that have TensorFlow imported, each running one program at a time."""

    def __init__(self) -> None:
        self._idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._all = [self._start() for _ in range(NUM_WORKERS)]
        for process in self._all:
            self._idle.put(process)

    @staticmethod
    def _start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def launch(self, spec, cap_bytes: int) -> Ended:
        process = self._idle.get()
        try:
            process.stdin.write(json.dumps(asdict(spec)) + "\n")
            process.stdin.flush()
            return Ended(int(process.stdout.readline()))
        finally:
            self._idle.put(process)

    @contextmanager
    def running(
        self, programs: list[Path], folder: Path
    ) -> Iterator[dict[Path, "Future[ScriptRun]"]]:
        """Begin to run programs, in their order; what has not begun at the end never does."""

        def run_one(program: Path) -> ScriptRun:
            scratch = folder / program.stem
            scratch.mkdir()
            return Ladder(str(program), (), scratch, self.launch).climb()

        with ThreadPoolExecutor(NUM_WORKERS) as pool:
            try:
                yield {program: pool.submit(run_one, program) for program in programs}
            finally:
                pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        for process in self._all:
            process.stdin.close()
            process.stdout.close()
            process.wait()

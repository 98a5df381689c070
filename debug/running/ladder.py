"""The ladder: run a script, find what breaks it, and instrument only as much as that takes.

1. *watch*: the script as it is, with the symptom rules and an eye on exceptions and on the first
   NaN. Most faults are known after this.
2. *retake*: where a ``fit`` turned NaN or Inf: in the same process its last steps once more, from
   their recorded weights and batches, under a Debugger V2 dump; the first bad op is read from it.
3. *dump*: only where the steps could not be taken again, or did not tell: the same script under
   such a dump, up to the same point.
4. *check*: only where the dump met its disk cap first: TensorFlow's check_numerics, which writes
   nothing and stops at the first bad op.

Every rung that begins anew is a process of its own, and none goes on after a dump: instrumentation
cannot be taken back (``headstart.debug.dump.dump``).
"""

import json
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from headstart.debug.callsites import CallSite, is_users
from headstart.debug.diagnosis import Diagnosis, StepUnit, ranked
from headstart.debug.dump.causes import suggestions_for
from headstart.debug.running.child import Outcome, RunSpec, Stage
from headstart.debug.running.numpy_warnings import NumpyWarning, explained
from headstart.debug.running.process import Ended, Launch, subprocess_launcher
from headstart.debug.running.retake import Retake
from headstart.debug.running.script import found_program, notebook_in_words
from headstart.debug.running.watched import in_words
from headstart.errors import ConfigError

DEFAULT_CAP_BYTES = 1 << 30
DEFAULT_HANG_S = 300.0
"""Seconds without a step after which a program's stacks are shown."""
SURE = 0.8
"""Confidence of a cause to which what nobody else explains is put down."""
OVERFLOW_CONFIDENCE = 0.4
"""Of an op that overflowed because the training diverged: the divergence is the cause."""
GROWTH_SYMPTOMS = ("divergence", "exploding-gradient", "learning-rate-too-high",
                   "loss-falls-without-end")  # fmt: skip
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
        status: ``healthy``, ``diagnosed``, ``interrupted`` (and nothing found until then) or
            ``unrunnable``.
        message: Why the script could not be run, or how it ended.
        stages: The rungs of the ladder that were climbed: of ``watch``, ``retake``, ``dump`` and
            ``check``.
        dump_folder: The dump, where it was kept.
        dropped: What the disk cap cut off.
        advice: What could be better in a run that is not at fault for it.
        watched: What there was to see, in words.
        unseen: Parts of the debugger that failed, and why.
        trace_file: Where the whole traceback of an exception is; empty where there was none.
    """

    diagnoses: tuple[Diagnosis, ...]
    status: str
    message: str = ""
    stages: tuple[str, ...] = ()
    dump_folder: str | None = None
    dropped: str = ""
    advice: tuple[Diagnosis, ...] = ()
    watched: str = ""
    unseen: dict[str, str] = field(default_factory=dict)
    trace_file: str = ""

    @property
    def exit_code(self) -> int:
        """0 for a healthy run, 1 with a diagnosis, 2 where the script did not run to its end."""
        return {"healthy": 0, "diagnosed": 1, "interrupted": 2, "unrunnable": 2}[self.status]


@dataclass
class Ladder:
    """Runs a script rung by rung.

    Args:
        script: Path of the Python file, or a module's name.
        arguments: Arguments of the script, its ``sys.argv[1:]``.
        folder: An existing folder for outcomes and the dump.
        launch: How to run a child process.
        dump_mode: Tensor mode of the dump.
        cap_bytes: Most that the dump may take on disk.
        is_module: Whether ``script`` is a module's name.
        hang_s: Seconds without a step after which stacks are shown.
        announce: Tells the user before the script is run again.
        log_dir: Where curves of each ``fit`` go; None writes none.
        stages: The rungs climbed so far.
        dropped: What the dump lacks.
        stopped: Why a run was stopped from outside.
        watched: Outcome of the first rung.
    """

    script: str
    arguments: tuple[str, ...]
    folder: Path
    launch: Launch
    dump_mode: str = "CONCISE_HEALTH"
    cap_bytes: int = DEFAULT_CAP_BYTES
    is_module: bool = False
    hang_s: float = DEFAULT_HANG_S
    announce: Callable[[str], None] = lambda text: None
    log_dir: Path | None = None
    stages: list[str] = field(default_factory=list)
    dropped: str = ""
    stopped: str = ""
    watched: Outcome = field(default_factory=lambda: Outcome("ended"))

    def climb(self) -> ScriptRun:
        """Run the rungs that are needed.

        Returns:
            What they showed.
        """
        watched = self.run_stage("watch")
        self.watched = watched
        if watched.status == "unrunnable":
            return self._result([], watched.message)
        diagnoses = [Diagnosis.from_dict(fields) for fields in watched.diagnoses]
        if watched.status == "fault" and not self.stopped:
            numerical = self._of_retaken(watched) or self._of_second_run(watched)
            diagnoses = _joined(diagnoses, numerical)
        return self._result(diagnoses, watched.message)

    def _result(self, found: list[Diagnosis], message: str) -> ScriptRun:
        ordered = ranked(linked(found))
        faults = tuple(one for one in ordered if one.severity != "advice")
        outcome = self.watched
        status = "diagnosed" if faults else "healthy"
        if not faults and (self.stopped or outcome.status in ("interrupted", "unrunnable")):
            status = "unrunnable" if outcome.status == "unrunnable" else "interrupted"
        return ScriptRun(
            diagnoses=faults,
            status=status,
            message=f"{self.stopped} {message}".strip(),
            stages=tuple(self.stages),
            dump_folder=str(self.folder / "dump") if (self.folder / "dump").exists() else None,
            dropped=self.dropped,
            advice=tuple(one for one in ordered if one.severity == "advice"),
            watched=in_words(outcome.watched),
            unseen=outcome.unseen,
            trace_file=outcome.trace_file,
        )

    def _of_retaken(self, watched: Outcome) -> list[Diagnosis]:
        """Find the op behind a sign in the steps that were taken again; empty where none is."""
        if watched.retaken is None:
            return []
        again, sign = Retake(**watched.retaken), watched.sign or {}
        if again.bad_batch and not again.is_pipeline:
            return [explained(_of_bad_batch(again.bad_batch, sign), _heard(watched))]
        if again.reason:
            return []
        self.stages.append("retake")
        found = [_in_training(one, sign, again.first_step) for one in self._read_dump()]
        if again.is_pipeline and any(one.phase == "data" for one in found[:1]):
            return []  # which function of the pipeline made it, a run of the pipeline shows
        return [explained(one, _heard(watched)) for one in found]

    def _read_dump(self) -> list[Diagnosis]:
        from headstart.debug.dump.dump import read_dump
        from headstart.debug.dump.rootcause import diagnose_dump
        from headstart.errors import RecordError

        try:
            return diagnose_dump(read_dump(self.folder / "dump"))
        except RecordError:
            return []

    def _of_second_run(self, watched: Outcome) -> list[Diagnosis]:
        """Find the op behind a sign by running the script again; the sign where none is found."""
        sign, again = watched.sign or {}, Retake(**(watched.retaken or {}))
        reason = again.reason or "repeating the last training steps did not show why"
        self.announce(
            f"{sign.get('name', 'a value')} became {sign.get('value', 'NaN')}"
            + ("" if sign.get("step") is None else f" at {_unit(sign)} {sign['step']}")
            + (f" ({reason})" if watched.retaken else "")
            + ": running the script a second time with instrumentation, up to that point. Anything "
            "the script writes is written again."
        )
        shutil.rmtree(self.folder / "dump", ignore_errors=True)
        dumped = self.run_stage("dump")
        if dumped.status in ("raised", "unrunnable", "ended"):
            self.dropped = self.dropped or (
                "The second, instrumented run ended differently "
                f"({dumped.message or dumped.status}): the fault did not recur."
            )
        found = self._read_dump()
        if not found and self.dropped:
            checked = self.run_stage("check")
            found = [Diagnosis.from_dict(fields) for fields in checked.diagnoses]
            # An exception that only the instrumented run ends in is the instrument's, no cause.
            found = [one for one in found if one.symptom != "exception"]
        place = dumped.sign or sign
        found = [explained(_in_training(one, place), _heard(watched)) for one in found]
        if not found and again.bad_batch:
            found = [explained(_of_bad_batch(again.bad_batch, sign), _heard(watched))]
        return found or [_of_sign(sign)]

    def run_stage(self, stage: Stage) -> Outcome:
        """Run one rung and return what became of it.

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
            dump_folder=None if stage == "check" else str(self.folder / "dump"),
            dump_mode=self.dump_mode,
            is_module=self.is_module,
            hang_s=self.hang_s,
            log_dir=str(self.log_dir.resolve()) if self.log_dir and stage == "watch" else None,
        )
        ended = self.launch(spec, self.cap_bytes)
        if stage != "watch":  # else the second run has the whole cap again
            self.dropped = self.dropped or ended.dropped
        self.stopped = self.stopped or ended.stopped
        if outcome_file.exists():
            return Outcome(**json.loads(outcome_file.read_text(encoding="utf-8")))
        if ended.dropped:
            return Outcome("fault")
        if ended.stopped:
            site = _last_user_line(outcome_file.with_suffix(".crash"))
            return Outcome("interrupted", message=f"at {site.file}:{site.line}" if site else "")
        return Outcome("raised", [_of_crash(ended, outcome_file).to_dict()])


CAUSES = {
    "divergence": ("batchnorm-mode", "unscaled-input", "unscaled-targets",
                   "learning-rate-too-high"),
    "exploding-gradient": ("unscaled-input", "unscaled-targets", "learning-rate-too-high"),
    "learning-rate-too-high": ("unscaled-input", "unscaled-targets", "regularisation-too-strong"),
    "vanishing-gradient": ("unscaled-input", "saturating-activations"),
    "saturated-units": ("unscaled-input", "constant-initialisation"),
    "dead-units": ("unscaled-input", "learning-rate-too-high"),
    "loss-falls-without-end": ("labels-and-predictions-swapped", "loss-with-wrong-sign",
                               "labels-out-of-range", "targets-no-distribution"),
    "loss-not-falling": ("variables-not-tracked", "nothing-trainable", "no-gradient",
                         "unscaled-input"),
    "loss-target-mismatch": ("label-columns",),
    "label-out-of-range": ("softmax-on-one-unit", "one-unit-for-classes"),
    "class-collapse": ("unscaled-input", "learning-rate-too-high"),
    "exception": ("variables-not-tracked", "no-gradient"),
    "no-gradient": ("variables-not-tracked", "nothing-trainable"),
    "weights-never-change": ("silent-broadcast", "python-value-captured"),
    "one-class-only": ("overlapping-batches",),
    "not-shuffled": ("result-thrown-away", "overlapping-batches"),
    "dtype-mismatch": ("text-labels",),
    "shape-mismatch": ("missing-flatten", "label-format", "one-unit-for-classes"),
}  # fmt: skip
"""Symptom -> what it follows from where both are found, the likeliest first."""

OF_NO_GRADIENT = ("None", "not enough values to unpack (expected 2, got 0)")
"""What an exception says that follows from a missing gradient, or from no variable at all."""

CONSEQUENCES = (
    "accuracy-at-chance", "class-collapse", "class-imbalance", "dead-units", "divergence",
    "exploding-gradient", "inf", "learning-rate-too-high", "learning-rate-too-low",
    "loss-falls-without-end", "loss-not-falling", "nan", "no-better-than-constant", "oscillation",
    "saturated-units", "undertrained", "vanishing-gradient",
)  # fmt: skip
"""What is seen of a training; other symptoms say what was done to it."""


def linked(found: list[Diagnosis]) -> list[Diagnosis]:
    """Say of each finding which other one it follows from.

    Args:
        found: Findings in any order.

    Returns:
        The same, with ``caused_by`` where it was open and one of the causes is there; what names
        the symptom that ended the program counts as that too.
    """
    ended = {one.symptom for one in found if one.severity == "ended"}
    # A rule that saw the same as the exception may know more of it: confidence decides.
    found = [
        replace(one, severity="ended") if one.symptom in ended and one.severity == "error" else one
        for one in found
    ]
    sure = {one.symptom for one in found if one.severity in ("error", "ended")}
    return [
        one if one.caused_by else replace(one, caused_by=_cause_of(one, found, sure))
        for one in found
    ]


def _cause_of(found: Diagnosis, others: list[Diagnosis], sure: set[str]) -> str | None:
    """Name what a finding follows from: what the table says, else the surest that was done."""
    fed = {tuple(one.evidence.get("fed_at") or (one.file, one.line))
           for one in others if one.symptom == "nan-in-data"}  # fmt: skip
    made = [
        one
        for one in others
        if one.symptom in ("nan", "inf") and one.phase == "data" and (one.file, one.line) not in fed
    ]
    if made and found.symptom == "nan-in-data":
        return made[0].symptom
    if found in made:
        return None  # in the pipeline, before any batch came of it
    if found.op_type in DOMAIN_OPS or found.evidence.get("at") == "optimizer":
        return None  # by itself: an argument out of its domain, a setting out of all bounds
    if found.symptom == "exception" and not any(one in found.cause for one in OF_NO_GRADIENT):
        return None
    named = next((cause for cause in CAUSES.get(found.symptom, ()) if cause in sure), None)
    if named or found.symptom not in CONSEQUENCES:
        return named
    done = [
        one
        for one in others
        if one.symptom not in CONSEQUENCES
        and one.severity == "error"
        and one.confidence >= max(SURE, found.confidence)
    ]
    return max(done, key=lambda one: one.confidence).symptom if done else None


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


def _heard(watched: Outcome) -> NumpyWarning | None:
    return NumpyWarning(**watched.numpy_warning) if watched.numpy_warning else None


def _unit(sign: dict[str, Any]) -> StepUnit:
    unit: StepUnit = sign.get("step_unit", "training step")
    return unit


def _in_training(found: Diagnosis, sign: dict[str, Any], first: int | None = None) -> Diagnosis:
    """Add what the sign says of the loop; ``first`` is the training step a retake began with."""
    if found.step is None:
        found = replace(found, step=sign.get("step"), step_unit=_unit(sign))
    elif first is not None:
        found = replace(found, step=found.step + first, step_unit="training step")
    batch = found.batch if found.batch is not None else sign.get("batch")
    return replace(found, batch=batch, evidence={**found.evidence, "first_sign": sign})


def _of_bad_batch(cause: str, sign: dict[str, Any]) -> Diagnosis:
    return Diagnosis(
        symptom="nan" if "NaN" in cause else "inf",
        cause=cause,
        op="IteratorGetNext",
        op_type="IteratorGetNext",
        file=sign.get("file"),
        line=sign.get("line"),
        step=sign.get("step"),
        step_unit=_unit(sign),
        batch=sign.get("batch"),
        phase="data",
        confidence=0.9,
        suggestions=suggestions_for("IteratorGetNext", "IteratorGetNext", is_backward=False),
        evidence={"first_sign": sign},
    ).with_source()


def _of_sign(sign: dict[str, Any]) -> Diagnosis:
    where, name = sign.get("where", "result"), sign.get("name", "?")
    return Diagnosis(
        symptom="nan" if sign.get("value", "nan") == "nan" else "inf",
        cause=f"The {where} {name!r} became {sign.get('value', 'NaN')}; the op that made it was "
        "not recorded.",
        file=sign.get("file"),
        line=sign.get("line"),
        step=sign.get("step"),
        step_unit=_unit(sign),
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
        phase="runtime",
        confidence=0.6,
        suggestions=("use a smaller batch, and look for what keeps tensors alive",)
        if killed
        else (),
        evidence={"exit_code": ended.exit_code},
    ).at(site)


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
    script: Path | str,
    arguments: tuple[str, ...] = (),
    *,
    is_module: bool = False,
    limit_s: float | None = None,
    hang_s: float = DEFAULT_HANG_S,
    announce: Callable[[str], None] = lambda text: None,
    log_dir: Path | None = None,
    keep_dump: Path | None = None,
    dump_mode: str = "CONCISE_HEALTH",
    cap_bytes: int = DEFAULT_CAP_BYTES,
    output: TextIO | None = None,
) -> ScriptRun:
    """Run a script under the debugger, each rung of the ladder in a new process.

    Where it turns NaN or Inf, and its steps cannot be taken again, it runs twice, which is
    announced: what it writes, it writes twice.

    Args:
        script: The Python file or notebook, or a module's name.
        arguments: Arguments of the script, its ``sys.argv[1:]``.
        is_module: Whether it is a module's name.
        limit_s: Seconds after which a run is stopped; what is known until then is told.
        hang_s: Seconds without a step after which the stacks of all threads are shown.
        announce: Tells the user what a notebook is run as, and before a script is run again.
        log_dir: Where curves of each ``fit`` go, for TensorBoard; None writes none.
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
    program = found_program(str(script), is_module)
    if program.endswith(".ipynb") and not is_module:
        announce(notebook_in_words(Path(program)))
    if keep_dump is not None and keep_dump.exists() and any(keep_dump.iterdir()):
        raise ConfigError(
            "the folder of --keep-dump is not empty", str(keep_dump), "give a new or empty folder"
        )
    with tempfile.TemporaryDirectory(prefix="headstart-debug-") as scratch:
        folder = keep_dump or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        launch = subprocess_launcher(output, limit_s)
        ladder = Ladder(
            program, arguments, folder, launch, dump_mode, cap_bytes, is_module, hang_s, announce,
            log_dir,
        )  # fmt: skip
        result = ladder.climb()
    return result if keep_dump else replace(result, dump_folder=None)

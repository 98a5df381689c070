"""Runs a script in this process, watched and on request instrumented; the parent reads the result.

``python -m headstart.debug.running.child SPEC.json`` runs what the specification says and writes
the outcome beside it. TensorFlow is patched as the script imports it, so that what the script sets
before (environment variables) still counts.
"""

import atexit
import faulthandler
import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from headstart.debug.callsites import is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import failures, harmless
from headstart.debug.running.retake import retake, turn_xla_off
from headstart.debug.running.script import run_program
from headstart.debug.running.watched import watched
from headstart.errors import ConfigError

_PR_SET_PDEATHSIG = 1
"""Of Linux's sys/prctl.h."""
HANG_POLL_S = 1.0

Stage = Literal["watch", "dump", "check"]
Status = Literal["ended", "fault", "raised", "interrupted", "unrunnable"]


@dataclass(frozen=True)
class RunSpec:
    """What a child process is to do.

    Args:
        script: Path of the Python file, or a module's name.
        arguments: Arguments of the script, its ``sys.argv[1:]``.
        stage: ``watch`` (rules and signs only), ``dump`` (a Debugger V2 dump) or ``check``
            (stop at the first NaN or Inf).
        outcome_file: Where the outcome is written.
        dump_folder: Where the dump goes; of ``watch``, that of steps that are taken again.
        dump_mode: Tensor mode of the dump, such as ``CONCISE_HEALTH``.
        is_module: Whether ``script`` is a module's name.
        hang_s: Seconds without a step after which the stacks of all threads are shown.
        log_dir: Where curves of each ``fit`` go, for TensorBoard; None writes none.
    """

    script: str
    arguments: tuple[str, ...]
    stage: Stage
    outcome_file: str
    dump_folder: str | None = None
    dump_mode: str = "CONCISE_HEALTH"
    is_module: bool = False
    hang_s: float = 300.0
    log_dir: str | None = None


@dataclass
class Outcome:
    """What became of a run.

    Args:
        status: ``ended`` (by itself), ``fault`` (a sign was seen), ``raised`` (an exception),
            ``interrupted`` (Ctrl-C or a time limit) or ``unrunnable`` (the script could not be run
            at all).
        diagnoses: Findings, each a `Diagnosis` as a dictionary.
        sign: The first sign, as a dictionary.
        message: Why it could not be run, or where it was interrupted.
        numpy_warning: The first of numpy's, as a dictionary.
        watched: What there was to see: `headstart.debug.running.watched.Watched` as a dictionary.
        unseen: Parts of the debugger that failed, and why.
        trace_file: Where the whole traceback of the exception is.
        retaken: What came of taking the failing steps again, as a dictionary
            (`headstart.debug.running.retake.Retake`); None where that was not tried.
    """

    status: Status
    diagnoses: list[dict[str, Any]] = field(default_factory=list)
    sign: dict[str, Any] | None = None
    message: str = ""
    numpy_warning: dict[str, Any] | None = None
    watched: dict[str, Any] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)
    trace_file: str = ""
    retaken: dict[str, Any] | None = None


def run_spec(spec: RunSpec) -> Outcome:
    """Run a script as specified, in this process, which is good for nothing else afterwards.

    Returns:
        The outcome, also written to ``spec.outcome_file``.
    """
    _die_with_the_parent()
    crash_file = Path(spec.outcome_file).with_suffix(".crash").open("w")
    faulthandler.enable(crash_file)
    if hasattr(faulthandler, "register"):  # the parent asks for the stacks of a process that hangs
        faulthandler.register(signal.SIGUSR1, crash_file, all_threads=True, chain=False)
    session = _Session(spec)
    call_on_import("tensorflow", session.arm_tensorflow)
    call_on_import("keras", session.arm_keras)
    _write_before_hard_exit(spec, session)
    outcome = session.run()
    _write(outcome, spec)
    return outcome


def _write(outcome: Outcome, spec: RunSpec) -> None:
    partial = Path(spec.outcome_file).with_suffix(".partial")
    partial.write_text(json.dumps(asdict(outcome), default=str), encoding="utf-8")
    partial.rename(spec.outcome_file)


def _die_with_the_parent() -> None:
    """Leave no process behind where the parent itself is killed (Linux)."""
    with harmless("the end with the parent"):
        import ctypes

        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _write_before_hard_exit(spec: RunSpec, session: "_Session") -> None:
    """Keep what was found where the program ends itself by ``os._exit``."""
    pid, leave = os.getpid(), os._exit

    def write_and_leave(code: int) -> None:
        if os.getpid() == pid and not Path(spec.outcome_file).exists():
            with harmless("the last word before os._exit"):
                outcome = Outcome("ended", message=f"it called os._exit({code})")
                session.complete(outcome)
                _write(outcome, spec)
        leave(code)

    os._exit = write_and_leave  # type: ignore[assignment]


class _Session:
    """One run of one script in this process."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.watch: Any = None
        self.recording: Any = None
        self.heard: Any = None
        self.is_keras_waiting = False
        self.retaken: dict[str, Any] | None = None

    def arm_tensorflow(self) -> None:
        """Patch TensorFlow once it is imported, and Keras where TensorFlow imported it."""
        from headstart.debug.running.watch import Watch

        log_dir = None if self.spec.log_dir is None else Path(self.spec.log_dir)
        is_watch = self.spec.stage == "watch"
        self.watch = Watch(
            with_rules=is_watch,
            log_dir=log_dir,
            retake=self.retake if is_watch and self.spec.dump_folder else None,
        )
        self.watch.arm_tensorflow()
        if self.spec.stage != "watch":
            turn_xla_off()
        if self.spec.stage == "dump" and self.spec.dump_folder is not None:
            from headstart.debug.dump.dump import Recording

            mode: Any = self.spec.dump_mode
            self.recording = Recording(Path(self.spec.dump_folder), mode)
        if self.spec.stage == "check":
            import tensorflow as tf

            tf.debugging.enable_check_numerics()
        if self.is_keras_waiting:
            self.arm_keras()

    def arm_keras(self) -> None:
        """Patch Keras, as soon as TensorFlow, which may import it itself, is there as well."""
        if self.watch is None:
            self.is_keras_waiting = True
            return
        import keras

        if keras.backend.backend() != "tensorflow":  # the script's own choice: nothing to patch
            return
        from headstart.debug.dump.origins import record_construction_sites

        record_construction_sites()
        self.watch.arm_keras()
        if self.spec.stage != "watch":
            _turn_keras_jit_off()

    def retake(self, model: Any, held: Any, *, is_pipeline: bool) -> None:
        """Take the failing steps of a ``fit`` again.

        Args:
            model: The model that was trained.
            held: The recorder of its last steps.
            is_pipeline: Whether the batches came out of a ``tf.data`` pipeline.
        """
        so_far = Outcome("fault")  # should the instrumented steps end the process
        self.complete(so_far)
        _write(so_far, self.spec)
        again = retake(
            model, held, self.watch.sign, Path(str(self.spec.dump_folder)), self.spec.dump_mode,
            is_pipeline=is_pipeline,
        )  # fmt: skip
        self.retaken = asdict(again)

    def run(self) -> Outcome:
        from headstart.debug.running.numpy_warnings import NumpyWarnings

        self.heard = NumpyWarnings()
        self.heard.listen()
        self._watch_for_hangs()
        outcome = self._run_program()
        self.complete(outcome)
        return outcome

    def complete(self, outcome: Outcome) -> None:
        """Add to an outcome all that was seen until now."""
        if self.recording is not None:
            with harmless("the dump"):
                self.recording.flush()
        if self.heard is not None and self.heard.first:
            outcome.numpy_warning = asdict(self.heard.first)
        if self.watch is not None:
            outcome.sign = None if self.watch.sign is None else self.watch.sign.to_dict()
            if outcome.sign is not None and outcome.status == "ended":
                outcome.status = "fault"
            found: list[Diagnosis] = []
            with harmless("the rules"):
                found = self.watch.diagnoses()
            outcome.diagnoses += [diagnosis.to_dict() for diagnosis in found]
        outcome.retaken = self.retaken
        outcome.watched = asdict(watched)
        outcome.unseen = dict(failures)

    def _run_program(self) -> Outcome:
        try:
            run_program(self.spec.script, self.spec.arguments, self.spec.is_module)
        except SystemExit as stop:
            return self._outcome_of_exit(stop)
        except KeyboardInterrupt as stop:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is known is being written
            if self.watch is not None and self.watch.sign is not None:
                return Outcome("fault")  # seen in another thread, which has asked for the end
            return Outcome("interrupted", message=_where(stop))
        except BaseException as error:
            return self._outcome_of(error)
        return self._outcome_of_end()

    def _outcome_of_end(self, message: str = "") -> Outcome:
        if self.watch is not None:
            with harmless("the look at the variables"):
                self.watch.finish()
        is_good = self.watch is None or self.watch.sign is None
        return Outcome("ended" if is_good else "fault", message=message)

    def _outcome_of_exit(self, stop: SystemExit) -> Outcome:
        if stop.code in (None, 0):
            return self._outcome_of_end()
        cause = stop.__context__  # of `except Exception: sys.exit(1)`
        message = f"it ended with exit code {stop.code}"
        if isinstance(cause, BaseException) and not isinstance(cause, SystemExit):
            outcome = self._outcome_of(cause)
            outcome.message = f"{message} after {type(cause).__name__}: {cause}"
            return outcome
        if self.watch is None or not watched.anything:
            return Outcome("unrunnable", message=message)
        return self._outcome_of_end(message)

    def _outcome_of(self, error: BaseException) -> Outcome:
        if self.watch is not None and type(error).__name__ == "FaultSeen":
            return Outcome("fault")
        if self.watch is not None and self.watch.sign is not None:
            return Outcome("fault")  # the end that the sign asked for came out as another error
        if self.watch is None or (_is_unrunnable(error) and not watched.anything):
            return Outcome("unrunnable", message="".join(traceback.format_exception_only(error)))
        from headstart.debug.errors.exceptions import diagnose_exception

        found = diagnose_exception(error, self.watch.graphs)
        found = replace(found, severity="ended")
        return Outcome("raised", [found.to_dict()], trace_file=_keep_trace(error))

    def _watch_for_hangs(self) -> None:
        """Show where a program stands whose steps have stopped coming."""

        def look() -> None:
            last, since = watched.beats, time.monotonic()
            while True:
                time.sleep(HANG_POLL_S)
                if watched.beats != last:
                    last, since = watched.beats, time.monotonic()
                elif last and time.monotonic() - since > self.spec.hang_s:
                    print(f"\nheadstart: no training step for {self.spec.hang_s:.0f} s. Stacks:",
                          file=sys.stderr, flush=True)  # fmt: skip
                    faulthandler.dump_traceback(sys.__stderr__ or 2)
                    return

        threading.Thread(target=look, name="headstart-hang", daemon=True).start()


def _keep_trace(error: BaseException) -> str:
    """Write the whole traceback to a file of its own and show its end."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="headstart-traceback-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    return file.name


def _where(error: BaseException) -> str:
    """Return the user's innermost line of a traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if is_users(frame.filename)]  # fmt: skip
    return f"at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _is_unrunnable(error: BaseException) -> bool:
    """Tell whether the script failed before it did anything of its own: not compiled, no import."""
    return isinstance(error, SyntaxError | ImportError | ConfigError)


def _turn_keras_jit_off() -> None:
    from headstart.debug.internals import private

    trainer = next(kind for kind in private("KerasTrainer").__mro__ if "compile" in vars(kind))
    compile_model = trainer.compile

    @functools.wraps(compile_model)
    def compile_without_jit(model: Any, *args: Any, **kwargs: Any) -> Any:
        return compile_model(model, *args, **{**kwargs, "jit_compile": False})

    trainer.compile = compile_without_jit


class _ImportHook(importlib.abc.MetaPathFinder):
    """Calls back right after a module was imported for the first time.

    Asking where the module is (TensorFlow's own start asks for Keras) is not importing it: the
    hook stays until the module has run.
    """

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name = name
        self.then = then
        self._is_asking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module by the other finders and add the call to its loader."""
        if fullname != self.name or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._is_asking = False
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_call(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                with harmless(f"watching {self.name}"):
                    self.then()

        spec.loader.exec_module = execute_and_call  # type: ignore[method-assign]
        return spec


def call_on_import(name: str, then: Callable[[], None]) -> None:
    """Call back once a module is imported, or now where it is already.

    Args:
        name: The module, a top-level one.
        then: What to call; what it raises does not reach the importing program.
    """
    if name in sys.modules:
        with harmless(f"watching {name}"):
            then()
    else:
        sys.meta_path.insert(0, _ImportHook(name, then))


def main() -> None:
    """Run the specification named on the command line."""
    fields = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell's script
        # By it a sign in another thread ends this one.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_spec(RunSpec(**{**fields, "arguments": tuple(fields["arguments"])}))
    _exit_without_finalizing()


def _exit_without_finalizing() -> None:
    """End the process after all that a normal end does, but for destroying its objects.

    An input pipeline that is destroyed waits, with Python's lock held, for its thread, and that
    thread may be waiting for the lock: a few processes in a hundred would hang for ever.
    """
    # Joins the threads, after the callbacks by which those of thread pools are told to end.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the outcome is there: this writes no other


if __name__ == "__main__":
    main()

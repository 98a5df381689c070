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
import runpy
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless

Stage = Literal["watch", "dump", "check"]
Status = Literal["ended", "fault", "raised", "unrunnable"]


@dataclass(frozen=True)
class RunSpec:
    """What a child process is to do.

    Args:
        script: The Python file.
        arguments: Its arguments.
        stage: ``watch`` (rules and signs only), ``dump`` (a Debugger V2 dump) or ``check``
            (stop at the first NaN or Inf).
        outcome_file: Where the outcome is written.
        dump_folder: Where the dump goes.
        dump_mode: Its tensor mode.
    """

    script: str
    arguments: tuple[str, ...]
    stage: Stage
    outcome_file: str
    dump_folder: str | None = None
    dump_mode: str = "CONCISE_HEALTH"


@dataclass
class Outcome:
    """What became of a run.

    Args:
        status: ``ended`` (by itself), ``fault`` (a sign was seen), ``raised`` (an exception) or
            ``unrunnable`` (the script could not be run at all).
        diagnoses: Findings, as dictionaries.
        sign: The first sign, as a dictionary.
        message: Why it could not be run.
        numpy_warning: The first of numpy's, as a dictionary.
    """

    status: Status
    diagnoses: list[dict[str, Any]] = field(default_factory=list)
    sign: dict[str, Any] | None = None
    message: str = ""
    numpy_warning: dict[str, Any] | None = None


def run_spec(spec: RunSpec) -> Outcome:
    """Run a script as specified, in this process, which is good for nothing else afterwards.

    Args:
        spec: What to do.

    Returns:
        The outcome, also written to ``spec.outcome_file``.
    """
    crash_file = Path(spec.outcome_file).with_suffix(".crash").open("w")
    faulthandler.enable(crash_file)
    session = _Session(spec)
    call_on_import("tensorflow", session.arm_tensorflow)
    call_on_import("keras", session.arm_keras)
    outcome = session.run()
    partial = Path(spec.outcome_file).with_suffix(".partial")
    partial.write_text(json.dumps(asdict(outcome), default=str), encoding="utf-8")
    partial.rename(spec.outcome_file)
    return outcome


class _Session:
    """One run of one script in this process."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.watch: Any = None
        self.recording: Any = None
        self.is_keras_waiting = False

    def arm_tensorflow(self) -> None:
        """Patch TensorFlow once it is imported, and Keras where TensorFlow imported it."""
        from headstart.debug.running.watch import Watch

        self.watch = Watch(with_rules=self.spec.stage == "watch")
        self.watch.arm_tensorflow()
        if self.spec.stage != "watch":
            _turn_xla_off()
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

    def run(self) -> Outcome:
        from headstart.debug.running.numpy_warnings import NumpyWarnings

        script = Path(self.spec.script)
        heard = NumpyWarnings()
        heard.listen()
        sys.argv = [str(script), *self.spec.arguments]
        sys.path.insert(0, str(script.resolve().parent))
        try:
            outcome = self._run_script(str(script))
        finally:
            if self.recording is not None:
                self.recording.flush()
        outcome.numpy_warning = asdict(heard.first) if heard.first else None
        if self.watch is not None:
            outcome.sign = None if self.watch.sign is None else self.watch.sign.to_dict()
            found: list[Diagnosis] = self.watch.diagnoses()
            outcome.diagnoses += [diagnosis.to_dict() for diagnosis in found]
        return outcome

    def _run_script(self, script: str) -> Outcome:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            if stop.code not in (None, 0):
                return Outcome("unrunnable", message=f"it left with exit code {stop.code}")
        except KeyboardInterrupt:
            return Outcome("unrunnable", message="it was interrupted")
        except BaseException as error:
            return self._outcome_of(error)
        if self.watch is not None:
            self.watch.finish()
        return Outcome("ended" if self.watch is None or self.watch.sign is None else "fault")

    def _outcome_of(self, error: BaseException) -> Outcome:
        if self.watch is not None and type(error).__name__ == "FaultSeen":
            return Outcome("fault")
        if self.watch is not None and self.watch.sign is not None:
            return Outcome("fault")  # the end that the sign asked for came out as another error
        if self.watch is None or _is_unrunnable(error):
            return Outcome("unrunnable", message="".join(traceback.format_exception_only(error)))
        from headstart.debug.errors.exceptions import diagnose_exception

        traceback.print_exception(error)
        found = diagnose_exception(error, self.watch.graphs)
        return Outcome("raised", [found.to_dict()])


def _is_unrunnable(error: BaseException) -> bool:
    """Tell whether the script failed before it did anything of its own: not compiled, no import."""
    return isinstance(error, SyntaxError | ImportError)


def _turn_xla_off() -> None:
    """XLA compiles the instrumentation away, or fails on it."""
    import tensorflow as tf

    from headstart.debug.internals import private

    tf.config.optimizer.set_jit(False)
    function_class = private("Function")
    construct = function_class.__init__

    @functools.wraps(construct)
    def construct_without_jit(function: Any, *args: Any, **kwargs: Any) -> None:
        construct(function, *args, **{**kwargs, "jit_compile": None})

    function_class.__init__ = construct_without_jit


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
    run_spec(RunSpec(**{**fields, "arguments": tuple(fields["arguments"])}))
    _exit_without_finalizing()


def _exit_without_finalizing() -> None:
    """End the process after all that a normal end does, but for destroying its objects.

    An input pipeline that is destroyed waits, with Python's lock held, for its thread, and that
    thread may be waiting for the lock: a few processes in a hundred would hang for ever.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

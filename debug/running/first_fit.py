"""Runs a script up to its first ``fit`` in this process, to check or to profile what is fitted.

``python -m headstart.debug.running.first_fit SPEC.json``; the parent is `at_first_fit`.
"""

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from headstart.debug.running.script import run_program
from headstart.errors import ConfigError, HeadstartError

Task = Literal["check", "profile"]


@dataclass(frozen=True)
class FirstFitSpec:
    """What to do at the first ``fit`` of a script.

    Args:
        script: Path of the Python file.
        arguments: Arguments of the script, its ``sys.argv[1:]``.
        task: ``check`` the model and its data, or ``profile`` some steps.
        result_file: Where the result is written, as JSON.
        log_dir: Where a profile goes.
        first_step: Step with which the profile begins.
        num_steps: How many steps the profile covers.
    """

    script: str
    arguments: tuple[str, ...]
    task: Task
    result_file: str
    log_dir: str = ""
    first_step: int = 5
    num_steps: int = 20


class FirstFitReached(BaseException):
    """Ends the script once its first ``fit`` was looked at; no ``except Exception`` catches it."""


def at_first_fit(spec: FirstFitSpec) -> dict[str, Any]:
    """Run a script in a fresh process up to its first ``fit``.

    Args:
        spec: What to do there; ``result_file`` may be empty.

    Returns:
        The result: ``diagnoses`` and, of a profile, ``report``.

    Raises:
        ConfigError: There is no such script.
        HeadstartError: It ended before it called ``fit``.
    """
    if not Path(spec.script).is_file():
        raise ConfigError("there is no such script", spec.script, "check the path")
    with tempfile.TemporaryDirectory(prefix="headstart-check-") as scratch:
        result_file = Path(scratch) / "result.json"
        spec_file = Path(scratch) / "spec.json"
        fields = {**asdict(spec), "result_file": str(result_file)}
        spec_file.write_text(json.dumps(fields), encoding="utf-8")
        command = [sys.executable, "-m", "headstart.debug.running.first_fit", str(spec_file)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        tail = "\n".join(ended.stderr.strip().splitlines()[-5:])
        if not result_file.exists():
            raise HeadstartError(
                "the script did not call fit on a Keras model",
                f"{spec.script}: {tail or 'it ended without an error'}",
                "run it by hand, or with `headstart debug run`",
            )
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
    return result


def main(spec: FirstFitSpec) -> None:
    """Run the script of a specification with ``fit`` replaced."""
    from headstart.debug.dump.origins import record_construction_sites
    from headstart.debug.internals import private

    record_construction_sites()
    trainer = private("KerasTrainer")
    trainer.fit = _replacement(trainer.fit, spec)
    try:
        run_program(str(Path(spec.script).resolve()), spec.arguments)
    except FirstFitReached:
        return


def _replacement(fit: Callable[..., Any], spec: FirstFitSpec) -> Callable[..., Any]:
    signature = inspect.signature(fit)

    def first_fit(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        task = _check if spec.task == "check" else _profile
        result = task(fit, bound.arguments, spec)
        Path(spec.result_file).write_text(json.dumps(result, default=str), encoding="utf-8")
        raise FirstFitReached

    return first_fit


def _check(fit: Callable[..., Any], given: dict[str, Any], spec: FirstFitSpec) -> dict[str, Any]:
    from headstart.debug.callsites import calling_site
    from headstart.debug.preflight.run import check_fit

    found = check_fit(given["self"], given, calling_site())
    return {"diagnoses": [diagnosis.to_dict() for diagnosis in found]}


def _profile(fit: Callable[..., Any], given: dict[str, Any], spec: FirstFitSpec) -> dict[str, Any]:
    from headstart.debug.rendering import render_text
    from headstart.debug.traces.profile import StepProfiler, render_profile

    profiler = StepProfiler(Path(spec.log_dir), spec.first_step, spec.num_steps, stops_after=True)
    callbacks = given["callbacks"] or []
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    fit(**{**given, "callbacks": [*callbacks, profiler]})
    if profiler.summary is None:
        raise HeadstartError(
            f"nothing was profiled: training ended before training step {spec.first_step}",
            spec.script,
            "give an earlier --first-step",
        )
    found = profiler.summary.diagnoses
    report = render_profile(profiler.summary)
    if found:
        report = f"{report}\n\n{render_text(found)}"
    return {"report": report, "diagnoses": [diagnosis.to_dict() for diagnosis in found]}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    fields = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    main(FirstFitSpec(**{**fields, "arguments": tuple(fields["arguments"])}))

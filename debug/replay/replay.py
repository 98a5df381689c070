"""Replay: take the failing step of a crash bundle again, under full instrumentation.

Every rung of the debugger's ladder runs in a process of its own, so this may be called from
anywhere, a Prefect failure hook included.
"""

import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.rendering import render_markdown
from headstart.debug.replay import child
from headstart.debug.replay.bundle import Bundle, read_bundle, versions
from headstart.debug.replay.trust import is_sealed_here
from headstart.debug.running.ladder import run_script
from headstart.errors import RecordError


@dataclass(frozen=True)
class Replay:
    """What came of a replay.

    Args:
        bundle: Folder of the bundle.
        diagnoses: Findings, most likely first.
        is_exact: Whether every loss and the failure itself were the recorded ones, to the bit.
        message: What was or was not reproduced, as a sentence.
        dump_folder: The Debugger V2 dump for TensorBoard; None where it was not kept.
    """

    bundle: Path
    diagnoses: tuple[Diagnosis, ...]
    is_exact: bool
    message: str
    dump_folder: Path | None


def replay(folder: Path, keep_dump: Path | None = None, *, trusts: bool = False) -> Replay:
    """Replay a crash bundle in fresh processes.

    Args:
        folder: A bundle, or a folder with bundles: then the newest.
        keep_dump: A new or empty folder for the dump; None keeps none.
        trusts: Whether to run the code of a bundle that was not written here.

    Returns:
        The findings, and whether the failure was reproduced.

    Raises:
        RecordError: There is no bundle, it comes from elsewhere and is not trusted, or its model
            could not be saved or loaded.
    """
    bundle = read_bundle(folder)
    if not (trusts or is_sealed_here(bundle.folder)):
        raise RecordError(
            "the bundle is not trusted: it was not written by you on this machine, or was changed "
            "since",
            f"{bundle.folder}: its seal is missing or does not match",
            "replaying runs the code in the bundle: read its sources/ first, then add --trust",
        )
    if "model_error" in bundle.facts:
        raise RecordError(
            "the bundle holds no model to replay, because the model could not be saved",
            f"{bundle.folder}: {bundle.facts['model_error']}",
            "give your own layers a get_config (keras.saving), or run the script with "
            "`headstart debug run`",
        )
    with tempfile.TemporaryDirectory(prefix="headstart-replay-") as scratch:
        result_file = Path(scratch) / "result.json"
        script = Path(child.__file__)
        arguments = (str(bundle.folder.resolve()), str(result_file))
        run = run_script(script, arguments, keep_dump=keep_dump)
        if not result_file.exists():
            raise RecordError(
                "the bundle's model could not be loaded and trained in a new process",
                f"{bundle.folder}: {run.message or _first_cause(run.diagnoses)}",
                "install what the model's own classes import",
            )
        result = json.loads(result_file.read_text(encoding="utf-8"))
    originals = _originals(bundle)
    shown = tuple(_as_recorded(found, bundle, originals) for found in run.diagnoses)
    dump = Path(run.dump_folder) if run.dump_folder else None
    return Replay(bundle.folder, shown, result["is_exact"], _message(bundle, result), dump)


def explain_failure(folder: Path) -> str:
    """Replay the newest bundle of a run and report it as Markdown, for a failure hook.

    Never raises for want of a bundle or of a replay: the report then says why.

    Args:
        folder: The run's folder, with the bundles that its flight recorder wrote.

    Returns:
        Markdown: diagnoses, whether the replay was exact, and the command to go on with.
    """
    try:
        done = replay(folder, trusts=True)  # the run that failed has just written it
    except RecordError as error:
        return f"# Diagnosis\n\nThe failing training step could not be replayed.\n\n{error}\n"
    return (
        f"{render_markdown(done.diagnoses)}\n\n{done.message}\n\n"
        f"To reproduce and to look closer:\n\n```sh\nheadstart debug replay {done.bundle}\n```\n"
    )


def _message(bundle: Bundle, result: dict[str, Any]) -> str:
    span = f"training steps {bundle.first_step} to {bundle.step}"
    if result["is_exact"]:
        return f"The replay of {span} reproduced the failure, bit for bit."
    if result["failure"] != result["expected"]:
        seen = result["failure"] or "no failure"
        text = f"The replay of {span} ended with {seen} instead of {result['expected']}."
    else:
        steps = ", ".join(map(str, result["different_steps"][:5]))
        text = (
            f"The replay of {span} failed in the same way, but with other losses at step {steps}."
        )
    changed = [
        f"{name} {recorded} (here {versions()[name]})"
        for name, recorded in bundle.facts["versions"].items()
        if versions()[name] != recorded
    ]
    reason = "unseeded random ops or other hardware" if not changed else ", ".join(changed)
    return f"{text} Possible reason: {reason}."


def _as_recorded(found: Diagnosis, bundle: Bundle, originals: dict[str, str]) -> Diagnosis:
    """Count steps as the failed run did, not from the snapshot, and name the user's own file."""
    if found.file in originals:
        found = replace(found, file=originals[found.file])
    if found.step is None:
        return found
    step = found.step + bundle.first_step
    return replace(found, step=step, step_unit="training step", batch=None)


def _originals(bundle: Bundle) -> dict[str, str]:
    """Return copied source -> the file it was copied from, where this process runs that file.

    So it is in a failure hook, which runs in the process that failed; a bundle itself holds no
    absolute path.
    """
    found = {}
    for entry in bundle.facts["sources"]:
        module = sys.modules.get(entry["module"])
        file = getattr(module, "__file__", None)
        if file is None or not Path(file).is_file():
            continue
        if hashlib.sha256(Path(file).read_bytes()).hexdigest() == entry["sha256"]:
            copy = bundle.folder / "sources" / entry["name"]
            found[str(copy.resolve())] = str(Path(file).resolve())
    return found


def _first_cause(diagnoses: tuple[Diagnosis, ...]) -> str:
    return diagnoses[0].cause if diagnoses else "it ended before its first training step"

"""Diagnose the training of a flow run: before it starts, after it ends, and when it fails.

    @flow(on_failure=[diagnose_failure], on_crashed=[forget], on_cancellation=[forget])
    def train_mine() -> None:
        with watching(Path("runs/mine")) as watch:
            model.fit(data, callbacks=watch.callbacks)

Before the first step a preflight checks model and data; while the model trains, the symptom rules
watch it; what they find is told at the end. The recorder keeps the last batches and weights: when
a step fails, or its loss is NaN or infinite, it writes a crash bundle, and the hook replays the
failing steps in a process of its own under the debugger and leaves the Diagnosis as an artifact
of the flow run.
"""

import contextlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from headstart.debug.diagnosis import Diagnosis, ranked
from headstart.debug.guard import harmless
from headstart.debug.rendering import render_markdown, render_text
from headstart.errors import HeadstartError
from headstart.flows.context import flow_run_context
from headstart.tasks.progress import reporter
from headstart.tasks.running.training_callbacks import watched_by

if TYPE_CHECKING:
    from headstart.debug.preflight.callback import Preflight
    from headstart.debug.replay.recorder import FlightRecorder
    from headstart.debug.symptoms.callback import SymptomRules

_recorders: dict[UUID, list["FlightRecorder"]] = {}
"""Of the flow runs in progress, for the hook that runs once one has failed."""


@dataclass(frozen=True)
class Watch:
    """What looks on while a model trains.

    Attributes:
        recorder: Keeps the last steps.
        preflight: Checks model and data before the first step.
        rules: Look for symptoms in losses, gradients and weights.
        section: Section of the configuration, where the training is a stage's.
    """

    recorder: "FlightRecorder"
    preflight: "Preflight"
    rules: "SymptomRules"
    section: str = ""

    @property
    def callbacks(self) -> list[Any]:
        """Callbacks for ``fit``."""
        return [self.preflight, self.rules, self.recorder]

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """What was found so far, most likely first; empty where nothing trained."""
        from headstart.debug.symptoms.callback import worth_telling

        found = ranked([*self.preflight.diagnoses, *worth_telling(self.rules.diagnoses)])
        if self.section:
            found = [one for one in found if one.symptom not in OF_INPUTS]
        return [self._with_setting(diagnosis) for diagnosis in found]

    def _with_setting(self, found: Diagnosis) -> Diagnosis:
        """Name the setting to change, for a user who has not written the training."""
        name = SETTING_OF.get(found.symptom)
        if name is None or not self.section:
            return found
        advice = f"in this run that is --set {self.section}.{name}=…"
        return replace(found, suggestions=(*found.suggestions, advice))


@contextlib.contextmanager
def watching(folder: Path, section: str = "", *, stops_on_nan: bool = True) -> Iterator[Watch]:
    """Watch the training of the flow run in progress, and tell what was found.

    Args:
        folder: Where a crash bundle is written.
        section: Of the configuration, where the training is a stage's.
        stops_on_nan: Whether a loss that is NaN or infinite ends the training with an error.

    Yields:
        The watch; give its ``callbacks`` to ``fit``. Its ``diagnoses`` are printed when the block
        is left, and are an artifact of the flow run then.
    """
    from headstart.debug.preflight.callback import Preflight
    from headstart.debug.symptoms.callback import SymptomRules

    recorder = flight_recorder(folder, stops_on_nan=stops_on_nan)
    watch = Watch(recorder, Preflight(), SymptomRules(logs=False), section)
    try:
        yield watch
    except Exception:
        _tell(watch.diagnoses)
        if recorder.bundle is not None:
            bundle = shlex.quote(str(recorder.bundle))
            reporter().note(f"     `headstart debug replay {bundle}` shows more")
        raise
    except BaseException:  # cancelled: no hook will ask for it
        _release(recorder)
        raise
    _release(recorder)
    _tell(watch.diagnoses)


OF_INPUTS = ("unscaled-input", "inputs-nearly-zero", "split-scale")
"""Said of what goes into a stage's training: activations of a backbone, or views, which have the
scale that they have. Nobody can change it, and a training that suffers from it shows more."""
SETTING_OF = {
    "learning-rate-too-high": "learning_rate",
    "learning-rate-too-low": "learning_rate",
    "divergence": "learning_rate",
    "exploding-gradient": "learning_rate",
    "overfitting": "weight_decay",
}
"""Which setting of a training a symptom points at."""


@contextlib.contextmanager
def watching_stages(
    folder: Path, found: list[dict[str, Any]] | None = None, section: str = "head"
) -> Iterator[None]:
    """Watch the trainings of stages, which `watched_by` hands the callbacks to.

    Args:
        folder: As for `watching`. What a loss of NaN means is the stage's own affair.
        found: Takes what was found, for the run's summary.
        section: Section of the configuration that the training follows; findings name its settings.
    """
    with contextlib.ExitStack() as stack:
        armed: list[Watch] = []

        def arm() -> list[Any]:
            # Not before a stage trains: what watches imports Keras.
            if not armed:
                armed.append(stack.enter_context(watching(folder, section, stops_on_nan=False)))
            return armed[0].callbacks

        with watched_by(arm):
            yield
    if found is not None:
        found += [diagnosis.to_dict() for watch in armed for diagnosis in watch.diagnoses]


def _release(recorder: "FlightRecorder") -> None:
    """Let go of a recorder that a failure hook has nothing to ask of: sweeps arm many."""
    for run_id, recorders in list(_recorders.items()):
        kept = [other for other in recorders if other is not recorder]
        _recorders.pop(run_id)
        if kept:
            _recorders[run_id] = kept


def _tell(found: list[Diagnosis]) -> None:
    if not found:
        return
    for line in render_text(found).splitlines():
        reporter().note(f"     {line}".rstrip())
    context = flow_run_context()
    if context is not None and context.flow is not None:
        with harmless("the artifact of the findings"):  # the training itself is done
            from prefect.artifacts import create_markdown_artifact

            create_markdown_artifact(
                render_markdown(found, "Findings during training"),
                key=artifact_key(context.flow.name, "findings"),
                description="Preflight and symptom rules",
            )


def artifact_key(name: str, kind: str) -> str:
    """Return a key that Prefect takes: lower case letters, digits and hyphens.

    Args:
        name: A flow's name, of any characters.
        kind: What the artifact is.

    Returns:
        Such as ``train-mine-findings`` for a flow named ``Train mine!``.
    """
    return f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-') or 'flow'}-{kind}"


def flight_recorder(folder: Path, *, stops_on_nan: bool = True) -> "FlightRecorder":
    """Arm a recorder for the training of the flow run in progress.

    Args:
        folder: Where a crash bundle is written.
        stops_on_nan: Whether a loss that is NaN or infinite ends the training with an error.

    Returns:
        A Keras callback for ``fit``.
    """
    from headstart.debug.replay.recorder import FlightRecorder

    recorder = FlightRecorder(folder, stops_on_nan=stops_on_nan)
    context = flow_run_context()
    if context is not None and context.flow_run:  # else there is no hook to look it up
        _recorders.setdefault(context.flow_run.id, []).append(recorder)
    return recorder


def forget(flow: Any, flow_run: Any, state: Any) -> None:
    """Let go of the recorders of a flow run that has ended; a hook for every end but failure."""
    _recorders.pop(flow_run.id, None)


def diagnose_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Leave a Diagnosis of a failed flow run in the Prefect UI."""
    from prefect.artifacts import create_markdown_artifact

    from headstart.debug.errors.exceptions import diagnose_exception
    from headstart.debug.replay.replay import explain_failure

    bundles = [recorder.bundle for recorder in _recorders.pop(flow_run.id, []) if recorder.bundle]
    error = state.result(raise_on_failure=False)
    if bundles:
        markdown = explain_failure(bundles[-1])
    elif isinstance(error, BaseException) and not isinstance(error, HeadstartError):
        markdown = render_markdown([diagnose_exception(error)])
    else:
        markdown = f"# {type(error).__name__}\n\n{error}\n"
    create_markdown_artifact(
        markdown,
        key=artifact_key(flow.name, "diagnosis"),
        description="Which op, which layer, which line",
    )

"""What a failed flow run says of itself: which op, which layer, which line.

    @flow(on_failure=[diagnose_failure])
    def train_mine() -> None:
        model.fit(data, callbacks=[flight_recorder(Path("runs/mine"))])

While the flow runs, the recorder keeps the last batches and weights. When a step fails, or its
loss is NaN or infinite, it writes a crash bundle, and the hook replays the failing steps in a
process of its own under the debugger and leaves the Diagnosis as an artifact of the flow run.
"""

from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from headstart.debug.exceptions import diagnose_exception
from headstart.debug.recorder import FlightRecorder
from headstart.debug.rendering import render_markdown
from headstart.debug.replay import explain_failure
from headstart.errors import HeadstartError

_recorders: dict[UUID | None, list[FlightRecorder]] = {}


def flight_recorder(folder: Path, *, stops_on_nan: bool = True) -> FlightRecorder:
    """Arm a recorder for the training of the flow run in progress.

    Args:
        folder: Where a crash bundle is written.
        stops_on_nan: Whether a loss that is NaN or infinite ends the training with an error.

    Returns:
        A Keras callback for ``fit``.
    """
    recorder = FlightRecorder(folder, stops_on_nan=stops_on_nan)
    context = FlowRunContext.get()
    run_id = context.flow_run.id if context is not None and context.flow_run else None
    _recorders.setdefault(run_id, []).append(recorder)
    return recorder


def diagnose_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Leave a Diagnosis of a failed flow run in the Prefect UI.

    Args:
        flow: The flow; its name begins the artifact's key.
        flow_run: The failed run.
        state: Its final state, with the exception.
    """
    bundles = [recorder.bundle for recorder in _recorders.pop(flow_run.id, []) if recorder.bundle]
    error = state.result(raise_on_failure=False)
    if bundles:
        markdown = explain_failure(bundles[-1])
    elif isinstance(error, BaseException) and not isinstance(error, HeadstartError):
        markdown = render_markdown([diagnose_exception(error)])
    else:
        markdown = f"# {type(error).__name__}\n\n{error}\n"
    create_markdown_artifact(
        markdown, key=f"{flow.name}-diagnosis", description="Which op, which layer, which line"
    )

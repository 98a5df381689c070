"""Progress bars in the Prefect UI: one artifact per loop, updated every few seconds.

A separate thread talks to the server, so a slow server never holds up the work; if the server does
not respond, the run only loses its progress bar.
"""

import contextlib
import contextvars
import re
import threading
from collections.abc import Iterator
from typing import Any

from headstart.flows.context import flow_run_context
from headstart.tasks.progress import Advance, copy_progress_to

PERIOD_S = 3.0
"""Seconds between two updates. A loop that is done sooner leaves no artifact."""
LAST_WORD_LIMIT_S = 5.0
"""Seconds in which the server must take the last update."""


def progress_in_ui() -> contextlib.AbstractContextManager[None]:
    """Show the progress of every loop as an artifact of the flow run; outside one, do nothing."""
    if flow_run_context() is None:
        return contextlib.nullcontext()
    return copy_progress_to(progress_artifact)


@contextlib.contextmanager
def progress_artifact(title: str, total: int, unit: str) -> Iterator[Advance]:
    """Show the progress of one loop.

    Args:
        title: What is being done.
        total: Number of things to do.
        unit: What they are, in the plural.

    Yields:
        A function to call with the number of things just done, from any thread.
    """
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    ended = threading.Event()
    finished = False  # training may stop before its last epoch
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count

    def tell() -> None:
        artifact_id: Any = None
        is_last = False
        while not is_last:
            is_last = ended.wait(PERIOD_S)
            if is_last and artifact_id is None:
                return
            percent = 100.0 if finished else min(100.0, 100.0 * done / total)
            text = f"{title}: {done:,} of {total:,} {unit}{', finished' if finished else ''}"
            with contextlib.suppress(Exception):  # a bar is no reason for a run to fail
                if artifact_id is None:
                    artifact_id = create_progress_artifact(percent, _key(title), text)
                else:
                    update_progress_artifact(artifact_id, percent, text)

    # The thread sees the task that it works for, and so does the artifact.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(tell,), daemon=True)
    thread.start()
    try:
        yield advance
        finished = True
    finally:
        ended.set()
        thread.join(LAST_WORD_LIMIT_S)


def _key(title: str) -> str:
    """Prefect's keys are of small letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", f"progress-{title.lower()}").strip("-")

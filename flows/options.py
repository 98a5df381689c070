"""Prefect options shared by all flows that train."""

import functools
from collections.abc import Callable
from typing import Any

from headstart.flows.artifacts import run_name
from headstart.flows.diagnosis import diagnose_failure, forget

TRAINING_FLOW: dict[str, Any] = {
    "flow_run_name": run_name,
    # The store keeps what stages made; a summary kept by Prefect could outlive its files.
    "persist_result": False,
    "on_failure": [diagnose_failure],
    "on_completion": [forget],
    "on_crashed": [forget],
    "on_cancellation": [forget],
}
"""Keywords of ``prefect.flow``: ``@flow(name="scratch", **TRAINING_FLOW)``."""


def training_flow(name: str, body: Callable[..., Any]) -> Any:
    """Make a Prefect flow of a plain function that runs without Prefect, too.

    Args:
        name: Name of the flow, and of the attribute by which its module hands it out.
        body: The plain function, from a configuration and folders to a summary.
    """
    from prefect import flow

    @functools.wraps(body)
    def function(*arguments: Any, **named: Any) -> Any:
        return body(*arguments, **named)

    # What Prefect keeps as the entry point of a flow is its module and its name.
    function.__name__ = function.__qualname__ = name
    return flow(name=name, **TRAINING_FLOW)(function)

"""Find the flow run in progress without importing Prefect, which takes a second."""

import sys
from typing import Any


def flow_run_context() -> Any:
    """Return Prefect's context of the flow run in progress; None outside of one."""
    if "prefect" not in sys.modules:
        return None
    from prefect.context import FlowRunContext

    return FlowRunContext.get()

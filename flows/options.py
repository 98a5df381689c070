"""What every flow of headstart that trains tells Prefect."""

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
"""Keywords of ``prefect.flow``: ``@flow(name="transfer", **TRAINING_FLOW)``."""

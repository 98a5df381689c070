"""Debugging for any TensorFlow program: checks, dumps, sessions, traces, diagnosis, replay.

The most used names can be imported from here; TensorFlow is imported only when one is used.
"""

import importlib
from typing import Any

_HOMES = {
    "Diagnosis": "headstart.debug.diagnosis",
    "FlightRecorder": "headstart.debug.replay.recorder",
    "Preflight": "headstart.debug.preflight.callback",
    "RetraceCounter": "headstart.debug.symptoms.retraces",
    "StepProfiler": "headstart.debug.traces.profile",
    "SymptomRules": "headstart.debug.symptoms.callback",
    "contract": "headstart.debug.contracts",
    "load_ipython_extension": "headstart.debug.running.notebook",
}

__all__ = [
    "Diagnosis",
    "FlightRecorder",
    "Preflight",
    "RetraceCounter",
    "StepProfiler",
    "SymptomRules",
    "contract",
]


def __getattr__(name: str) -> Any:
    """Import a name's module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headstart.debug' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
